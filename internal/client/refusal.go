package client

// A Reason is why a client gets no secret. Its text is stable: it goes into
// the journal and over D-Bus.
type Reason string

// The reasons. "Disabled", "Denied" and "Approval timed out" are the words
// of Debian's D-Bus signal Rejected.
const (
	Unknown          Reason = "Unknown"
	Disabled         Reason = "Disabled"
	Denied           Reason = "Denied"
	ApprovalTimedOut Reason = "Approval timed out"
	Expired          Reason = "Expired"          // time is up, though the timer hasn't said so yet
	TooManyWaiting   Reason = "Too many waiting" // newer connections wait for approval
	Faulty           Reason = "Faulty"           // the server can't vouch for its own state
)

// A Refusal is the error of everything that keeps a secret from a client.
type Refusal struct {
	Reason Reason
	Detail string // for the operator: since when, by whom; may be empty
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return string(r.Reason)
	}
	return string(r.Reason) + ": " + r.Detail
}
