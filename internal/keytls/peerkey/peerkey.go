// Package peerkey reads the key in a peer's certificate message, with the
// identity that it stands for, and verifies and makes signatures.
package peerkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"

	"mandos/internal/keyid"
	"mandos/internal/keytls/wire"
)

const (
	// MinRSABits and MaxRSABits limit the moduli of RSA keys: a smaller one is
	// too weak, a larger one takes too long to verify.
	MinRSABits = 2048
	MaxRSABits = 8192

	maxSPKI = 4096 // bytes; a key of MaxRSABits needs about 1100
)

// A Key is a peer's public key.
type Key struct {
	Public   crypto.PublicKey // ed25519.PublicKey, *ecdsa.PublicKey, *rsa.PublicKey, or of OpenPGP *dsa.PublicKey
	Identity keyid.Identity   // of the kind that belongs to the certificate's type
	Validity keyid.Validity   // the time for which the key claims to be valid; zero for a raw public key
}

// ParseSPKI reads a raw public key: a DER SubjectPublicKeyInfo (RFC 5280,
// section 4.1.2.7) of Ed25519, of ECDSA on P-256, P-384 or P-521, or of RSA of
// MinRSABits to MaxRSABits. Its identity is the SHA-256 of der as it is.
func ParseSPKI(der []byte) (*Key, error) {
	if len(der) == 0 {
		return nil, errors.New("the public key is empty")
	}
	if len(der) > maxSPKI {
		return nil, fmt.Errorf("the public key has %d bytes, more than %d", len(der), maxSPKI)
	}
	public, err := parsePublic(der)
	if err != nil {
		return nil, fmt.Errorf("the public key can't be read: %v", err)
	}
	if err := Check(public); err != nil {
		return nil, err
	}
	return &Key{Public: public, Identity: keyid.Identity{KeyID: keyid.OfSPKI(der)}}, nil
}

// ed25519Prefix is all of an Ed25519 key's SubjectPublicKeyInfo but the key
// itself (RFC 8410, sections 3 and 4): DER leaves no choice.
const ed25519Prefix = "\x30\x2A\x30\x05\x06\x03\x2B\x65\x70\x03\x21\x00"

func parsePublic(der []byte) (crypto.PublicKey, error) {
	// The key of nearly every client needs no parser for everything that X.509
	// allows.
	if rest, ok := bytes.CutPrefix(der, []byte(ed25519Prefix)); ok && len(rest) == ed25519.PublicKeySize {
		return ed25519.PublicKey(bytes.Clone(rest)), nil
	}
	return x509.ParsePKIXPublicKey(der)
}

// MarshalSPKI returns the raw public key that ParseSPKI reads.
func MarshalSPKI(public crypto.PublicKey) ([]byte, error) {
	if err := Check(public); err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(public)
}

// Check returns an error for a key whose algorithm or size isn't accepted.
func Check(public crypto.PublicKey) error {
	switch k := public.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("the Ed25519 public key has %d bytes, not %d", len(k), ed25519.PublicKeySize)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("the ECDSA public key's curve %s isn't one of P-256, P-384 and P-521", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
			return fmt.Errorf("the RSA public key has %d bits, not %d to %d", bits, MinRSABits, MaxRSABits)
		}
		return nil
	}
	return fmt.Errorf("a public key of type %T isn't one of Ed25519, ECDSA and RSA", public)
}

// A scheme is what a signature scheme requires of key, hash and padding.
type scheme struct {
	hash  crypto.Hash
	curve elliptic.Curve // of ECDSA
	pss   bool
	rsa   bool
}

var schemes = map[wire.SignatureScheme]scheme{
	wire.Ed25519:         {},
	wire.ECDSAP256SHA256: {hash: crypto.SHA256, curve: elliptic.P256()},
	wire.ECDSAP384SHA384: {hash: crypto.SHA384, curve: elliptic.P384()},
	wire.ECDSAP521SHA512: {hash: crypto.SHA512, curve: elliptic.P521()},
	wire.RSAPSSSHA256:    {hash: crypto.SHA256, rsa: true, pss: true},
	wire.RSAPSSSHA384:    {hash: crypto.SHA384, rsa: true, pss: true},
	wire.RSAPSSSHA512:    {hash: crypto.SHA512, rsa: true, pss: true},
	wire.RSAPKCS1SHA256:  {hash: crypto.SHA256, rsa: true},
	wire.RSAPKCS1SHA384:  {hash: crypto.SHA384, rsa: true},
	wire.RSAPKCS1SHA512:  {hash: crypto.SHA512, rsa: true},
}

// Fits reports whether keys like public sign with the scheme s of TLS 1.3: a
// curve goes with one hash, and RSA is PSS (RFC 8446, section 4.2.3).
func Fits(public crypto.PublicKey, s wire.SignatureScheme) bool {
	p, known := schemes[s]
	if !known {
		return false
	}
	switch k := public.(type) {
	case ed25519.PublicKey:
		return s == wire.Ed25519
	case *ecdsa.PublicKey:
		return p.curve != nil && p.curve == k.Curve
	case *rsa.PublicKey:
		return p.pss
	}
	return false
}

// ErrSignature is a signature that doesn't verify; alert decrypt_error (RFC
// 8446, section 4.4.3).
var ErrSignature = errors.New("the signature doesn't verify")

// Verify checks the signature sig of message under the scheme s, which must
// fit the key, with the one exception that RSA signs PKCS #1 v1.5 in TLS 1.2.
// A wrong signature is ErrSignature.
func Verify(public crypto.PublicKey, s wire.SignatureScheme, message, sig []byte) error {
	p, known := schemes[s]
	digest := func() []byte {
		h := p.hash.New()
		h.Write(message)
		return h.Sum(nil)
	}
	ok := false
	switch k := public.(type) {
	case ed25519.PublicKey:
		if s != wire.Ed25519 {
			return misfit(public, s)
		}
		ok = ed25519.Verify(k, message, sig)
	case *ecdsa.PublicKey:
		if !known || p.curve == nil || p.curve != k.Curve {
			return misfit(public, s)
		}
		ok = ecdsa.VerifyASN1(k, digest(), sig)
	case *rsa.PublicKey:
		switch {
		case !known || !p.rsa:
			return misfit(public, s)
		case p.pss:
			opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			ok = rsa.VerifyPSS(k, p.hash, digest(), sig, opts) == nil
		default:
			ok = rsa.VerifyPKCS1v15(k, p.hash, digest(), sig) == nil
		}
	default:
		return misfit(public, s)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// Sign signs message with key under the scheme s, which must fit its public
// half.
func Sign(key crypto.Signer, s wire.SignatureScheme, message []byte) ([]byte, error) {
	if !Fits(key.Public(), s) {
		return nil, misfit(key.Public(), s)
	}
	p := schemes[s]
	if p.hash == 0 {
		return key.Sign(nil, message, crypto.Hash(0))
	}
	var opts crypto.SignerOpts = p.hash
	if p.pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: p.hash}
	}
	return crypto.SignMessage(key, rand.Reader, message, opts)
}

func misfit(public crypto.PublicKey, s wire.SignatureScheme) error {
	return fmt.Errorf("%v doesn't go with a key of type %T", s, public)
}
