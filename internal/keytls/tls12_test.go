package keytls

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"mandos/internal/keyid"
	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
)

func fingerprint(t testing.TB, k pgpKey) keyid.Identity {
	t.Helper()
	key, err := peerkey.ParseOpenPGP(k.cert)
	if err != nil {
		t.Fatal(err)
	}
	return key.Identity
}

// withDSS is the default plus what only a priority string turns on.
func withDSS() Policy {
	p := Policy{}.complete()
	p.Suites = slices.Concat(p.Suites, []wire.Suite{
		wire.DHEDSSAES256GCM, wire.DHEDSSAES128GCM, wire.DHERSAAES128GCM, wire.ECDHEECDSAAES128GCM,
	})
	p.SignatureSchemes = slices.Concat(p.SignatureSchemes, []wire.SignatureScheme{wire.DSASHA256})
	return p
}

// TestOldClients hands a secret to honest clients of the old generation, with
// the same hello that new ones get.
func TestOldClients(t *testing.T) {
	rsa2048, rsa4096, dss, ec := pgpVector(t, "rsa2048"), pgpVector(t, "rsa4096"), pgpVector(t, "dsa2048"), pgpECDSA()
	expired := pgpVector(t, "rsa-expired")
	noSubkey := rsa2048
	noSubkey.cert = unarmor(t, "mut-nosubkey", "pubkey.txt")
	for name, tt := range map[string]struct {
		policy Policy
		script script
	}{
		"as GnuTLS 3.5":          {script: script{key: rsa4096, wrong: true}},
		"correct length":         {script: script{key: rsa2048}},
		"form of RFC 5081":       {script: script{key: rsa2048, old: true}},
		"without RFC 7627":       {script: script{key: rsa2048, plain: true}},
		"no subkey":              {script: script{key: noSubkey}},
		"expired":                {script: script{key: expired}}, // who may come with it is decided later
		"one byte in a record":   {script: script{key: rsa2048, chunk: 1}},
		"no session ID":          {script: script{key: rsa2048, hello: func(sh *wire.ServerHello) { sh.SessionID = nil }}},
		"AES-128":                {script: script{key: rsa2048, suite: wire.ECDHERSAAES128GCM}},
		"ChaCha20":               {script: script{key: rsa2048, suite: wire.ECDHERSAChaCha20Poly1305}},
		"P-256":                  {script: script{key: rsa2048, group: wire.P256}},
		"P-521":                  {script: script{key: rsa2048, group: wire.P521}},
		"X25519":                 {script: script{key: rsa2048, group: wire.X25519}},
		"SHA-256":                {script: script{key: rsa2048, scheme: wire.RSAPKCS1SHA256}},
		"SHA-512":                {script: script{key: rsa2048, scheme: wire.RSAPKCS1SHA512}},
		"DHE":                    {script: script{key: rsa2048, suite: wire.DHERSAAES256GCM}},
		"DHE, ChaCha20":          {script: script{key: rsa2048, suite: wire.DHERSAChaCha20Poly1305}},
		"DHE, ffdhe4096":         {script: script{key: rsa2048, suite: wire.DHERSAAES256GCM, prime: ffdhe()[2]}},
		"DHE, group of RFC 3526": {script: script{key: rsa2048, suite: wire.DHERSAAES256GCM, prime: modp2048}},
		"DHE, AES-128":           {policy: withDSS(), script: script{key: rsa2048, suite: wire.DHERSAAES128GCM}},
		"ECDSA":                  {script: script{key: ec, suite: wire.ECDHEECDSAAES256GCM}},
		"ECDSA, other curve":     {script: script{key: ec, suite: wire.ECDHEECDSAChaCha20Poly1305, scheme: wire.ECDSAP521SHA512}},
		"ECDSA, AES-128":         {policy: withDSS(), script: script{key: ec, suite: wire.ECDHEECDSAAES128GCM}},
		"DSA":                    {policy: withDSS(), script: script{key: dss, suite: wire.DHEDSSAES256GCM}},
		"DSA, AES-128":           {policy: withDSS(), script: script{key: dss, suite: wire.DHEDSSAES128GCM}},
	} {
		t.Run(name, func(t *testing.T) {
			secret := make([]byte, 100_000)
			_, _ = rand.Read(secret)
			client, peer, wait := startPeer12(t, tt.policy, tt.script)
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			if got, want := client.PeerIdentity(), fingerprint(t, tt.script.key); got != want || got.Fingerprint.IsZero() {
				t.Errorf("the peer's identity is %v, want %v", got, want)
			}
			wantSuite := tt.script.suite
			if wantSuite == 0 {
				wantSuite = wire.ECDHERSAAES256GCM
			}
			if v, s, _ := client.Negotiated(); v != wire.VersionTLS12 || s != wantSuite {
				t.Errorf("negotiated %v, %v", v, s)
			}
			if name == "expired" {
				if err := client.PeerValidity().At(time.Now()); !errors.Is(err, keyid.ErrExpired) {
					t.Errorf("validity: %v", err)
				}
			} else if err := client.PeerValidity().At(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
				t.Errorf("validity: %v", err)
			}
			if _, err := client.Write(secret); err != nil {
				t.Fatal(err)
			}
			if err := client.CloseNotify(); err != nil {
				t.Fatal(err)
			}
			if err := wait(); err != nil {
				t.Errorf("the peer: %v", err)
			}
			if !bytes.Equal(peer.transmitted, secret) {
				t.Errorf("the peer got %d bytes, not the secret", len(peer.transmitted))
			}
		})
	}
}

// parse12 makes the X.509 plug fit for TLS 1.2 (RFC 5246, section 7.4.2).
func (x509Plug) parse12(msg []byte) (*peerkey.Key, error) {
	s := cryptobyte.String(msg[wire.MessageHeaderLen:])
	var list, first cryptobyte.String
	switch {
	case !s.ReadUint24LengthPrefixed(&list) || !s.Empty():
		return nil, wire.ErrMalformed
	case list.Empty():
		return nil, wire.ErrNoCertificate
	case !list.ReadUint24LengthPrefixed(&first):
		return nil, wire.ErrMalformed
	}
	return x509Plug{}.parse([][]byte{first})
}

// TestAgainstCryptoTLS12 runs against Go's TLS 1.2 server: each suite that it
// has with each group and key, with TLS 1.3 offered and not.
func TestAgainstCryptoTLS12(t *testing.T) {
	secret := make([]byte, 100_000)
	_, _ = rand.Read(secret)
	keys := map[wire.Suite][]string{}
	for _, s := range []wire.Suite{wire.ECDHERSAAES256GCM, wire.ECDHERSAAES128GCM, wire.ECDHERSAChaCha20Poly1305} {
		keys[s] = []string{"RSA 2048", "RSA 3072"}
	}
	for _, s := range []wire.Suite{wire.ECDHEECDSAAES256GCM, wire.ECDHEECDSAAES128GCM, wire.ECDHEECDSAChaCha20Poly1305} {
		keys[s] = []string{"ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "Ed25519"}
	}
	for suite, names := range keys {
		for _, name := range names {
			for _, group := range []wire.Group{wire.X25519, wire.P256, wire.P384, wire.P521} {
				for _, versions := range [][]wire.Version{{wire.VersionTLS12}, {wire.VersionTLS13, wire.VersionTLS12}} {
					t.Run(fmt.Sprintf("%v/%s/%v/%v", suite, name, group, versions), func(t *testing.T) {
						key := testKey(name)
						cert, err := tlsCertificate(key)
						if err != nil {
							t.Fatal(err)
						}
						a, b := transports(t)
						policy := withDSS()
						policy.Versions = versions
						client := Client(a, &Config{Policy: policy, certificates: x509Plug{}})
						server := tls.Server(b, &tls.Config{
							Certificates:     []tls.Certificate{cert},
							MaxVersion:       tls.VersionTLS12,
							CipherSuites:     []uint16{uint16(suite)},
							CurvePreferences: []tls.CurveID{tls.CurveID(group)},
						})
						session(t, client, server, []byte("question"), secret)
						if v, s, g := client.Negotiated(); v != wire.VersionTLS12 || s != suite || g != group {
							t.Errorf("negotiated %v, %v, %v", v, s, g)
						}
						if got := client.PeerIdentity(); got != identity(t, key) {
							t.Errorf("the peer's identity is %v, want %v", got, identity(t, key))
						}
					})
				}
			}
		}
	}
}

// TestHelloForBoth compares the one hello for both generations, byte by byte,
// with what GnuTLS 3.5.8, 3.5.19, 3.7.9 and 3.8.9 were seen to accept: unknown
// suites, groups and schemes are skipped by all of them, and the extensions
// that old ones know have the bodies that they send themselves.
func TestHelloForBoth(t *testing.T) {
	a, b := transports(t)
	go func() { _ = Client(a, &Config{}).Handshake() }()
	peer := &peer12{conn: b}
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(b, header[:]); err != nil {
		t.Fatal(err)
	}
	h, err := wire.ParseHeader(header[:])
	if err != nil || h.Type != wire.TypeHandshake || h.Version != wire.VersionTLS10 {
		t.Fatalf("the record is %+v, %v; old servers want TLS 1.0", h, err)
	}
	msg := make([]byte, h.Length)
	if _, err := io.ReadFull(b, msg); err != nil {
		t.Fatal(err)
	}
	peer.conn.Close()
	m, err := wire.ParseClientHello(msg)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.SessionID) != 32 {
		t.Errorf("a session ID of %d bytes", len(m.SessionID))
	}
	shares, ok := m.Extensions.Get(wire.ExtKeyShare)
	if !ok {
		t.Fatal("no key shares")
	}
	ks, err := wire.ParseClientKeyShares(shares)
	if err != nil || len(ks) != 1 || ks[0].Group != wire.X25519 {
		t.Errorf("key shares %+v, %v", ks, err)
	}
	want := bytes.Join([][]byte{
		{0x03, 0x03}, m.Random[:],
		{32}, m.SessionID,
		{0, 20,
			0x13, 0x02, 0x13, 0x03, 0x13, 0x01, // TLS 1.3
			0xC0, 0x2C, 0xCC, 0xA9, 0xC0, 0x30, 0xCC, 0xA8, 0xC0, 0x2F, 0x00, 0x9F, 0xCC, 0xAA},
		{1, 0},
		{0, byte(len(msg) - 4 - 2 - 32 - 33 - 22 - 2 - 2)},
		{0, 23, 0, 0}, // extended_master_secret
		{0, 9, 0, 2, 1, 1},
		{0, 20, 0, 2, 1, 2},
		{0xFF, 0x01, 0, 1, 0},
		{0, 10, 0, 12, 0, 10, 0x11, 0xEC, 0, 0x1D, 0, 0x17, 0, 0x18, 0, 0x19},
		{0, 11, 0, 2, 1, 0},
		{0, 13, 0, 22, 0, 20, 8, 7, 4, 3, 5, 3, 6, 3, 8, 4, 8, 5, 8, 6, 4, 1, 5, 1, 6, 1},
		{0, 43, 0, 5, 4, 3, 4, 3, 3},
		{0, 51, 0, byte(len(shares))}, shares,
	}, nil)
	if !bytes.Equal(msg[4:], want) {
		t.Errorf("the hello is\n%x, want\n%x", msg[4:], want)
	}
}
