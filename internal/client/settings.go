// Package client holds the rules of one client: its settings, its status,
// and what follows from an event at an instant. It is pure: no goroutine, no
// clock, no I/O.
package client

import (
	"time"

	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// Settings are what clients.conf, or an operator at run time, says of a client.
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
	ApprovalDelay    time.Duration // how long a connection waits for an operator; 0: needs none
	ApprovalDuration time.Duration // how long an operator's word is remembered

	ApprovedByDefault bool // the outcome when ApprovalDelay has run out
	Enabled           bool // at first; later the status rules
}
