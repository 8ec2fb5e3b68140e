package busapi

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/interop"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// A stubChecker runs commands that are named after how they end.
type stubChecker struct{}

func (stubChecker) Validate(string) error { return nil }

func (stubChecker) Expand(template string, _ map[string]string) (string, error) { return template, nil }

func (stubChecker) Run(ctx context.Context, _, command string, _ time.Duration) (client.CheckResult, error) {
	switch command {
	case "true":
		return client.CheckResult{}, nil
	case "false":
		return client.CheckResult{ExitStatus: 1}, nil
	case "kill -9 $$":
		return client.CheckResult{Signal: 9}, nil
	}
	<-ctx.Done()
	return client.CheckResult{}, ctx.Err()
}

func settings(name string, change ...func(*client.Settings)) client.Settings {
	s := client.Settings{
		Name: name, KeyID: keyid.OfSPKI([]byte(name)), Secret: secret.New([]byte("secret of " + name)), Host: name + ".example",
		Checker: "true", Timeout: 5 * time.Minute, ExtendedTimeout: 15 * time.Minute, Interval: 2 * time.Minute,
		ApprovalDuration: time.Second, ApprovedByDefault: true, Enabled: true,
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

// A served is a registry that is served on a private bus.
type served struct {
	registry *registry.Registry
	bus      *dbus.Conn // of an operator
	stop     func()     // ends Serve and waits for it
}

func serve(t *testing.T, clients ...client.Settings) *served {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", interop.Bus(t))
	return serveOn(t, clients...)
}

// serveOn serves on the bus that the environment names.
func serveOn(t *testing.T, clients ...client.Settings) *served {
	t.Helper()
	return serveWith(t, slog.New(slog.NewTextHandler(t.Output(), nil)), clients...)
}

func serveWith(t *testing.T, log *slog.Logger, clients ...client.Settings) *served {
	t.Helper()
	r, stop := begin(t, log, clients...)
	return &served{r, operatorConn(t), stop}
}

// begin has a registry served until stop is called, or the test ends. It
// doesn't wait for a bus.
func begin(t *testing.T, log *slog.Logger, clients ...client.Settings) (r *registry.Registry, stop func()) {
	t.Helper()
	r, err := registry.New(t.Context(), registry.Options{Settings: clients, NoRestore: true, Checker: stubChecker{}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { Serve(ctx, Options{Registry: r, Paths: &Paths{}, Log: log, Version: "test"}) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return r, stop
}

// operatorConn connects to the bus and waits for the server.
func operatorConn(t *testing.T) *dbus.Conn {
	t.Helper()
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.AddMatchSignal(dbus.WithMatchMember("NameOwnerChanged")); err != nil {
		t.Fatal(err)
	}
	changes := make(chan *dbus.Signal, 100)
	conn.Signal(changes)
	defer conn.RemoveSignal(changes)
	waitUntil := time.After(2 * time.Minute) // the server may pause for half a minute after the bus was away
	for {
		var has bool
		if err := conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, oldServerName).Store(&has); err != nil {
			t.Fatal(err)
		}
		if has {
			return conn
		}
		select {
		case <-changes:
		case <-waitUntil:
			t.Fatal("no server came to the bus")
		}
	}
}

func (s *served) call(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return s.bus.Object(serverName, path).Call(method, 0, args...)
}

func (s *served) get(t *testing.T, path dbus.ObjectPath, iface, property string) any {
	t.Helper()
	var v dbus.Variant
	if err := s.call(path, propertiesName+".Get", iface, property).Store(&v); err != nil {
		t.Fatalf("getting %s: %v", property, err)
	}
	return v.Value()
}

func (s *served) set(path dbus.ObjectPath, property string, value any) error {
	return s.call(path, propertiesName+".Set", clientName, property, dbus.MakeVariant(value)).Err
}

var caller = registry.Caller{Addr: netip.MustParseAddrPort("[fe80::1%eth0]:4711"), Identity: keyid.Identity{KeyID: keyid.OfSPKI([]byte("a"))}}

func TestSet(t *testing.T) {
	// No check ends meanwhile.
	s := serve(t, settings("a", func(s *client.Settings) { s.Checker = "sleep infinity" }))
	const path = "/clients/a"
	for _, tt := range []struct {
		property string
		value    any
		want     any // read back; nil: refused
	}{
		{"Timeout", uint64(60000), uint64(60000)},
		{"Timeout", int32(61000), uint64(61000)}, // what Debian's mandos-ctl sends
		{"Timeout", uint32(62000), uint64(62000)},
		{"Timeout", int64(63000), uint64(63000)},
		{"Timeout", int64(-1), nil},
		{"Timeout", uint64(1<<64 - 1), nil},
		{"Timeout", "PT5M", nil},
		{"Timeout", 5.0, nil},
		{"Timeout", true, nil},
		{"ExtendedTimeout", int32(1), uint64(1)},
		{"Interval", int32(100_000), uint64(100_000)},
		{"Interval", int32(0), nil},
		{"ApprovalDelay", int32(0), uint64(0)},
		{"ApprovalDuration", int32(5), uint64(5)},
		{"ApprovedByDefault", false, false},
		{"ApprovedByDefault", int32(0), nil},
		{"Checker", "false", "false"},
		{"Checker", []byte("false"), nil},
		{"Host", "ö\n", "ö\n"},
		{"Enabled", false, false},
		{"Enabled", true, true},
		{"Enabled", "yes", nil},
		{"Name", "b", nil},
		{"Expires", "", nil},
		{"ObjectPath", dbus.ObjectPath("/"), nil},
		{"Nonsense", "", nil},
		{"LastCheckedOK", 5, nil},
		{"CheckerRunning", "", nil},
	} {
		before := s.getAll(t, path)
		err := s.set(path, tt.property, tt.value)
		if tt.want == nil {
			if err == nil {
				t.Errorf("%s = %v (%T) was accepted", tt.property, tt.value, tt.value)
			}
			if after := s.getAll(t, path); after[tt.property] != before[tt.property] {
				t.Errorf("%s = %v (%T) was refused, but changed it from %v to %v", tt.property, tt.value, tt.value, before[tt.property], after[tt.property])
			}
			continue
		}
		if err != nil {
			t.Errorf("%s = %v (%T): %v", tt.property, tt.value, tt.value, err)
		} else if got := s.get(t, path, clientName, tt.property); got != tt.want {
			t.Errorf("%s = %v (%T) reads as %v (%T)", tt.property, tt.value, tt.value, got, got)
		}
	}
	if err := s.set(path, "LastCheckedOK", ""); err != nil {
		t.Error(err)
	}
	if got := s.get(t, path, clientName, "LastCheckedOK").(string); len(got) != len("2006-01-02T15:04:05.000000") {
		t.Errorf("LastCheckedOK reads as %q", got)
	}
}

func (s *served) getAll(t *testing.T, path dbus.ObjectPath) map[string]any {
	t.Helper()
	var all map[string]dbus.Variant
	if err := s.call(path, propertiesName+".GetAll", clientName).Store(&all); err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	for name, v := range all {
		values[name] = v.Value()
	}
	return values
}

// TestSecret: a secret can be set and never be read.
func TestSecret(t *testing.T) {
	s := serve(t, settings("a"))
	if err := s.set("/clients/a", "Secret", []byte("another")); err != nil {
		t.Fatal(err)
	}
	h, err := s.registry.Release("a", caller)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(h.Secret.Reveal()); got != "another" {
		t.Errorf("the secret is %q", got)
	}
	h.Done(nil)
	for _, bad := range []any{"text", []byte{}, int32(1)} {
		if err := s.set("/clients/a", "Secret", bad); err == nil {
			t.Errorf("the secret was set to %v (%T)", bad, bad)
		}
	}
	if err := s.call("/clients/a", propertiesName+".Get", clientName, "Secret").Err; err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Errorf("reading the secret: %v", err)
	}
	if _, has := s.getAll(t, "/clients/a")["Secret"]; has {
		t.Error("GetAll tells the secret")
	}
}

func TestErrors(t *testing.T) {
	s := serve(t, settings("a"))
	for _, tt := range []struct {
		path   dbus.ObjectPath
		method string
		args   []any
		want   string
	}{
		{"/", serverName + ".RemoveClient", []any{dbus.ObjectPath("/clients/b")}, errKey},
		{"/", serverName + ".RemoveClient", []any{"/clients/a"}, errInvalidArgs},
		{"/", serverName + ".RemoveClient", nil, errInvalidArgs},
		{"/", serverName + ".Nonsense", nil, "org.freedesktop.DBus.Error.UnknownMethod"},
		{"/", "nonsense.Interface.GetAllClients", nil, "org.freedesktop.DBus.Error.UnknownMethod"},
		{"/clients/a", serverName + ".GetAllClients", nil, "org.freedesktop.DBus.Error.UnknownMethod"},
		{"/clients/b", clientName + ".Enable", nil, errUnknownObject},
		{"/nonsense", introspectable + ".Introspect", nil, errUnknownObject},
		{"/clients/a", clientName + ".Approve", []any{"yes"}, errInvalidArgs},
		{"/clients/a", clientName + ".Approve", []any{true, true}, errInvalidArgs},
		{"/clients/a", clientName + ".Enable", []any{true}, errInvalidArgs},
		{"/clients/a", propertiesName + ".Get", []any{clientName, "Secret"}, errPropertyAccess},
		{"/clients/a", propertiesName + ".Get", []any{clientName, "Nonsense"}, errPropertyNotFound},
		{"/clients/a", propertiesName + ".Get", []any{"nonsense", "Name"}, errPropertyNotFound},
		{"/clients/a", propertiesName + ".Set", []any{clientName, "Name", dbus.MakeVariant("b")}, errPropertyAccess},
		{"/clients/a", propertiesName + ".Set", []any{clientName, "Timeout", "5"}, errInvalidArgs},
		{"/clients/a", propertiesName + ".Set", []any{clientName, "Timeout", dbus.MakeVariant(dbus.MakeVariant(uint64(5)))}, errInvalidArgs},
	} {
		err := s.call(tt.path, tt.method, tt.args...).Err
		e, ok := err.(dbus.Error)
		if !ok || e.Name != tt.want || len(e.Body) != 1 {
			t.Errorf("%s %s(%v): error %#v, want %s", tt.path, tt.method, tt.args, err, tt.want)
		}
	}
}

// TestDecision: an operator's decision can be seen for as long as it lasts.
func TestDecision(t *testing.T) {
	s := serve(t, settings("a", func(s *client.Settings) { s.ApprovalDelay, s.ApprovalDuration = time.Minute, time.Hour }))
	const path = "/clients/a"
	check := func(want string, lasts bool) {
		t.Helper()
		decision, until := s.get(t, path, ourClientName, "Decision"), s.get(t, path, ourClientName, "DecisionUntil").(string)
		if decision != want {
			t.Errorf("Decision is %q, want %q", decision, want)
		}
		if !lasts {
			if until != "" {
				t.Errorf("DecisionUntil is %q without a decision", until)
			}
			return
		}
		if at, err := time.Parse("2006-01-02T15:04:05", until[:min(19, len(until))]); err != nil || (time.Until(at)-time.Hour).Abs() > 10*time.Minute {
			t.Errorf("DecisionUntil is %q, want it an hour ahead (%v)", until, err)
		}
	}
	check("", false)
	for word, want := range map[bool]string{true: "approved", false: "denied"} {
		if err := s.call(path, clientName+".Approve", word).Err; err != nil {
			t.Fatal(err)
		}
		check(want, true)
	}
	if err := s.set(path, "ApprovalDuration", uint64(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.call(path, clientName+".Approve", true).Err; err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for s.get(t, path, ourClientName, "Decision") != "" && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	check("", false)
}

// TestOurs checks what our own interfaces show after a hand-out and a refusal.
func TestOurs(t *testing.T) {
	s := serve(t, settings("a"))
	const path = "/clients/a"
	h, err := s.registry.Release("a", caller)
	if err != nil {
		t.Fatal(err)
	}
	h.Done(nil)
	if err := s.set(path, "Enabled", false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.registry.Release("a", caller); err == nil {
		t.Fatal("a disabled client got its secret")
	}
	if _, err := s.registry.Lookup(registry.Caller{Addr: caller.Addr, Identity: keyid.Identity{KeyID: keyid.OfSPKI([]byte("x"))}}); err == nil {
		t.Fatal("an unknown key was found")
	}
	// History follows the feed, so it may come a moment later.
	deadline := time.Now().Add(time.Minute)
	for s.get(t, "/", ourServerName, "UnknownKeys") != uint64(1) {
		if time.Now().After(deadline) {
			t.Fatal("the refusal of an unknown key was never counted")
		}
		time.Sleep(time.Millisecond)
	}
	ours := map[string]string{
		"Protocol":  "TLS 1.3 with a raw public key",
		"NextCheck": "", // disabled
	}
	for property, want := range ours {
		if got := s.get(t, path, ourClientName, property); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	if got := s.get(t, path, ourClientName, "Status").(string); !strings.HasPrefix(got, "disabled at ") || !strings.HasSuffix(got, " by uid "+strconv.Itoa(os.Getuid())+" over D-Bus") {
		t.Errorf("Status is %q", got)
	}
	handouts := s.get(t, path, ourClientName, "Handouts").([][]any)
	if len(handouts) != 1 || handouts[0][1] != caller.Addr.String() {
		t.Errorf("Handouts are %v", handouts)
	}
	refusals := s.get(t, path, ourClientName, "Refusals").([][]any)
	if len(refusals) != 1 || refusals[0][1] != caller.Addr.String() || refusals[0][2] != "Disabled" {
		t.Errorf("Refusals are %v", refusals)
	}
	for property, want := range map[string]any{"Version": "test", "Clients": uint64(1), "Enabled": uint64(0), "Disabled": uint64(1), "Handouts": uint64(1), "Refusals": uint64(1)} {
		if got := s.get(t, "/", ourServerName, property); got != want {
			t.Errorf("%s is %v, want %v", property, got, want)
		}
	}
}
