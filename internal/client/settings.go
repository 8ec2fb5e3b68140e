// Package client holds the rules of one client: its settings, its status,
// and what follows from an event at an instant. It is pure: no goroutine, no
// clock, no I/O.
package client

import (
	"time"

	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// Limits of what clients.conf or an operator can set, in bytes.
const (
	MaxText   = 16 << 10 // for Checker (mandos-checker accepts no more) and for Host
	MaxSecret = 16 << 20
)

// Settings are what clients.conf, or an operator at run time, says about a
// client.
type Settings struct {
	Name string // the section's name; unique, never empty

	// At least one of the two identifies the client; the other may be zero.
	KeyID       keyid.KeyID
	Fingerprint keyid.Fingerprint

	Secret secret.Secret // handed out verbatim

	Host    string // what the checker checks; may be empty
	Checker string // shell command, %(name)s not yet expanded

	Timeout          time.Duration // enabled for this long after a successful check
	ExtendedTimeout  time.Duration // enabled for this long after a hand-out
	Interval         time.Duration // between starts of the checker
	ApprovalDelay    time.Duration // how long a connection waits for an operator; 0: no approval needed
	ApprovalDuration time.Duration // how long an operator's decision lasts

	ApprovedByDefault bool // the outcome when ApprovalDelay has run out
	Enabled           bool // initially; after that the status decides

	Generation      Generation // which protocols may identify the client
	AllowExpiredKey bool       // an OpenPGP key past its expiry still identifies it
}

// A checker may take as long as its client's interval, within these bounds.
const (
	leastCheckLimit = 10 * time.Second
	mostCheckLimit  = 24 * time.Hour
)

// CheckLimit is how long the client's checker may take: one that takes longer
// is killed, and has failed.
func (s *Settings) CheckLimit() time.Duration {
	return min(max(s.Interval, leastCheckLimit), mostCheckLimit)
}

// A Generation says by which protocol a client may prove who it is.
type Generation uint8

// AnyGeneration accepts a raw public key in TLS 1.3 (KeyID) and an OpenPGP
// certificate in TLS 1.2 (Fingerprint); OnlyTLS13 only the former.
const (
	AnyGeneration Generation = iota
	OnlyTLS13
)

// String returns the word that clients.conf uses for g.
func (g Generation) String() string {
	if g == OnlyTLS13 {
		return "tls13"
	}
	return "any"
}
