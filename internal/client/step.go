package client

import (
	"log/slog"
	"strconv"
	"time"

	"mandos/internal/journal"
)

// Step applies ev to c at now, and returns the client after it and what is to
// be done. It has no other effect. A caller that can't carry out Save{Now}
// keeps the old client, unless the new one is only stricter.
func Step(c Client, now Instant, ev Event) (Client, []Effect) {
	s := step{c: c, now: now}
	ev.apply(&s)
	return s.c, s.effects
}

// A step is a Step in progress.
type step struct {
	c       Client
	now     Instant
	effects []Effect
}

func (s *step) do(e ...Effect)                          { s.effects = append(s.effects, e...) }
func (s *step) notify(n Notice)                         { s.do(Notify{n}) }
func (s *step) save(when Urgency)                       { s.do(Save{when}) }
func (s *step) log(e journal.Event, attrs ...slog.Attr) { s.do(Log{e, attrs}) }
func (s *step) in(d time.Duration) time.Duration        { return after(s.now.Elapsed, d) }

func (s *step) changed(ps ...Property) {
	for _, p := range ps {
		s.notify(PropertyChanged{p})
	}
}

// interval is the time between starts of the checker: at least a second, so
// that no setting keeps the server busy with one client.
func (s *step) interval() time.Duration { return max(s.c.Settings.Interval, time.Second) }

// expires sets the deadline to now + d, and the warning to when a quarter
// of d is left. It returns whether the deadline moved nearer.
func (s *step) expires(d time.Duration) (nearer bool) {
	old := s.c.Status.Deadline
	s.c.Status.Deadline = s.in(d)
	s.c.Status.WarnAt = s.in(d - d/4)
	return s.c.Status.Deadline < old
}

// disable makes the client ineligible.
func (s *step) disable(by, why string) {
	st := &s.c.Status
	if !st.Enabled {
		return
	}
	st.Enabled = false
	st.Change = Change{s.now.Wall, by, why}
	st.Deadline, st.WarnAt, st.NextCheck = 0, never, never
	st.CannotCheck = ""
	s.save(Now)
	s.log(journal.ClientDisabled, journal.Reason(st.Describe()))
	s.changed(PropExpires)
	s.stopChecker()
	s.changed(PropEnabled)
}

func (s *step) stopChecker() {
	st := &s.c.Status
	was := st.Check
	if was == Idle {
		return
	}
	st.Check = Idle
	s.do(StopChecker{})
	if was == Running {
		s.changed(PropCheckerRunning)
	}
}

func (s *step) startChecker() {
	if s.c.Status.Check == Idle {
		s.c.Status.Check = Queued
		s.do(RunChecker{})
	}
}

func (Tick) apply(s *step) {
	st := &s.c.Status
	if st.Decision != Undecided && s.now.Elapsed >= st.DecisionUntil {
		st.Decision, st.DecisionUntil = Undecided, 0
	}
	if !st.Enabled {
		return
	}
	if s.now.Elapsed >= st.Deadline {
		s.disable("", st.lastCheck())
		return
	}
	if s.now.Elapsed >= st.WarnAt {
		st.WarnAt = never
		s.log(journal.ClientExpiresSoon, journal.Reason(st.lastCheck()), s.expiry())
	}
	if s.now.Elapsed >= st.NextCheck {
		// Count from when it was due, so that delays don't add up; but whole
		// intervals that were missed are not made up for.
		st.NextCheck = after(st.NextCheck, s.interval())
		if st.NextCheck <= s.now.Elapsed {
			st.NextCheck = s.in(s.interval())
		}
		s.startChecker()
	}
}

// expiry returns the log attribute that says when the client will be disabled.
func (s *step) expiry() slog.Attr {
	return journal.Expires(s.now.Wall.Add(s.c.Status.Deadline - s.now.Elapsed))
}

func (ev CheckerStarted) apply(s *step) {
	if s.c.Status.Check != Queued {
		return
	}
	s.c.Status.Check = Running
	s.changed(PropCheckerRunning)
	s.notify(CheckerStartedNotice(ev))
}

func (ev CheckerDone) apply(s *step) {
	st := &s.c.Status
	if st.Check == Idle {
		return // it was stopped: that says nothing about the client
	}
	st.Check = Idle
	st.CannotCheck = ""
	s.changed(PropCheckerRunning)

	wasFailing := st.LastCheckerStatus != 0 && st.LastCheckerStatus != NeverChecked
	signal := ev.Result.Signal
	if ev.Result.TimedOut {
		signal = 0 // it was ours; the checker didn't die by itself
	}
	s.lastChecker(ev.Result.Status(), signal)

	if ev.Result.OK() {
		s.checkedOK()
	} else if !wasFailing && st.Enabled {
		s.log(journal.CheckFailed, journal.Reason(st.lastCheck()), s.expiry())
	}
	// Whether the last check succeeded decides what happens to a client that
	// expires while the server is down.
	urgency := Lazily
	if wasFailing == ev.Result.OK() {
		urgency = Soon
	}
	s.save(urgency)
	s.notify(CheckerCompleted(ev))
}

func (s *step) lastChecker(status, signal int) {
	st := &s.c.Status
	if status != st.LastCheckerStatus {
		s.changed(PropLastCheckerStatus)
	}
	st.LastCheckerStatus, st.LastCheckerSignal = status, signal
}

// checkedOK notes a successful check, by a checker or by an operator, who
// overrules the last checker.
func (s *step) checkedOK() {
	s.seenWell()
	s.lastChecker(0, 0)
	s.c.Status.Grace = false
	s.livesFor(s.c.Settings.Timeout)
}

func (s *step) seenWell() {
	s.c.Status.LastCheckedOK = s.now.Wall
	s.changed(PropLastCheckedOK)
}

// livesFor gives the client the time d, unless its time is up.
func (s *step) livesFor(d time.Duration) {
	st := &s.c.Status
	urgency := Lazily
	if st.lives(s.now) {
		if s.expires(d) {
			urgency = Soon
		}
		s.changed(PropExpires)
	}
	s.save(urgency)
}

func (ev CheckerNotRun) apply(s *step) {
	st := &s.c.Status
	was := st.Check
	if was == Idle {
		return
	}
	st.Check = Idle
	st.CannotCheck = ev.Why
	if st.Enabled {
		retry := min(max(s.interval()/8, time.Second), 15*time.Second)
		st.NextCheck = min(st.NextCheck, s.in(retry))
	}
	if was == Running {
		s.changed(PropCheckerRunning)
	}
}

// HandedOut counts as a successful check, but neither earns nor clears Grace.
// Debian's server leaves LastCheckedOK alone, though its manual says the same.
func (HandedOut) apply(s *step) {
	s.seenWell()
	s.livesFor(s.c.Settings.ExtendedTimeout)
	s.notify(GotSecret{})
}

func (Connect) apply(s *step) {
	st := &s.c.Status
	st.Pending++
	if st.Pending == 1 {
		s.changed(PropApprovalPending)
	}
	st.LastApprovalRequest = s.now.Wall
	s.changed(PropLastApprovalRequest)
	s.save(Lazily)
	s.log(journal.ApprovalNeeded)
	s.notify(NeedApproval{s.c.Settings.ApprovalDelay, s.c.Settings.ApprovedByDefault})
}

func (Disconnect) apply(s *step) {
	st := &s.c.Status
	st.Pending--
	if st.Pending == 0 {
		s.changed(PropApprovalPending)
	}
}

// Enable starts the first checker after a full interval and gives the client
// two, as Debian's server does.
func (ev Enable) apply(s *step) {
	st := &s.c.Status
	if st.lives(s.now) {
		return
	}
	st.Enabled = true
	st.Grace = false
	st.LastEnabled = s.now.Wall
	st.Change = Change{At: s.now.Wall, By: ev.By}
	st.NextCheck = s.in(s.interval())
	s.expires(2 * s.interval())
	s.save(Now)
	s.log(journal.ClientEnabled, journal.Reason(st.Describe()), s.expiry())
	s.changed(PropEnabled, PropLastEnabled, PropExpires)
}

func (ev Disable) apply(s *step) {
	if s.c.Status.Enabled {
		s.disable(ev.By, ev.Why)
	} else {
		s.save(Now) // what has disabled it before may not have been saved
	}
}

func (ev Approve) apply(s *step) { s.decide(Approved, ev.By, journal.ClientApproved) }
func (ev Deny) apply(s *step)    { s.decide(Disapproved, ev.By, journal.ClientDenied) }

func (s *step) decide(d Decision, by string, e journal.Event) {
	s.c.Status.Decision = d
	s.c.Status.DecisionUntil = s.in(s.c.Settings.ApprovalDuration)
	s.save(Now)
	attrs := []slog.Attr{journal.Actor(by)}
	if s.c.Settings.ApprovalDelay <= 0 { // see Eligible
		attrs = append(attrs, journal.Reason("without effect: its approval_delay is 0, so it needs no approval"))
	}
	s.log(e, attrs...)
}

func (ev CheckedOK) apply(s *step) {
	s.checkedOK()
	s.save(Now) // an operator is told that it was done
	s.log(journal.ClientVouched, journal.Actor(ev.By))
}

func (StartChecker) apply(s *step) { s.startChecker() }
func (StopChecks) apply(s *step)   { s.stopChecker() }

func (ev SetDuration) apply(s *step) {
	set, st := &s.c.Settings, &s.c.Status
	var field *time.Duration
	switch ev.Property {
	case PropTimeout:
		field = &set.Timeout
	case PropExtendedTimeout:
		field = &set.ExtendedTimeout
	case PropInterval:
		field = &set.Interval
	case PropApprovalDelay:
		field = &set.ApprovalDelay
	case PropApprovalDuration:
		field = &set.ApprovalDuration
	default:
		return
	}
	old := *field
	if old != ev.Value {
		*field = ev.Value
		s.set(ev.By, ev.Property, old.String(), ev.Value.String())
	}
	switch {
	case !st.lives(s.now):
	case ev.Property == PropTimeout && old != ev.Value:
		s.moveDeadline(ev.Value-old, ev.By)
	case ev.Property == PropInterval: // even to the same value: with Debian's server, that is how an operator asks for a check
		st.NextCheck = s.in(s.interval())
		s.startChecker()
	}
}

// moveDeadline makes the client live longer or shorter by d; if that ends its
// time, it is disabled at once.
func (s *step) moveDeadline(d time.Duration, by string) {
	st := &s.c.Status
	st.Deadline = after(st.Deadline, d)
	if st.Deadline <= s.now.Elapsed {
		s.disable(by, "the timeout was shortened; "+st.lastCheck())
		return
	}
	st.WarnAt = st.Deadline - s.c.Settings.Timeout/4
	s.changed(PropExpires)
}

func (ev SetText) apply(s *step) {
	var field *string
	switch ev.Property {
	case PropHost:
		field = &s.c.Settings.Host
	case PropChecker:
		field = &s.c.Settings.Checker
	default:
		return
	}
	if old := *field; old != ev.Value {
		*field = ev.Value
		s.set(ev.By, ev.Property, old, ev.Value)
	}
}

func (ev SetApprovedByDefault) apply(s *step) {
	if old := s.c.Settings.ApprovedByDefault; old != ev.Value {
		s.c.Settings.ApprovedByDefault = ev.Value
		s.set(ev.By, PropApprovedByDefault, strconv.FormatBool(old), strconv.FormatBool(ev.Value))
	}
}

func (ev SetSecret) apply(s *step) {
	if s.c.Settings.Secret.Equal(ev.Value) {
		s.save(Now) // that it was set at run time is new, though its value isn't
		return
	}
	s.c.Settings.Secret = ev.Value
	s.set(ev.By, PropSecret, "", "")
}

// set saves, logs and announces a changed setting.
func (s *step) set(by string, p Property, from, to string) {
	s.save(Now)
	s.log(journal.ClientChanged, journal.Actor(by), journal.Setting(string(p)), journal.From(from), journal.To(to))
	s.changed(p)
}
