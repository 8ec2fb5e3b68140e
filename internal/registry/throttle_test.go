package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
)

// TestStrangers: peers with unknown keys can't fill the log.
func TestStrangers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		feed := w.Subscribe(1000)
		for range throttleBurst + 5 {
			if got := w.fetch('x'); got != "Unknown" {
				t.Fatalf("a stranger got %q", got)
			}
		}
		if n := strings.Count(w.logged(), "refused a peer with an unknown key"); n != throttleBurst {
			t.Errorf("%d of them are logged, want %d", n, throttleBurst)
		}
		if n := len(feed.C); n != throttleBurst {
			t.Errorf("%d of them are told of, want %d", n, throttleBurst)
		}
		sleep(time.Minute)
		if got := w.logged(); !strings.Contains(got, "suppressed entries of one kind") || !strings.Contains(got, "count=5") {
			t.Errorf("the others are not counted: %s", got)
		}
	}, setting("a"))
}

// TestRefusedInALoop: a client that asks again and again, and gets nothing,
// can't fill the log, nor the bus. It hides nobody else's refusals, nor those
// of its own for another reason.
func TestRefusedInALoop(t *testing.T) {
	disabled, waiting, other := setting("disabled"), setting("waiting"), setting("other")
	disabled.Enabled, other.Enabled = false, false
	waiting.ApprovalDelay, waiting.ApprovedByDefault = time.Second, false
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		feed := w.Subscribe(1000)
		for range throttleBurst + 5 {
			if got := w.fetch('d'); got != string(client.Disabled) {
				t.Fatalf("got %q", got)
			}
			if got := w.fetch('w'); got != string(client.ApprovalTimedOut) {
				t.Fatalf("got %q", got)
			}
		}
		w.fetch('o')
		w.do("waiting", client.Disable{})
		w.fetch('w')
		rejected := map[string]int{}
		for len(feed.C) > 0 {
			n := <-feed.C
			for _, change := range n.Changes {
				if r, ok := change.(client.RejectedNotice); ok {
					rejected[fmt.Sprintf("%s: %s", n.Client.Settings.Name, r.Reason)]++
				}
			}
		}
		for what, want := range map[string]int{
			"disabled: Disabled": throttleBurst, "waiting: Approval timed out": throttleBurst,
			"other: Disabled": 1, "waiting: Disabled": 1,
		} {
			name, reason, _ := strings.Cut(what, ": ")
			logged := 0
			for line := range strings.Lines(w.logged()) {
				if strings.Contains(line, "refused a client its secret") && strings.Contains(line, "MANDOS_CLIENT="+name+" ") && strings.Contains(line, reason+":") {
					logged++
				}
			}
			if logged != want || rejected[what] != want {
				t.Errorf("%s: %d are logged and %d told of, want %d", what, logged, rejected[what], want)
			}
		}
		if n := strings.Count(w.logged(), "a client waits for approval"); n != throttleBurst {
			t.Errorf("%d times it is logged that a client waits, want %d", n, throttleBurst)
		}
		sleep(time.Minute)
		for _, want := range []string{
			`count=5 of="refused a client its secret" MANDOS_CLIENT=disabled MANDOS_REASON=Disabled`,
			`count=5 of="refused a client its secret" MANDOS_CLIENT=waiting MANDOS_REASON="Approval timed out"`,
			`count=5 of="a client waits for approval" MANDOS_CLIENT=waiting`,
		} {
			if !strings.Contains(w.logged(), want) {
				t.Errorf("the log has no %s: %s", want, w.logged())
			}
		}
	}, disabled, waiting, other)
}

// TestHandoutsInALoop: each hand-out is logged, however many there are.
func TestHandoutsInALoop(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		const many = 10 * throttleBurst
		for range many {
			if got := w.fetch('a'); got != "secret of a" {
				t.Fatalf("got %q", got)
			}
		}
		if n := strings.Count(w.logged(), "releasing a client's secret to it"); n != many {
			t.Errorf("%d hand-outs of %d are logged", n, many)
		}
	}, setting("a"))
}
