package interop

import (
	"bytes"
	"context"
	"encoding/xml"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

var updateDifferences = flag.Bool("update-differences", false, "print the differences on D-Bus as they are now")

// TestDBusDifferences does the same with both servers over D-Bus, writes
// down all that is seen, and compares.
func TestDBusDifferences(t *testing.T) {
	all := programs(t)
	seen := map[string][]string{}
	for name, server := range all {
		t.Run(name, func(t *testing.T) {
			seen[name] = record(t, server)
			// Debian's server at times loses an operator's word, or stands
			// still at it: one on which that happens tells nothing. With all
			// processors busy, that is every other one.
			lines, whole := recordApprovals(t, server, name == "debian")
			for try := 1; !whole && try < 24; try++ {
				t.Log("Debian's server stands still; asking another")
				lines, whole = recordApprovals(t, server, true)
			}
			if !whole {
				t.Error("all of 24 servers stood still")
			}
			seen[name] = append(seen[name], lines...)
		})
	}
	if t.Failed() {
		return
	}
	compareSeen(t, "testdata/dbus-differences.txt", seen)
}

// compareSeen holds what was seen of both servers against a file that lists
// what differs: "- " what Debian's has, "+ " what ours has, and above them,
// after "# ", the reason. A difference that isn't listed fails, and so does
// a listed one that isn't there any more.
func compareSeen(t *testing.T, differencesFile string, seen map[string][]string) {
	t.Helper()
	got := difference(seen["debian"], seen["ours"])
	if *updateDifferences {
		fmt.Println(strings.Join(got, "\n"))
	}
	data, err := os.ReadFile(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	reason := false
	for line := range strings.Lines(string(data)) {
		switch line = strings.TrimRight(line, "\n"); {
		case line == "":
			reason = false
		case strings.HasPrefix(line, "# "):
			reason = true
		case !reason:
			t.Errorf("%s: %q has no reason", differencesFile, line)
		default:
			listed[line] = true
		}
	}
	for _, line := range got {
		if !listed[line] {
			t.Errorf("a difference that isn't listed: %s", line)
		}
		delete(listed, line)
	}
	for line := range listed {
		t.Errorf("listed, but no difference any more: %s", line)
	}
}

// difference compares section by section: lines "SECTION: what".
func difference(a, b []string) (lines []string) {
	for _, line := range a {
		if !slices.Contains(b, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return lines
}

// rarely is how often the clients are checked whose every signal is compared:
// each time that a client is enabled, a server makes its first check at a
// random moment of the interval, and one within the test would be seen. Debian's
// server counts twice the interval in milliseconds, in 32 bits: more don't fit.
var rarely = []string{"interval = P24D", "timeout = P48D"}

// record writes down what is seen of a server: its introspection, its
// properties, and the answers and signals of a script of calls.
func record(t *testing.T, server Programs) (lines []string) {
	t.Helper()
	o := server.operate(t, section("o-n.e", rarely...), section("fence", rarely...))
	const path = "/clients/o_n_e"
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }

	// The first check is at an hour that differs: have it now.
	for _, client := range []string{"o_n_e", "fence"} {
		o.set(t, client, "CheckerRunning", true)
		o.hear(t, "CheckerCompleted", 1)
	}
	for _, p := range []dbus.ObjectPath{"/", "/clients", path} {
		for _, line := range o.introspect(t, p) {
			add("introspect %s: %s", p, line)
		}
	}
	for _, iface := range []string{mandosName + ".Client", "se.bsnet.fukt.Mandos.Client", "nonsense.Interface"} {
		var props map[string]dbus.Variant
		if err := o.conn.Object(mandosName, path).Call("org.freedesktop.DBus.Properties.GetAll", 0, iface).Store(&props); err != nil {
			add("GetAll %s: %v", iface, err)
		}
		for _, name := range slices.Sorted(maps.Keys(props)) {
			add("GetAll %s: %s %s", iface, name, normal(props[name].String()))
		}
	}
	o.fence(t) // all signals so far are left out

	for n, step := range script {
		o.play(t, fmt.Sprintf("step %d", n+1), step, add)
	}
	return lines
}

// play makes a step's call, and writes down what it returns and what signals
// it has sent.
func (o *operated) play(t *testing.T, name string, s step, add func(format string, args ...any)) {
	t.Helper()
	call := o.conn.Object(mandosName, s.path).Call(s.method, 0, s.args...)
	name = fmt.Sprintf("%s: %s %s%v", name, s.path, s.method[strings.LastIndexByte(s.method, '.')+1:], s.args)
	if e, ok := call.Err.(dbus.Error); ok {
		add("%s: error %s", name, e.Name)
	} else if call.Err != nil {
		t.Fatal(call.Err)
	} else {
		for _, v := range call.Body {
			add("%s: returns %s", name, normal(dbus.MakeVariant(v).String()))
		}
	}
	// Where a step starts something, its last signal is waited for.
	var heard []string
	if s.until != "" {
		heard = o.gather(t, s.until)
	}
	heard = append(heard, o.fence(t)...)
	for i, signal := range heard {
		add("%s: signal %d: %s", name, i+1, normal(signal))
	}
}

type step struct {
	path   dbus.ObjectPath
	method string
	args   []any
	until  string // the pattern of the signal that ends it, if not at once
}

func set(property string, value any) step {
	return step{"/clients/o_n_e", "org.freedesktop.DBus.Properties.Set", []any{mandosName + ".Client", property, dbus.MakeVariant(value)}, ""}
}

func get(property string) step {
	return step{"/clients/o_n_e", "org.freedesktop.DBus.Properties.Get", []any{mandosName + ".Client", property}, ""}
}

func call(member string, args ...any) step {
	return step{"/clients/o_n_e", mandosName + ".Client." + member, args, ""}
}

func (s step) ends(pattern string) step { s.until = pattern; return s }

// script is done with each server.
var script = []step{
	set("Timeout", uint64(600_000_000)), set("Timeout", int32(500_000_000)), get("Timeout"), set("Timeout", uint64(500_000_000)),
	set("ExtendedTimeout", uint64(1000)), set("ApprovalDelay", uint64(1)), set("ApprovalDelay", uint64(0)), set("ApprovalDuration", uint64(5)),
	set("ApprovedByDefault", false), set("ApprovedByDefault", false), set("ApprovedByDefault", true),
	set("Host", "h"), set("Host", "h"), get("Host"), set("Checker", "false"),
	set("CheckerRunning", true).ends("CheckerCompleted"), get("LastCheckerStatus"),
	set("Checker", "kill -9 $$"), set("CheckerRunning", true).ends("CheckerCompleted"), get("LastCheckerStatus"),
	set("Checker", "true"), call("StartChecker").ends("CheckerCompleted"), get("LastCheckerStatus"),
	set("Enabled", false), get("Expires"), get("Enabled"), set("Enabled", false),
	set("Enabled", true), set("Enabled", true), get("Enabled"),
	call("Disable"), call("Enable"), call("CheckedOK"), call("Approve", false), call("Approve", true),
	set("LastCheckedOK", ""), set("LastCheckedOK", "nonsense"), set("Secret", []byte("x")), get("Secret"),
	set("Name", "x"), set("Created", "x"), set("Nonsense", "x"), get("Nonsense"),
	set("Timeout", "x"), set("Enabled", "x"), set("Host", uint32(5)),
	call("Nonsense"), call("Approve"), call("Approve", "x"),
	{"/clients/nosuch", mandosName + ".Client.Enable", nil, ""},
	{"/", mandosName + ".RemoveClient", []any{dbus.ObjectPath("/clients/nosuch")}, ""},
	{"/", "org.freedesktop.DBus.Properties.GetAll", []any{""}, ""},
	{"/", "org.freedesktop.DBus.Peer.Ping", nil, ""},
	{"/", mandosName + ".RemoveClient", []any{dbus.ObjectPath("/clients/o_n_e")}, ""},
	{"/", mandosName + ".GetAllClients", nil, ""},
}

var (
	aTime      = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{6})?`) // Python leaves out a fraction of 0
	ourVersion = regexp.MustCompile(`"Version": <"[^"]*">`)
)

// normal takes times and versions out.
func normal(s string) string {
	return ourVersion.ReplaceAllString(aTime.ReplaceAllString(s, "TIME"), `"Version": <VERSION>`)
}

// fence returns the signals of all that was done until now.
func (o *operated) fence(t *testing.T) (heard []string) {
	t.Helper()
	// A server may answer before it sends signals, but it keeps their order.
	o.fences++
	o.set(t, "fence", "Host", fmt.Sprintf("fence %d", o.fences))
	for {
		line := o.next(t)
		if !strings.HasPrefix(line, "/clients/fence ") {
			heard = append(heard, line)
		} else if strings.Contains(line, "PropertiesChanged") && strings.Contains(line, fmt.Sprintf(`"fence %d"`, o.fences)) {
			return heard
		}
	}
}

// next waits for a signal of the server.
func (o *operated) next(t *testing.T) string {
	t.Helper()
	for {
		select {
		case s := <-o.signals:
			if s == nil {
				t.Fatal("the bus went away")
			}
			if strings.HasPrefix(s.Name, "org.freedesktop.DBus.Name") {
				continue // from the bus itself
			}
			var body []string
			for _, v := range s.Body {
				if names, ok := v.([]string); ok {
					slices.Sort(names) // of interfaces: their order says nothing
				}
				body = append(body, dbus.MakeVariant(v).String())
			}
			return fmt.Sprintf("%s %s(%s)", s.Path, s.Name, strings.Join(body, ", "))
		case <-time.After(o.within()):
			o.failed(t, fmt.Errorf("no signal came: %w", context.DeadlineExceeded))
		}
	}
}

// introspect returns an object's description, a line for each fact.
func (o *operated) introspect(t *testing.T, path dbus.ObjectPath) (lines []string) {
	t.Helper()
	var text string
	if err := o.conn.Object(mandosName, path).Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
		t.Fatal(err)
	}
	var node introspect.Node
	if err := xml.NewDecoder(bytes.NewBufferString(text)).Decode(&node); err != nil {
		t.Fatal(err)
	}
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	annotations := func(what string, as []introspect.Annotation) {
		for _, a := range as {
			note("%s annotation %s=%s", what, a.Name, a.Value)
		}
	}
	for _, child := range node.Children {
		note("node %s", child.Name)
	}
	for _, i := range node.Interfaces {
		note("interface %s", i.Name)
		annotations(i.Name, i.Annotations)
		for _, m := range i.Methods {
			note("%s method %s(%s)", i.Name, m.Name, signature(m.Args))
			annotations(i.Name+"."+m.Name, m.Annotations)
		}
		for _, s := range i.Signals {
			note("%s signal %s(%s)", i.Name, s.Name, signature(s.Args))
			annotations(i.Name+"."+s.Name, s.Annotations)
		}
		for _, p := range i.Properties {
			note("%s property %s %s %s", i.Name, p.Name, p.Type, p.Access)
			annotations(i.Name+"."+p.Name, p.Annotations)
		}
	}
	slices.Sort(lines)
	return lines
}

func signature(args []introspect.Arg) string {
	var words []string
	for _, a := range args {
		direction := a.Direction
		if direction == "in" {
			direction = ""
		}
		words = append(words, strings.TrimSpace(direction+" "+a.Type+" "+a.Name))
	}
	return strings.Join(words, ", ")
}
