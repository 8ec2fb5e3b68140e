package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/checker"
	"mandos/internal/keytls"
	"mandos/internal/keytls/wire"
	"mandos/internal/registry"
	"mandos/internal/server"
)

// TestPriority: only what the priority string allows is used, and with --debug
// the log says what that is.
func TestPriority(t *testing.T) {
	const onlyChaCha20 = "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305"
	for name, tt := range map[string]struct {
		file string // mandos.conf
		args []string
		want wire.Suite
	}{
		"none":                {"", nil, wire.AES256GCM},
		"on the command line": {"", []string{"--priority", onlyChaCha20}, wire.ChaCha20Poly1305},
		"in the file":         {"[DEFAULT]\npriority = " + onlyChaCha20 + "\n", nil, wire.ChaCha20Poly1305},
		"in both":             {"[DEFAULT]\npriority = NORMAL:-CIPHER-ALL:+AES-128-GCM\n", []string{"--priority", onlyChaCha20}, wire.ChaCha20Poly1305},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newMember(t, "a")
			dir := folder(t, a.section())
			if err := os.WriteFile(filepath.Join(dir, "mandos.conf"), []byte(tt.file), 0o644); err != nil {
				t.Fatal(err)
			}
			p := start(t, nil, append(tt.args, "--debug", "--configdir", dir)...)
			conn, err := net.Dial("tcp", loopback(p.Ready()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "1\r\n"); err != nil {
				t.Fatal(err)
			}
			tls := keytls.Server(conn, &keytls.Config{Key: a.key})
			if got, err := io.ReadAll(tls); err != nil || string(got) != string(a.secret) {
				t.Errorf("it got %q, %v", got, err)
			}
			if _, suite, _ := tls.Negotiated(); suite != tt.want {
				t.Errorf("negotiated %v, want %v", suite, tt.want)
			}
			said := p.Await(`what TLS may use: policy=(.*)`)[1]
			if others := strings.Contains(said, wire.AES128GCM.String()); !strings.Contains(said, tt.want.String()) || others != (name == "none") {
				t.Errorf("it said %s", said)
			}
			p.stop()
		})
	}
}

// TestMaxCheckers: with --max-checkers 1, checkers never run at the same time,
// however many clients there are.
func TestMaxCheckers(t *testing.T) {
	place := folder(t)
	if err := os.Chmod(place, 0o777); err != nil { // whoever the server becomes
		t.Fatal(err)
	}
	script := "checker = cd " + place + "; mkdir lock || touch beside; sleep 0.2; rmdir lock; true"
	var sections []string
	for _, name := range strings.Fields("a b c d e f g h") {
		sections = append(sections, strings.Replace(newMember(t, name).section("interval = PT1S"), "checker = true", script, 1))
	}
	p := start(t, nil, "--debug", "--configdir", folder(t, sections...), "--max-checkers", "1")
	p.Ready()
	p.Await(`(?s)(a client's checker ended.*){6}`)
	p.stop()
	if _, err := os.Stat(filepath.Join(place, "beside")); err == nil {
		t.Error("two checkers ran at once")
	}
}

// TestNoBus: with --no-dbus and --no-zeroconf the system bus isn't even asked;
// without either it is.
func TestNoBus(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		asks bool
	}{
		"neither":       {[]string{"--no-dbus", "--no-zeroconf"}, false},
		"only D-Bus":    {[]string{"--no-zeroconf"}, true},
		"only Zeroconf": {[]string{"--no-dbus"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(folder(t), "bus")
			bus, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer bus.Close()
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			asked := make(chan struct{}, 1000)
			go func() {
				for {
					conn, err := bus.Accept()
					if err != nil {
						return
					}
					conn.Close()
					asked <- struct{}{}
				}
			}()
			a := newMember(t, "a")
			socket, _ := listenerFile(t, "tcp6", "[::1]:0")
			p := start(t, func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+path)
				cmd.ExtraFiles = []*os.File{socket}
			}, append(tt.args, "--socket", "3", "--configdir", folder(t, a.section()))...)
			addr := loopback(p.Ready())
			if tt.asks {
				<-asked
			}
			a.gets(t, addr)
			p.stop()
			if !tt.asks && len(asked) > 0 {
				t.Errorf("it asked the bus %d times", len(asked))
			}
		})
	}
}

// A deafListener takes no connection and can't be woken: its loop hangs.
type deafListener struct {
	net.Listener
	deaf atomic.Bool
}

func (l *deafListener) SetDeadline(at time.Time) error {
	if l.deaf.Load() {
		return nil
	}
	return l.Listener.(*net.TCPListener).SetDeadline(at)
}

// lines are what is logged.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// await waits for a line with text.
func (l lines) await(t *testing.T, text string) {
	t.Helper()
	for timeout := time.After(deadline); ; {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return
			}
		case <-timeout:
			t.Fatalf("not logged: %s", text)
		}
	}
}

// queued returns how many bytes the daemon has sent that weren't read.
func (m *manager) queued() int {
	m.t.Helper()
	raw, err := m.conn.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	var n int
	if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); e != nil || err != nil {
		m.t.Fatal(e, err)
	}
	return n
}

// TestWatchdogOfParts: systemd gets no ping while the registry or an accept loop
// hangs.
func TestWatchdogOfParts(t *testing.T) {
	for name, hang := range map[string]string{"registry": "registry: ", "server": "server: "} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			t.Setenv("NOTIFY_SOCKET", m.path)
			t.Setenv("WATCHDOG_USEC", "400000")
			t.Setenv("WATCHDOG_PID", "")
			log := make(lines, 1000)
			reg, err := registry.New(t.Context(), registry.Options{Store: &registry.MemoryStore{}, Checker: checker.Checks{Runner: checker.Local{}}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			tcp, err := net.Listen("tcp", "[::1]:0")
			if err != nil {
				t.Fatal(err)
			}
			listener := &deafListener{Listener: tcp}
			listener.deaf.Store(name == "server")
			d := &daemon{Options: Options{Log: slog.New(slog.NewTextHandler(log, nil))}, registry: reg,
				server: &server.Server{Directory: reg, Log: slog.New(slog.DiscardHandler)}}

			ctx, stop := context.WithCancel(t.Context())
			var parts sync.WaitGroup
			parts.Go(func() { _ = d.server.Serve(ctx, listener) })
			run := func() { parts.Go(func() { _ = reg.Run(ctx) }) }
			if name != "registry" {
				run()
			}
			for name == "server" { // until its loop has begun
				short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				err := d.server.Ping(short)
				if cancel(); err != nil {
					break
				}
			}
			parts.Go(func() { d.watchdog(ctx) })
			for range 2 {
				log.await(t, hang)
			}
			if n := m.queued(); n > 0 {
				t.Errorf("a ping was sent (%d bytes)", n)
			}
			// Well again.
			if name == "registry" {
				run()
			}
			listener.deaf.Store(false)
			m.await("WATCHDOG=1")
			stop()
			parts.Wait()
		})
	}
}
