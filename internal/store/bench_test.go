package store

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"mandos/internal/checker"
	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

func manySettings(n int, interval time.Duration) []client.Settings {
	all := make([]client.Settings, n)
	for i := range all {
		name := fmt.Sprintf("client%06d.example.org", i)
		all[i] = client.Settings{
			Name: name, KeyID: keyid.OfSPKI([]byte(name)), Secret: secret.New(make([]byte, 1190)),
			Host: name, Checker: "fping -q -- %(host)s",
			Timeout: 5 * interval / 2, ExtendedTimeout: 8 * interval, Interval: interval,
			ApprovalDuration: time.Second, ApprovedByDefault: true, Enabled: true,
		}
	}
	return all
}

func registryOf(b *testing.B, dir string, settings []client.Settings, c registry.Checker) (*registry.Registry, *Store) {
	b.Helper()
	s, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	r, err := registry.New(b.Context(), registry.Options{Settings: settings, Store: s, Checker: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return r, s
}

// BenchmarkHandOut is one hand-out from Lookup to Done, with the state file.
func BenchmarkHandOut(b *testing.B) {
	for _, n := range []int{1, 100_000} {
		b.Run(fmt.Sprint(n, " clients"), func(b *testing.B) {
			settings := manySettings(n, 2*time.Minute)
			r, s := registryOf(b, b.TempDir(), settings, alwaysUp{})
			defer s.Close()
			i := 0
			for b.Loop() {
				if !ask(r, settings[i%n].Name) {
					b.Fatal("refused")
				}
				i += 7919
			}
		})
	}
}

// BenchmarkLoad starts a server on the state of many clients. The CPU time is
// meaningful even if the machine is busy with other things.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n, " clients"), func(b *testing.B) {
			settings := manySettings(n, 2*time.Minute)
			dir := b.TempDir()
			_, s := registryOf(b, dir, settings, alwaysUp{})
			s.Close()
			before := cpuTime()
			for b.Loop() {
				_, s := registryOf(b, dir, settings, alwaysUp{})
				s.Close()
			}
			b.ReportMetric((cpuTime()-before).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// BenchmarkDecision is an operator's decision, which is on disk when Do
// returns.
func BenchmarkDecision(b *testing.B) {
	settings := manySettings(10_000, 2*time.Minute)
	r, s := registryOf(b, b.TempDir(), settings, alwaysUp{})
	defer s.Close()
	i := 0
	for b.Loop() {
		if err := r.Do(settings[i%len(settings)].Name, client.Disable{By: "a benchmark"}); err != nil {
			b.Fatal(err)
		}
		if err := r.Do(settings[i%len(settings)].Name, client.Enable{By: "a benchmark"}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// A lateChecker notes how far apart the checks of a client are.
type lateChecker struct {
	alwaysUp
	runner checker.Runner // nil: every client is up
	mu     sync.Mutex
	last   map[string]time.Time
	runs   int
	worst  time.Duration // more than the interval
	every  time.Duration
}

func (l *lateChecker) Run(ctx context.Context, name, _ string, limit time.Duration) (client.CheckResult, error) {
	l.note(name)
	if l.runner == nil {
		return client.CheckResult{}, nil
	}
	return l.runner.Run(ctx, checker.Request{Client: name, Command: "true", Limit: limit})
}

func (l *lateChecker) note(name string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.last[name]; ok {
		l.worst = max(l.worst, now.Sub(last)-l.every)
	}
	l.last[name] = now
	l.runs++
}

// BenchmarkChecks runs 10,000 clients with an interval of 2 minutes for two
// and a half minutes of real time, with a checker that does nothing, and with
// a process for each check. It is run once: -benchtime 1x.
func BenchmarkChecks(b *testing.B) {
	b.Run("nothing", func(b *testing.B) { benchmarkChecks(b, nil) })
	b.Run("direct", func(b *testing.B) { benchmarkChecks(b, checker.Local{}) })
}

func benchmarkChecks(b *testing.B, runner checker.Runner) {
	const n, interval = 10_000, 2 * time.Minute
	settings := manySettings(n, interval)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := &lateChecker{last: map[string]time.Time{}, every: interval, runner: runner}
		r, s := registryOf(b, b.TempDir(), settings, c)
		runtime.GC()
		runtime.ReadMemStats(&after)
		spent := cpuTime()
		ctx, cancel := context.WithTimeout(b.Context(), interval*5/4)
		if err := r.Run(ctx); err != nil {
			b.Fatal(err)
		}
		cancel()
		cpu := cpuTime() - spent
		s.Close()
		b.ReportMetric(float64(cpu.Microseconds())/float64(c.runs), "µs-cpu/check")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/client")
		b.ReportMetric(float64(c.worst)/float64(interval)*100, "%late")
		b.ReportMetric(float64(c.runs), "checks")
	}
}

// cpuTime is what this process and its ended children have used.
func cpuTime() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		_ = syscall.Getrusage(who, &u) // fails for no process of our own
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
