package client

import (
	"slices"
	"testing"
	"time"
)

// TestRestoreTime: a client has the time that was left when it was saved, less
// what has passed; a clock that is behind any instant seen counts as if all of
// it had passed.
func TestRestoreTime(t *testing.T) {
	saved := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		seen, now time.Duration // after it was saved
		want      time.Duration // left; 0: disabled
	}{
		"at once":                    {0, 0, 5 * time.Minute},
		"a minute later":             {0, time.Minute, 4 * time.Minute},
		"as late as can be":          {0, 5*time.Minute - 1, 1},
		"too late":                   {0, 5 * time.Minute, 0},
		"before it was saved":        {0, -1, 0},
		"between saved and seen":     {20 * time.Second, 10 * time.Second, 0},
		"just when it was seen":      {20 * time.Second, 20 * time.Second, 280 * time.Second},
		"long before it was saved":   {0, -24 * time.Hour, 0},
		"expired when it was seen":   {6 * time.Minute, 7 * time.Minute, 0},
		"a clock set back that far ": {6 * time.Minute, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			set := Settings{Name: "a", Enabled: true, Timeout: 5 * time.Minute, Interval: 2 * time.Minute}
			s := Saved{
				Facts:   Facts{Enabled: true, Created: saved, LastCheckerStatus: NeverChecked},
				At:      saved,
				Expires: saved.Add(5 * time.Minute),
			}
			now := Instant{Wall: saved.Add(tt.now), Elapsed: time.Hour}
			c, _ := Restore(set, s, saved.Add(tt.seen), now, 0)
			if tt.want == 0 {
				if refusal := c.Eligible(now, true); refusal == nil || refusal.Reason != Disabled {
					t.Errorf("is eligible: %v", refusal)
				}
				return
			}
			if got := c.Status.Deadline - now.Elapsed; !c.Status.Enabled || got != tt.want {
				t.Errorf("enabled %v, with %v left, want %v", c.Status.Enabled, got, tt.want)
			}
		})
	}
}

// TestGraceIsForDowntime: time to boot is for clients that expired while the
// server was down, after a successful check; and only once.
func TestGraceIsForDowntime(t *testing.T) {
	saved := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	good := Facts{Enabled: true, Created: saved, LastCheckedOK: saved}
	for name, tt := range map[string]struct {
		change func(*Facts)
		seen   time.Duration // after it was saved; it expired five minutes after
		want   bool
	}{
		"down when it expired":         {func(*Facts) {}, time.Minute, true},
		"up when it expired":           {func(*Facts) {}, 6 * time.Minute, false},
		"up at the instant":            {func(*Facts) {}, 5 * time.Minute, false},
		"last check failed":            {func(f *Facts) { f.LastCheckerStatus = 1 }, time.Minute, false},
		"no check has ended":           {func(f *Facts) { f.LastCheckerStatus = NeverChecked }, time.Minute, false},
		"never seen well":              {func(f *Facts) { f.LastCheckedOK = time.Time{} }, time.Minute, false},
		"had it before":                {func(f *Facts) { f.Grace = true }, time.Minute, false},
		"disabled before it was saved": {func(f *Facts) { f.Enabled = false }, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			set := Settings{Name: "a", Enabled: true, Timeout: 5 * time.Minute, ExtendedTimeout: 15 * time.Minute, Interval: 2 * time.Minute}
			facts := good
			tt.change(&facts)
			now := Instant{Wall: saved.Add(time.Hour), Elapsed: time.Hour}
			c, effects := Restore(set, Saved{Facts: facts, At: saved, Expires: saved.Add(5 * time.Minute)}, saved.Add(tt.seen), now, 0)
			if c.Status.Enabled != tt.want || c.Status.Enabled && c.Status.Deadline != now.Elapsed+15*time.Minute {
				t.Errorf("enabled %v until %v", c.Status.Enabled, c.Status.Deadline)
			}
			// What was decided is to be on disk before anybody hears of it.
			if decided := facts.Enabled; slices.Contains(effects, Effect(Save{Now})) != decided {
				t.Errorf("decided: %v; effects: %v", decided, effects)
			}
		})
	}
}

// TestRestoreAges: no time left is too long, and none too long over, to be
// counted. A Duration holds 292 years, less than there are between two Times.
func TestRestoreAges(t *testing.T) {
	saved := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	now := Instant{Wall: saved.Add(time.Minute), Elapsed: time.Hour}
	set := Settings{Name: "a", Enabled: true, Timeout: 5 * time.Minute, Interval: 2 * time.Minute, ApprovalDelay: time.Second}
	for name, tt := range map[string]struct {
		until time.Time
		lasts bool
	}{
		"never":                {time.Time{}, false},
		"a thousand years ago": {saved.AddDate(-1000, 0, 0), false},
		"in a thousand years":  {saved.AddDate(1000, 0, 0), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := Saved{
				Facts: Facts{Enabled: true, LastCheckerStatus: NeverChecked}, At: saved, Expires: tt.until,
				Decision: Approved, DecisionUntil: tt.until,
			}
			c, _ := Restore(set, s, saved, now, 0)
			if c.Status.Enabled != tt.lasts {
				t.Error(c.Status.Describe())
			}
			if ts := RestoreTombstone(s, saved, now); ts.Enabled != tt.lasts {
				t.Errorf("a tombstone: %s", ts.Describe())
			}
			if approved := c.CurrentDecision(now) == Approved; approved != tt.lasts {
				t.Errorf("approved: %v", approved)
			}
			later := Instant{Wall: now.Wall.Add(time.Hour), Elapsed: now.Elapsed + time.Hour}
			if c.Status.lives(later) != tt.lasts {
				t.Errorf("an hour later it has %v left", c.Status.Deadline-later.Elapsed)
			}
		})
	}
}
