package keyid

import (
	"errors"
	"fmt"
	"time"
)

// A Validity is what a key says of its own life. A raw public key says
// nothing: its Validity is the zero value, which holds at every instant. It
// is data, because a handshake ends before anyone knows which client called,
// and an operator may allow expired keys for one client.
type Validity struct {
	NotBefore time.Time // when the key, or its newest self-signature, was made; zero: no bound
	NotAfter  time.Time // when the key expires; zero: never
	Revoked   time.Time // when the key was revoked by its owner; zero: it wasn't
}

// What Validity.At finds wrong. They are wrapped in errors that hold the date.
var (
	ErrExpired = errors.New("the OpenPGP key has expired")
	ErrRevoked = errors.New("the OpenPGP key is revoked")
	ErrFuture  = errors.New("the OpenPGP key was made in the future")
)

// At returns nil when the key is valid at now, and otherwise ErrRevoked,
// ErrFuture or ErrExpired with the date in its text. Of several faults it
// names the one that weighs most: an expired key that is also revoked is
// revoked. A revocation holds whatever its date: it may well be backdated,
// and a clock may be wrong.
func (v Validity) At(now time.Time) error {
	date := func(err error, verb string, t time.Time) error {
		return fmt.Errorf("%w (%s %s)", err, verb, t.UTC().Format(time.RFC3339))
	}
	switch {
	case !v.Revoked.IsZero():
		return date(ErrRevoked, "since", v.Revoked)
	case now.Before(v.NotBefore):
		return date(ErrFuture, "on", v.NotBefore)
	case !v.NotAfter.IsZero() && !now.Before(v.NotAfter):
		return date(ErrExpired, "on", v.NotAfter)
	}
	return nil
}
