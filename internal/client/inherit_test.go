package client

import (
	"strings"
	"testing"
	"time"
)

// TestInherit: what comes back under a known name or key is as restricted as
// the strictest of those it inherits from, whichever comes first.
func TestInherit(t *testing.T) {
	now := Instant{Wall: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Elapsed: time.Hour}
	set := Settings{Timeout: 5 * time.Minute, Interval: 2 * time.Minute, ApprovalDelay: time.Second, Enabled: true}
	enabled := func(left time.Duration) Status {
		return Status{Facts: Facts{Enabled: true}, Deadline: now.Elapsed + left}
	}
	disabled := Status{Facts: Facts{Change: Change{At: now.Wall, By: "an operator"}}}
	denied := enabled(time.Minute)
	denied.Decision, denied.DecisionUntil = Disapproved, now.Elapsed+30*time.Second
	approved := enabled(time.Minute)
	approved.Decision, approved.DecisionUntil = Approved, now.Elapsed+30*time.Second
	graced := enabled(time.Minute)
	graced.Grace = true

	for name, tt := range map[string]struct {
		with     Status // beside one that is enabled for two minutes
		disabled string // what the reason says; empty: it is enabled
		left     time.Duration
		decision Decision
		grace    bool
	}{
		"a disabled one":          {with: disabled, disabled: "an operator"},
		"one with less time":      {with: enabled(time.Second), left: time.Second},
		"one with more time":      {with: enabled(time.Hour), left: 2 * time.Minute},
		"one whose time is up":    {with: enabled(0), disabled: "time ran out"},
		"a denied one":            {with: denied, left: time.Minute, decision: Disapproved},
		"an approved one":         {with: approved, left: time.Minute},
		"one that lives on grace": {with: graced, left: time.Minute, grace: true},
	} {
		for order, olds := range map[string][]Status{
			"first":  {tt.with, enabled(2 * time.Minute)},
			"second": {enabled(2 * time.Minute), tt.with},
		} {
			t.Run(name+"/"+order, func(t *testing.T) {
				c, effects := Inherit(set, olds, "a test", now, 0.5)
				st := &c.Status
				if st.Enabled != (tt.disabled == "") || !strings.Contains(st.Describe(), tt.disabled) {
					t.Errorf("it is %s; want disabled: %q", st.Describe(), tt.disabled)
				}
				if left := st.Deadline - now.Elapsed; st.Enabled && left != tt.left {
					t.Errorf("%v are left, want %v", left, tt.left)
				}
				if d := c.CurrentDecision(now); d != tt.decision {
					t.Errorf("the decision is %v, want %v", d, tt.decision)
				}
				if st.Grace != tt.grace {
					t.Errorf("grace is %v, want %v", st.Grace, tt.grace)
				}
				if !contains(effects, Save{Now}) {
					t.Errorf("it isn't saved at once: %v", effects)
				}
			})
		}
	}
}

func contains(effects []Effect, want Save) bool {
	for _, e := range effects {
		if save, ok := e.(Save); ok && save == want {
			return true
		}
	}
	return false
}
