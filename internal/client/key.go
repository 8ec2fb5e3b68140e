package client

import (
	"errors"
	"time"

	"mandos/internal/keyid"
)

// Why a key that is known doesn't do.
const (
	KeyInvalid  Reason = "Key not valid" // expired, revoked, or made in the future
	OldProtocol Reason = "Old protocol"  // the client is barred from TLS 1.2 with OpenPGP
)

// CheckKey returns why a peer may not pass for the client with the key that it
// proved, which says v of its own life; or nil. That the key is the client's
// is for the caller to know.
func (s *Settings) CheckKey(id keyid.Identity, v keyid.Validity, now time.Time) *Refusal {
	if s.Generation == OnlyTLS13 && id.KeyID.IsZero() {
		return &Refusal{Reason: OldProtocol, Detail: "it used " + id.Protocol() + ", and its section says generation = " + s.Generation.String()}
	}
	err := v.At(now)
	if err == nil || s.AllowExpiredKey && errors.Is(err, keyid.ErrExpired) {
		return nil
	}
	return &Refusal{Reason: KeyInvalid, Detail: err.Error()}
}
