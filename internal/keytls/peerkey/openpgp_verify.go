package peerkey

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 see openpgp.go
	"crypto/ecdsa"
	"encoding/asn1"
	"math/big"

	"mandos/internal/keytls/wire"
)

// dsaSignature is Dss-Sig-Value (RFC 5246, section 4.7).
type dsaSignature struct{ R, S *big.Int }

// Verify12 checks the signature sig of message under the scheme s by the rules
// of TLS 1.2: RSA signs PKCS #1 v1.5 or PSS, a scheme's curve has no meaning
// and only its hash counts (RFC 8446, section 4.2.3), and DSA exists. No scheme
// that is known here uses MD5 or SHA-1. For a wrong signature it returns
// ErrSignature.
func Verify12(public crypto.PublicKey, s wire.SignatureScheme, message, sig []byte) error {
	switch k := public.(type) {
	case *dsa.PublicKey:
		if s != wire.DSASHA256 {
			return misfit(public, s)
		}
		h := crypto.SHA256.New()
		h.Write(message)
		digest := h.Sum(nil)
		digest = digest[:min(len(digest), (k.Q.BitLen()+7)/8)] // FIPS 186-4, section 4.6
		var v dsaSignature
		rest, err := asn1.Unmarshal(sig, &v)
		if err != nil || len(rest) > 0 || !dsa.Verify(k, digest, v.R, v.S) {
			return ErrSignature
		}
		return nil
	case *ecdsa.PublicKey:
		p, known := schemes[s]
		if !known || p.curve == nil {
			return misfit(public, s)
		}
		h := p.hash.New()
		h.Write(message)
		if !ecdsa.VerifyASN1(k, h.Sum(nil), sig) {
			return ErrSignature
		}
		return nil
	}
	return Verify(public, s, message, sig)
}
