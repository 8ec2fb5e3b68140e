// Package keyid names the two ways in which a Mandos client's key is known:
// the key ID of a raw public key (TLS 1.3) and the fingerprint of an OpenPGP
// key (TLS 1.2).
//
// Both are values: comparable, usable as map keys, and public. Neither is a
// secret, so both print in full.
package keyid

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A KeyID is the SHA-256 of a DER SubjectPublicKeyInfo (RFC 5280, section
// 4.1.2.7), exactly as it was received. The zero KeyID means "none".
type KeyID [sha256.Size]byte

// A Fingerprint is that of a version 4 OpenPGP primary key: 20 bytes (RFC
// 4880, section 12.2). The zero Fingerprint means "none".
type Fingerprint [20]byte

// ofNothing is the SHA-256 of no bytes at all. A bug in mandos-keygen 1.8.0
// wrote it as key_id; it never identifies a client.
var ofNothing = KeyID(sha256.Sum256(nil))

// OfSPKI returns the key ID of the DER SubjectPublicKeyInfo spki.
func OfSPKI(spki []byte) KeyID { return sha256.Sum256(spki) }

// ParseKeyID reads 64 hexadecimal digits of either case, with white space
// anywhere, as Debian's clients.conf allows.
func ParseKeyID(s string) (KeyID, error) {
	var k KeyID
	err := parse(k[:], s, "key ID")
	return k, err
}

// ParseFingerprint reads 40 hexadecimal digits of either case, with white
// space anywhere, as gpg prints them.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	err := parse(f[:], s, "fingerprint")
	return f, err
}

// String returns 64 upper-case hexadecimal digits.
func (k KeyID) String() string { return upperHex(k[:]) }

// String returns 40 upper-case hexadecimal digits.
func (f Fingerprint) String() string { return upperHex(f[:]) }

func upperHex(b []byte) string {
	const digits = "0123456789ABCDEF"
	s := make([]byte, 0, 2*sha256.Size)
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// OpenPGPKeyID returns the low 64 bits of f, by which OpenPGP refers to a key
// (RFC 4880, section 12.2). Unlike f it identifies nobody: it can be forged.
func (f Fingerprint) OpenPGPKeyID() [8]byte { return [8]byte(f[12:]) }

// IsZero reports whether k is the zero KeyID, which means "none".
func (k KeyID) IsZero() bool { return k == KeyID{} }

// IsZero reports whether f is the zero Fingerprint, which means "none".
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// Text returns id's digits, or "" for none: the form of checkers' variables and
// of D-Bus.
func Text[ID interface {
	IsZero() bool
	String() string
}](id ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// IsOfNothing reports whether k is the SHA-256 of no bytes, which some
// configurations hold by mistake and which never identifies a client.
func (k KeyID) IsOfNothing() bool { return k == ofNothing }

func parse(dst []byte, s, what string) error {
	if len(s) == 2*len(dst) { // as a rule; a hundred thousand clients have two each
		if _, err := hex.Decode(dst, []byte(s)); err == nil {
			return nil
		}
		clear(dst)
	}
	digits := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	if len(digits) != 2*len(dst) {
		return fmt.Errorf("a %s has %d hexadecimal digits, not %d", what, 2*len(dst), len(digits))
	}
	if i := strings.IndexFunc(digits, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(digits[i:])
		return fmt.Errorf("a %s has hexadecimal digits only, not %q", what, r)
	}
	_, err := hex.Decode(dst, []byte(digits))
	return err
}

// An Identity is what a peer's handshake proved: exactly one of the two is
// set, the key ID in TLS 1.3 and the fingerprint in TLS 1.2.
type Identity struct {
	KeyID       KeyID
	Fingerprint Fingerprint
}

// String returns whichever of the two is set.
func (id Identity) String() string {
	if id.KeyID.IsZero() {
		return id.Fingerprint.String()
	}
	return id.KeyID.String()
}

// Protocol names the protocol that proves an identity of this kind: "TLS 1.3
// with a raw public key", or "TLS 1.2 with an OpenPGP key".
func (id Identity) Protocol() string {
	if id.KeyID.IsZero() {
		return "TLS 1.2 with an OpenPGP key"
	}
	return "TLS 1.3 with a raw public key"
}
