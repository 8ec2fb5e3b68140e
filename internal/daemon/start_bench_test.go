package daemon

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/config"
	"mandos/internal/journal"
	"mandos/internal/keyid"
)

// secretLen is the length of a secret as mandos-keygen makes it for a key of
// RSA 4096: that of the figures in README.md.
const secretLen = 1190

// manyClients makes a configuration folder with n clients as mandos-keygen
// prints them. Their checks are far apart, so that starting is all there is.
func manyClients(b *testing.B, n int) (dir string) {
	b.Helper()
	dir, err := os.MkdirTemp("", "mandos-daemon-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	var conf strings.Builder
	conf.WriteString("[DEFAULT]\ntimeout = P2W\ninterval = P1W\nchecker = true\n")
	secret := make([]byte, secretLen)
	for i := range n {
		name := fmt.Sprintf("client%06d.example.org", i)
		fmt.Fprintf(&conf, "\n[%s]\nhost = %s\nkey_id = %s\nfingerprint = %.40s\nsecret =\n", name, name,
			keyid.OfSPKI([]byte(name)), keyid.OfSPKI([]byte(name+" OpenPGP")))
		copy(secret, name)
		for text := base64.StdEncoding.EncodeToString(secret); text != ""; {
			line := text[:min(len(text), 64)]
			text = text[len(line):]
			conf.WriteString("        " + line + "\n")
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "clients.conf"), []byte(conf.String()), 0o640); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkStart starts the daemon's process on a saved state: s-to-ready is
// how long until it serves, cpu-s what it has used by then, and MiB-PSS how
// much of the machine's memory it takes a second later.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{1, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n, " clients"), func(b *testing.B) {
			dir := manyClients(b, n)
			measureStart(b, dir) // makes the state
			var sum startFigures
			for b.Loop() {
				one := measureStart(b, dir)
				sum.wall, sum.cpu, sum.pss = sum.wall+one.wall, sum.cpu+one.cpu, sum.pss+one.pss
			}
			b.ReportMetric(sum.wall.Seconds()/float64(b.N), "s-to-ready")
			b.ReportMetric(sum.cpu.Seconds()/float64(b.N), "cpu-s")
			b.ReportMetric(sum.pss/float64(b.N), "MiB-PSS")
			b.ReportMetric(0, "ns/op") // has the second of waiting in it
		})
	}
}

type startFigures struct {
	wall, cpu time.Duration // until it was ready
	pss       float64       // MiB
}

func measureStart(b *testing.B, dir string) (f startFigures) {
	b.Helper()
	cmd := command([]string{"--configdir", dir, "--no-dbus", "--address", "::1", "--no-zeroconf", "--port", freePort(b)}, nil)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var log strings.Builder
	ready := false
	for lines := bufio.NewScanner(stderr); !ready && lines.Scan(); {
		log.WriteString(lines.Text() + "\n")
		ready = strings.Contains(lines.Text(), journal.Ready.Text)
	}
	f.wall = time.Since(begin)
	if ready {
		proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
		f.cpu = cpuOf(b, proc)
		time.Sleep(time.Second)
		f.pss = pssOf(b, proc)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_, _ = io.Copy(&log, stderr)
	if err := cmd.Wait(); err != nil || !ready {
		b.Fatalf("ended with %v:\n%s", err, log.String())
	}
	return f
}

func freePort(b *testing.B) string {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// cpuOf returns what the process has used (proc(5): schedstat).
func cpuOf(b *testing.B, proc string) time.Duration {
	tasks, err := filepath.Glob(proc + "task/*/schedstat") // nanoseconds on a CPU come first
	if err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// pssOf returns the process's proportional share of memory, in MiB.
func pssOf(b *testing.B, proc string) float64 {
	text, err := os.ReadFile(proc + "smaps_rollup")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "Pss:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatal("there is no Pss in " + proc)
	return 0
}

// BenchmarkLoad is the daemon's way from its files to clients that can be
// served, within this process, so that it can be profiled; cpu-s/op is
// meaningful even on a busy machine. B/client is the heap that a client takes
// for good, its secret not counted.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n, " clients"), func(b *testing.B) {
			b.ReportAllocs()
			dir := manyClients(b, n)
			loadDaemon(b, dir)() // makes the state
			var cpu time.Duration
			var held uint64
			for b.Loop() {
				runtime.GC()
				before, spent := heapInUse(), cpuTime()
				stop := loadDaemon(b, dir)
				cpu += cpuTime() - spent
				held += heapInUse() - before
				stop()
			}
			b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(float64(held)/float64(b.N)/float64(n)-secretLen, "B/client")
		})
	}
}

// loadDaemon does what a daemon does before it serves.
func loadDaemon(b *testing.B, dir string) (stop func()) {
	b.Helper()
	cl, err := config.ParseArgs([]string{"--configdir", dir})
	if err != nil {
		b.Fatal(err)
	}
	cfg, clients, found := config.Load(cl, config.LoadOptions{})
	if found.Err() != nil {
		b.Fatal(found)
	}
	d := &daemon{Options: Options{Config: cfg, Clients: clients, Log: slog.New(slog.DiscardHandler)}, log: slog.New(slog.DiscardHandler)}
	state, err := d.openState()
	if err != nil {
		b.Fatal(err)
	}
	if err := d.newRegistry(b.Context(), state); err != nil {
		b.Fatal(err)
	}
	return func() {
		state.Close()
		runtime.KeepAlive(d)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // can't fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
