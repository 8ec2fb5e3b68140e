package registry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// A hookHandler calls hook when the record of a hand-out is written, which is
// between the two checks of Release.
type hookHandler struct {
	slog.Handler
	hook func() error
}

func (h hookHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == journal.SecretReleased.Text {
		if err := h.hook(); err != nil {
			return err
		}
	}
	return h.Handler.Handle(ctx, r)
}

// TestChangeOfMindWhileRecording: what happens while the hand-out is being
// logged can still keep the secret back.
func TestChangeOfMindWhileRecording(t *testing.T) {
	a := approving("a")
	a.Fingerprint = printOf('a')
	barred := a
	barred.Generation = client.OnlyTLS13
	for name, tt := range map[string]struct {
		happen func(w *world) error
		want   string
	}{
		"nothing":  {func(w *world) error { return nil }, "secret of a"},
		"disabled": {func(w *world) error { return w.Do("a", client.Disable{By: "a test"}) }, "Disabled"},
		"disabled and enabled": {func(w *world) error {
			return errors.Join(w.Do("a", client.Disable{By: "a test"}), w.Do("a", client.Enable{By: "a test"}))
		}, "Disabled"},
		"denied": {func(w *world) error { return w.Do("a", client.Deny{By: "a test"}) }, "Denied"},
		"denied and approved": {func(w *world) error {
			return errors.Join(w.Do("a", client.Deny{By: "a test"}), w.Do("a", client.Approve{By: "a test"}))
		}, "Denied"},
		"removed": {func(w *world) error { return w.Remove("a", "a test") }, "Unknown"},
		"removed and back": {func(w *world) error {
			_, err := w.Reload([]client.Settings{setting("b")})
			_, again := w.Reload([]client.Settings{a})
			return errors.Join(err, again, w.Do("a", client.Approve{By: "a test"}))
		}, "Unknown"},
		"another key": {func(w *world) error { _, err := w.Reload([]client.Settings{withKey(setting("a"), 'b')}); return err }, "Unknown"},
		"no record":   {func(w *world) error { return errors.New("the journal is away") }, "Faulty"},
		"barred": {func(w *world) error {
			_, err := w.Reload([]client.Settings{barred})
			return err
		}, "Old protocol"},
		"another secret": {func(w *world) error {
			return w.Do("a", client.SetSecret{By: "a test", Value: secret.New([]byte("the other"))})
		}, "the other"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.mod = func(o *Options) {
					o.Log = slog.New(hookHandler{o.Log.Handler(), func() error { return tt.happen(w) }})
				}
				w.start()
				w.do("a", client.Approve{By: "a test"})
				got := w.fetchAs(Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf('a')}})
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}, a)
		})
	}
}

// TestTimeRunsOutWhileRecording: neither a timer nor a revocation has come yet.
// A client that is refused for that is disabled on disk.
func TestTimeRunsOutWhileRecording(t *testing.T) {
	clock := newManualClock()
	w := newWorld(t, setting("a"))
	log := slog.New(hookHandler{slog.NewTextHandler(w, nil), func() error {
		clock.now.Elapsed += 5 * time.Minute
		return nil
	}})
	r, err := New(t.Context(), Options{Settings: w.settings, Store: w.store, Checker: w.checker, Clock: clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	w.Registry = r
	w.wantFetch('a', "Disabled")
	if state, err := w.store.Load(); err != nil || state.Records[0].Saved.Enabled {
		t.Errorf("it is saved as enabled (%v)", err)
	}
}

// TestNoRecordOfARefusal: what Release refuses is not logged as handed out
// first.
func TestNoRecordOfARefusal(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}}
		if err := w.Approve(t.Context(), "a", caller); err != nil {
			t.Fatal(err)
		}
		w.do("a", client.Disable{By: "a test"})
		if _, err := w.Release("a", caller); err == nil {
			t.Error("released the secret of a disabled client")
		}
		if strings.Contains(w.logged(), journal.SecretReleased.Text) {
			t.Errorf("the log says that it was handed out:\n%s", w.logged())
		}
		w.do("a", client.Enable{By: "a test"})
		w.wantFetch('a', "secret of a")
		w.wantLogged(journal.SecretReleased.Text)
	}, setting("a"))
}
