// Package secret holds bytes that must reach a client and nobody else: the
// OpenPGP-encrypted password of clients.conf. However such a value is
// printed, logged or encoded, what comes out is a fixed word.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[secret]"

// A Secret is a client's stored password, encrypted to that client. The zero
// Secret is empty. Copies share their bytes.
type Secret struct {
	// A closure, because fmt can't call methods on unexported fields of
	// other types: it prints an address there, where it would print the
	// bytes of a slice (and, for a wrong verb, those behind a pointer).
	reveal func() []byte
}

// New returns a Secret that owns b; the caller must not use b afterwards.
func New(b []byte) Secret { return Secret{func() []byte { return b }} }

// Reveal returns the bytes themselves, not a copy. Call it where the secret
// moves (to the client, to the state file) and nowhere else.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal()
}

// Len returns the number of bytes.
func (s Secret) Len() int { return len(s.Reveal()) }

// Equal compares in a time that depends on the lengths only.
func (s Secret) Equal(t Secret) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1
}

// Wipe overwrites the bytes, for every copy of s.
func (s Secret) Wipe() { clear(s.Reveal()) }

// The methods below redact s under every verb of fmt, in slog, and in
// encodings of text (JSON, XML, flags).

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
