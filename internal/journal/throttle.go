package journal

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A Throttle keeps peers from filling the log. Of each kind of entry it passes
// a few per minute; the rest are counted, and their number is logged when the
// minute is over.
type Throttle struct {
	log    *slog.Logger
	burst  int
	window time.Duration

	mu     sync.Mutex
	counts map[kind]int // since the window began
	timer  *time.Timer  // ends the window; nil while none is open
}

// A kind is a kind of entries: those of one event and, if they have them, of
// one client and reason.
type kind struct {
	event          Event
	client, reason string
}

// NewThrottle returns a Throttle that passes burst entries of each kind per
// minute.
func NewThrottle(log *slog.Logger, burst int) *Throttle {
	return &Throttle{log: log, burst: burst, window: time.Minute, counts: make(map[kind]int)}
}

// Log logs e with attrs, or counts it. It reports whether e has passed.
func (t *Throttle) Log(ctx context.Context, e Event, attrs ...slog.Attr) (passed bool) {
	return t.pass(ctx, kind{event: e}, attrs)
}

// LogOf is Log for an entry about a client: it is counted only together with
// entries of the same event, client and reason. So a client that floods the log
// hides nothing about others, nor anything new about itself. The caller still
// has to pass the attributes for client and reason; there must be only a few of
// each.
func (t *Throttle) LogOf(ctx context.Context, client, reason string, e Event, attrs ...slog.Attr) (passed bool) {
	return t.pass(ctx, kind{e, client, reason}, attrs)
}

func (t *Throttle) pass(ctx context.Context, k kind, attrs []slog.Attr) (passed bool) {
	if !t.log.Enabled(ctx, k.event.Level) {
		return false
	}
	t.mu.Lock()
	if t.timer == nil {
		t.timer = time.AfterFunc(t.window, t.Flush)
	}
	t.counts[k]++
	passed = t.counts[k] <= t.burst
	t.mu.Unlock()
	if passed {
		k.event.Log(ctx, t.log, attrs...)
	}
	return passed
}

// Flush ends the window now: it logs how many entries were suppressed.
func (t *Throttle) Flush() {
	t.mu.Lock()
	counts := t.counts
	t.counts = make(map[kind]int)
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.mu.Unlock()
	for k, n := range counts {
		if n <= t.burst {
			continue
		}
		attrs := []slog.Attr{slog.Int("count", n-t.burst), slog.String("of", k.event.Text)}
		if k.client != "" {
			attrs = append(attrs, Client(k.client))
		}
		if k.reason != "" {
			attrs = append(attrs, Reason(k.reason))
		}
		report := Suppressed
		report.Level = max(report.Level, k.event.Level) // as sure to be seen as the entries it stands for
		report.Log(context.Background(), t.log, attrs...)
	}
}
