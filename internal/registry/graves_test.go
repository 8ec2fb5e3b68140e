package registry

import (
	"maps"
	"testing"
	"time"

	"mandos/internal/client"
)

// What is known of a name or key that nobody holds is spent when somebody
// takes it: it doesn't come back after an operator's word.
func TestGraveIsSpent(t *testing.T) {
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

// The time of what nobody holds runs out while the server is down, too. That
// is on disk when the server has started: a clock that is set back before a
// crash doesn't undo it.
func TestGraveRunsOutWhileDown(t *testing.T) {
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
		crashed := &MemoryStore{seen: m.seen, records: maps.Clone(m.records), graves: maps.Clone(m.graves)}
		m.mu.Unlock()
		w.stop()
		w.store = crashed
		w.settings = []client.Settings{a, b}
		w.start()
		w.wantFetch('a', "Disabled")
	}, a, b)
}
