package avahi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/journal"
	"mandos/internal/testenv"
)

// A bus is a private system bus at a fixed address, so that it can be restarted.
type bus struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
}

func newBus(t *testing.T) *bus {
	testenv.Program(t, "dbus-daemon", "dbus")
	dir := t.TempDir()
	b := &bus{t: t, dir: dir, addr: "unix:path=" + filepath.Join(dir, "socket")}
	config := `<busconfig><type>system</type><listen>` + b.addr + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
<allow send_type="method_call"/></policy></busconfig>`
	if err := os.WriteFile(filepath.Join(dir, "bus.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", b.addr)
	t.Cleanup(b.stop)
	return b
}

func (b *bus) start() {
	b.t.Helper()
	b.cmd = exec.Command("dbus-daemon", "--config-file="+filepath.Join(b.dir, "bus.conf"),
		"--nofork", "--nopidfile", "--nosyslog", "--print-address=1")
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it prints once it listens
		b.t.Fatalf("the private bus did not start: %v", err)
	}
}

func (b *bus) stop() {
	if b.cmd != nil {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		b.cmd = nil
		os.Remove(filepath.Join(b.dir, "socket"))
	}
}

func (b *bus) connect() *dbus.Conn {
	b.t.Helper()
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// An entry is one call of AddService.
type entry struct {
	iface, protocol int32
	name, kind      string
	port            uint16
}

// A fake plays avahi-daemon; what it was asked to announce comes out of commits.
type fake struct {
	t    *testing.T
	conn *dbus.Conn

	mu     sync.Mutex
	state  int32
	taken  map[string]bool
	groups int
	fail   string        // error of the next Commit
	hung   chan struct{} // Free doesn't answer before this is closed; may be nil

	commits chan []entry
	frees   chan dbus.ObjectPath
	renames chan string
}

type fakeGroup struct {
	f    *fake
	path dbus.ObjectPath

	mu      sync.Mutex
	entries []entry
}

func newFake(b *bus, taken ...string) *fake {
	f := &fake{t: b.t, conn: b.connect(), state: serverRunning, taken: map[string]bool{},
		commits: make(chan []entry, 100), frees: make(chan dbus.ObjectPath, 100), renames: make(chan string, 100)}
	for _, name := range taken {
		f.taken[name] = true
	}
	if err := f.conn.Export(f, "/", serverIface); err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (f *fake) appear() {
	f.t.Helper()
	if reply, err := f.conn.RequestName(busName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		f.t.Fatalf("taking the name %s: reply %v, error %v", busName, reply, err)
	}
}

func (f *fake) vanish() { f.conn.Close() }

func (f *fake) GetState() (int32, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, nil
}

func (f *fake) setState(state int32) {
	f.mu.Lock()
	f.state = state
	f.mu.Unlock()
	f.emit("/", serverIface, state)
}

func (f *fake) emit(path dbus.ObjectPath, iface string, state int32) {
	if err := f.conn.Emit(path, iface+".StateChanged", state, "why"); err != nil {
		f.t.Errorf("emitting StateChanged: %v", err)
	}
}

func (f *fake) EntryGroupNew() (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups++
	g := &fakeGroup{f: f, path: dbus.ObjectPath(fmt.Sprintf("/Client1/EntryGroup%d", f.groups))}
	if err := f.conn.Export(g, g.path, groupIface); err != nil {
		return "", dbus.MakeFailedError(err)
	}
	return g.path, nil
}

func (f *fake) GetAlternativeServiceName(name string) (string, *dbus.Error) {
	base, number, ok := strings.Cut(name, " #")
	next := 2
	if ok {
		n, err := strconv.Atoi(number)
		if err != nil {
			return "", dbus.MakeFailedError(err)
		}
		next = n + 1
	}
	name = fmt.Sprintf("%s #%d", base, next)
	f.renames <- name
	return name, nil
}

func (g *fakeGroup) AddService(iface, protocol int32, _ uint32, name, kind, _, _ string, port uint16, _ [][]byte) *dbus.Error {
	g.f.mu.Lock()
	taken := g.f.taken[name]
	g.f.mu.Unlock()
	if taken {
		return dbus.NewError(collisionError, []any{"Local name collision"})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = append(g.entries, entry{iface, protocol, name, kind, port})
	return nil
}

func (g *fakeGroup) Commit() *dbus.Error {
	g.f.mu.Lock()
	fail := g.f.fail
	g.f.fail = ""
	g.f.mu.Unlock()
	if fail != "" {
		return dbus.NewError(fail, []any{"told to fail"})
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.f.commits <- g.entries
	return nil
}

func (g *fakeGroup) Reset() *dbus.Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = nil
	return nil
}

func (g *fakeGroup) Free() *dbus.Error {
	g.f.frees <- g.path
	if g.f.hung != nil {
		<-g.f.hung
	}
	return nil
}

// records is a slog.Handler whose records a test waits for, each as "message name".
type records chan string

func (r records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r records) WithGroup(string) slog.Handler            { return r }
func (r records) Handle(_ context.Context, record slog.Record) error {
	text := record.Message
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == journal.Service("").Key {
			text += " " + a.Value.String()
		}
		return true
	})
	r <- text
	return nil
}

// An announcement runs the code under test.
type announcement struct {
	t    *testing.T
	log  records
	stop func() // and wait until it has stopped
}

func announce(t *testing.T, s Service) *announcement {
	return announceBy(t, announcer{service: s, goodbyeTime: time.Minute})
}

func announceBy(t *testing.T, a announcer) *announcement {
	log := make(records, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	a.log, a.firstDelay, a.maxDelay, a.callTimeout = slog.New(log), time.Millisecond, 4*time.Millisecond, time.Hour
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return &announcement{t, log, stop}
}

// wait waits for something that is due to happen, and fails after a time that only a hang reaches.
func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("%s did not happen", what)
		panic("unreachable")
	}
}

func (a *announcement) expect(event journal.Event, name string) {
	a.t.Helper()
	want := strings.TrimSpace(event.Text + " " + name)
	if got := wait(a.t, a.log, "log entry "+strconv.Quote(want)); got != want {
		a.t.Fatalf("logged %q, want %q", got, want)
	}
}

func expectCommit(t *testing.T, f *fake, want ...entry) {
	t.Helper()
	got := wait(t, f.commits, "the commit")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("announced %v, want %v", got, want)
	}
}

var both = Service{Name: "Mandos", Addrs: []netip.AddrPort{netip.MustParseAddrPort("[::]:6637")}}

func mandos(name string) entry { return entry{-1, 1, name, "_mandos._tcp", 6637} }

func TestAnnounceAndWithdraw(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.appear()
	a := announce(t, both)
	expectCommit(t, f, mandos("Mandos"))
	f.emit("/Client1/EntryGroup1", groupIface, groupEstablished)
	a.expect(journal.Announced, "Mandos")
	a.stop()
	if got := wait(t, f.frees, "freeing the entry group"); got != "/Client1/EntryGroup1" {
		t.Errorf("freed %s", got)
	}
	a.expect(journal.Withdrawn, "Mandos")
}

// TestHungAvahi: an avahi-daemon that doesn't answer doesn't keep the server from
// ending.
func TestHungAvahi(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.hung = make(chan struct{})
	defer close(f.hung)
	f.appear()
	for goodbye := 10 * time.Millisecond; ; goodbye *= 2 {
		a := announceBy(t, announcer{service: both, goodbyeTime: goodbye})
		expectCommit(t, f, mandos("Mandos"))
		stopped := make(chan struct{})
		go func() { a.stop(); close(stopped) }()
		wait(t, stopped, "the end")
		select {
		case <-f.frees:
			return
		default:
			t.Logf("within %v avahi-daemon wasn't even asked", goodbye)
		}
	}
}

// TestHungBus: nor does a bus that takes no more.
func TestHungBus(t *testing.T) {
	b := newBus(t)
	b.start()
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := (&announcer{goodbyeTime: time.Millisecond}).connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() { called <- conn.BusObject().Call("a.b.C", 0, strings.Repeat("x", 10<<20)).Err }() // more than the socket takes
	cancel()
	if err := wait(t, called, "the end of a call"); err == nil {
		t.Error("the call went well")
	}
	conn.Close()
}

func TestProtocolAndInterface(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.appear()
	tests := []struct {
		name  string
		iface string
		addrs []string
		want  []entry
	}{
		{"IPv6", "", []string{"[::]:6637"}, []entry{{-1, 1, "N", ServiceType, 6637}}},
		{"IPv4", "", []string{"0.0.0.0:1"}, []entry{{-1, 0, "N", ServiceType, 1}}},
		{"IPv4-mapped", "", []string{"[::ffff:192.0.2.1]:65535"}, []entry{{-1, 0, "N", ServiceType, 65535}}},
		{"two sockets", "lo", []string{"[::]:7", "192.0.2.1:8"}, []entry{{1, 1, "N", ServiceType, 7}, {1, 0, "N", ServiceType, 8}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := Service{Name: "N", Interface: test.iface}
			for _, addr := range test.addrs {
				s.Addrs = append(s.Addrs, netip.MustParseAddrPort(addr))
			}
			announce(t, s)
			expectCommit(t, f, test.want...)
		})
	}
}

func TestLocalCollisionRenames(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b, "Mandos", "Mandos #2")
	f.appear()
	a := announce(t, both)
	a.expect(journal.Renamed, "Mandos #2")
	a.expect(journal.Renamed, "Mandos #3")
	expectCommit(t, f, mandos("Mandos #3"))
}

func TestRemoteCollisionRenames(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.appear()
	a := announce(t, both)
	expectCommit(t, f, mandos("Mandos"))
	f.emit("/Client1/EntryGroup7", groupIface, groupCollision) // somebody else's
	f.emit("/Client1/EntryGroup1", groupIface, groupCollision)
	a.expect(journal.Renamed, "Mandos #2")
	expectCommit(t, f, mandos("Mandos #2"))
	f.emit("/Client1/EntryGroup1", groupIface, groupEstablished)
	a.expect(journal.Announced, "Mandos #2")
}

// TestEndlessCollisionsPause: somebody who claims every name must not keep us
// busy.
func TestEndlessCollisionsPause(t *testing.T) {
	b := newBus(t)
	b.start()
	names := []string{"Mandos"}
	for i := range maxRenames {
		names = append(names, fmt.Sprintf("Mandos #%d", i+2))
	}
	f := newFake(b, names...)
	f.appear()
	a := announce(t, both)
	for i := range maxRenames {
		a.expect(journal.Renamed, fmt.Sprintf("Mandos #%d", i+2))
	}
	a.expect(journal.AnnounceFailed, "")
	last := maxRenames + 2
	a.expect(journal.Renamed, fmt.Sprintf("Mandos #%d", last)) // after the pause
	expectCommit(t, f, mandos(fmt.Sprintf("Mandos #%d", last)))
}

func TestServerStates(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.state = 1 // registering
	f.appear()
	announce(t, both)
	f.setState(serverRunning)
	expectCommit(t, f, mandos("Mandos"))
	f.setState(3) // collision of the host name
	if got := wait(t, f.frees, "freeing the entry group"); got != "/Client1/EntryGroup1" {
		t.Errorf("freed %s", got)
	}
	f.setState(serverRunning)
	expectCommit(t, f, mandos("Mandos"))
}

func TestFailuresAreTriedAgain(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.fail = "org.freedesktop.Avahi.TooManyObjectsError"
	f.appear()
	a := announce(t, both)
	a.expect(journal.AnnounceFailed, "")
	expectCommit(t, f, mandos("Mandos"))
	f.emit("/Client1/EntryGroup2", groupIface, groupFailure)
	a.expect(journal.AnnounceFailed, "")
	expectCommit(t, f, mandos("Mandos"))
}

// TestNoLateRetry: avahi-daemon says itself when it is ready again. A retry
// that was scheduled before would take the announcement off the link for a
// moment.
func TestNoLateRetry(t *testing.T) {
	s := newSession(&announcer{service: both, log: slog.New(slog.DiscardHandler), firstDelay: time.Hour, maxDelay: time.Hour}, nil)
	s.tryLater(t.Context(), errors.New("avahi-daemon is busy"))
	if s.retry == nil {
		t.Fatal("no retry is planned")
	}
	s.serverChanged(t.Context(), 1) // registering
	if s.retry != nil {
		t.Error("the retry is still planned")
	}
}

func TestMissingInterfaceIsTriedAgain(t *testing.T) {
	b := newBus(t)
	b.start()
	f := newFake(b)
	f.appear()
	s := both
	s.Interface = "nosuchif0"
	a := announce(t, s)
	a.expect(journal.AnnounceFailed, "")
	// Three attempts free three groups, with one warning.
	for range 3 {
		wait(t, f.frees, "another attempt")
	}
	a.stop()
	if len(a.log) != 0 {
		t.Errorf("logged again: %q", <-a.log)
	}
}

func TestAvahiComesAndGoes(t *testing.T) {
	b := newBus(t)
	b.start()
	a := announce(t, both)
	a.expect(journal.AvahiMissing, "")
	for range 2 {
		f := newFake(b)
		f.appear()
		expectCommit(t, f, mandos("Mandos"))
		f.emit("/Client1/EntryGroup1", groupIface, groupEstablished)
		a.expect(journal.Announced, "Mandos")
		f.vanish()
		a.expect(journal.AvahiMissing, "")
	}
	// An impostor's signals, to everybody and to each by itself, change nothing.
	f := newFake(b)
	f.appear()
	expectCommit(t, f, mandos("Mandos"))
	impostor := b.connect()
	var names []string
	if err := impostor.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
		t.Fatal(err)
	}
	emit := func(path dbus.ObjectPath, iface, member string, values ...any) {
		for _, to := range append(names, "") {
			m := &dbus.Message{Type: dbus.TypeSignal, Body: values, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
				dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(values...)),
			}}
			if to != "" {
				m.Headers[dbus.FieldDestination] = dbus.MakeVariant(to)
			}
			impostor.Send(m, nil)
		}
	}
	emit("/Client1/EntryGroup1", groupIface, "StateChanged", groupCollision, "")
	emit("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", busName, "", "")
	emit("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", busName, "", impostor.Names()[0])
	if err := impostor.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Err; err != nil { // they are sent
		t.Fatal(err)
	}
	f.emit("/Client1/EntryGroup1", groupIface, groupEstablished)
	a.expect(journal.Announced, "Mandos")
}

func TestBusComesAndGoes(t *testing.T) {
	b := newBus(t)
	a := announce(t, both)
	a.expect(journal.BusMissing, "")
	for range 2 {
		b.start()
		a.expect(journal.AvahiMissing, "")
		f := newFake(b)
		f.appear()
		expectCommit(t, f, mandos("Mandos"))
		f.emit("/Client1/EntryGroup1", groupIface, groupEstablished)
		a.expect(journal.Announced, "Mandos")
		b.stop()
		a.expect(journal.BusMissing, "")
	}
}

// TestRealAvahi announces through a real avahi-daemon, alone on a dummy
// link in a network namespace, and finds the service with it.
func TestRealAvahi(t *testing.T) {
	testenv.Program(t, "avahi-daemon", "avahi-daemon")
	testenv.Program(t, "unshare", "util-linux")
	testenv.Root(t, "for a network namespace")
	b := newBus(t)
	b.start()
	a := announce(t, both)
	a.expect(journal.AvahiMissing, "")

	config := filepath.Join(b.dir, "avahi.conf")
	if err := os.WriteFile(config, []byte("[server]\nhost-name=lab\nuse-ipv4=no\n[publish]\npublish-workstation=no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `set -e
ip link set lo up
ip link add link0 type veth peer name link1; ip link set link0 up; ip link set link1 up
mount -t tmpfs tmpfs /run; mkdir /run/avahi-daemon
exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f "$1"`
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-c", script, "sh", config)
	var output strings.Builder
	cmd.Stderr = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	a.expect(journal.Announced, "Mandos")

	conn := b.connect()
	var iface, protocol, aprotocol int32
	var name, kind, domain, host, address string
	var port uint16
	var txt [][]byte
	var flags uint32
	err := conn.Object(busName, "/").CallWithContext(t.Context(), serverIface+".ResolveService", 0,
		anyInterface, protocolIPv6, "Mandos", ServiceType, "local", protocolIPv6, uint32(0)).
		Store(&iface, &protocol, &name, &kind, &domain, &host, &aprotocol, &address, &port, &txt, &flags)
	if err != nil {
		t.Fatalf("resolving the service: %v", err)
	}
	if port != 6637 || host != "lab.local" || !strings.HasPrefix(address, "fe80:") {
		t.Errorf("found %s, %s port %d", host, address, port)
	}
	a.stop()
	a.expect(journal.Withdrawn, "Mandos")
}
