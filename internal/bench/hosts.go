package bench

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"mandos/internal/keyid"
	"mandos/internal/keytls"
	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
)

// SecretSize is how many bytes a secret has: what mandos-keygen makes of a
// short password with its RSA-4096 keys.
const SecretSize = 1190

// gnutls is what Debian's mandos-client agrees to with both servers: TLS 1.3,
// AES-256-GCM, no hybrid group, which Debian's GnuTLS doesn't know.
var gnutls = keytls.Policy{
	Versions: []wire.Version{wire.VersionTLS13},
	Suites:   []wire.Suite{wire.AES256GCM},
	Groups:   []wire.Group{wire.X25519, wire.P256},
}

// A Host is a client with its key. Its key and secret follow from its number,
// so that all servers and all runs have the same.
type Host struct {
	Number int
	config *keytls.Config

	// Of CertificateVerify, and the message Certificate; nil for a host that
	// isn't one of GnuTLS.
	scheme      wire.SignatureScheme
	certificate []byte
}

func newHost(number int, key crypto.Signer) Host {
	h := Host{Number: number, config: &keytls.Config{Policy: gnutls, Key: key}}
	switch key.(type) {
	case ed25519.PrivateKey:
		h.scheme = wire.Ed25519
	case *ecdsa.PrivateKey:
		h.scheme = wire.ECDSAP256SHA256
	default:
		h.scheme = wire.RSAPSSSHA256
	}
	spki := must(peerkey.MarshalSPKI(key.Public())) // keys are those that we make
	h.certificate = must((&wire.Certificate{Entries: []wire.CertificateEntry{{Data: spki}}}).Marshal())
	return h
}

// Hosts returns n hosts.
func Hosts(n int) []Host {
	hosts := make([]Host, n)
	var all sync.WaitGroup
	for w := range runtime.NumCPU() {
		all.Go(func() {
			for i := w; i < n; i += runtime.NumCPU() {
				var seed [ed25519.SeedSize]byte
				binary.LittleEndian.PutUint64(seed[:], uint64(i)+1)
				hosts[i] = newHost(i, ed25519.NewKeyFromSeed(seed[:]))
			}
		})
	}
	all.Wait()
	return hosts
}

// WithKey returns the host with another key, of ECDSA P-256 or RSA.
func (h Host) WithKey(key crypto.Signer) Host { return newHost(h.Number, key) }

// Hybrid returns the host as our own mandos-client is: with X25519MLKEM768,
// where the server knows it.
func (h Host) Hybrid() Host {
	return Host{Number: h.Number, config: &keytls.Config{Key: h.config.Key}}
}

// KeyID is what servers know the host by.
func (h Host) KeyID() keyid.KeyID {
	return keyid.OfSPKI(must(peerkey.MarshalSPKI(h.config.Key.Public())))
}

// Secret returns the host's secret. It needn't be an OpenPGP message: servers
// don't look into it.
func (h Host) Secret() []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(h.Number)+1)
	secret := make([]byte, SecretSize)
	_, _ = rand.NewChaCha8(seed).Read(secret) // never fails
	return secret
}

// WriteConfig writes a clients.conf for hosts in the form of mandos-keygen's
// sections, which both servers read. Checkers cost what they cost under either
// server, so they are few: with this interval, of 10,000 clients one in three
// minutes. Debian's server takes no interval that is much longer.
func WriteConfig(w io.Writer, hosts []Host) error {
	b := bufio.NewWriterSize(w, 1<<20)
	fmt.Fprint(b, "[DEFAULT]\nchecker = true\ninterval = P20D\ntimeout = P40D\nextended_timeout = P40D\n")
	for _, h := range hosts {
		fmt.Fprintf(b, "\n[host%d]\nhost = host%d.example.org\nkey_id = %v\nfingerprint =\nsecret =\n", h.Number, h.Number, h.KeyID())
		for line := range slices.Chunk(base64.StdEncoding.AppendEncode(nil, h.Secret()), 64) {
			fmt.Fprintf(b, "    %s\n", line)
		}
	}
	return b.Flush()
}
