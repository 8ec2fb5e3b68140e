package client

import (
	"log/slog"
	"time"

	"mandos/internal/journal"
)

// An Effect is something that the rules want done: Save, RunChecker,
// StopChecker, Notify or Log. Effects are carried out in their order; the
// client's timer follows from Due.
type Effect interface{ effect() }

// Save asks for the client to be written to the state file.
type Save struct{ When Urgency }

// An Urgency says when something has to be on disk.
type Urgency uint8

// The urgencies.
const (
	Lazily Urgency = iota // within a second: losing it makes the client expire earlier
	Soon                  // at once, but nobody waits for it: losing it may let the client live longer
	Now                   // before anybody hears of it or acts on it
)

// RunChecker asks for the checker to be started when its turn comes. It is
// followed by CheckerStarted and CheckerDone, or by CheckerNotRun.
type RunChecker struct{}

// StopChecker asks for a queued checker to be dropped and a running one to be
// killed with everything it started. No CheckerDone follows.
type StopChecker struct{}

// Log asks for an entry in the journal.
type Log struct {
	Event journal.Event
	Attrs []slog.Attr // besides the client's name
}

// Notify tells those who follow the client about one change or event.
type Notify struct{ Notice Notice }

func (Save) effect()        {}
func (RunChecker) effect()  {}
func (StopChecker) effect() {}
func (Log) effect()         {}
func (Notify) effect()      {}

// A Notice is one of PropertyChanged, CheckerStartedNotice, CheckerCompleted,
// GotSecret, NeedApproval and RejectedNotice. They come in the order in which
// Debian's server sends its D-Bus signals.
type Notice interface{ notice() }

// A Property is a value of a client that others can see. Its text is the
// name of the D-Bus property.
type Property string

// The properties that can change.
const (
	PropApprovalDelay       Property = "ApprovalDelay"
	PropApprovalDuration    Property = "ApprovalDuration"
	PropApprovalPending     Property = "ApprovalPending"
	PropApprovedByDefault   Property = "ApprovedByDefault"
	PropChecker             Property = "Checker"
	PropCheckerRunning      Property = "CheckerRunning"
	PropEnabled             Property = "Enabled"
	PropExpires             Property = "Expires"
	PropExtendedTimeout     Property = "ExtendedTimeout"
	PropHost                Property = "Host"
	PropInterval            Property = "Interval"
	PropLastApprovalRequest Property = "LastApprovalRequest"
	PropLastCheckedOK       Property = "LastCheckedOK"
	PropLastCheckerStatus   Property = "LastCheckerStatus"
	PropLastEnabled         Property = "LastEnabled"
	PropSecret              Property = "Secret" // that it changed; the value is never published
	PropTimeout             Property = "Timeout"
)

// PropertyChanged says that a property has a new value.
type PropertyChanged struct{ Property Property }

// CheckerStartedNotice says that a checker was started.
type CheckerStartedNotice struct{ Command string }

// CheckerCompleted says how a checker ended.
type CheckerCompleted struct {
	Command string
	Result  CheckResult
}

// GotSecret says that the whole secret was written to the client.
type GotSecret struct{}

// NeedApproval says that a connection waits for an operator's decision.
type NeedApproval struct {
	Delay   time.Duration // how long it waits
	Default bool          // whether it is approved then
}

// RejectedNotice says that a connection was refused the secret.
type RejectedNotice struct{ Reason Reason }

func (PropertyChanged) notice()      {}
func (CheckerStartedNotice) notice() {}
func (CheckerCompleted) notice()     {}
func (GotSecret) notice()            {}
func (NeedApproval) notice()         {}
func (RejectedNotice) notice()       {}

// A CheckResult is how a checker that did run ended.
type CheckResult struct {
	ExitStatus int    // 0 to 255; meaningless if a signal ended it
	Signal     int    // the signal, or 0
	TimedOut   bool   // it was killed because its time was up
	Output     string // what it wrote, cut short, control characters escaped; for the journal only
}

// Status returns the result as a value of LastCheckerStatus.
func (r CheckResult) Status() int {
	if r.Signal != 0 || r.TimedOut {
		return CheckerCrashed
	}
	return r.ExitStatus
}

// OK reports whether the checker found the client up.
func (r CheckResult) OK() bool { return r.Status() == 0 }
