package keytls

import (
	"crypto"
	"errors"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
)

// A certificateType is how a TLS server presents its key in TLS 1.3. Outside of
// tests there are only raw public keys.
type certificateType interface {
	// code is the type's code point (RFC 7250, section 3).
	code() wire.CertificateType
	// entries returns the cert_data of each entry that presents key's public
	// half.
	entries(key crypto.Signer) ([][]byte, error)
	// parse reads the cert_data of the entries received, at least one.
	parse(entries [][]byte) (*peerkey.Key, error)
}

// rawPublicKey is RFC 7250's: a bare SubjectPublicKeyInfo.
type rawPublicKey struct{}

func (rawPublicKey) code() wire.CertificateType { return wire.RawPublicKey }

func (rawPublicKey) entries(key crypto.Signer) ([][]byte, error) {
	spki, err := peerkey.MarshalSPKI(key.Public())
	return [][]byte{spki}, err
}

func (rawPublicKey) parse(entries [][]byte) (*peerkey.Key, error) {
	// RFC 8446, section 4.4.2.
	if len(entries) > 1 {
		return nil, errors.New("more than one raw public key")
	}
	return peerkey.ParseSPKI(entries[0])
}

func (c *Conn) certificateType() certificateType {
	if t := c.config().certificates; t != nil {
		return t
	}
	return rawPublicKey{}
}

// signedContent is what a TLS server's CertificateVerify signs (RFC 8446,
// section 4.4.3).
func signedContent(transcript []byte) []byte {
	const pad, context = 64, "TLS 1.3, server CertificateVerify"
	b := make([]byte, 0, pad+len(context)+1+len(transcript))
	for range pad {
		b = append(b, ' ')
	}
	b = append(b, context...)
	b = append(b, 0)
	return append(b, transcript...)
}
