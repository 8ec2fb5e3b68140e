package client

import (
	"fmt"
	"time"
)

// The values of LastCheckerStatus that aren't exit statuses.
const (
	NeverChecked   = -2 // no checker has ended yet
	CheckerCrashed = -1 // the checker was ended by a signal
)

// A Decision is an operator's decision about handing out the secret. It lasts
// for Settings.ApprovalDuration.
type Decision uint8

// The decisions.
const (
	Undecided Decision = iota
	Approved
	Disapproved
)

// String returns "approved", "denied", or "" for Undecided.
func (d Decision) String() string {
	switch d {
	case Approved:
		return "approved"
	case Disapproved:
		return "denied"
	}
	return ""
}

// A CheckState says whether a checker runs.
type CheckState uint8

// The states of a client's checker.
const (
	Idle    CheckState = iota
	Queued             // waits for its turn
	Running            // has been started
)

// A Change says when, by whom and why a client was enabled or disabled.
type Change struct {
	At  time.Time // wall clock
	By  string    // the actor: "uid 0 over D-Bus", "clients.conf"; empty for the rules themselves
	Why string    // may be empty when By says it all
}

// Facts are the part of a status that is stored as it is. Instants are wall
// clock; the zero time means never.
type Facts struct {
	Enabled             bool
	Change              Change // the last change of Enabled
	Created             time.Time
	LastEnabled         time.Time
	LastCheckedOK       time.Time // a successful check, a hand-out, or CheckedOK from an operator
	LastApprovalRequest time.Time
	LastCheckerStatus   int // exit status 0 to 255, CheckerCrashed or NeverChecked
	LastCheckerSignal   int // for CheckerCrashed: which signal; 0: killed, because it took too long

	// Grace is set while the client lives on extra time that it got because it
	// had expired while the server was down. It gets that only once: Grace is
	// cleared only by a successful check or by an operator.
	Grace bool
}

// A Status is what the rules know about a client. Its durations are readings of
// Instant.Elapsed.
type Status struct {
	Facts

	Deadline  time.Duration // when enabled: it gets no secret from here on
	WarnAt    time.Duration // when enabled: warn that its time is running out
	NextCheck time.Duration // when enabled: start a checker

	Decision      Decision
	DecisionUntil time.Duration

	Check       CheckState
	CannotCheck string // why the last check could not run; empty when it could
	Pending     int    // connections that wait for approval
}

// Describe says in words when, by whom and why the client was enabled or
// disabled.
func (f *Facts) Describe() string {
	what, by, why := "disabled at ", "", ""
	if f.Enabled {
		what = "enabled at "
	}
	if f.Change.By != "" {
		by = " by "
	}
	if f.Change.Why != "" {
		why = ": "
	}
	return what + stamp(f.Change.At) + by + f.Change.By + why + f.Change.Why
}

// lastCheck says in words when the client was last known to be up and how the
// last checker ended.
func (st *Status) lastCheck() string {
	if st.CannotCheck != "" {
		return st.Facts.lastCheck() + ", and the checker can't be run: " + st.CannotCheck
	}
	return st.Facts.lastCheck()
}

func (f *Facts) lastCheck() string {
	since := "no successful check yet"
	if !f.LastCheckedOK.IsZero() {
		since = "no successful check since " + stamp(f.LastCheckedOK)
	}
	switch f.LastCheckerStatus {
	case NeverChecked:
		return since + ", no checker has ended yet"
	case CheckerCrashed:
		if f.LastCheckerSignal == 0 {
			return since + ", last checker killed because it took too long"
		}
		return fmt.Sprintf("%s, last checker ended by signal %d", since, f.LastCheckerSignal)
	default:
		return fmt.Sprintf("%s, last checker exit status %d", since, f.LastCheckerStatus)
	}
}

// A Client is everything that the rules look at.
type Client struct {
	Settings Settings
	Status   Status
}

// lives reports whether the client is enabled and its time isn't up. Between
// the end of its time and the Tick that disables it, only an operator's Enable
// can give it more.
func (st *Status) lives(now Instant) bool { return st.Enabled && now.Elapsed < st.Deadline }

// Due returns the reading of Instant.Elapsed at which the client wants the
// next Tick, and false if it wants none.
func (c *Client) Due() (time.Duration, bool) {
	st := &c.Status
	due := never
	if st.Enabled {
		due = min(st.Deadline, st.WarnAt, st.NextCheck)
	}
	if st.Decision != Undecided {
		due = min(due, st.DecisionUntil)
	}
	return due, due != never
}

// CurrentDecision returns the operator's decision that is in force at now.
func (c *Client) CurrentDecision(now Instant) Decision {
	if now.Elapsed >= c.Status.DecisionUntil {
		return Undecided
	}
	return c.Status.Decision
}

// Eligible is the one place that decides whether c may have its secret at now:
// it returns nil, or why not. approved says that this caller was approved after
// waiting; a denial in force overrides it.
func (c *Client) Eligible(now Instant, approved bool) *Refusal {
	st := &c.Status
	switch {
	case !st.Enabled:
		return &Refusal{Disabled, st.Describe()}
	case now.Elapsed >= st.Deadline:
		return &Refusal{Expired, st.lastCheck()}
	case c.Settings.ApprovalDelay <= 0:
		return nil // approval is off: an operator's decision has no effect, as with Debian's server
	}
	switch c.CurrentDecision(now) {
	case Approved:
		return nil
	case Disapproved:
		return &Refusal{Denied, "an operator denied it"}
	}
	if !approved {
		return &Refusal{Denied, "not approved at this moment"}
	}
	return nil
}
