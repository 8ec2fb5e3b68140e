package client

import (
	"fmt"
	"time"

	"mandos/internal/secret"
)

// An Event is something that happens to a client. Step applies it.
type Event interface{ apply(*step) }

// Tick: time has passed; see Client.Due.
type Tick struct{}

// CheckerStarted: the checker that RunChecker asked for was started.
type CheckerStarted struct{ Command string }

// CheckerDone: the checker ended.
type CheckerDone struct {
	Command string
	Result  CheckResult
}

// CheckerNotRun: the checker could not be run, which says nothing about the
// client. It will be tried again.
type CheckerNotRun struct{ Why string }

// HandedOut: the whole secret was written to the client.
type HandedOut struct{}

// Connect: a connection begins to wait for approval.
type Connect struct{}

// Disconnect: a connection no longer waits.
type Disconnect struct{}

// Enable, Disable, Approve, Deny, CheckedOK, StartChecker and StopChecks are
// what an operator may do; By names the operator, such as "uid 0 over D-Bus".
type (
	// Enable makes a disabled client eligible again. Nothing else does.
	Enable struct{ By string }
	// Disable keeps the client from its secret until somebody enables it.
	Disable struct{ By, Why string }
	// Approve lets the client have its secret for ApprovalDuration.
	Approve struct{ By string }
	// Deny keeps the client from its secret for ApprovalDuration.
	Deny struct{ By string }
	// CheckedOK counts as a successful check.
	CheckedOK struct{ By string }
	// StartChecker starts a checker now, even for a disabled client.
	StartChecker struct{ By string }
	// StopChecks kills a running checker; the next one starts when it is due.
	StopChecks struct{ By string }
)

// SetDuration changes PropTimeout, PropExtendedTimeout, PropInterval,
// PropApprovalDelay or PropApprovalDuration.
type SetDuration struct {
	By       string
	Property Property
	Value    time.Duration
}

// SetText changes PropHost or PropChecker (with %(name)s not expanded).
type SetText struct {
	By       string
	Property Property
	Value    string
}

// SetApprovedByDefault changes the outcome when nobody decides.
type SetApprovedByDefault struct {
	By    string
	Value bool
}

// SetSecret changes the secret.
type SetSecret struct {
	By    string
	Value secret.Secret
}

// MaxDuration is longer than anybody waits, and short enough that sums of
// durations can't overflow.
const MaxDuration = 100 * 365 * 24 * time.Hour

// Validate returns an error, worded for the person who asked, if an event from
// outside is not acceptable. It doesn't check that a checker's template can be
// expanded.
func Validate(ev Event) error {
	switch ev := ev.(type) {
	case SetDuration:
		switch ev.Property {
		case PropTimeout, PropExtendedTimeout, PropApprovalDelay, PropApprovalDuration:
		case PropInterval:
			if ev.Value <= 0 {
				return fmt.Errorf("interval must be longer than 0, not %v", ev.Value)
			}
		default:
			return fmt.Errorf("%s is no duration", ev.Property)
		}
		if ev.Value < 0 || ev.Value > MaxDuration {
			return fmt.Errorf("%s must be from 0 to 100 years, not %v", ev.Property, ev.Value)
		}
	case SetText:
		switch {
		case ev.Property != PropHost && ev.Property != PropChecker:
			return fmt.Errorf("%s is no text", ev.Property)
		case len(ev.Value) > MaxText:
			return fmt.Errorf("%s can't have %d bytes, only up to %d", ev.Property, len(ev.Value), MaxText)
		case ev.Property == PropChecker && ev.Value == "":
			return fmt.Errorf(`%s can't be empty; "true" is for a client that needs no checks`, ev.Property)
		}
	case SetSecret:
		if n := ev.Value.Len(); n == 0 || n > MaxSecret {
			return fmt.Errorf("%s must have from 1 to %d bytes, not %d", PropSecret, MaxSecret, n)
		}
	}
	return nil
}
