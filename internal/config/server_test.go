package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mandos/internal/cmdline"
)

func mustArgs(t *testing.T, args ...string) *CommandLine {
	t.Helper()
	cl, err := ParseArgs(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return cl
}

func TestDefaults(t *testing.T) {
	for _, o := range Options {
		if o.set != nil {
			if err := o.set(new(Server), o.Default); err != nil {
				t.Errorf("the default of --%s: %v", o.Long, err)
			}
		}
	}
	s, found := LoadServer(mustArgs(t, "--configdir", t.TempDir()), LoadOptions{Suspect: true})
	if len(found) != 0 {
		t.Fatalf("findings:\n%v", found)
	}
	if s.Interface != "" || s.Address.IsValid() || s.Port != 0 || s.Socket != -1 || s.Debug || s.Priority != "" ||
		s.ServiceName != "Mandos" || s.StateDir != "/var/lib/mandos" || !s.DBus || !s.IPv6 || !s.Restore || s.Foreground || !s.Zeroconf {
		t.Errorf("%+v", s)
	}
	if got := s.Where("port"); got != "" {
		t.Errorf("port is at its default, but set at %q", got)
	}
}

// TestFile sets every key to something else than its default.
func TestFile(t *testing.T) {
	dir := files(t, map[string]string{"mandos.conf": `[DEFAULT]
interface = eth0
ADDRESS = fe80::1
port: +1234
debug = YES
debuglevel = warning,server=debug
priority = SECURE128:%PROFILE_ULTRA
servicename = Mandos of Test
max_checkers = 7
use_dbus = off
use_ipv6 = %(use_dbus)s
restore = 0
statedir = /srv/state/
foreground = on
socket = 7
zeroconf = False
`, "mandos.conf.d/20-b.conf": "[DEFAULT]\nport = 5678\n", "mandos.conf.d/10-a.conf": "[DEFAULT]\nport = 1\nuse_ipv6 = on", "mandos.conf.d/README": "text", "mandos.conf.d/.x.conf": "text"})
	s, found := LoadServer(mustArgs(t, "--configdir="+dir), LoadOptions{Suspect: true})
	if len(found) != 0 {
		t.Fatalf("findings:\n%v", found)
	}
	if s.Interface != "eth0" || s.Address != netip.MustParseAddr("fe80::1") || s.Port != 5678 || s.Socket != 7 || !s.Debug || s.Priority != "SECURE128:%PROFILE_ULTRA" ||
		s.ServiceName != "Mandos of Test" || s.StateDir != "/srv/state" || s.MaxCheckers != 7 || s.DBus || !s.IPv6 || s.Restore || !s.Foreground || s.Zeroconf || s.ConfigDir != dir {
		t.Errorf("%+v", s)
	}
	for key, want := range map[string]string{"port": "mandos.conf.d/20-b.conf:2", "address": "mandos.conf:3", "use_ipv6": "mandos.conf.d/10-a.conf:3"} {
		if got := s.Where(key); got != filepath.Join(dir, want) {
			t.Errorf("%s was set at %s, not %s", key, want, got)
		}
	}
}

// TestCommandLineWins gives every option that has a key against a file that
// says otherwise.
func TestCommandLineWins(t *testing.T) {
	dir := files(t, map[string]string{"mandos.conf": `[DEFAULT]
interface = eth0
address = 2001:db8::1
port = 1
servicename = File
statedir = /file
socket = 1
priority = NORMAL
`})
	s, found := LoadServer(mustArgs(t, "--configdir", dir, "-i", "eth1", "-a192.0.2.1", "-p", "2", "--debug", "--debuglevel=info", "--priority", "PFS",
		"--servicename=Line", "--no-dbus", "--no-ipv6", "--no-restore", "--statedir=/line", "--socket", "2", "--foreground", "--no-zeroconf"), LoadOptions{})
	if len(found) != 0 {
		t.Fatalf("findings:\n%v", found)
	}
	if s.Interface != "eth1" || s.Address != netip.MustParseAddr("192.0.2.1") || s.Port != 2 || s.Socket != 2 || !s.Debug || s.Priority != "PFS" ||
		s.ServiceName != "Line" || s.StateDir != "/line" || s.DBus || s.IPv6 || s.Restore || !s.Foreground || s.Zeroconf {
		t.Errorf("%+v", s)
	}
	if got := s.Where("use_dbus"); got != "--no-dbus" {
		t.Errorf("use_dbus was set by %q", got)
	}
}

func TestActions(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want Action
	}{
		{nil, Run},
		{[]string{"-h"}, ShowHelp},
		{[]string{"--help"}, ShowHelp},
		{[]string{"--h"}, ShowHelp},
		{[]string{"-v"}, ShowVersion},
		{[]string{"--vers"}, ShowVersion},
		{[]string{"--check"}, SelfTest},
		{[]string{"--check-config"}, CheckConfig},
		{[]string{"--check-c", "--debug"}, CheckConfig},
		{[]string{"-vi", "eth0", "-h"}, ShowVersion},
		{[]string{"--foreground", "--i=eth0", "-p=80"}, Run},
	} {
		if got := mustArgs(t, tt.args...); got.Action != tt.want {
			t.Errorf("%q: action %d, want %d", tt.args, got.Action, tt.want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--nonsense", "--nonsense"},
		{"-x", "unknown option -x"},
		{"--de", "--de is ambiguous: it could be --debug or --debuglevel"},
		{"--chec", "--chec is ambiguous: it could be --check or --check-config"},
		{"--no-", "ambiguous"},
		{"--port", "--port"},
		{"-p", "--port needs a value"},
		{"--port=", ""},
		{"--port x", `"x" is no port`},
		{"--port 65536", `"65536" is no port`},
		{"--port -1", `"-1" is no port`},
		{"--socket -1", `"-1" is no file descriptor`},
		{"--address localhost", `"localhost" is no IP address`},
		{"--interface averyveryverylongname", "can't be the name"},
		{"--interface all", "can't be the name"},
		{"--interface 2", "can't be the name"},
		{"--interface eth0:1", "can't be the name"},
		{"--interface eth%d", "can't be the name"},
		{"--interface \u00e9", "can't be the name"},
		{"--interface \x02", "can't be the name"},
		{"--address fe80::1%2", "can't be the name"},
		{"--address fe80::1%eth0/..", "can't be the name"},
		{"--debuglevel loud", "loud"},
		{"--debug=yes", "takes no value"},
		{"--check-config=1", "takes no value"},
		{"--servicename=", "needs a name"},
		{"--servicename=B\xfccher", "isn't UTF-8"},
		{"--servicename " + strings.Repeat("x", 64), "64 bytes"},
		{"--max-checkers 0", "no number of checkers"},
		{"--max-checkers 1001", "no number of checkers"},
		{"--max-checkers many", "no number of checkers"},
		{"--configdir=", "no folder"},
		{"stray", `"stray"`},
		{"--debug -- stray", `"stray"`},
	} {
		_, err := ParseArgs(strings.Fields(tt.args))
		if tt.want == "" {
			if err != nil {
				t.Errorf("%q: %v", tt.args, err)
			}
			continue
		}
		if _, ok := errors.AsType[*cmdline.UsageError](err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want a usage error with %q", tt.args, err, tt.want)
		}
	}
}

func TestCheckReachable(t *testing.T) {
	for _, tt := range []struct {
		args      []string
		inherited bool
		ok        bool
	}{
		{nil, false, true},
		{[]string{"--no-zeroconf"}, false, false},
		{[]string{"--no-zeroconf", "--port", "0"}, false, false},
		{[]string{"--no-zeroconf", "--port", "1"}, false, true},
		{[]string{"--no-zeroconf", "--socket", "0"}, false, true},
		{[]string{"--no-zeroconf"}, true, true},
	} {
		s, _ := LoadServer(mustArgs(t, append(tt.args, "--configdir", t.TempDir())...), LoadOptions{})
		if err := s.CheckReachable(tt.inherited); (err == nil) != tt.ok {
			t.Errorf("%q, inherited %v: %v", tt.args, tt.inherited, err)
		}
	}
}

// TestAddress refuses addresses that can't be listened on.
func TestAddress(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-a ::1", ""},
		{"-a ::ffff:192.0.2.1", ""},
		{"-a 192.0.2.1 --no-ipv6", ""},
		{"-a fe80::1 -i lo", ""},
		{"-a fe80::1%lo", ""},
		{"-a 192.0.2.1", "command line: --address: 192.0.2.1 is an IPv4 address, but IPv6 is used; write ::ffff:192.0.2.1, or"},
		{"-a ::1 --no-ipv6", "command line: --address: ::1 is an IPv6 address, but IPv4 is used"},
		{"-a fe80::1", "command line: --address: fe80::1 is link-local, which means nothing without an interface; set interface, too"},
	} {
		s, found := LoadServer(mustArgs(t, append(strings.Fields(tt.args), "--configdir", t.TempDir())...), LoadOptions{})
		err := found.Err()
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.args, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.args, err, tt.want)
		}
		if s != nil {
			t.Errorf("%s: refused, but there is a Server", tt.args)
		}
	}
}

func TestHelp(t *testing.T) {
	var b strings.Builder
	if err := WriteHelp(&b); err != nil {
		t.Fatal(err)
	}
	for _, o := range Options {
		if !strings.Contains(b.String(), "--"+o.Long) {
			t.Errorf("the help has no --%s", o.Long)
		}
	}
}

// TestPriority: the caller checks the priority string of mandos.conf; that of
// the command line, which overrides it, is none of this package's business.
func TestPriority(t *testing.T) {
	dir := files(t, map[string]string{"mandos.conf": "[DEFAULT]\npriority = A\n"})
	opts := LoadOptions{Priority: func(s string) error { return fmt.Errorf("%s isn't known", s) }}
	want := dir + "/mandos.conf:2: [DEFAULT] priority: A isn't known; correct it, or remove the line for the default"
	if s, found := LoadServer(mustArgs(t, "--configdir", dir), opts); s != nil || found.Err() == nil || found.Err().Error() != want {
		t.Errorf("got %v, want %s", found.Err(), want)
	}
	for _, args := range [][]string{{"--configdir", dir, "--priority=B"}, {"--configdir", t.TempDir()}} {
		if s, found := LoadServer(mustArgs(t, args...), opts); s == nil || found.Err() != nil {
			t.Errorf("%q: refused: %v", args, found)
		}
	}
}

// TestLoad: both files are read, and all their errors come at once.
func TestLoad(t *testing.T) {
	dir := files(t, map[string]string{"mandos.conf": "[DEFAULT]\nport = 1\n", "clients.conf": good})
	s, clients, found := Load(mustArgs(t, "--configdir", dir), LoadOptions{})
	if len(found) != 0 || s == nil || s.Port != 1 || s.ConfigDir != dir || len(clients) != 1 {
		t.Errorf("%+v, %d clients, findings:\n%v", s, len(clients), found)
	}
	for name, text := range map[string]string{"mandos.conf": "[DEFAULT]\nport = x\n", "clients.conf": "[foo]\n"} {
		broken := files(t, map[string]string{"mandos.conf": "[DEFAULT]\nport = 1\n", "clients.conf": good})
		if err := os.WriteFile(filepath.Join(broken, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, clients, found = Load(mustArgs(t, "--configdir", broken), LoadOptions{})
		if found.Err() == nil || s != nil || clients != nil {
			t.Errorf("%s is broken, but not refused", name)
		}
	}
	dir = files(t, map[string]string{"mandos.conf": "[DEFAULT]\nport = x\n", "clients.conf": "[foo]\n"})
	_, _, found = Load(mustArgs(t, "--configdir", dir), LoadOptions{})
	want := fmt.Sprintf(`3 errors in the configuration:
%[1]s/mandos.conf:2: [DEFAULT] port: "x" is no port; write a number from 1 to 65535, or 0 for any
%[1]s/clients.conf:1: [foo] the client has neither key_id nor fingerprint; %[2]s
%[1]s/clients.conf:1: [foo] the client has neither secret nor secfile; %[2]s`, dir, keygen)
	if err := found.Err(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if got := mustArgs(t).ConfigDir(); got != "/etc/mandos" {
		t.Errorf("the default folder is %s", got)
	}
}
