// Package registry owns all clients: their status, timers, checks and
// approvals. Everything that changes a client goes through its one owner.
package registry

import (
	"net/netip"

	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// A Caller is a peer that has proved its identity and asks for its secret.
type Caller struct {
	Addr     netip.AddrPort // with zone, where the address is link-local
	Identity keyid.Identity
}

// A Handout is the right to send one secret to one caller, once, now.
type Handout struct {
	Secret secret.Secret
	// Revoked is closed when the client stops being eligible before Done
	// is called: the connection must be cut at once.
	Revoked <-chan struct{}
	// Done must be called exactly once: with nil when the whole secret was
	// written, else with what went wrong.
	Done func(error)
}
