// Package busapi is the server's D-Bus interface: se.recompile.Mandos, as
// Debian's mandos-ctl and mandos-monitor know it. Calls become events for the
// registry, and the registry's notices become signals.
package busapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/registry"
	"mandos/internal/sysbus"
)

// A Registry is what busapi needs of a [registry.Registry].
type Registry interface {
	List() []registry.View
	Get(name string) (registry.View, bool)
	Names() []string
	Counts() registry.Counts
	Do(name string, ev client.Event) error
	Remove(name, by string) error
	Subscribe(size int) *registry.Feed
}

// Options are what Serve needs.
type Options struct {
	Registry Registry
	Paths    *Paths // shared with the code that tells checkers their object path
	Log      *slog.Logger
	Version  string
}

// How long to wait before trying the bus again.
const (
	firstPause = time.Second
	mostPause  = 30 * time.Second
)

// feedSize is how many changes may wait for the bus; if there are more, the
// clients' whole state is sent instead.
const feedSize = 1 << 12

// restTime is how long changes are collected before more signals are sent: the
// first of a burst goes out at once, and with ten or more to one write, signals
// cost little.
const restTime = 10 * time.Millisecond

// Serve exports the clients on the system bus until ctx ends. If the bus goes
// away, isn't there or refuses the name, Serve keeps trying; the rest of the
// daemon goes on meanwhile.
func Serve(ctx context.Context, o Options) {
	a := &api{registry: o.Registry, paths: o.Paths, log: o.Log, version: o.Version, actors: map[string]string{}}
	pause := firstPause
	for {
		started := time.Now()
		err := a.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > mostPause {
			pause = firstPause
		}
		if pause == firstPause {
			journal.BusLost.Log(ctx, a.log, journal.Err(err))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, mostPause)
	}
}

// An api holds what the server's objects on the bus share.
type api struct {
	registry Registry
	paths    *Paths
	log      *slog.Logger
	version  string
	history  history

	mu     sync.Mutex
	asker  *dbus.Conn        // for asking the bus who sent a call
	actors map[string]string // by unique name, which the bus never reuses
}

// A handler finds the objects for the calls on one connection.
type handler struct {
	api  *api
	line *line
}

// LookupObject implements [dbus.Handler].
func (h handler) LookupObject(path dbus.ObjectPath) (dbus.ServerObject, bool) {
	switch path {
	case rootPath:
		return object{h, "", serverInterfaces}, true
	case clientsPath:
		return object{h, "", nodeInterfaces}, true
	}
	if name, ok := h.api.paths.Name(path); ok {
		return object{h, name, clientInterfaces}, true
	}
	return missing{h, path}, true
}

// session serves one connection to the bus, until ctx ends or the connection
// does.
func (a *api) session(ctx context.Context) error {
	line := newLine()
	// What was asked for on this connection is done before anything that is
	// asked for on the next one. Last of all: a call may wait for an answer on
	// one of the connections, until that is closed.
	defer line.empty(ctx)
	// The connections are still needed for the goodbyes, when ctx has ended; but
	// a bus that hangs must not keep the daemon from ending.
	connected, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(2*goodbyeTime, giveUp) })()
	// While the line is full, nothing is read from the connection. The call at
	// its head must be able to ask the bus meanwhile, so that takes another
	// connection.
	asker, err := sysbus.Connect(dbus.WithContext(connected))
	if err != nil {
		return fmt.Errorf("connecting to the system bus: %w", err)
	}
	defer asker.Close()
	a.mu.Lock()
	a.asker = asker
	clear(a.actors)
	a.mu.Unlock()
	defer line.close()
	bus, signals, err := sysbus.ConnectSignals(dbus.WithContext(connected), dbus.WithHandler(handler{a, line}), dbus.WithIncomingInterceptor(line.join))
	if err != nil {
		return fmt.Errorf("connecting to the system bus: %w", err)
	}
	defer bus.Close()
	defer giveUp() // before Close, which would wait for an answer that the bus doesn't take

	feed := a.registry.Subscribe(feedSize)
	defer feed.Close()
	names := a.registry.Names()
	a.keep(names)
	for _, name := range names {
		a.paths.Path(name) // assigned in the order of the names
	}
	for _, name := range []string{serverName, oldServerName} {
		reply, err := bus.RequestName(name, dbus.NameFlagDoNotQueue)
		if err != nil {
			return fmt.Errorf("requesting the name %s on the system bus: %w", name, err)
		}
		if reply != dbus.RequestNameReplyPrimaryOwner {
			return fmt.Errorf("requesting the name %s on the system bus: another server has it", name)
		}
	}
	s := &signaller{api: a, out: signals, announced: make(map[string]bool, len(names)), behind: names}
	journal.BusReady.Log(ctx, a.log)

	pause := time.NewTimer(0)
	defer pause.Stop()
	for s.err == nil {
		select {
		case n := <-feed.C:
			current := len(s.behind) == 0
			s.notice(n, time.Now())
			s.waiting(feed)
			s.flush()
			if current && len(s.behind) > 0 {
				pause.Reset(0)
			}
			time.Sleep(restTime)
		case <-pause.C:
			if d := s.catchUp(); len(s.behind) > 0 {
				pause.Reset(d)
			} else {
				s.behind = nil
				go debug.FreeOSMemory() // each client leaves more garbage than is kept of it
			}
			s.flush()
		case <-bus.Context().Done():
			return errors.New("the connection to the system bus was lost")
		case <-ctx.Done():
			s.waiting(feed)
			s.goodbye()
			s.flush()
			return nil
		}
	}
	return fmt.Errorf("sending signals: %w", s.err)
}

// keep forgets all clients but those in names, which are sorted: some may have
// gone without a notice.
func (a *api) keep(names []string) {
	a.paths.Keep(names)
	a.history.keep(names)
}

// actor returns who sent a call, as a status has it: "uid 0 over D-Bus".
func (a *api) actor(sender string) string {
	a.mu.Lock()
	asker, known := a.asker, a.actors[sender]
	a.mu.Unlock()
	if known != "" {
		return known
	}
	var uid uint32
	err := asker.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid)
	if err != nil {
		// The sender may have hung up without waiting for an answer.
		return "somebody over D-Bus"
	}
	actor := fmt.Sprintf("uid %d over D-Bus", uid)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.actors) >= maxActors {
		clear(a.actors)
	}
	a.actors[sender] = actor
	return actor
}

const maxActors = 1000
