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
