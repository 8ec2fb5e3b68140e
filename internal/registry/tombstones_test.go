package registry

import (
	"maps"
	"testing"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
)

// TestTombstoneIsSpent: a tombstone is used up when a client takes its name or
// key: it doesn't come back after an operator has enabled that client.
func TestTombstoneIsSpent(t *testing.T) {
	a, b := setting("a"), setting("b")
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.Disable{By: "a test"})
		w.reload(b)
		w.reload(a, b)
		w.wantFetch('a', "Disabled")
		w.do("a", client.Enable{By: "a test"})
		w.reload(withKey(a, 'b'), withKey(b, 'a'))
		w.wantFetch('a', "secret of b")
		w.wantFetch('b', "secret of a")
		w.restart()
		w.wantFetch('a', "secret of b")
		w.wantFetch('b', "secret of a")
	}, a, b)
}

// TestTombstoneRunsOutWhileDown: a tombstone's time also runs out while the
// server is down. That is on disk once the server has started: a clock that is
// set back before a crash doesn't undo it.
func TestTombstoneRunsOutWhileDown(t *testing.T) {
	a, b := setting("a"), setting("b")
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.reload(b) // a is enabled, and has five minutes
		w.settings = []client.Settings{b}
		w.stop()
		sleep(10 * time.Minute)
		w.start()
		w.clock.set(-9 * time.Minute)
		w.do("b", client.Enable{By: "a test"}) // the new time is on disk as seen
		m := w.store.(*MemoryStore)
		m.mu.Lock() // the flush of liveness may be under way
		crashed := &MemoryStore{seen: m.seen, records: maps.Clone(m.records), tombstones: maps.Clone(m.tombstones)}
		m.mu.Unlock()
		w.stop()
		w.store = crashed
		w.settings = []client.Settings{a, b}
		w.start()
		w.wantFetch('a', "Disabled")
	}, a, b)
}

// TestTombstoneStaysRunOut: that time has run out is on disk once the server has
// started, not just known from the last instant seen: a server that starts with
// a clock set back moves that instant back, too.
func TestTombstoneStaysRunOut(t *testing.T) {
	a, b := setting("a"), setting("b")
	clock := newManualClock()
	w := newWorld(t, a, b)
	startLater := func(gone, set time.Duration) { // after a crash
		clock.now.Elapsed += gone
		clock.now.Wall = clock.now.Wall.Add(gone + set)
		w.startIdle(clock, w.checker)
	}
	startLater(0, 0)
	w.reload(b) // a is enabled, and has five minutes
	w.settings = []client.Settings{b}
	startLater(10*time.Minute, 0)
	startLater(0, -9*time.Minute)
	w.settings = []client.Settings{a, b}
	startLater(time.Minute, 0)
	w.wantFetch('a', "Disabled")
}

// TestTombstoneRunsOutBeforeClockIsSetBack: the clock is set back, and the
// server crashes before it has noticed. What is saved in between must not bring
// back time that has run out.
func TestTombstoneRunsOutBeforeClockIsSetBack(t *testing.T) {
	a, b := setting("a"), setting("b")
	for name, save := range map[string]func(*world) error{
		"by a change":   func(w *world) error { return w.Do("b", client.Disable{By: "a test"}) },
		"by a flush":    func(w *world) error { return w.flush() },
		"by a removal":  func(w *world) error { return w.Remove("b", "a test") },
		"by a reload":   func(w *world) error { _, err := w.Reload([]client.Settings{setting("c")}); return err },
		"by its timers": func(w *world) error { w.tick(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			clock := newManualClock()
			w := newWorld(t, a, b)
			start := func() { w.startIdle(clock, w.checker) } // after a crash
			start()
			w.reload(b) // a is enabled, and has five minutes
			clock.now.Elapsed += 10 * time.Minute
			clock.now.Wall = clock.now.Wall.Add(time.Minute) // set back by nine
			if err := save(w); err != nil {
				t.Fatal(err)
			}
			w.settings = []client.Settings{a, b}
			start()
			w.wantFetch('a', "Disabled")
		})
	}
}

// TestTombstoneIsSpentAtAStart: the same if its time ran out while the server
// was down, and clients.conf has the client again: nothing is left on disk of
// the tombstone.
func TestTombstoneIsSpentAtAStart(t *testing.T) {
	a, b := setting("a"), setting("b")
	clock := newManualClock()
	w := newWorld(t, a, b)
	w.startIdle(clock, w.checker)
	w.reload(b) // a is enabled, and has five minutes
	state := func() State {
		state, err := w.store.Load()
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	if n := len(state().Tombstones); n != 2 {
		t.Fatalf("%d tombstones, want one of the name and one of the key", n)
	}
	clock.now.Elapsed += 10 * time.Minute
	clock.now.Wall = clock.now.Wall.Add(10 * time.Minute)
	w.settings = []client.Settings{a, b}
	w.startIdle(clock, w.checker)
	w.wantFetch('a', "Disabled")
	if left := state().Tombstones; len(left) > 0 {
		t.Errorf("left on disk: %+v", left)
	}
}

// TestTombstoneOfAFingerprint: the status of a client that has only an OpenPGP
// key stays with that key when it comes back under another name, or with
// another client.
func TestTombstoneOfAFingerprint(t *testing.T) {
	old := func(name string) client.Settings {
		set := setting(name)
		set.KeyID, set.Fingerprint = keyid.KeyID{}, printOf('f')
		return set
	}
	a, b := old("a"), setting("b")
	caller := Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf('f')}}
	without := setting("a")
	with := setting("b")
	with.Fingerprint = printOf('f')
	for name, happen := range map[string]func(*world){
		"gone and back":               func(w *world) { w.reload(b); w.reload(a, b) },
		"another name, later":         func(w *world) { w.reload(b); w.reload(old("c"), b) },
		"another name, after a start": func(w *world) { w.reload(b); w.restart(); w.reload(old("c"), b) },
		"another name, at a start":    func(w *world) { w.reload(b); w.settings = []client.Settings{old("c"), b}; w.restart() },
		"another client, at once":     func(w *world) { w.reload(without, with) },
		"another client, later":       func(w *world) { w.reload(without, b); w.reload(without, with) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.start()
				w.do("a", client.Disable{By: "a test"})
				happen(w)
				for range 2 {
					if got := w.fetchAs(caller); got != "Disabled" {
						t.Errorf("it got %q, want %q", got, "Disabled")
					}
					w.restart()
				}
			}, a, b)
		})
	}
}
