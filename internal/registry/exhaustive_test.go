package registry

import (
	"flag"
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
)

var sequenceLength = flag.Int("length", 3, "how many events the exhaustive sequences have: 4 in make check, 5 in make model-nightly")

// An event is a letter of the alphabet of TestAllSequences.
type event struct {
	name   string
	happen func(w *modelWorld, set client.Settings)
}

// alphabet is what may happen to the one client, set. It may be gone.
var alphabet = []event{
	{"fetch", func(w *modelWorld, set client.Settings) { w.try(set, -1) }},
	{"fetch, disabled before it moves", func(w *modelWorld, set client.Settings) { w.try(set, 0) }},
	{"fetch, denied before it moves", func(w *modelWorld, set client.Settings) { w.try(set, 1) }},
	{"down or up", func(w *modelWorld, set client.Settings) { w.up[set.Name] = !w.up[set.Name] }},
	{"299 s", func(w *modelWorld, _ client.Settings) { w.advance(299 * time.Second) }},
	{"1 s", func(w *modelWorld, _ client.Settings) { w.advance(time.Second) }},
	{"299 s of suspend, and no timer yet", func(w *modelWorld, _ client.Settings) {
		w.clock.now.Elapsed += 299 * time.Second
		w.clock.now.Wall = w.clock.now.Wall.Add(299 * time.Second)
		w.p.pass(w.clock.now.Elapsed)
	}},
	{"an operator vouches", func(w *modelWorld, set client.Settings) {
		if w.there(set) {
			w.vouch(set)
		}
	}},
	{"disable", func(w *modelWorld, set client.Settings) {
		if w.there(set) {
			w.disrupt(set, 0)
		}
	}},
	{"enable", func(w *modelWorld, set client.Settings) {
		if w.there(set) {
			now := w.clock.now.Elapsed
			w.do(set.Name, client.Enable{By: "the model"})
			w.p.enable(&set, now, w.exact)
		}
	}},
	{"approve", func(w *modelWorld, set client.Settings) {
		if w.there(set) {
			w.do(set.Name, client.Approve{By: "the model"})
			w.p.decision[set.Name], w.p.until[set.Name] = client.Approved, w.clock.now.Elapsed+set.ApprovalDuration
		}
	}},
	{"deny", func(w *modelWorld, set client.Settings) {
		if w.there(set) {
			w.disrupt(set, 1)
		}
	}},
	{"remove or add", func(w *modelWorld, set client.Settings) {
		if w.there(set) {
			w.remove(set.Name)
		} else {
			w.conf[set.Name] = set
			w.reload()
		}
	}},
	{"killed, back after 301 s", func(w *modelWorld, _ client.Settings) { w.stopAwake(false, 301*time.Second, 0) }},
	{"restarted, the clock an hour back", func(w *modelWorld, _ client.Settings) { w.stopAwake(true, time.Second, -time.Hour) }},
}

func (w *modelWorld) there(set client.Settings) bool { _, ok := w.current[set.Name]; return ok }

// stopAwake is restart after the timers have run. A server that is killed
// before they run might as well have been down while it was suspended.
func (w *modelWorld) stopAwake(clean bool, pause, set time.Duration) {
	w.settle()
	w.restart(clean, pause, set)
}

// try is fetch, if there is a client.
func (w *modelWorld) try(set client.Settings, meanwhile int) {
	if w.there(set) {
		w.fetch(set, meanwhile)
	}
}

// A sequence is the test of one sequence of events, which it prints when the
// test fails.
type sequence struct {
	t    *testing.T
	past []string
}

func (s *sequence) Fatal(args ...any) {
	s.t.Helper()
	s.t.Log(strings.Join(s.past, "; "))
	s.t.Fatal(args...)
}
func (s *sequence) Fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Log(strings.Join(s.past, "; "))
	s.t.Fatalf(format, args...)
}

// TestAllSequences runs all sequences of events of a certain length against
// the naive statement, each followed by a fetch: for a client that needs no
// approval, and for one that has none by default.
func TestAllSequences(t *testing.T) {
	before := spread
	spread = func() float64 { return 0.5 }
	t.Cleanup(func() { spread = before })
	for _, name := range []string{"a", "c"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			number := 1
			for range *sequenceLength {
				number *= len(alphabet)
			}
			served := 0
			for i := range number {
				s := &sequence{t: t}
				w := newModelWorld()
				w.t = s
				w.begin(name)
				set := modelSettings(name)
				for rest := i; len(s.past) < *sequenceLength; rest /= len(alphabet) {
					ev := alphabet[rest%len(alphabet)]
					s.past = append(s.past, ev.name)
					ev.happen(w, set)
				}
				s.past = append(s.past, "the last fetch")
				w.try(set, -1)
				served += w.served
				if w.log.found != "" {
					s.Fatalf("the log holds a secret: %s", w.log.found)
				}
			}
			t.Logf("%d sequences, %d secrets served", number, served)
			if served < number/20 {
				t.Errorf("only %d secrets were served in %d sequences: this proves little", served, number)
			}
		})
	}
}
