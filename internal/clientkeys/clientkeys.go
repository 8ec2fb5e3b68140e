// Package clientkeys holds the four files that make a host a Mandos client:
// its TLS key pair, by which servers know it, and its OpenPGP key pair, to
// which its password is encrypted. mandos-keygen writes them, mandos-client
// reads them.
package clientkeys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"mandos/internal/keyid"
	"mandos/internal/pgp"
)

// The names of the files in the key directory.
const (
	SecKey     = "seckey.txt"
	PubKey     = "pubkey.txt"
	TLSPrivKey = "tls-privkey.pem"
	TLSPubKey  = "tls-pubkey.pem"
)

// The types of TLS keys that are made, as --tls-keytype names them.
const TLSKeyTypes = "ed25519, ecdsa or rsa"

// maxFile bounds what is read of a key file.
const maxFile = 1 << 20

// rsaBits is the size of the RSA keys that are made for TLS.
const rsaBits = 3072

// NewTLSKey makes a TLS key: "ed25519", "ecdsa" (P-256) or "rsa" (3072 bits).
// Case doesn't matter.
func NewTLSKey(kind string) (crypto.Signer, error) {
	switch strings.ToLower(kind) {
	case "ed25519":
		_, k, err := ed25519.GenerateKey(rand.Reader)
		return k, err
	case "ecdsa", "ec":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return nil, fmt.Errorf("%q is no type of TLS key that can be made: use %s", kind, TLSKeyTypes)
}

// EncodeTLSKey returns the contents of tls-privkey.pem (PKCS #8, RFC 5958)
// and tls-pubkey.pem (SubjectPublicKeyInfo, RFC 7468, section 13).
func EncodeTLSKey(key crypto.Signer) (private, public []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), nil
}

// ReadTLSPublic reads a file like tls-pubkey.pem, and returns the key ID and
// the key.
func ReadTLSPublic(path string) (keyid.KeyID, crypto.PublicKey, error) {
	block, err := readPEM(path, "PUBLIC KEY")
	if err != nil {
		return keyid.KeyID{}, nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return keyid.KeyID{}, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return keyid.OfSPKI(block.Bytes), pub, nil
}

// ReadTLSPair reads files like tls-pubkey.pem and tls-privkey.pem, which must
// belong together.
func ReadTLSPair(publicPath, privatePath string) (crypto.Signer, error) {
	_, pub, err := ReadTLSPublic(publicPath)
	if err != nil {
		return nil, err
	}
	// certtool without --pkcs8 and openssl write the two older forms.
	block, err := readPEM(privatePath, "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	var parsed any
	switch block.Type {
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	clear(block.Bytes)
	if err != nil {
		// The error may quote what was read; it isn't wrapped.
		return nil, fmt.Errorf("reading %s: it holds no Ed25519, ECDSA or RSA private key", privatePath)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading %s: a %T can't sign", privatePath, parsed)
	}
	if same, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(pub) {
		return nil, fmt.Errorf("%s isn't the public half of %s: copy both from the directory in which mandos-keygen made them",
			publicPath, privatePath)
	}
	return key, nil
}

func readPEM(path string, kinds ...string) (*pem.Block, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, fmt.Errorf("reading %s: no PEM block %q in it", path, kinds[0])
		}
		for _, kind := range kinds {
			if block.Type == kind {
				return block, nil
			}
		}
	}
}

// ReadPGPPair reads files like pubkey.txt and seckey.txt, which must belong
// together, and returns the secret key.
func ReadPGPPair(publicPath, secretPath string) (*pgp.Key, error) {
	data, err := readFile(publicPath)
	if err != nil {
		return nil, err
	}
	pub, err := pgp.ReadPublic(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", publicPath, err)
	}
	data, err = readFile(secretPath)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	sec, err := pgp.ReadSecret(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", secretPath, err)
	}
	if pub.Fingerprint() != sec.Fingerprint() {
		return nil, fmt.Errorf("%s isn't the public half of %s: copy both from the directory in which mandos-keygen made them",
			publicPath, secretPath)
	}
	return sec, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("reading a key: %w: mandos-keygen makes it", err)
		}
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("reading %s: more than %d bytes", path, maxFile)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("reading %s: it is empty", path)
	}
	return data, nil
}
