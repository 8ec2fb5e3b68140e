package client

import (
	"time"

	"mandos/internal/journal"
)

// New returns the client of a section that was never seen before. spread, from
// 0 up to 1, says when within its interval the first checker starts.
func New(set Settings, now Instant, spread float64) (Client, []Effect) {
	s := step{c: Client{Settings: set}, now: now}
	st := &s.c.Status
	st.WarnAt, st.NextCheck = never, never
	st.Facts = Facts{
		Created:           now.Wall,
		Change:            Change{now.Wall, "clients.conf", "new client"},
		LastCheckerStatus: NeverChecked,
	}
	if set.Enabled {
		st.Enabled = true
		st.LastEnabled = now.Wall
		s.expires(set.Timeout)
		s.firstCheck(spread)
	}
	s.save(Now)
	s.log(journal.ClientNew, journal.Reason(st.Describe()))
	return s.c, s.effects
}

// firstCheck schedules the client's first checker: spread over the interval,
// but before the client's time is up.
func (s *step) firstCheck(spread float64) {
	st := &s.c.Status
	within := min(s.interval(), (st.Deadline-s.now.Elapsed)/2)
	st.NextCheck = s.in(time.Duration(spread * float64(within)))
}

// A Saved is a Status as it is stored.
type Saved struct {
	Facts
	At            time.Time // the wall clock when it was saved
	Expires       time.Time // when enabled
	Decision      Decision
	DecisionUntil time.Time // when decided
}

// Save returns the status of c as it is to be stored at now.
func (c *Client) Save(now Instant) Saved {
	st := &c.Status
	s := Saved{Facts: st.Facts, At: now.Wall}
	wall := func(elapsed time.Duration) time.Time { return now.Wall.Add(elapsed - now.Elapsed) }
	if st.Enabled {
		s.Expires = wall(st.Deadline)
	}
	if d := c.CurrentDecision(now); d != Undecided {
		s.Decision, s.DecisionUntil = d, wall(st.DecisionUntil)
	}
	return s
}

// Restore makes a client from what was saved. seen is the last instant at which
// the server is known to have run. The client gets at most the time that was
// left when it was saved, and none if the clock is behind an instant already
// seen.
//
// A client that expired while the server was down, and whose last check had
// succeeded, gets ExtendedTimeout once: time to boot after a site's power
// cut. It is checked first. Any other that expired is disabled.
func Restore(set Settings, saved Saved, seen time.Time, now Instant, spread float64) (Client, []Effect) {
	s := restore(set, saved, seen, now)
	st := &s.c.Status
	if st.Decision != saved.Decision {
		// It is over, whatever the clock says at the next start.
		s.save(Now)
	}
	switch {
	case !st.Enabled:
	case st.Deadline > now.Elapsed:
		st.WarnAt = max(st.Deadline-set.Timeout/4, now.Elapsed)
		s.firstCheck(spread)
	case saved.Expires.After(seen) && st.LastCheckerStatus == 0 && !st.LastCheckedOK.IsZero() && !st.Grace:
		st.Grace = true
		s.expires(set.ExtendedTimeout)
		st.NextCheck = now.Elapsed
		s.save(Now)
		s.log(journal.ClientGrace, journal.Reason("expired while the server was down; its last check had succeeded"), s.expiry())
	default:
		s.disable("", "time ran out at "+stamp(saved.Expires)+"; "+st.lastCheck())
	}
	return s.c, s.effects
}

// restore translates saved to the clock of now, without judging it: a
// deadline that isn't after now.Elapsed has passed.
func restore(set Settings, saved Saved, seen time.Time, now Instant) step {
	s := step{c: Client{Settings: set, Status: Status{Facts: saved.Facts, WarnAt: never, NextCheck: never}}, now: now}
	st := &s.c.Status
	behind := now.Wall.Before(saved.At) || now.Wall.Before(seen)
	// In one step: what is left, counted from when it was saved, and what has
	// gone since may each be more than a Duration holds. Sub stops at its limits.
	left := func(until time.Time) time.Duration { return until.Sub(now.Wall) }
	if st.Enabled {
		st.Deadline = now.Elapsed
		if d := left(saved.Expires); !behind && d > 0 {
			st.Deadline = s.in(d)
		}
	}
	if saved.Decision != Undecided {
		d := left(saved.DecisionUntil)
		if behind && saved.Decision == Disapproved {
			d = saved.DecisionUntil.Sub(saved.At)
		}
		if d > 0 && (!behind || saved.Decision == Disapproved) {
			st.Decision, st.DecisionUntil = saved.Decision, s.in(d)
		}
	}
	return s
}

// RestoreTombstone translates the status of a name or key that no client holds
// to the clock of now. If its time has run out meanwhile, it is disabled.
func RestoreTombstone(saved Saved, seen time.Time, now Instant) Status {
	s := restore(Settings{}, saved, seen, now)
	return s.c.Status.Tombstone(now)
}

// Tombstone returns what is kept of st for a name or key that no client holds
// any more, or that none has held until now. Of operators' decisions only a
// denial is kept.
func (st Status) Tombstone(now Instant) Status {
	b := Status{Facts: st.Facts, Deadline: st.Deadline, WarnAt: never, NextCheck: never}
	if st.Decision == Disapproved {
		b.Decision, b.DecisionUntil = st.Decision, st.DecisionUntil
	}
	if b.Enabled && b.Deadline <= now.Elapsed {
		b.Enabled, b.Deadline = false, 0
		b.Change = Change{At: now.Wall, Why: "time ran out while it was not configured; " + st.lastCheck()}
	}
	return b
}

// Inherit makes a client for set, whose name or keys have the statuses olds,
// the closest relation first; from says in words whose they were. The client is
// as restricted as the strictest of them, because only an operator may enable a
// client.
func Inherit(set Settings, olds []Status, from string, now Instant, spread float64) (Client, []Effect) {
	s := step{c: Client{Settings: set, Status: olds[0].Tombstone(now)}, now: now}
	st := &s.c.Status
	for _, old := range olds[1:] {
		old = old.Tombstone(now)
		if st.Enabled && !old.Enabled {
			st.Enabled, st.Change, st.Deadline = false, old.Change, 0
		}
		if st.Enabled {
			st.Deadline = min(st.Deadline, old.Deadline)
		}
		st.Grace = st.Grace || old.Grace
		if old.Decision == Disapproved {
			st.Decision, st.DecisionUntil = old.Decision, max(st.DecisionUntil, old.DecisionUntil)
		}
	}
	if st.Enabled {
		st.WarnAt = max(st.Deadline-set.Timeout/4, now.Elapsed)
		s.firstCheck(spread)
		if !set.Enabled {
			s.disable("clients.conf", "enabled = no")
		}
	}
	s.save(Now)
	s.log(journal.ClientInherits, journal.Reason(st.Describe()), journal.From(from))
	return s.c, s.effects
}

// Reconfigure gives c the settings set, from a new clients.conf. It may disable
// the client, but never enables it: that a line "enabled = no" has gone is not
// an operator's decision.
func Reconfigure(c Client, set Settings, now Instant, spread float64) (Client, []Effect) {
	old := c.Settings
	s := step{c: c, now: now}
	s.c.Settings = set
	st := &s.c.Status
	note := func(p Property, changed bool) {
		if changed {
			s.changed(p)
		}
	}
	note(PropTimeout, set.Timeout != old.Timeout)
	note(PropExtendedTimeout, set.ExtendedTimeout != old.ExtendedTimeout)
	note(PropInterval, set.Interval != old.Interval)
	note(PropApprovalDelay, set.ApprovalDelay != old.ApprovalDelay)
	note(PropApprovalDuration, set.ApprovalDuration != old.ApprovalDuration)
	note(PropApprovedByDefault, set.ApprovedByDefault != old.ApprovedByDefault)
	note(PropChecker, set.Checker != old.Checker)
	note(PropHost, set.Host != old.Host)
	note(PropSecret, !set.Secret.Equal(old.Secret))
	s.save(Now)
	if old.Enabled && !set.Enabled {
		s.disable("clients.conf", "enabled = no")
	}
	if st.lives(now) && set.Timeout != old.Timeout {
		s.moveDeadline(set.Timeout-old.Timeout, "clients.conf")
	}
	if st.Enabled && set.Interval != old.Interval {
		s.firstCheck(spread)
	}
	return s.c, s.effects
}
