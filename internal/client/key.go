package client

import (
	"errors"
	"time"

	"mandos/internal/keyid"
)

// Why a known key is not accepted.
const (
	KeyInvalid  Reason = "Key not valid" // expired, revoked, or made in the future
	OldProtocol Reason = "Old protocol"  // the client is barred from TLS 1.2 with OpenPGP
)

// CheckKey returns nil if a peer that proved to have the key id may act as the
// client at now, otherwise why not. v is the key's own period of validity. That
// the key is this client's must have been checked before.
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
