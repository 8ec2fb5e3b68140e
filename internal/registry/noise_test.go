package registry

import (
	"strings"
	"testing"
	"time"
)

// TestStrangers: peers with unknown keys can't fill the log.
func TestStrangers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		for range strangers + 5 {
			if got := w.fetch('x'); got != "Unknown" {
				t.Fatalf("a stranger got %q", got)
			}
		}
		if n := strings.Count(w.logged(), "refused a peer with an unknown key"); n != strangers {
			t.Errorf("%d of them are logged, want %d", n, strangers)
		}
		sleep(time.Minute)
		if got := w.logged(); !strings.Contains(got, "suppressed entries of one kind") || !strings.Contains(got, "count=5") {
			t.Errorf("the others are not counted: %s", got)
		}
	}, setting("a"))
}
