package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/testenv"
)

// An operated is a server with its operators' bus.
type operated struct {
	addr    string     // where clients ask
	bus     string     // the address of the bus
	conn    *dbus.Conn // of an operator
	signals chan *dbus.Signal
	fences  int
	pid     int // of the server, and of its process group
	mayHang bool
}

const mandosName = "se.recompile.Mandos"

// operate starts a server on a bus of its own.
func (p Programs) operate(t testing.TB, sections ...string) *operated {
	t.Helper()
	return p.operateOn(t, Bus(t), sections...)
}

// operateOn is operate on a bus that is there.
func (p Programs) operateOn(t testing.TB, bus string, sections ...string) *operated {
	t.Helper()
	o := &operated{bus: bus, signals: make(chan *dbus.Signal, 1000)}
	conn, err := dbus.Connect(o.bus, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	o.conn = conn
	if err := conn.AddMatchSignal(); err != nil {
		t.Fatal(err)
	}
	conn.Signal(o.signals)

	configdir, statedir := config(t, sections)
	socket, addr := listen(t)
	o.addr = addr
	cmd := command(p.server, "--foreground", "--no-zeroconf", "--socket", "3", "--configdir", configdir, "--statedir", statedir)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+o.bus)
	start(t, cmd)
	o.pid = cmd.Process.Pid
	// Both announce their clients when all is there.
	o.hear(t, "InterfacesAdded", len(sections))
	return o
}

// hear waits for the nth signal called member and returns it.
func (o *operated) hear(t testing.TB, member string, n int) *dbus.Signal {
	t.Helper()
	s, last := o.heard(t, member, n, patience)
	if s == nil {
		t.Fatalf("no signal %s; the last one was %q", member, last)
	}
	return s
}

// heard is hear that returns nil after within, and the name of the last signal.
func (o *operated) heard(t testing.TB, member string, n int, within time.Duration) (found *dbus.Signal, last string) {
	t.Helper()
	for timeout := time.After(within); ; {
		select {
		case s, open := <-o.signals:
			if !open {
				t.Fatalf("the bus went away while waiting for %s", member)
			}
			last = s.Name
			if strings.HasSuffix(s.Name, "."+member) && !strings.Contains(s.Name, "fukt") {
				if n--; n <= 0 {
					return s, last
				}
			}
		case <-timeout:
			return nil, last
		}
	}
}

// get reads a property of a client.
func (o *operated) get(t testing.TB, client, property string) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.within())
	defer cancel()
	var v dbus.Variant
	if err := o.conn.Object(mandosName, dbus.ObjectPath("/clients/"+client)).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, mandosName+".Client", property).Store(&v); err != nil {
		o.failed(t, err)
	}
	return v.Value()
}

func (o *operated) set(t testing.TB, client, property string, value any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.within())
	defer cancel()
	if err := o.conn.Object(mandosName, dbus.ObjectPath("/clients/"+client)).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Set", 0, mandosName+".Client", property, dbus.MakeVariant(value)).Err; err != nil {
		o.failed(t, err)
	}
}

// patience is how long anything may take that is due: no time that a busy
// machine needs. Only a failure reaches it.
const patience = 2 * time.Minute

// standstill is how long a server that may hang is waited for. If it was only
// slow, another one is asked for nothing.
const standstill = 15 * time.Second

// within is how long the server may take for anything.
func (o *operated) within() time.Duration {
	if o.mayHang {
		return standstill
	}
	return patience
}

// errHung is the panic of a server that may hang, and did.
var errHung = errors.New("the server stands still")

// failed ends the test, or with mayHang panics with errHung.
func (o *operated) failed(t testing.TB, err error) {
	t.Helper()
	if o.mayHang && errors.Is(err, context.DeadlineExceeded) {
		panic(errHung)
	}
	t.Fatal(err)
}

// until waits until a property of a client has a value.
func (o *operated) until(t testing.TB, client, property string, want any) {
	t.Helper()
	for deadline := time.Now().Add(o.within()); o.get(t, client, property) != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.failed(t, fmt.Errorf("%s of %s never was %v: %w", property, client, want, context.DeadlineExceeded))
		}
	}
}

// run runs an operator's command to its end.
func (o *operated) run(t testing.TB, program []string, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := command(program, args...)
	cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+o.bus, "LC_ALL=C.UTF-8")
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		exit = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), exit
}

// section is one of a client that never asks.
func section(name string, more ...string) string {
	return fmt.Sprintf("[%s]\nhost = %s.example\nkey_id = %X\nfingerprint =\nsecret = aGVsbG8=\n%s\n", name, name, sha256.Sum256([]byte(name)), strings.Join(more, "\n"))
}

// A screen is a program on a terminal of tmux.
type screen struct {
	t    testing.TB
	tmux []string
}

func (o *operated) screen(t testing.TB, program []string, env ...string) *screen {
	t.Helper()
	testenv.Program(t, "tmux", "tmux")
	s := &screen{t, []string{"tmux", "-f", "/dev/null", "-S", Folder(t) + "/tmux"}}
	args := append([]string{"new-session", "-d", "-x", "100", "-y", "30", "env", "DBUS_SYSTEM_BUS_ADDRESS=" + o.bus, "LC_ALL=C.UTF-8"}, env...)
	output(t, command(s.tmux, append(args, program...)...))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen at the end:\n%s", s.read())
		}
		_ = command(s.tmux, "kill-server").Run()
	})
	return s
}

// read returns what is on the screen.
func (s *screen) read() string {
	out, err := command(s.tmux, "capture-pane", "-p").Output()
	if err != nil {
		return fmt.Sprintf("(no screen: %v)", err)
	}
	return string(out)
}

func (s *screen) press(keys ...string) {
	s.t.Helper()
	output(s.t, command(s.tmux, append([]string{"send-keys"}, keys...)...))
}

// shows waits until the screen matches pattern.
func (s *screen) shows(pattern string) {
	s.t.Helper()
	s.until(pattern, true)
}

// showsNot waits until the screen doesn't match pattern.
func (s *screen) showsNot(pattern string) {
	s.t.Helper()
	s.until(pattern, false)
}

func (s *screen) until(pattern string, want bool) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // tmux has no way to wait for a text
		text := s.read()
		if re.MatchString(text) == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for the screen to match %q: %v; it is\n%s", pattern, want, text)
		}
	}
}

// ended waits for the program's end.
func (s *screen) ended() {
	s.t.Helper()
	s.shows(`no screen`)
}
