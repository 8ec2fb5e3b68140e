package busapi

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/registry"
)

// A slowRegistry takes its time for a client's new host, as with a slow disk.
type slowRegistry struct {
	Registry
	begun, goOn chan struct{}
	done        chan client.Event // what Do has done
}

func (r slowRegistry) Do(name string, ev client.Event) error {
	if _, slow := ev.(client.SetText); slow {
		close(r.begun)
		<-r.goOn
	}
	defer func() { r.done <- ev }()
	return r.Registry.Do(name, ev)
}

// TestOrderAcrossBusRestart: what operators ask for on one connection to the bus
// is done before what they ask for on the next one: an Enable that still waits
// can't undo a Disable that was answered.
func TestOrderAcrossBusRestart(t *testing.T) {
	startBus := ownBus(t)
	bus := startBus()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r, err := registry.New(t.Context(), registry.Options{Settings: []client.Settings{settings("a"), settings("b")}, NoRestore: true, Checker: stubChecker{}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	slow := slowRegistry{r, make(chan struct{}), make(chan struct{}), make(chan client.Event, 3)}
	goOn := sync.OnceFunc(func() { close(slow.goOn) })
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { Serve(ctx, Options{Registry: slow, Paths: &Paths{}, Log: log, Version: "test"}) })
	t.Cleanup(func() { goOn(); cancel(); running.Wait() })

	s := &served{registry: r, bus: operatorConn(t)}
	send := func(path dbus.ObjectPath, property string, value any) {
		s.bus.Object(serverName, path).Go(propertiesName+".Set", dbus.FlagNoReplyExpected, nil, clientName, property, dbus.MakeVariant(value))
	}
	send("/clients/a", "Host", "another")
	<-slow.begun
	send("/clients/b", "Enabled", true)
	if err := s.call("/", "org.freedesktop.DBus.Peer.Ping").Err; err != nil { // it comes after that, and is answered at once
		t.Fatal(err)
	}
	bus.Process.Kill()
	<-s.bus.Context().Done()
	startBus()
	// Long enough to come back to the bus too early.
	time.AfterFunc(firstPause*3/2, goOn)
	s.bus = operatorConn(t)
	if err := s.set("/clients/b", "Enabled", false); err != nil {
		t.Fatal(err)
	}
	goOn()
	for range cap(slow.done) {
		<-slow.done
	}
	if v, _ := r.Get("b"); v.Enabled {
		t.Error("the client is enabled, though an operator was told that it is disabled")
	}
}
