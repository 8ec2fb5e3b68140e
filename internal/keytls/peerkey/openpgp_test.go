package peerkey

import (
	"bytes"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 see openpgp.go
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/keyid"
	"mandos/internal/keytls/wire"
)

const vectors = "../testdata/openpgp-tls"

func read(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{vectors}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// armored returns the packets of keys/NAME/pubkey.txt.
func armored(t testing.TB, name string) []byte {
	t.Helper()
	block, err := armor.Decode(bytes.NewReader(read(t, "keys", name, "pubkey.txt")))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(block.Body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRecordings reads what real clients sent. The fingerprints are gpg's.
func TestRecordings(t *testing.T) {
	for name, want := range map[string]struct {
		fingerprint string
		made        int64
	}{
		"rsa2048-gnutls3.5.19":           {"9F70D4B60BF9AFD28747FD8392502B070D6344A4", 1795309172},
		"rsa2048-variant-correct-length": {"9F70D4B60BF9AFD28747FD8392502B070D6344A4", 1795309172},
		"rsa4096-gnutls3.5.19":           {"22D93D4584AE3979F0F9822F5FBE89908DA59B13", 1795308954},
		"dsa2048-dhedss-gnutls3.5.19":    {"966AFDD0C03371296C136EE7506D4A53B732AB1A", 1795309172},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := wire.ParseOpenPGPCertificate(read(t, name, "certificate.hs.bin"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.Data, read(t, name, "certificate.pgp")) {
				t.Error("the certificate isn't the one of certificate.pgp")
			}
			k, err := ParseOpenPGP(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			if got := k.Identity.Fingerprint.String(); got != want.fingerprint {
				t.Errorf("fingerprint %s, want %s", got, want.fingerprint)
			}
			if !k.Identity.KeyID.IsZero() {
				t.Error("an OpenPGP key has a key ID of the other generation")
			}
			if !m.HasKeyID || m.KeyID != k.Identity.Fingerprint.OpenPGPKeyID() {
				t.Errorf("key ID %x sent, fingerprint %v", m.KeyID, k.Identity)
			}
			if made := time.Unix(want.made, 0); !k.Validity.NotBefore.Equal(made) {
				t.Errorf("made %v, want %v", k.Validity.NotBefore, made)
			}
			if !k.Validity.NotAfter.IsZero() || !k.Validity.Revoked.IsZero() {
				t.Errorf("validity %+v of a key that neither expires nor is revoked", k.Validity)
			}

			hello, err := wire.ParseServerHello(read(t, name, "server_hello.hs.bin"))
			if err != nil {
				t.Fatal(err)
			}
			client, err := wire.ParseClientHello(read(t, name, "client_hello.hs.bin"))
			if err != nil {
				t.Fatal(err)
			}
			_, dhe := k.Public.(*dsa.PublicKey)
			ske, err := wire.ParseServerKeyExchange(read(t, name, "server_key_exchange.hs.bin"), dhe)
			if err != nil {
				t.Fatal(err)
			}
			signed := slices.Concat(client.Random[:], hello.Random[:], ske.Params)
			if err := Verify12(k.Public, ske.Scheme, signed, ske.Signature); err != nil {
				t.Errorf("the recorded ServerKeyExchange: %v", err)
			}
			for i := range signed {
				signed[i] ^= 1
				if err := Verify12(k.Public, ske.Scheme, signed, ske.Signature); !errors.Is(err, ErrSignature) {
					t.Fatalf("with byte %d changed: %v, want ErrSignature", i, err)
				}
				signed[i] ^= 1
				if i > 100 && dhe {
					break // DSA is slow
				}
			}
			for i := range ske.Signature {
				bad := bytes.Clone(ske.Signature)
				bad[i] ^= 0x40
				if err := Verify12(k.Public, ske.Scheme, signed, bad); !errors.Is(err, ErrSignature) {
					t.Fatalf("with byte %d of the signature changed: %v, want ErrSignature", i, err)
				}
			}
			for _, s := range []wire.SignatureScheme{0x0101, 0x0201, 0x0202, 0x0203, 0x0301, 0x0302, 0x0502, wire.Ed25519, wire.ECDSAP256SHA256} {
				if err := Verify12(k.Public, s, signed, ske.Signature); err == nil || errors.Is(err, ErrSignature) {
					t.Errorf("%v: %v, want that it doesn't go with the key", s, err)
				}
			}
		})
	}
}

// TestKeys reads the broken keys of the vectors, as an old server did; the
// last two differ on purpose.
func TestKeys(t *testing.T) {
	for name, wantErr := range map[string]string{
		"rsa2048":       "",
		"rsa4096":       "",
		"dsa2048":       "",
		"mut-nosubkey":  "",
		"mut-baduidsig": "self-signature (type 0x13) on the user ID \"rsa2048.example.org\" is wrong",
		"mut-badsubsig": "self-signature (type 0x18) on the subkey is wrong",
		"mut-nouidsig":  "no user ID has a self-signature",
		"rsa-expired":   "",
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParseOpenPGP(armored(t, name))
			if wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), wantErr) {
					t.Fatalf("error %v, want one with %q", err, wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
			err = k.Validity.At(now)
			if name != "rsa-expired" {
				if err != nil {
					t.Errorf("%v", err)
				}
				return
			}
			if !errors.Is(err, keyid.ErrExpired) || !strings.Contains(err.Error(), "2020-01-03T00:00:00Z") {
				t.Errorf("validity %v, want that it expired on 2020-01-03", err)
			}
			if err := k.Validity.At(time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC)); err != nil {
				t.Errorf("a day before: %v", err)
			}
		})
	}
}

// TestPrefixes cuts a certificate at each byte. Where the cut falls between
// two packets, what is left may be a certificate of its own: the primary key
// with its user ID and self-signature is one.
func TestPrefixes(t *testing.T) {
	whole := armored(t, "rsa2048")
	packets, err := splitOpenPGP(whole)
	if err != nil {
		t.Fatal(err)
	}
	good := map[int]bool{len(whole): true}
	n := 0
	for _, p := range packets[:3] {
		n += len(p.raw)
	}
	good[n] = true
	for n := range len(whole) + 1 {
		_, err := ParseOpenPGP(whole[:n:n])
		if good[n] != (err == nil) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	if _, err := ParseOpenPGP(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("a trailing byte was taken")
	}
}

// A builder makes certificates out of parts, well-formed or not.
type builder struct {
	t    testing.TB
	priv *packet.PrivateKey
	body []byte // of the primary key
	out  bytes.Buffer

	subject []byte // what signatures are made over, after the primary key
	made    time.Time
}

var made = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

var testKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

func newBuilder(t testing.TB, key *rsa.PrivateKey) *builder {
	b := &builder{t: t, priv: packet.NewRSAPrivateKey(made, key), made: made}
	b.body = keyBody(t, &b.priv.PublicKey)
	return b
}

// keyBody returns the packet of a key without its header.
func keyBody(t testing.TB, k *packet.PublicKey) []byte {
	var raw bytes.Buffer
	if err := k.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	op, err := packet.NewOpaqueReader(&raw).Next()
	if err != nil {
		t.Fatal(err)
	}
	return op.Contents
}

func (b *builder) packet(tag byte, body []byte) *builder {
	op := packet.OpaquePacket{Tag: tag, Contents: body}
	if err := op.Serialize(&b.out); err != nil {
		b.t.Fatal(err)
	}
	switch tag {
	case tagUserID, tagUserAttribute:
		prefix := byte(0xb4)
		if tag == tagUserAttribute {
			prefix = 0xd1
		}
		b.subject = append(binary.BigEndian.AppendUint32([]byte{prefix}, uint32(len(body))), body...)
	case tagSubkey:
		b.subject = append([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body...)
	case tagPrimaryKey:
		b.subject = nil
	}
	return b
}

func (b *builder) primary() *builder       { return b.packet(tagPrimaryKey, b.body) }
func (b *builder) user(id string) *builder { return b.packet(tagUserID, []byte(id)) }
func (b *builder) subkey(k *packet.PublicKey) *builder {
	return b.packet(tagSubkey, keyBody(b.t, k))
}

func (b *builder) at(t time.Time) *builder { b.made = t; return b }

// An option changes a signature before it is made.
type option func(*signature)

type signature struct {
	hash             crypto.Hash
	keyLife, sigLife time.Duration
	issuer           uint64
	withoutIssuer    bool
}

// signature makes a signature over the current subject, by signer, which says
// that the key claimed made it (RFC 4880, section 5.2.3). go-crypto can't make
// all of those that are needed here.
func (b *builder) signature(typ packet.SignatureType, signer *packet.PrivateKey, claimed uint64, options ...option) []byte {
	s := signature{hash: crypto.SHA256, issuer: claimed}
	for _, o := range options {
		o(&s)
	}
	subpacket := func(dst []byte, typ byte, body []byte) []byte {
		return append(append(dst, byte(len(body)+1), typ), body...)
	}
	seconds := func(d time.Duration) []byte {
		return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
	}
	hashed := subpacket(nil, 2, binary.BigEndian.AppendUint32(nil, uint32(b.made.Unix())))
	if s.sigLife != 0 {
		hashed = subpacket(hashed, 3, seconds(s.sigLife))
	}
	if s.keyLife != 0 {
		hashed = subpacket(hashed, 9, seconds(s.keyLife))
	}
	id := map[crypto.Hash]byte{crypto.SHA1: 2, crypto.SHA256: 8, crypto.SHA512: 10}[s.hash]
	body := []byte{4, byte(typ), 1, id, byte(len(hashed) >> 8), byte(len(hashed))}
	body = append(body, hashed...)

	h := s.hash.New()
	hashKey(h, b.body)
	h.Write(b.subject)
	h.Write(body)
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(body))))
	digest := h.Sum(nil)
	raw, err := rsa.SignPKCS1v15(nil, signer.PrivateKey.(*rsa.PrivateKey), s.hash, digest)
	if err != nil {
		b.t.Fatal(err)
	}

	var unhashed []byte
	if !s.withoutIssuer {
		unhashed = subpacket(nil, 16, binary.BigEndian.AppendUint64(nil, s.issuer))
	}
	body = append(body, 0, byte(len(unhashed)))
	body = append(body, unhashed...)
	body = append(body, digest[:2]...)
	body = append(binary.BigEndian.AppendUint16(body, uint16(8*len(raw))), raw...)
	var out bytes.Buffer
	if err := (&packet.OpaquePacket{Tag: tagSignature, Contents: body}).Serialize(&out); err != nil {
		b.t.Fatal(err)
	}
	return out.Bytes()
}

// sign adds a self-signature.
func (b *builder) sign(typ packet.SignatureType, options ...option) *builder {
	b.out.Write(b.signature(typ, b.priv, b.priv.KeyId, options...))
	return b
}

func (b *builder) add(raw []byte) *builder { b.out.Write(raw); return b }
func (b *builder) bytes() []byte           { return b.out.Bytes() }

func lifetime(d time.Duration) option { return func(s *signature) { s.keyLife = d } }

func withHash(h crypto.Hash) option { return func(s *signature) { s.hash = h } }

const (
	day      = 24 * time.Hour
	positive = packet.SigTypePositiveCert
	binding  = packet.SigTypeSubkeyBinding
	direct   = packet.SigTypeDirectSignature
	revoke   = packet.SigTypeKeyRevocation
)

// TestCertificates is the table of what is accepted and what is refused.
func TestCertificates(t *testing.T) {
	keys := testKeys()
	foreign := packet.NewRSAPrivateKey(made, keys[1])
	sub := &packet.NewRSAPrivateKey(made, keys[2]).PublicKey
	start := func() *builder { return newBuilder(t, keys[0]).primary() }
	plain := func() *builder { return start().user("host").sign(positive) }
	changed := func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }
	flood := func(n int, typ packet.SignatureType) *builder {
		b := plain()
		one := b.signature(typ, b.priv, b.priv.KeyId)
		for range n {
			b.add(one)
		}
		return b
	}

	for name, tt := range map[string]struct {
		cert    []byte
		wantErr string // in the error; else it parses
		want    keyid.Validity
	}{
		"user ID":                {cert: plain().bytes()},
		"user ID and subkey":     {cert: plain().subkey(sub).sign(binding).bytes()},
		"SHA-1 as old gpg did":   {cert: start().user("host").sign(positive, withHash(crypto.SHA1)).subkey(sub).sign(binding, withHash(crypto.SHA1)).bytes()},
		"certified by others":    {cert: plain().add(plain().signature(packet.SigTypeGenericCert, foreign, foreign.KeyId)).bytes()},
		"a user ID of others":    {cert: plain().user("other").add(plain().signature(packet.SigTypeGenericCert, foreign, foreign.KeyId)).bytes()},
		"user attribute":         {cert: plain().packet(tagUserAttribute, []byte{2, 100, 0}).sign(positive).bytes()},
		"subkey we can't read":   {cert: plain().packet(tagSubkey, []byte{4, 0, 0, 0, 0, 99, 1, 2, 3}).sign(binding).bytes()},
		"one user ID withdrawn":  {cert: start().user("a").sign(positive).user("b").sign(positive).at(made.Add(day)).sign(sigRevokesUser).bytes()},
		"withdrawn and renewed":  {cert: start().user("a").sign(positive).at(made.Add(day)).sign(sigRevokesUser).at(made.Add(2 * day)).sign(positive).bytes(), want: keyid.Validity{NotBefore: made.Add(2 * day)}},
		"revoked subkey":         {cert: plain().subkey(sub).sign(binding).at(made.Add(day)).sign(sigRevokesSubkey).bytes()},
		"expired subkey":         {cert: plain().subkey(sub).sign(binding, lifetime(day)).bytes()},
		"expires":                {cert: start().user("host").sign(positive, lifetime(3*day)).bytes(), want: keyid.Validity{NotAfter: made.Add(3 * day)}},
		"direct signature":       {cert: start().sign(direct, lifetime(day)).user("host").sign(positive).bytes(), want: keyid.Validity{NotAfter: made.Add(day)}},
		"newest counts":          {cert: start().user("host").sign(positive, lifetime(day)).at(made.Add(time.Hour)).sign(positive, lifetime(9*day)).bytes(), want: keyid.Validity{NotBefore: made.Add(time.Hour), NotAfter: made.Add(9 * day)}},
		"newest counts, shorter": {cert: start().user("host").sign(positive).at(made.Add(time.Hour)).sign(positive, lifetime(day)).bytes(), want: keyid.Validity{NotBefore: made.Add(time.Hour), NotAfter: made.Add(day)}},
		"newest first":           {cert: start().user("host").at(made.Add(time.Hour)).sign(positive, lifetime(day)).at(made).sign(positive).bytes(), want: keyid.Validity{NotBefore: made.Add(time.Hour), NotAfter: made.Add(day)}},
		"strictest user ID":      {cert: start().user("a").sign(positive).user("b").sign(positive, lifetime(day)).bytes(), want: keyid.Validity{NotAfter: made.Add(day)}},
		"signature that expires": {cert: start().user("host").sign(positive, func(s *signature) { s.sigLife = time.Minute }).bytes(), want: keyid.Validity{NotAfter: made.Add(time.Minute)}},
		"revoked":                {cert: start().at(made.Add(day)).sign(revoke).at(made).user("host").sign(positive).bytes(), want: keyid.Validity{Revoked: made.Add(day)}},
		"revoked twice":          {cert: start().at(made.Add(2 * day)).sign(revoke).at(made.Add(day)).sign(revoke).at(made).user("host").sign(positive).bytes(), want: keyid.Validity{Revoked: made.Add(day)}},
		"revoked by another key": {cert: start().add(start().signature(revoke, foreign, foreign.KeyId)).user("host").sign(positive).bytes(), want: keyid.Validity{Revoked: made}},

		"nothing":                     {cert: nil, wantErr: "empty certificate"},
		"bare key":                    {cert: start().bytes(), wantErr: "no user ID has a self-signature"},
		"user ID without signature":   {cert: start().user("host").bytes(), wantErr: "no user ID has a self-signature"},
		"only a direct signature":     {cert: start().sign(direct).bytes(), wantErr: "no user ID has a self-signature"},
		"only foreign signatures":     {cert: start().user("host").add(plain().signature(positive, foreign, foreign.KeyId)).bytes(), wantErr: "no user ID has a self-signature"},
		"only a withdrawn user ID":    {cert: start().user("a").sign(positive).sign(sigRevokesUser).bytes(), wantErr: "no user ID has a self-signature"},
		"another key's, as own":       {cert: start().user("host").add(plain().signature(positive, foreign, start().priv.KeyId)).bytes(), wantErr: "self-signature (type 0x13) on the user ID \"host\" is wrong"},
		"no issuer, another key's":    {cert: plain().add(plain().signature(positive, foreign, 0, func(s *signature) { s.withoutIssuer = true })).bytes(), wantErr: "is wrong"},
		"broken self-signature":       {cert: start().user("host").add(changed(plain().signature(positive, start().priv, start().priv.KeyId))).bytes(), wantErr: "is wrong"},
		"good and broken":             {cert: plain().add(changed(plain().signature(positive, start().priv, start().priv.KeyId))).bytes(), wantErr: "is wrong"},
		"of another user ID":          {cert: start().user("host").add(start().user("guest").signature(positive, start().priv, start().priv.KeyId)).bytes(), wantErr: "is wrong"},
		"broken direct signature":     {cert: start().add(changed(start().signature(direct, start().priv, start().priv.KeyId))).user("host").sign(positive).bytes(), wantErr: "on the primary key is wrong"},
		"broken revocation":           {cert: start().add(changed(start().signature(revoke, start().priv, start().priv.KeyId))).user("host").sign(positive).bytes(), wantErr: "on the primary key is wrong"},
		"unknown revocation":          {cert: start().packet(tagSignature, []byte{3, 5, sigRevokesKey, 0, 0, 0, 0}).user("host").sign(positive).bytes(), wantErr: "type 0x20) that can't be read"},
		"MD5":                         {cert: start().user("host").add(md5Signature(plain().signature(positive, start().priv, start().priv.KeyId))).bytes(), wantErr: "no user ID has a self-signature"},
		"subkey without binding":      {cert: plain().subkey(sub).bytes(), wantErr: "a subkey without a binding signature"},
		"subkey, foreign binding":     {cert: plain().subkey(sub).add(plain().subkey(sub).signature(binding, foreign, foreign.KeyId)).bytes(), wantErr: "a subkey without a binding signature"},
		"subkey, broken binding":      {cert: plain().subkey(sub).add(changed(plain().subkey(sub).signature(binding, start().priv, start().priv.KeyId))).bytes(), wantErr: "on the subkey is wrong"},
		"subkey, only revoked":        {cert: plain().subkey(sub).sign(sigRevokesSubkey).bytes(), wantErr: "a subkey without a binding signature"},
		"two subkeys, one bound":      {cert: plain().subkey(sub).subkey(&foreign.PublicKey).sign(binding).bytes(), wantErr: "a subkey without a binding signature"},
		"subkey of version 3":         {cert: plain().packet(tagSubkey, []byte{3, 0, 0, 0, 0, 0, 0, 1}).sign(binding).bytes(), wantErr: "a subkey that isn't of version 4"},
		"certification of the key":    {cert: start().sign(positive).user("host").sign(positive).bytes(), wantErr: "type 0x13 after a primary key"},
		"binding on a user ID":        {cert: start().user("host").sign(binding).bytes(), wantErr: "type 0x18 after a user ID"},
		"revocation on a user ID":     {cert: plain().sign(revoke).bytes(), wantErr: "type 0x20 after a user ID"},
		"user ID first":               {cert: newBuilder(t, keys[0]).user("host").bytes(), wantErr: "starts with its primary key"},
		"two primary keys":            {cert: plain().primary().user("host").sign(positive).bytes(), wantErr: "a second primary key"},
		"secret key":                  {cert: newBuilder(t, keys[0]).packet(5, keyBody(t, sub)).bytes(), wantErr: "is a secret key"},
		"secret subkey":               {cert: plain().packet(7, keyBody(t, sub)).bytes(), wantErr: "is a secret key"},
		"compressed packet":           {cert: plain().packet(8, []byte{1, 0}).bytes(), wantErr: "has tag 8"},
		"nested in literal data":      {cert: plain().packet(11, plain().bytes()).bytes(), wantErr: "has tag 11"},
		"encrypted data":              {cert: plain().packet(18, []byte{1}).bytes(), wantErr: "has tag 18"},
		"marker":                      {cert: plain().packet(10, []byte("PGP")).bytes(), wantErr: "has tag 10"},
		"unknown packet":              {cert: plain().packet(60, nil).bytes(), wantErr: "has tag 60"},
		"partial length":              {cert: append(plain().bytes(), 0xc0|tagUserID, 224, 'a', 0), wantErr: "partial length"},
		"indeterminate length":        {cert: append(plain().bytes(), 0x80|tagUserID<<2|3, 'a'), wantErr: "indeterminate length"},
		"huge length":                 {cert: append(plain().bytes(), 0xc0|tagUserID, 255, 0xff, 0xff, 0xff, 0xff), wantErr: "4294967295 bytes"},
		"no packet":                   {cert: []byte("-----BEGIN PGP"), wantErr: "not an OpenPGP packet"},
		"version 3 key":               {cert: newBuilder(t, keys[0]).packet(tagPrimaryKey, []byte{3, 0, 0, 0, 0, 0, 0, 1}).bytes(), wantErr: "a primary key of version 3"},
		"version 6 key":               {cert: newBuilder(t, keys[0]).packet(tagPrimaryKey, []byte{6, 0, 0, 0, 0, 0, 0, 1}).bytes(), wantErr: "a primary key of version 6"},
		"key with trailing bytes":     {cert: newBuilder(t, keys[0]).packet(tagPrimaryKey, append(bytes.Clone(start().body), 0)).bytes(), wantErr: "trailing bytes"},
		"thousands of user IDs":       {cert: bytes.Join([][]byte{plain().bytes(), bytes.Repeat([]byte{0xc0 | tagUserID, 1, 'a'}, 5000)}, nil), wantErr: "more than 128 packets"},
		"hundreds of self-signatures": {cert: flood(60, positive).bytes(), wantErr: "more than 32 self-signatures"},
		"too many bytes":              {cert: append(plain().bytes(), make([]byte, MaxOpenPGP)...), wantErr: "bytes; at most 32768 are read"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParseOpenPGP(tt.cert)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				if k != nil {
					t.Error("a key with an error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want.NotBefore.IsZero() {
				want.NotBefore = made
			}
			if v := k.Validity; !v.NotBefore.Equal(want.NotBefore) || !v.NotAfter.Equal(want.NotAfter) || !v.Revoked.Equal(want.Revoked) {
				t.Errorf("validity %+v, want %+v", v, want)
			}
			sum := sha1.New()
			hashKey(sum, start().body)
			if got := k.Identity.Fingerprint[:]; !bytes.Equal(got, sum.Sum(nil)) {
				t.Errorf("fingerprint %X, want %X", got, sum.Sum(nil))
			}
		})
	}
}

// md5Signature sets a signature packet's hash algorithm to MD5.
func md5Signature(raw []byte) []byte {
	op, err := packet.NewOpaqueReader(bytes.NewReader(raw)).Next()
	if err != nil {
		panic(err)
	}
	op.Contents[3] = 1
	var b bytes.Buffer
	if err := op.Serialize(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestKeySizes checks which sizes and kinds of primary keys are accepted.
func TestKeySizes(t *testing.T) {
	point := func(c elliptic.Curve) *packet.PublicKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		oid := map[elliptic.Curve][]byte{
			elliptic.P224(): {0x2b, 0x81, 0x04, 0x00, 0x21},
			elliptic.P256(): {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
			elliptic.P384(): {0x2b, 0x81, 0x04, 0x00, 0x22},
			elliptic.P521(): {0x2b, 0x81, 0x04, 0x00, 0x23},
		}[c]
		raw, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		bits := uint16((len(raw)-1)*8 + 3)
		body := []byte{4, 0, 0, 0, 0, 19, byte(len(oid))}
		body = append(body, oid...)
		body = append(binary.BigEndian.AppendUint16(body, bits), raw...)
		p, err := packet.Read(bytes.NewReader(append([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body...)))
		if err != nil {
			return nil
		}
		return p.(*packet.PublicKey)
	}
	number := func(bits int) []byte {
		b := bytes.Repeat([]byte{0xff}, bits/8)
		return b
	}
	mpi := func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b)*8)), b...)
	}
	raw := func(algo byte, ns ...[]byte) []byte {
		body := []byte{4, 0, 0, 0, 0, algo}
		for _, n := range ns {
			body = append(body, mpi(n)...)
		}
		return append([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	e := []byte{0xff, 0x00, 0x01}
	two := []byte{0x80}
	for name, tt := range map[string]struct {
		key     []byte
		wantErr string
	}{
		"RSA 1024":             {raw(1, number(1024), e), "1024 bits"},
		"RSA 2040":             {raw(1, number(2040), e), "2040 bits"},
		"RSA 2048":             {raw(1, number(2048), e), ""},
		"RSA 8192":             {raw(1, number(8192), e), ""},
		"RSA 8200":             {raw(1, number(8200), e), "8200 bits"},
		"RSA encrypt only":     {raw(2, number(2048), e), "may only encrypt"},
		"RSA, huge exponent":   {raw(1, number(2048), number(2048)), "can't be read"},
		"DSA 1024":             {raw(17, number(1024), number(160), two, two), "1024 bits"},
		"DSA 2048":             {raw(17, number(2048), number(256), two, two), ""},
		"DSA 2048, q 160":      {raw(17, number(2048), number(160), two, two), "a subgroup of 160 bits"},
		"DSA, generator 1":     {raw(17, number(2048), number(256), []byte{1}, two), "out of range"},
		"DSA, value too large": {raw(17, number(2048), number(256), two, number(2056)), "out of range"},
		"ElGamal":              {raw(16, number(2048), two, two), "algorithm 16"},
		"unknown algorithm":    {raw(99, number(2048)), "can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseOpenPGP(tt.key)
			if tt.wantErr == "" {
				tt.wantErr = "no user ID" // it got that far
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want one with %q", err, tt.wantErr)
			}
		})
	}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k := point(c)
		if k == nil {
			t.Errorf("%s isn't read", c.Params().Name)
			continue
		}
		public, err := publicKey(k)
		if got, ok := public.(*ecdsa.PublicKey); err != nil || !ok || got.Curve != c {
			t.Errorf("%s: %v, %v", c.Params().Name, public, err)
		}
	}
	if point(elliptic.P224()) != nil {
		t.Error("P-224 was read")
	}
}

// FuzzParseOpenPGP: a certificate that is accepted has a key, a fingerprint and
// a date.
func FuzzParseOpenPGP(f *testing.F) {
	for _, name := range []string{"rsa2048", "rsa4096", "dsa2048", "rsa-expired", "mut-badsubsig", "mut-baduidsig", "mut-nosubkey", "mut-nouidsig"} {
		f.Add(armored(f, name))
	}
	f.Fuzz(func(t *testing.T, cert []byte) {
		k, err := ParseOpenPGP(cert)
		if (k == nil) == (err == nil) {
			t.Fatalf("key %v, error %v", k, err)
		}
		if err == nil && (k.Identity.Fingerprint.IsZero() || k.Public == nil || k.Validity.NotBefore.IsZero()) {
			t.Fatalf("an incomplete key: %+v", k)
		}
	})
}
