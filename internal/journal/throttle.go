package journal

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A Throttle keeps peers that have proved nothing from filling the log. Of
// each event it passes some in a minute; the rest is counted, and the count
// reported when the minute is over.
type Throttle struct {
	log    *slog.Logger
	burst  int
	window time.Duration

	mu     sync.Mutex
	counts map[Event]int // since the window began
	timer  *time.Timer   // ends the window; nil while none is open
}

// NewThrottle returns a Throttle that passes burst entries of each event in
// a minute.
func NewThrottle(log *slog.Logger, burst int) *Throttle {
	return &Throttle{log: log, burst: burst, window: time.Minute, counts: make(map[Event]int)}
}

// Log logs e with attrs, or counts it.
func (t *Throttle) Log(ctx context.Context, e Event, attrs ...slog.Attr) {
	if !t.log.Enabled(ctx, e.Level) {
		return
	}
	t.mu.Lock()
	if t.timer == nil {
		t.timer = time.AfterFunc(t.window, t.Flush)
	}
	t.counts[e]++
	pass := t.counts[e] <= t.burst
	t.mu.Unlock()
	if pass {
		e.Log(ctx, t.log, attrs...)
	}
}

// Flush ends the window now: it reports what was suppressed.
func (t *Throttle) Flush() {
	t.mu.Lock()
	counts := t.counts
	t.counts = make(map[Event]int)
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.mu.Unlock()
	for e, n := range counts {
		if n > t.burst {
			Suppressed.Log(context.Background(), t.log, slog.Int("count", n-t.burst), slog.String("of", e.Text))
		}
	}
}
