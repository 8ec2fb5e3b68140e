package keytls

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"time"

	"mandos/internal/keyid"
	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
)

// x509Plug presents keys as self-signed X.509 certificates, so that crypto/tls,
// which supports nothing else, can be the peer.
type x509Plug struct{}

func (x509Plug) code() wire.CertificateType { return wire.X509 }

func (x509Plug) entries(key crypto.Signer) ([][]byte, error) {
	der, err := selfSigned(key)
	return [][]byte{der}, err
}

func (x509Plug) parse(entries [][]byte) (*peerkey.Key, error) {
	cert, err := x509.ParseCertificate(entries[0])
	if err != nil {
		return nil, err
	}
	if err := peerkey.Check(cert.PublicKey); err != nil {
		return nil, err
	}
	id := keyid.OfSPKI(cert.RawSubjectPublicKeyInfo)
	return &peerkey.Key{Public: cert.PublicKey, Identity: keyid.Identity{KeyID: id}}, nil
}

func selfSigned(key crypto.Signer) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"test"},
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// tlsCertificate returns key in the form for crypto/tls's server.
func tlsCertificate(key crypto.Signer) (tls.Certificate, error) {
	der, err := selfSigned(key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// sameKey is a crypto/tls client's check that the server has the key wanted.
func sameKey(want crypto.PublicKey) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		have := state.PeerCertificates[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !have.Equal(want) {
			return errors.New("another key")
		}
		return nil
	}
}
