package lab_test

import (
	"fmt"
	"testing"
	"time"
)

// What TestTorture knows of clients from outside, and the rules by which it
// judges what it sees. All times are by elapsed.

const (
	never = time.Duration(1<<63 - 1)
	// slack is between what we see and what is so.
	slack = 5 * time.Second
	// inFlight is how long after its host went down a check that had begun
	// before may still end well: the checker's limit, the time to kill it, and
	// what a stopped server or helper adds.
	inFlight = 45 * time.Second
)

// A bar is a time in which the client must not get its secret.
type bar struct {
	from, to time.Duration // sessions that begin after from and end before to
	why      string
}

// A state is what is known of Enabled.
type state int

const (
	unknown  state = iota // an operator's command had no answer
	enabled               // and it may have expired
	disabled              // and stays so
)

// An approval is an operator's word.
type approval struct{ asked, done time.Duration }

// A known client is one as it is known from outside.
type known struct {
	name                         string
	timeout, extended, interval  time.Duration
	approvalDuration             time.Duration // 0: needs no approval
	host                         string        // the address that is checked
	configured, asks, up, wanted bool          // wanted: an operator wants it enabled
	silent                       bool          // it never asks
	removed                      bool          // by an operator, though it is in clients.conf
	state                        state
	bars                         []bar // the last one may be open
	approvals                    []approval
	served, refused              time.Duration // begin of the last session that ended so
	base                         time.Duration // while it is down: when its time ends at the latest
	limit                        time.Duration // and with the time to boot that it may get once
}

func (c *known) barred() bool { return len(c.bars) > 0 && c.bars[len(c.bars)-1].to == never }

// bar begins a time in which c must not get its secret, unless one has begun.
func (c *known) bar(from time.Duration, why string) {
	if !c.barred() {
		c.bars = append(c.bars, bar{from, never, why})
	}
}

// unbar ends it.
func (c *known) unbar(to time.Duration) {
	if c.barred() {
		c.bars[len(c.bars)-1].to = to
	}
}

// judge returns what is wrong with an attempt, or "".
func (c *known) judge(a attempt) string {
	switch {
	case a.refused:
		c.refused = max(c.refused, a.begun)
		return ""
	case !a.got:
		if len(a.text) > 5 && a.text[:5] == "wrong" {
			return "a wrong secret: " + a.String()
		}
		return ""
	}
	c.served = max(c.served, a.begun)
	for _, b := range c.bars {
		if a.begun > b.from && a.end < b.to {
			return fmt.Sprintf("promise 1 is broken: %s, but it may not since %v: %s", a, b.from, b.why)
		}
	}
	if c.approvalDuration == 0 {
		return ""
	}
	for _, p := range c.approvals {
		if p.asked <= a.end && (p.done == never || a.begun <= p.done+c.approvalDuration+slack) {
			return ""
		}
	}
	return fmt.Sprintf("promise 1 is broken: %s, but no operator approved", a)
}

// saw takes note of the property Enabled that was asked for at asked and
// known at now. excuse says why a client that is up may have expired, "" that
// it may not.
func (c *known) saw(is bool, asked, now time.Duration, excuse string) string {
	switch {
	case is && c.state == disabled:
		return fmt.Sprintf("promise 2 is broken: %s is enabled, but was disabled, and no operator enabled it (%v)", c.name, c.bars)
	case is && !c.up && asked > c.limit:
		return fmt.Sprintf("%s is enabled, but its time was up at %v", c.name, c.limit)
	case is:
		c.state = enabled
		return ""
	}
	was := c.state
	c.state = disabled
	c.bar(now, "it was seen to be disabled")
	if was == enabled && c.up && excuse == "" {
		return fmt.Sprintf("%s is disabled, but nobody disabled it, and its host was up", c.name)
	}
	return ""
}

// down notes that c's host is down since at, when nothing asked for it any
// more.
func (c *known) down(at time.Duration) {
	c.up = false
	c.base = max(at+inFlight+c.timeout, c.served+c.extended+slack)
	c.limit = c.base
}

// restarted notes that the server was down at some time between from and to.
func (c *known) restarted(from, to time.Duration) {
	if !c.up && from <= c.base {
		c.limit = max(c.limit, to+c.extended+slack)
	}
}

// mayEnable notes that an operator's command that enables c is given.
func (c *known) mayEnable(at time.Duration) {
	c.wanted = true
	c.unbar(at)
	if c.state == disabled {
		c.state = unknown
	}
}

// enabledBy notes that it was carried out.
func (c *known) enabledBy(at time.Duration) {
	c.state = enabled
	if !c.up {
		c.base = max(c.base, at+2*c.interval+slack)
		c.limit = max(c.limit, c.base)
	}
}

// mayDisable notes that an operator's command that disables c is given.
func (c *known) mayDisable() {
	c.wanted = false
	if c.state == enabled {
		c.state = unknown
	}
}

func (c *known) disabledBy(at time.Duration) {
	c.state = disabled
	c.bar(at, "an operator disabled it")
}

// The model finds what it must and excuses what it may.
func TestTortureModel(t *testing.T) {
	const s = time.Second
	got := func(begun, end time.Duration) attempt {
		return attempt{client: "a", begun: begun, end: end, got: true, text: "got"}
	}
	a := func() *known {
		return &known{name: "a", timeout: 10 * s, extended: 20 * s, interval: 3 * s, up: true, configured: true, state: enabled, wanted: true}
	}
	for name, test := range map[string]struct {
		want bool // a broken promise
		run  func(c *known) string
	}{
		"enabled": {false, func(c *known) string { return c.judge(got(1*s, 2*s)) }},
		"disabled": {true, func(c *known) string {
			c.mayDisable()
			c.disabledBy(10 * s)
			return c.judge(got(11*s, 12*s))
		}},
		"begun before": {false, func(c *known) string {
			c.mayDisable()
			c.disabledBy(10 * s)
			return c.judge(got(9*s, 12*s))
		}},
		"no answer": {false, func(c *known) string {
			c.mayDisable()
			return c.judge(got(11*s, 12*s)) + c.saw(true, 13*s, 14*s, "") + c.saw(true, 15*s, 16*s, "")
		}},
		"no answer, then seen disabled, then not": {true, func(c *known) string {
			c.mayDisable()
			return c.saw(false, 13*s, 14*s, "") + c.saw(true, 15*s, 16*s, "")
		}},
		"enabled again": {false, func(c *known) string {
			c.disabledBy(10 * s)
			c.mayEnable(20 * s)
			return c.judge(got(19*s, 21*s)) + c.saw(true, 22*s, 23*s, "")
		}},
		"between": {true, func(c *known) string {
			c.disabledBy(10 * s)
			c.mayEnable(20 * s)
			return c.judge(got(18*s, 19*s))
		}},
		"enabled by itself":  {true, func(c *known) string { c.disabledBy(10 * s); return c.saw(true, 11*s, 12*s, "") }},
		"disabled by itself": {true, func(c *known) string { return c.saw(false, 11*s, 12*s, "") }},
		"excused":            {false, func(c *known) string { return c.saw(false, 11*s, 12*s, "it was off") }},
		"down for long":      {true, func(c *known) string { c.down(0); return c.saw(true, 56*s, 57*s, "") }},
		"down for a while":   {false, func(c *known) string { c.down(0); return c.saw(true, 54*s, 57*s, "") }},
		"down, time to boot": {false, func(c *known) string { c.down(0); c.restarted(50*s, 60*s); return c.saw(true, 80*s, 80*s, "") }},
		"time to boot twice": {true, func(c *known) string {
			c.down(0)
			c.restarted(50*s, 60*s)
			c.restarted(70*s, 80*s)
			return c.saw(true, 90*s, 90*s, "")
		}},
		"down, enabled": {false, func(c *known) string {
			c.down(0)
			c.mayEnable(100 * s)
			c.enabledBy(101 * s)
			return c.saw(true, 105*s, 106*s, "")
		}},
		"not approved": {true, func(c *known) string { c.approvalDuration = s; return c.judge(got(1*s, 2*s)) }},
		"approved": {false, func(c *known) string {
			c.approvalDuration = s
			c.approvals = []approval{{s, 2 * s}}
			return c.judge(got(0, 2*s)) + c.judge(got(3*s, 4*s))
		}},
		"approved long ago": {true, func(c *known) string {
			c.approvalDuration = s
			c.approvals = []approval{{s, 2 * s}}
			return c.judge(got(9*s, 10*s))
		}},
		"wrong": {true, func(c *known) string { return c.judge(attempt{client: "a", text: `wrong: "x"`}) }},
	} {
		if got := test.run(a()); (got != "") != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
