package busapi

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/interop"
	"mandos/internal/registry"
	"mandos/internal/testenv"
)

// TestFlood calls all methods and properties, with good and bad arguments, as
// fast as the bus takes it, while clients get their secrets. It runs for the
// time in MANDOS_FLOOD (such as 10s), or briefly without it.
func TestFlood(t *testing.T) {
	length := 300 * time.Millisecond
	if s := os.Getenv("MANDOS_FLOOD"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, settings("a"), settings("b"))
	big := strings.Repeat("x", 1<<16)
	type flood struct {
		path   dbus.ObjectPath
		method string
		args   []any
	}
	var floods []flood
	for _, p := range clientProperties {
		for _, v := range []any{int64(-1), uint64(1<<64 - 1), "", big, []byte{0}, true, 1.5, dbus.ObjectPath("/"), []string{"x"}, map[string]int32{"x": 1}, dbus.MakeVariant(int32(1))} {
			if p.name == "Enabled" || p.name == "Timeout" {
				v = struct{ A, B string }{"x", "y"} // a's secret is asked for meanwhile
			}
			floods = append(floods, flood{"/clients/b", propertiesName + ".Set", []any{clientName, p.name, dbus.MakeVariant(v)}})
		}
		floods = append(floods, flood{"/clients/a", propertiesName + ".Get", []any{clientName, p.name}})
	}
	for _, m := range clientMethods {
		if m.name != "Disable" {
			floods = append(floods, flood{"/clients/b", clientName + "." + m.name, nil}, flood{"/clients/b", clientName + "." + m.name, []any{big}}, flood{"/clients/b", clientName + "." + m.name, []any{true}})
		}
	}
	for range 1000 { // most calls are small
		floods = append(floods, flood{"/clients/a", propertiesName + ".Get", []any{clientName, "Expires"}}, flood{"/clients/b", propertiesName + ".Set", []any{clientName, "Timeout", dbus.MakeVariant("x")}})
	}
	floods = append(floods,
		flood{"/", objectManager + ".GetManagedObjects", nil},
		flood{"/", serverName + ".RemoveClient", []any{dbus.ObjectPath("/")}},
		flood{"/", serverName + ".RemoveClient", []any{big}},
		flood{"/nosuch", clientName + ".Enable", nil},
		flood{"/clients/a", introspectable + ".Introspect", nil},
	)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls, refused atomic.Int64
	var flooding sync.WaitGroup
	for range 4 {
		conn, err := dbus.ConnectSystemBus()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		flooding.Go(func() {
			waiting := make(chan *dbus.Call, 64)
			free := make(chan struct{}, 64)
			go func() {
				for call := range waiting {
					if call.Err != nil {
						refused.Add(1)
					}
					calls.Add(1)
					<-free
				}
			}()
			for i := 0; ctx.Err() == nil; i++ {
				f := floods[i%len(floods)]
				free <- struct{}{}
				conn.Object(serverName, f.path).Go(f.method, 0, waiting, f.args...)
			}
			for range cap(free) {
				free <- struct{}{} // all are answered
			}
		})
	}
	handed := 0
	for begun := time.Now(); time.Since(begun) < length || handed < 10 || refused.Load() == 0; handed++ {
		h, err := s.registry.Release("a", caller)
		if err != nil {
			t.Fatalf("a client was refused during the flood: %v", err)
		}
		h.Done(nil)
		time.Sleep(time.Millisecond) // as when clients come one after the other
	}
	cancel()
	flooding.Wait()
	t.Logf("%d calls in %v, %d of them refused; %d secrets handed out; %d goroutines", calls.Load(), length, refused.Load(), handed, runtime.NumGoroutine())
	if got := s.get(t, "/clients/a", clientName, "Enabled"); got != true {
		t.Error("client a is disabled")
	}
}

// ownBus has the environment name a bus that the function it returns starts,
// again and again.
func ownBus(t *testing.T) (start func() *exec.Cmd) {
	t.Helper()
	dir := interop.Folder(t)
	conf := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(conf, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=`+dir+`/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+dir+"/bus")
	testenv.Program(t, "dbus-daemon", "dbus")
	return func() *exec.Cmd {
		os.Remove(filepath.Join(dir, "bus"))
		cmd := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile", "--print-address=1")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		if _, err := stdout.Read(make([]byte, 1)); err != nil { // it is ready
			t.Fatal(err)
		}
		return cmd
	}
}

// TestBusRestart: the bus is killed and comes back at its address; the
// clients are exported again, and handing out goes on meanwhile.
func TestBusRestart(t *testing.T) {
	startBus := ownBus(t)
	bus := startBus()
	s := serveOn(t, settings("a"), settings("b"))
	for range 2 {
		bus.Process.Kill()
		<-s.bus.Context().Done()
		h, err := s.registry.Release("a", caller)
		if err != nil {
			t.Fatalf("without a bus a client was refused: %v", err)
		}
		h.Done(nil)
		bus = startBus()
		s.bus = operatorConn(t)
		var objects map[dbus.ObjectPath]map[string]map[string]dbus.Variant
		if err := s.call("/", objectManager+".GetManagedObjects").Store(&objects); err != nil {
			t.Fatal(err)
		}
		if len(objects) != 2 {
			t.Errorf("%d clients came back", len(objects))
		}
		if err := s.set("/clients/b", "Enabled", false); err != nil {
			t.Error(err)
		}
	}
}

// TestRemovedWithoutBus: the successor of a client that was removed while there
// was no bus gets its path, but not its history.
func TestRemovedWithoutBus(t *testing.T) {
	a := &api{paths: &Paths{}}
	for _, name := range []string{"a.b", "c"} {
		a.paths.Path(name)
		got := &registry.Notice{Kind: registry.ClientChanged, Client: registry.View{Settings: settings(name)}, Caller: caller, Changes: []client.Notice{client.GotSecret{}}}
		a.history.note(got, time.Now())
	}
	a.keep([]string{"a-b", "c"})
	if path := a.paths.Path("a-b"); path != "/clients/a_b" {
		t.Errorf("the path is %s", path)
	}
	if b, c := a.history.handouts("a.b"), a.history.handouts("c"); len(b) != 0 || len(c) != 1 {
		t.Errorf("remembered are %v and %v", b, c)
	}

	startBus := ownBus(t)
	bus := startBus()
	s := serveOn(t, settings("a.b"))
	bus.Process.Kill()
	<-s.bus.Context().Done()
	if _, err := s.registry.Reload([]client.Settings{settings("a-b")}); err != nil {
		t.Fatal(err)
	}
	startBus()
	s.bus = operatorConn(t)
	if got := s.get(t, "/clients/a_b", clientName, "Name"); got != "a-b" {
		t.Errorf("at the path is %q", got)
	}
}

// TestSlowBus: while the bus reads nothing, clients get their secrets, and what
// waits for the bus is bounded; afterwards the current state is sent.
func TestSlowBus(t *testing.T) {
	bus := ownBus(t)()
	s := serveWith(t, slog.New(slog.DiscardHandler), settings("a", func(s *client.Settings) {
		s.Interval, s.Timeout, s.ExtendedTimeout = 24*time.Hour, 48*time.Hour, 48*time.Hour // nothing happens by itself
	}))
	for _, name := range []string{propertiesName, objectManager} {
		if err := s.bus.AddMatchSignal(dbus.WithMatchInterface(name)); err != nil {
			t.Fatal(err)
		}
	}
	heard := make(chan *dbus.Signal, 4*feedSize)
	s.bus.Signal(heard)

	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := used()
	if err := bus.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 6 * feedSize {
		h, err := s.registry.Release("a", caller)
		if err != nil {
			t.Fatal(err)
		}
		h.Done(nil)
	}
	if after := used(); after > before+16<<20 {
		t.Errorf("%d KiB wait for the bus", (after-before)>>10)
	}
	if err := bus.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	tooLate := time.After(5 * time.Minute) // a busy machine takes half a minute for it
	for {
		select {
		case signal := <-heard:
			var properties map[string]dbus.Variant
			switch body := signal.Body; signal.Name {
			case propertiesName + ".PropertiesChanged":
				properties = body[1].(map[string]dbus.Variant)
			case objectManager + ".InterfacesAdded": // if it wasn't announced before
				properties = body[1].(map[string]map[string]dbus.Variant)[clientName]
			}
			if now, _ := s.registry.Get("a"); properties["LastCheckedOK"].Value() == stamp(now.LastCheckedOK) {
				return
			}
		case <-tooLate:
			t.Fatal("what was missed is never told")
		}
	}
}

// TestHungBus: neither a bus that accepts the connection and sends nothing, nor
// one that stops reading signals, keeps the server from ending.
func TestHungBus(t *testing.T) {
	ended := func(t *testing.T, stop func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { stop(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("it goes on")
		}
	}
	t.Run("from the start", func(t *testing.T) {
		path := filepath.Join(interop.Folder(t), "bus")
		silent, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		r, err := registry.New(t.Context(), registry.Options{NoRestore: true, Checker: stubChecker{}, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() { Serve(ctx, Options{Registry: r, Paths: &Paths{}, Log: log, Version: "test"}) })
		conn, err := silent.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ended(t, func() { cancel(); serving.Wait() })
	})
	t.Run("later", func(t *testing.T) {
		bus := ownBus(t)()
		defer bus.Process.Kill()
		s := serveWith(t, slog.New(slog.DiscardHandler), settings("a"))
		if err := bus.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for range 2 * feedSize { // more than the socket takes
			h, err := s.registry.Release("a", caller)
			if err != nil {
				t.Fatal(err)
			}
			h.Done(nil)
		}
		ended(t, s.stop)
	})
}

// TestStuckAnswer: an answer that the bus doesn't take keeps nobody from trying
// again on a new connection.
func TestStuckAnswer(t *testing.T) {
	path := filepath.Join(interop.Folder(t), "bus")
	bus, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	long := settings("a", func(s *client.Settings) { s.Checker = strings.Repeat("x", 4<<20) }) // more than the socket takes
	begin(t, slog.New(slog.DiscardHandler), long)
	defer bus.Close()

	letIn(t, bus) // the one for asking
	conn := letIn(t, bus)
	request := conn.next("RequestName")
	conn.send(&dbus.Message{Type: dbus.TypeMethodCall, Body: []any{clientName}, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/clients/a")), dbus.FieldInterface: dbus.MakeVariant(propertiesName),
		dbus.FieldMember: dbus.MakeVariant("GetAll"), dbus.FieldSender: dbus.MakeVariant(":1.9"),
	}})
	if _, err := io.ReadFull(conn.in, make([]byte, 16)); err != nil { // the answer has begun, and we read no more of it
		t.Fatal(err)
	}
	conn.answer(request, uint32(dbus.RequestNameReplyExists))
	letIn(t, bus) // fails if it doesn't come
}

// A busEnd is a bus's end of a connection to the server.
type busEnd struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// letIn accepts a connection, as a bus does (D-Bus Specification,
// "Authentication Protocol").
func letIn(t *testing.T, bus *net.UnixListener) *busEnd {
	t.Helper()
	if err := bus.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	conn, err := bus.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	e := &busEnd{t, conn, bufio.NewReader(conn)}
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		switch words := strings.Fields(strings.TrimPrefix(line, "\x00")); {
		case words[0] == "BEGIN":
			e.answer(e.next("Hello"), ":1.5")
			return e
		case len(words) == 1:
			_, err = io.WriteString(conn, "REJECTED EXTERNAL\r\n")
		default:
			_, err = io.WriteString(conn, "OK 0123456789abcdef0123456789abcdef\r\n")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// next reads a message, which must be a call of member.
func (e *busEnd) next(member string) *dbus.Message {
	e.t.Helper()
	m, err := dbus.DecodeMessage(e.in)
	if err != nil || m.Headers[dbus.FieldMember].Value() != member {
		e.t.Fatalf("read %v, %v; want a call of %s", m, err, member)
	}
	return m
}

func (e *busEnd) answer(call *dbus.Message, value any) {
	e.t.Helper()
	e.send(&dbus.Message{Type: dbus.TypeMethodReply, Body: []any{value}, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldSender: dbus.MakeVariant("org.freedesktop.DBus"), dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
	}})
}

func (e *busEnd) send(m *dbus.Message) {
	e.t.Helper()
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	if err := m.EncodeTo(e.conn, binary.LittleEndian); err != nil {
		e.t.Fatal(err)
	}
}

// TestNumbers: the connection's messages have different numbers, both signals
// and answers.
func TestNumbers(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", interop.Bus(t))
	s := serveOn(t, settings("a"))
	var owner string
	if err := s.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, serverName).Store(&owner); err != nil {
		t.Fatal(err)
	}
	count := map[dbus.Type]int{}
	seen := map[uint32]bool{}
	last := make(chan struct{})
	conn, err := dbus.ConnectSystemBus(dbus.WithIncomingInterceptor(func(m *dbus.Message) {
		if m.Headers[dbus.FieldSender].Value() != owner {
			return
		}
		if seen[m.Serial()] || m.Serial() == 0 {
			t.Errorf("the number %d comes twice", m.Serial())
		}
		seen[m.Serial()] = true
		count[m.Type]++
		if m.Headers[dbus.FieldInterface].Value() == propertiesName {
			if _, ok := m.Body[1].(map[string]dbus.Variant)["Enabled"]; ok {
				close(last)
			}
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.AddMatchSignal(dbus.WithMatchSender(serverName), dbus.WithMatchPathNamespace("/clients")); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := conn.Object(serverName, "/clients/a").Call(propertiesName+".Set", 0, clientName, "Host", dbus.MakeVariant(fmt.Sprint(i))).Err; err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Object(serverName, "/clients/a").Call(clientName+".Disable", 0).Err; err != nil {
		t.Fatal(err)
	}
	<-last
	if count[dbus.TypeMethodReply] < 200 || count[dbus.TypeSignal] < 600 {
		t.Errorf("heard %v", count)
	}
}

// TestNameTaken: another server has the name; ours waits for it, and serves
// clients meanwhile.
func TestNameTaken(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", interop.Bus(t))
	other, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.RequestName(serverName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	lost := make(chan struct{}, 10)
	r, _ := begin(t, slog.New(told{slog.NewTextHandler(t.Output(), nil), lost}), settings("a"))
	<-lost
	h, err := r.Release("a", caller)
	if err != nil {
		t.Fatal(err)
	}
	h.Done(nil)
	other.Close()
	operatorConn(t) // fails if the server doesn't come
}

// told tells a channel of warnings.
type told struct {
	slog.Handler
	lost chan<- struct{}
}

func (h told) WithAttrs(a []slog.Attr) slog.Handler { return told{h.Handler.WithAttrs(a), h.lost} }
func (h told) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		select {
		case h.lost <- struct{}{}:
		default:
		}
	}
	return h.Handler.Handle(ctx, r)
}
