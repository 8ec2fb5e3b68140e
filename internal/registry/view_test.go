package registry

import (
	"testing"
	"time"

	"mandos/internal/client"
)

// TestExpiresIsSteady: Expires reads the same each time, although the two
// clocks are never read at the same instant.
func TestExpiresIsSteady(t *testing.T) {
	clock := &jitteryClock{at: time.Now()}
	r, err := New(t.Context(), Options{Settings: []client.Settings{setting("a")}, Store: &MemoryStore{},
		Checker: &fakeChecker{}, Clock: clock, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := r.Get("a")
	for range 10 {
		again, _ := r.Get("a")
		if !again.Expires.Equal(first.Expires) || !again.NextCheck.Equal(first.NextCheck) {
			t.Fatalf("expires at %v and then at %v", first.Expires, again.Expires)
		}
	}
	if left := first.Expires.Sub(clock.at); left < 4*time.Minute || left > 5*time.Minute+time.Second {
		t.Errorf("expires in %v, want five minutes", left)
	}
}

// TestExpiresFarAhead: what an operator may set is shown as it is, though a
// Duration since 1970 couldn't hold it.
func TestExpiresFarAhead(t *testing.T) {
	const century = 100 * 365 * 24 * time.Hour // as long as can be set
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		for _, ev := range []client.Event{
			client.SetDuration{By: "a test", Property: client.PropInterval, Value: century},
			client.Disable{By: "a test"},
			client.Enable{By: "a test"}, // for two intervals
			client.SetDuration{By: "a test", Property: client.PropTimeout, Value: century},
		} {
			w.do("a", ev)
		}
		v, _ := w.Get("a")
		if now := w.clock.Now().Wall; v.Expires.Before(now.Add(2*century)) || !v.NextCheck.Equal(now.Add(century)) {
			t.Errorf("expires at %v, to be checked at %v", v.Expires, v.NextCheck)
		}
		w.restart()
		w.wantFetch('a', "secret of a")
	}, setting("a"))
}

// A jitteryClock's wall clock is read a little later each time.
type jitteryClock struct {
	at    time.Time
	reads time.Duration
}

func (c *jitteryClock) Now() client.Instant {
	c.reads++
	elapsed := c.reads * time.Millisecond
	return client.Instant{Wall: c.at.Add(elapsed + c.reads*time.Microsecond), Elapsed: elapsed}
}
