package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"mandos/internal/testenv"
)

// TestPolicy: with the policy that is installed, a user who is neither root
// nor the daemon can call no method of any object, our own interfaces,
// Introspect and ObjectManager included, send it no signal, and hears none.
func TestPolicy(t *testing.T) {
	testenv.Root(t, "to be another user")
	policy, err := os.ReadFile("../../dbus-1/mandos.conf")
	if err != nil {
		t.Fatal(err)
	}
	// The daemon of a test runs as whoever this machine has for it.
	uid, _ := Unprivileged(t)
	daemon, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(policy), `<policy user="mandos">`, `<policy user="`+daemon.Username+`">`)
	text = strings.TrimSuffix(strings.TrimSpace(text[strings.Index(text, "<busconfig>")+len("<busconfig>"):]), "</busconfig>")
	// The rest is as the system bus has it.
	o := Ours(t).operateOn(t, Bus(t, `<policy context="default"><deny own="*"/><deny send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
<allow send_destination="org.freedesktop.DBus"/></policy>`+text), section("one", "interval = P1D", "timeout = P2D"))

	var calls [][]any
	add := func(path dbus.ObjectPath, iface, member string, args ...string) {
		calls = append(calls, []any{path, iface, member, append([]string{}, args...)})
	}
	const properties = "org.freedesktop.DBus.Properties"
	for _, path := range []dbus.ObjectPath{"/", "/clients", "/clients/one"} {
		node, err := introspect.Call(o.conn.Object(mandosName, path))
		if err != nil {
			t.Fatal(err)
		}
		add(path, "org.freedesktop.DBus.Introspectable", "Introspect")
		add(path, "org.freedesktop.DBus.Peer", "Ping")
		add(path, "nonsense.Interface", "Nonsense")
		for _, i := range node.Interfaces {
			add(path, properties, "GetAll", i.Name)
			for _, m := range i.Methods {
				add(path, i.Name, m.Name)
			}
			for _, p := range i.Properties {
				add(path, properties, "Get", i.Name, p.Name)
			}
		}
	}
	if len(calls) < 100 {
		t.Errorf("only %d calls were found", len(calls))
	}
	list, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command([]string{"setpriv", "--reuid=games", "--regid=games", "--clear-groups"}, "/usr/bin/python3", "-c", scriptText(t, "testdata/denied.py"), o.bus)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	fmt.Fprintf(stdin, "%s\n", list)
	in := bufio.NewReader(stdout)
	if line, err := in.ReadString('\n'); line != "listening\n" {
		t.Fatalf("the stranger said %q, %v", line, err)
	}
	o.set(t, "one", "Enabled", false)
	o.hear(t, "PropertiesChanged", 1)
	fmt.Fprintln(stdin)
	answer, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Through, Heard []string }
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Through) > 0 {
		t.Errorf("a stranger may send %q", got.Through)
	}
	if len(got.Heard) > 0 {
		t.Errorf("a stranger hears %q", got.Heard)
	}
}

// scriptText is a script's text, for a user who may not enter this folder.
func scriptText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
