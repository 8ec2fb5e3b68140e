package busapi

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/registry"
)

// A listener is a signaller for a registry of clients a, b and c, and what it
// has sent: "InterfacesAdded a".
type listener struct {
	*signaller
	registry *registry.Registry
	sent     []string
}

func newListener(t *testing.T) *listener {
	t.Helper()
	r, err := registry.New(t.Context(), registry.Options{
		Settings:  []client.Settings{settings("a"), settings("b"), settings("c")},
		NoRestore: true, Checker: stubChecker{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{registry: r}
	api := &api{registry: r, paths: &Paths{}, log: slog.New(slog.DiscardHandler)}
	l.signaller = &signaller{api: api, announced: map[string]bool{}, behind: r.Names(), out: l}
	return l
}

// Add notes the signals of the standard interfaces.
func (l *listener) Add(path dbus.ObjectPath, interfaces []string, member string, values ...any) error {
	switch interfaces[0] {
	case objectManager:
		path = values[0].(dbus.ObjectPath)
	case propertiesName:
	default:
		return nil
	}
	client, _ := l.api.paths.Name(path)
	l.sent = append(l.sent, member+" "+client)
	return nil
}

func (l *listener) Flush() error { return nil }

func (l *listener) wantSent(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.sent, want) {
		t.Errorf("sent %q, want %q", l.sent, want)
	}
	l.sent = nil
}

// all catches up with all clients that are behind.
func (l *listener) all() {
	for len(l.behind) > 0 {
		l.catchUp()
	}
}

// disable returns the registry's notice of disabling the client called name.
func (l *listener) disable(t *testing.T, name string) *registry.Notice {
	t.Helper()
	feed := l.registry.Subscribe(1)
	defer feed.Close()
	if err := l.registry.Do(name, client.Disable{By: "a test"}); err != nil {
		t.Fatal(err)
	}
	return <-feed.C
}

func TestCatchUp(t *testing.T) {
	const added, changed, removed = "InterfacesAdded ", "PropertiesChanged ", "InterfacesRemoved "
	t.Run("nothing happens", func(t *testing.T) {
		l := newListener(t)
		l.all()
		l.wantSent(t, added+"a", added+"b", added+"c")
	})
	t.Run("a change comes first", func(t *testing.T) {
		l := newListener(t)
		l.notice(l.disable(t, "c"), time.Now())
		l.wantSent(t, changed+"c", changed+"c") // Expires and Enabled
		l.all()
		l.wantSent(t, added+"a", added+"b", added+"c")
	})
	t.Run("what happens comes first", func(t *testing.T) {
		l := newListener(t)
		calm := l.rest(time.Second)
		l.notice(l.disable(t, "c"), time.Now())
		if busy := l.rest(time.Second); busy <= calm {
			t.Errorf("it rests for %v when something happens, and for %v when nothing does", busy, calm)
		}
		if again := l.rest(time.Second); again != calm {
			t.Errorf("it rests for %v when nothing happens any more, before it was %v", again, calm)
		}
	})
	t.Run("one goes before it was announced", func(t *testing.T) {
		l := newListener(t)
		if err := l.registry.Remove("b", "a test"); err != nil {
			t.Fatal(err)
		}
		l.all()
		l.wantSent(t, added+"a", added+"c")
	})
	t.Run("notices are lost", func(t *testing.T) {
		l := newListener(t)
		l.all()
		l.sent = nil
		if err := l.registry.Remove("b", "a test"); err != nil {
			t.Fatal(err)
		}
		l.notice(&registry.Notice{Kind: registry.Lost}, time.Now())
		l.wantSent(t, removed+"b")
		l.notice(l.disable(t, "a"), time.Now())
		l.wantSent(t, changed+"a", changed+"a")
		l.all() // a, too: more may have changed
		l.wantSent(t, changed+"a", changed+"c")
	})
}

func TestGoodbye(t *testing.T) {
	l := newListener(t)
	l.all()
	l.sent = nil
	l.goodbye()
	slices.Sort(l.sent)
	l.wantSent(t, "InterfacesRemoved a", "InterfacesRemoved b", "InterfacesRemoved c")
}
