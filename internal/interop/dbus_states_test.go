package interop

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
)

// A part is a script of calls with a name, which needn't be counted anew
// when another comes before it.
type part struct {
	name  string
	steps []step
}

// from makes a step one of another interface than mandosName.Client.
func (s step) from(iface string) step {
	if i := strings.LastIndexByte(s.method, '.'); strings.HasPrefix(s.method, mandosName) {
		s.method = iface + s.method[i:]
		return s
	}
	s.args = append([]any{iface}, s.args[1:]...)
	return s
}

const (
	properties = "org.freedesktop.DBus.Properties."
	oldName    = "se.bsnet.fukt.Mandos"
)

// parts are done with each server.
var parts = []part{
	{"the checker fails", []step{set("Checker", "false"), set("CheckerRunning", true).ends("CheckerCompleted"), get("LastCheckerStatus")}},
	{"vouched for after that", []step{call("CheckedOK"), get("LastCheckerStatus"), call("CheckedOK")}},
	{"killed by a signal", []step{set("Checker", "kill -9 $$"), set("CheckerRunning", true).ends("CheckerCompleted"), get("LastCheckerStatus")}},
	{"vouched for by a property", []step{set("LastCheckedOK", ""), get("LastCheckerStatus")}},
	{"ends of checkers", []step{
		set("Checker", "exit 200"), set("CheckerRunning", true).ends("CheckerCompleted"), get("LastCheckerStatus"),
		set("Checker", "kill -TERM $$"), set("CheckerRunning", true).ends("CheckerCompleted"),
		set("Checker", "/nonexistent"), set("CheckerRunning", true).ends("CheckerCompleted"),
		set("Checker", "sh -c 'kill -KILL $$'; exit $?"), set("CheckerRunning", true).ends("CheckerCompleted"),
		set("Checker", "sleep 100 & exit 3"), set("CheckerRunning", true).ends("CheckerCompleted"),
	}},
	{"the same again", []step{
		set("Checker", "true"), set("Checker", "true"), set("Secret", []byte("new")), set("Secret", []byte("new")), set("Secret", []byte("newer")),
		set("Timeout", uint64(4_147_200_000)), set("ApprovalDelay", uint64(0)), set("ExtendedTimeout", uint64(900_000)), set("ApprovalDuration", uint64(1000)),
	}},
	{"interval", []step{
		set("Interval", uint64(2_073_600_001)).ends("CheckerCompleted"), get("Interval"),
		set("Interval", uint64(2_073_600_001)).ends("CheckerCompleted"),
		set("Interval", uint64(2_073_600_000)).ends("CheckerCompleted"),
	}},
	{"a checker that runs", []step{
		set("Checker", "sleep 100"), set("CheckerRunning", true), get("CheckerRunning"), set("CheckerRunning", true), call("StartChecker"),
		set("Interval", uint64(2_073_600_002)), call("CheckedOK"),
		set("CheckerRunning", false), get("CheckerRunning"), set("CheckerRunning", false), call("StopChecker"),
		call("StartChecker"), call("StopChecker"), get("LastCheckerStatus"),
		set("CheckerRunning", true), set("Enabled", false), get("CheckerRunning"),
	}},
	{"disabled", []step{
		set("Checker", "true"), set("CheckerRunning", true).ends("CheckerCompleted"), set("Checker", "false"), set("CheckerRunning", true).ends("CheckerCompleted"),
		call("CheckedOK"), get("Expires"), get("LastCheckerStatus"), call("Approve", true), call("Approve", false),
		set("Timeout", uint64(4_147_200_001)), set("Interval", uint64(2_073_600_000)), set("Timeout", uint64(4_147_200_000)), set("ApprovalDelay", uint64(1)), set("ApprovalDelay", uint64(0)),
		call("Disable"), set("Enabled", true), get("Expires"), call("Enable"),
	}},
	{"the timeout shortened", []step{set("Timeout", uint64(4_147_199_000)), set("Timeout", uint64(1)), get("Enabled"), get("Timeout"), set("Timeout", uint64(4_147_200_000)), call("Enable")}},
	{"its time is up", []step{
		// The time to set it in, before it is up at once: as above.
		call("CheckedOK"), set("Timeout", uint64(3000)).ends(`PropertiesChanged.*"Enabled": <false>`), get("Enabled"), get("Expires"),
		set("Timeout", uint64(4_147_200_000)), call("Enable"),
	}},
	{"durations", []step{
		set("ExtendedTimeout", uint64(1)), get("ExtendedTimeout"), set("ExtendedTimeout", byte(7)), set("ExtendedTimeout", uint16(300)), set("ExtendedTimeout", int16(301)),
		set("ExtendedTimeout", uint32(4_000_000_000)), set("ExtendedTimeout", int64(4_000_000_001)), get("ExtendedTimeout"), set("ExtendedTimeout", uint64(0)), get("ExtendedTimeout"),
		set("ExtendedTimeout", int32(-1)), set("ExtendedTimeout", 1.5), get("ExtendedTimeout"), set("ExtendedTimeout", uint64(900_000)),
	}},
	{"the old interface", []step{
		set("Host", "old").from(oldName + ".Client"), get("Host").from(oldName + ".Client"), set("Secret", []byte("old")).from(oldName + ".Client"), get("Secret").from(oldName + ".Client"),
		set("Name", "x").from(oldName + ".Client"), get("Nonsense").from(oldName + ".Client"),
		call("CheckedOK").from(oldName + ".Client"), call("Approve", true).from(oldName + ".Client"), call("Disable").from(oldName + ".Client"), call("Enable").from(oldName + ".Client"),
		{"/", oldName + ".RemoveClient", []any{dbus.ObjectPath("/clients/nosuch")}, ""},
	}},
	{"no interface, or another", []step{
		set("Host", "none").from(""), get("Host").from(""), get("Nonsense").from(""), get("Secret").from(""), set("Name", "x").from(""),
		get("Host").from("nonsense.Interface"), set("Host", "x").from("nonsense.Interface"), get("Host").from("org.freedesktop.DBus.Properties"), get("Host").from("org.freedesktop.DBus.Introspectable"),
		call("CheckedOK").from("nonsense.Interface"), {"/clients/s_t", properties + "Nonsense", nil, ""}, {"/clients/s_t", properties + "Get", []any{"x"}, ""},
	}},
	{"other objects", []step{
		{"/nosuch", "org.freedesktop.DBus.Introspectable.Introspect", nil, ""}, {"/clients/nosuch", properties + "GetAll", []any{mandosName + ".Client"}, ""},
		{"/clients", properties + "GetAll", []any{""}, ""}, {"/clients", mandosName + ".GetAllClients", nil, ""}, {"/clients", mandosName + ".Client.Enable", nil, ""},
		{"/", mandosName + ".Client.Enable", nil, ""}, {"/clients/s_t", mandosName + ".GetAllClients", nil, ""}, {"/", mandosName + ".Nonsense", nil, ""},
		{"/", mandosName + ".RemoveClient", nil, ""}, {"/", mandosName + ".RemoveClient", []any{dbus.ObjectPath("/")}, ""}, {"/clients/s_t", "org.freedesktop.DBus.Peer.Ping", nil, ""},
		{"/nosuch", "org.freedesktop.DBus.Peer.Ping", nil, ""}, {"/", "org.freedesktop.DBus.Peer.Nonsense", nil, ""},
		{"/", "org.freedesktop.DBus.Introspectable.Nonsense", nil, ""},
	}},
	{"all of them", []step{
		set("Host", "all"),
		{"/", "org.freedesktop.DBus.ObjectManager.GetManagedObjects", nil, ""}, {"/", mandosName + ".GetAllClientsWithProperties", nil, ""},
		{"/", oldName + ".GetAllClientsWithProperties", nil, ""},
	}},
	{"in the command", []step{
		set("Host", ""), set("Checker", "true %(host)s %(name)s"), set("CheckerRunning", true).ends("CheckerCompleted"),
		set("Host", "it's $HOME; `x` \"y\" \\ ü\n%(name)s %%"), set("CheckerRunning", true).ends("CheckerCompleted"),
		set("Host", "a@b%c+d=e:f,g.h/i-j_k"), set("CheckerRunning", true).ends("CheckerCompleted"),
		set("Checker", "true %(approval_delay)s %(approval_duration)s %(created)s %(dbus_object_path)s %(enabled)s %(fingerprint)s %(interval)s %(key_id)s %(last_approval_request)s %(last_checked_ok)s %(last_enabled)s %(name)s %(timeout)s %(expires)s %% 'x' \"$y\""),
		set("ApprovalDelay", uint64(1500)), set("ApprovalDuration", uint64(90_061_001)),
		set("CheckerRunning", true).ends("CheckerCompleted"),
		set("ApprovalDelay", uint64(0)), set("Enabled", false), set("CheckerRunning", true).ends("CheckerCompleted"), set("Enabled", true),
		set("Checker", "true"),
	}},
}

// TestDBusStates takes a client of both servers through its states over
// D-Bus, and compares all that is seen.
func TestDBusStates(t *testing.T) {
	all := programs(t)
	seen := map[string][]string{}
	var mu sync.Mutex
	t.Run("servers", func(t *testing.T) {
		for name, server := range all {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				lines := recordStates(t, server)
				mu.Lock()
				defer mu.Unlock()
				seen[name] = lines
			})
		}
	})
	if t.Failed() {
		return
	}
	compareSeen(t, "testdata/dbus-states.txt", seen)
}

// ourInterface is what Debian's server hasn't, in a list and in a map.
var ourInterface = regexp.MustCompile(`"mandos\.go\.Client1"(: \{[^{}]*\})?, `)

// recordStates writes down what parts do with a server, and how it begins
// and ends.
func recordStates(t *testing.T, server Programs) (lines []string) {
	t.Helper()
	bus := Bus(t)
	first, err := dbus.Connect(bus, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	begin := &operated{conn: first, signals: make(chan *dbus.Signal, 1000)}
	if err := first.AddMatchSignal(dbus.WithMatchObjectPath("/")); err != nil {
		t.Fatal(err)
	}
	first.Signal(begin.signals)
	o := server.operateOn(t, bus, section("s-t", rarely...), section("fence", rarely...))
	add := func(format string, args ...any) {
		lines = append(lines, ourInterface.ReplaceAllString(fmt.Sprintf(format, args...), ""))
	}
	// Which client comes first is nobody's promise.
	sorted := func(heard []string) []string {
		slices.SortStableFunc(heard, func(a, b string) int { return strings.Count(a, `"/clients/s_t"`) - strings.Count(b, `"/clients/s_t"`) })
		return heard
	}
	const came, gone = `fukt\.Mandos\.ClientAdded`, `fukt\.Mandos\.ClientRemoved`
	for i, s := range sorted(begin.gather(t, came, came)) {
		add("at the start: signal %d: %s", i+1, normal(s))
	}
	for _, client := range []string{"s_t", "fence"} {
		o.set(t, client, "CheckerRunning", true)
		o.hear(t, "CheckerCompleted", 1)
	}
	o.fence(t)
	for _, p := range parts {
		for n, step := range p.steps {
			if step.path == "/clients/o_n_e" {
				step.path = "/clients/s_t"
			}
			o.play(t, fmt.Sprintf("%s, step %d", p.name, n+1), step, add)
		}
	}
	if err := syscall.Kill(o.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for i, s := range sorted(o.gather(t, gone, gone)) {
		add("at the end: signal %d: %s", i+1, normal(s))
	}
	return lines
}
