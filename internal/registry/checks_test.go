package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
)

// TestChecksTakeTurns: however many checks are due, at most MaxChecks run at
// once, 64 by default, and the others follow in order. None is lost, and each
// has its whole interval as its limit, however late its turn comes.
func TestChecksTakeTurns(t *testing.T) {
	for most, want := range map[int]int{0: 64, 3: 3, 500: 200} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			var settings []client.Settings
			for i := range 200 {
				set := withKey(setting(fmt.Sprintf("host%03d", i)), byte(i+1))
				set.Interval, set.Timeout = 2*time.Hour, 24*time.Hour
				settings = append(settings, set)
			}
			bubble(t, func(t *testing.T, w *world) {
				w.checker.took = time.Minute
				w.mod = func(o *Options) { o.MaxChecks = most }
				w.start()
				sleep(time.Hour + time.Second) // all are due at the same instant
				// The last waits for so many others.
				for range (len(settings) + want - 1) / want {
					if now, _ := w.checker.atOnce(); now > want || now == 0 {
						t.Fatalf("%d checkers run, want %d", now, want)
					}
					sleep(time.Minute)
				}
				if now, most := w.checker.atOnce(); now != 0 || most != want {
					t.Errorf("%d checkers run after the last; %d ran at once, want %d", now, most, want)
				}
				w.checker.mu.Lock()
				defer w.checker.mu.Unlock()
				if len(w.checker.order) != len(settings) {
					t.Errorf("%d checks, want one for each of %d clients", len(w.checker.order), len(settings))
				}
				for _, set := range settings {
					if v, _ := w.Get(set.Name); w.checker.runs[set.Name] != 1 || v.LastCheckedOK.IsZero() || v.LastCheckerStatus != 0 {
						t.Errorf("%s was checked %d times, at last with %d", set.Name, w.checker.runs[set.Name], v.LastCheckerStatus)
					}
					if limit := w.checker.limits[set.Name]; limit != 2*time.Hour {
						t.Errorf("the limit of %s is %v", set.Name, limit)
					}
				}
			}, settings...)
		})
	}
}

// TestSlowCheckersTurn: checks that wait for a turn wait in the order in which
// they were due, and those of clients that were disabled meanwhile are skipped.
func TestSlowCheckersTurn(t *testing.T) {
	var settings []client.Settings
	// They are due after half of that.
	for i, interval := range []time.Duration{120, 180, 240, 260} {
		set := setting(string(rune('a' + i)))
		set.Interval, set.Timeout = interval*time.Second, 24*time.Hour
		settings = append(settings, set)
	}
	bubble(t, func(t *testing.T, w *world) {
		w.checker.took = 110 * time.Second
		w.mod = func(o *Options) { o.MaxChecks = 1 }
		w.start()
		sleep(150 * time.Second) // a is being checked, all others are due
		w.do("b", client.Disable{By: "a test"})
		sleep(5 * time.Minute)
		w.checker.mu.Lock()
		defer w.checker.mu.Unlock()
		if got := strings.Join(w.checker.order, " "); got != "a c d a" {
			t.Errorf("checked were %s", got)
		}
	}, settings...)
}
