package registry

import (
	"maps"
	"testing"
	"time"

	"mandos/internal/client"
)

// TestOldBackup: what README.md says about restoring a backup of the state from
// before a client was disabled. As it is, the client gets time to boot; if
// clients.conf then says "enabled = False", it gets nothing until an operator
// enables it.
func TestOldBackup(t *testing.T) {
	// restored is a day after the backup, with the backup in its place.
	restored := func(t *testing.T, w *world) {
		w.start()
		sleep(3 * time.Minute)
		w.stop()
		was := w.store.(*MemoryStore)
		backup := &MemoryStore{seen: was.seen, records: maps.Clone(was.records), tombstones: maps.Clone(was.tombstones)}
		w.start()
		w.do("a", client.Disable{By: "an operator"})
		w.checker.setDown(true, "a")
		sleep(24 * time.Hour)
		w.wantFetch('a', "Disabled")
		w.stop()
		w.store = backup
	}
	t.Run("as it is", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			restored(t, w)
			w.start()
			if v, _ := w.Get("a"); !v.Grace || time.Until(v.Expires) > w.settings[0].ExtendedTimeout {
				t.Errorf("it has more than its time to boot: %+v", v)
			}
			w.wantFetch('a', "secret of a")
		}, setting("a"))
	})
	t.Run("everybody disabled", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			restored(t, w)
			w.settings[0].Enabled = false
			w.start()
			w.wantFetch('a', "Disabled")
			w.settings[0].Enabled = true
			if _, err := w.Reload(w.settings); err != nil {
				t.Fatal(err)
			}
			w.wantFetch('a', "Disabled")
			w.restart()
			w.wantFetch('a', "Disabled")
			w.do("a", client.Enable{By: "an operator"})
			w.wantFetch('a', "secret of a")
		}, setting("a"))
	})
	// A client that clients.conf said that of before, and that an operator had
	// enabled, isn't disabled by that; nor does it have to be, at any other start.
	// Without the state it is new.
	off := setting("a")
	off.Enabled = false
	enabled := func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.Enable{By: "an operator"})
		w.stop()
		restored(t, w)
	}
	t.Run("everybody disabled, but one by hand before", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			enabled(t, w)
			w.start()
			w.wantFetch('a', "secret of a")
		}, off)
	})
	t.Run("everybody disabled, without the state", func(t *testing.T) {
		bubble(t, func(t *testing.T, w *world) {
			enabled(t, w)
			w.store = &MemoryStore{}
			w.start()
			w.wantFetch('a', "Disabled")
			w.settings[0].Enabled = true
			w.restart()
			w.wantFetch('a', "Disabled")
		}, off)
	})
}
