package client

import (
	"strings"
	"testing"
	"time"
)

// TestWhyDisabled checks what an operator is told about a client whose time ran
// out, for each way in which its last checker can have ended.
func TestWhyDisabled(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) Instant { return Instant{Wall: start.Add(d), Elapsed: d} }
	for name, tt := range map[string]struct {
		result *CheckResult
		want   string
	}{
		"none ended":  {nil, "no successful check yet, no checker has ended yet"},
		"exit status": {&CheckResult{ExitStatus: 1}, "no successful check yet, last checker exit status 1"},
		"a signal":    {&CheckResult{Signal: 15}, "no successful check yet, last checker ended by signal 15"},
		"timed out":   {&CheckResult{Signal: 9, TimedOut: true}, "no successful check yet, last checker killed because it took too long"},
		"a success":   {&CheckResult{}, "no successful check since 2026-11-22T12:00:01Z, last checker exit status 0"},
	} {
		t.Run(name, func(t *testing.T) {
			set := Settings{Name: "a", Enabled: true, Timeout: 5 * time.Minute, Interval: 2 * time.Minute}
			c, _ := New(set, at(0), 0)
			if tt.result != nil {
				c, _ = Step(c, at(0), Tick{})
				c, _ = Step(c, at(0), CheckerStarted{})
				c, _ = Step(c, at(time.Second), CheckerDone{Result: *tt.result})
			}
			c, _ = Step(c, at(time.Hour), Tick{})
			refusal := c.Eligible(at(time.Hour), true)
			if refusal == nil || refusal.Reason != Disabled || !strings.HasSuffix(refusal.Detail, ": "+tt.want) {
				t.Errorf("got %v, want the reason %q", refusal, tt.want)
			}
		})
	}
}
