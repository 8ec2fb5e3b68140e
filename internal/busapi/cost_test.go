package busapi

import (
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/sysbus"
)

// BenchmarkSignals measures the cost of signals: the processor time of this
// process, not that of the bus.
func BenchmarkSignals(b *testing.B) {
	const name = "host0001.example.org"
	r, err := registry.New(b.Context(), registry.Options{
		Settings: []client.Settings{settings(name)}, NoRestore: true, Checker: stubChecker{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	feed := r.Subscribe(1)
	defer feed.Close()
	h, err := r.Release(name, registry.Caller{Addr: caller.Addr, Identity: keyid.Identity{KeyID: settings(name).KeyID}})
	if err != nil {
		b.Fatal(err)
	}
	h.Done(nil)
	handout := <-feed.C
	s := &signaller{api: &api{registry: r, paths: &Paths{}, log: slog.New(slog.DiscardHandler)}, announced: map[string]bool{}, out: sysbus.NewSignals(io.Discard)}

	check := &registry.Notice{Kind: registry.ClientChanged, Client: handout.Client, Changes: []client.Notice{
		client.PropertyChanged{Property: client.PropCheckerRunning}, client.CheckerStartedNotice{Command: "fping -q -- host0001.example.org"},
		client.PropertyChanged{Property: client.PropCheckerRunning}, client.PropertyChanged{Property: client.PropLastCheckerStatus},
		client.PropertyChanged{Property: client.PropLastCheckedOK}, client.PropertyChanged{Property: client.PropExpires},
		client.CheckerCompleted{Command: "fping -q -- host0001.example.org"},
	}}

	for what, tell := range map[string]func(){
		"hand-out":     func() { s.notice(handout, time.Now()); s.flush() },
		"check":        func() { s.notice(check, time.Now()); s.flush() },
		"announcement": func() { s.added(handout.Client) },
	} {
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				tell()
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			if s.err != nil {
				b.Fatal(s.err)
			}
		})
	}
}

// cpu returns the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
