package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mandos/internal/testenv"
)

// run runs the generator on a mandos.conf, and returns the lines that it
// wrote below [Socket].
func run(t *testing.T, conf string) (lines []string, written string, err error) {
	t.Helper()
	return runWith(t, conf, "")
}

// runWith runs it with a /etc/default/mandos, too.
func runWith(t *testing.T, conf, defaults string) (lines []string, written string, err error) {
	t.Helper()
	etc, out := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(etc, "mandos.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "defaults"), []byte(defaults), 0o644); err != nil {
		t.Fatal(err)
	}
	err = generate(etc, filepath.Join(etc, "defaults"), out, false)
	found, globErr := filepath.Glob(filepath.Join(out, "*"))
	if globErr != nil {
		t.Fatal(globErr)
	}
	if len(found) == 0 {
		return nil, "", err
	}
	text, readErr := os.ReadFile(filepath.Join(out, "mandos.socket.d", "50-mandos.conf"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	_, body, ok := strings.Cut(string(text), "[Socket]\n")
	if !ok {
		t.Fatalf("no [Socket] in %q", text)
	}
	for line := range strings.Lines(body) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, string(text), err
}

func TestGenerate(t *testing.T) {
	tests := []struct{ conf, want string }{
		{"", ""},
		{"[DEFAULT]\n", ""},
		{"[DEFAULT]\nservicename = x\nuse_dbus = no\n", ""},
		{"[DEFAULT]\nport =\naddress =\ninterface =\nuse_ipv6 = True\n", ""},
		{"[DEFAULT]\nport = 0\n", ""}, // any: that of mandos.socket is one
		{"[other]\nport = 1234\n", ""},
		{"[DEFAULT]\nport = 1234\n", "ListenStream= ListenStream=1234"},
		{"[DEFAULT]\nport = 1234\ninterface = host0\n", "ListenStream= ListenStream=1234 BindToDevice=host0"},
		{"[DEFAULT]\ninterface = host0\n", "BindToDevice=host0"},
		{"[DEFAULT]\nuse_ipv6 = False\n", "ListenStream= ListenStream=0.0.0.0:6637"},
		{"[DEFAULT]\nuse_ipv6 = off\naddress = 192.0.2.1\nport = 99\n", "ListenStream= ListenStream=192.0.2.1:99 FreeBind=yes"},
		{"[DEFAULT]\naddress = 2001:db8::1\n", "ListenStream= ListenStream=[2001:db8::1]:6637 FreeBind=yes"},
		{"[DEFAULT]\naddress = ::ffff:192.0.2.1\n", "ListenStream= ListenStream=[::ffff:192.0.2.1]:6637 FreeBind=yes"},
		{"[DEFAULT]\naddress = fe80::1\ninterface = eth0\n", "ListenStream= ListenStream=[fe80::1]:6637 FreeBind=yes BindToDevice=eth0"},
		{"[DEFAULT]\naddress = fe80::1%eth0\n", "ListenStream= ListenStream=[fe80::1]:6637 FreeBind=yes BindToDevice=eth0"},
	}
	for _, test := range tests {
		got, _, err := run(t, test.conf)
		if err != nil {
			t.Errorf("%q: %v", test.conf, err)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%q: got %q, want %q", test.conf, got, test.want)
		}
	}
}

// TestDaemonArgs: the service's options overrule mandos.conf, as they do for
// the service itself.
func TestDaemonArgs(t *testing.T) {
	tests := []struct{ defaults, want string }{
		{"", "ListenStream= ListenStream=1234"},
		{"DAEMON_ARGS=\"\"\n", "ListenStream= ListenStream=1234"},
		{"#CONFIGDIR=/etc/mandos\nDAEMON_ARGS=--port=99\n", "ListenStream= ListenStream=99"},
		{"DAEMON_ARGS=\"--port 99 --interface 'host0' --debuglevel=info\"\n", "ListenStream= ListenStream=99 BindToDevice=host0"},
		{"DAEMON_ARGS='--no-ipv6' \n", "ListenStream= ListenStream=0.0.0.0:1234"},
		{"DAEMON_ARGS=--port=98\nOTHER=--port=97\nDAEMON_ARGS=--port=99\n", "ListenStream= ListenStream=99"},
		{"#DAEMON_ARGS=--port=98\n; DAEMON_ARGS=--port=97\n", "ListenStream= ListenStream=1234"},
		{"DAEMON_ARGS=--port \\\n 99\n", "ListenStream= ListenStream=99"},
		{"DAEMON_ARGS=--servicename\\ --port=99\n", "ListenStream= ListenStream=1234"},
	}
	for _, test := range tests {
		got, _, err := runWith(t, "[DEFAULT]\nport = 1234\n", test.defaults)
		if err != nil {
			t.Errorf("%q: %v", test.defaults, err)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%q: got %q, want %q", test.defaults, got, test.want)
		}
	}
	got, _, err := runWith(t, "[DEFAULT]\nport = 1234\n", "DAEMON_ARGS=--prot=99\n")
	if err == nil || got != nil || !strings.Contains(err.Error(), "--prot") || !strings.Contains(err.Error(), "defaults") {
		t.Errorf("a wrong option: %q, %v", got, err)
	}
}

// TestWords: the words are those that systemd 252 has passed to a service of
// these files.
func TestWords(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string
	}{
		{"DAEMON_ARGS=\"--port 99\n --interface br0\"\n", []string{"--port", "99", "--interface", "br0"}},
		{"DAEMON_ARGS='--port 99\n --interface br0'\nX=1\n", []string{"--port", "99", "--interface", "br0"}},
		{"DAEMON_ARGS=\"--port 99\" --interface br0\n", []string{"--port", "99--interface", "br0"}},
		{"DAEMON_ARGS=--port \"99\" 'a b'\n", []string{"--port", "99", "a b"}},
		{"DAEMON_ARGS=\"a\\nb\" \n", []string{"anb"}},
		{"DAEMON_ARGS=\"a\\$b \\\"c d\\\" e\\\\f\"\n", []string{"a$b", "c d", "ef"}},
		{"DAEMON_ARGS='a\\b \"c d\"'\n", []string{"ab", "c d"}},
		{"DAEMON_ARGS=a\\ b\\\n c  \n", []string{"a", "b", "c"}},
		{"; c\n DAEMON_ARGS = \"y\" \r\n", []string{"y"}},
		{"DAEMON_ARGS=\n", []string{}},
		{"DAEMON_ARGS=\"\" \n", []string{}},
		{"DAEMON_ARGS=\"'' b\"\n", []string{"", "b"}},
		{"foo\nDAEMON_ARGS=a\n", []string{"a"}},
		{"DAEMON_ARGS=a\nDAEMON_ARGS\n", []string{"a"}},
		{"DAEMON_ARGS=\"a\" # b\n", []string{"a#", "b"}},
		{"DAEMON_ARGS=a # b\n", []string{"a", "#", "b"}},
		{"X=\"DAEMON_ARGS=b\nDAEMON_ARGS=c\"\nDAEMON_ARGS=d\n", []string{"d"}},
		{"DAEMON_ARGS=\"unterminated\nDAEMON_ARGS=z\n", []string{"unterminated", "DAEMON_ARGS=z"}},
		{"DAEMON_ARGS=\"a'b c'd\"\n", []string{"ab cd"}},
		{"DAEMON_ARGS=\"'a\\\\'b'\"\n", []string{"a'b"}},
		{"DAEMON_ARGS=\"a\\\nb\"\n", []string{"ab"}},
		{"DAEMON_ARGS=x\"y z\"w\n", []string{"xy zw"}},
		{"DAEMON_ARGS=\"q\\`\\x\"\n", []string{"q`x"}},
	} {
		if got := daemonArgs(test.text); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
}

// TestErrors: of a file with errors nothing is taken.
func TestErrors(t *testing.T) {
	for _, conf := range []string{"port = 1\n", "[DEFAULT]\nport = x\n", "[DEFAULT]\nport = 1\naddress = nowhere\n", "[DEFAULT]\ninterface = a b\n", "[DEFAULT]\ninterface = a\n b\n"} {
		got, _, err := run(t, conf)
		if err == nil || got != nil {
			t.Errorf("%q: %q, %v", conf, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "mandos.conf:") {
			t.Errorf("%q: the error names no line: %v", conf, err)
		}
	}
}

func TestNoFile(t *testing.T) {
	out := t.TempDir()
	if err := generate(t.TempDir(), filepath.Join(out, "missing"), out, true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(out, "mandos.socket.d")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was written")
	}
}

// TestVerify has systemd read what was written.
func TestVerify(t *testing.T) {
	analyze := testenv.Program(t, "systemd-analyze", "systemd")
	for _, conf := range []string{"[DEFAULT]\naddress = fe80::1\ninterface = eth0\nport = 7\n", "[DEFAULT]\nuse_ipv6 = no\n"} {
		_, text, err := run(t, conf)
		if err != nil || text == "" {
			t.Fatalf("%q: %q, %v", conf, text, err)
		}
		dir := t.TempDir()
		// Verified with a unit of its own: mandos.service needs more.
		unit := "[Unit]\nDescription=Test\n" + text
		if err := os.WriteFile(filepath.Join(dir, "generated.socket"), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "generated.service"), []byte("[Service]\nExecStart=/bin/true\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "generated.socket")).CombinedOutput()
		if err != nil || strings.Contains(string(out), "generated.socket:") {
			t.Errorf("%v\n%s\nof\n%s", err, out, unit)
		}
	}
}

// TestInterface has systemd say what becomes of a socket that is bound to an
// interface: no service waits for that to come up, as the one that makes it is
// perhaps among them, nor does the end of the boot; and whenever it does come
// up, the socket is started.
func TestInterface(t *testing.T) {
	const systemd = "/lib/systemd/systemd"
	testenv.Program(t, systemd, "systemd")
	const device = "sys-subsystem-net-devices-br\\x2dlan.device"
	defer syscall.Umask(syscall.Umask(0o022)) // whoever runs it as root, nobody reads what is written here
	for _, test := range []struct {
		conf                 string
		enabled              bool
		early, bound, starts bool
	}{
		{"[DEFAULT]\nport = 7\n", true, true, false, false},
		{"[DEFAULT]\ninterface = br-lan\n", true, false, true, true},
		{"[DEFAULT]\naddress = fe80::1%br-lan\n", true, false, true, true},
		{"[DEFAULT]\ninterface = br-lan\n", false, false, true, false},
	} {
		dir, err := os.MkdirTemp("", "mandos-generator-test-") // systemd doesn't test as root
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		write := func(name, text string) {
			t.Helper()
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		shipped, err := os.ReadFile("../../systemd/mandos.socket")
		if err != nil {
			t.Fatal(err)
		}
		write("units/mandos.socket", string(shipped))
		write("units/mandos.service", "[Service]\nExecStart=/bin/true\n")
		for _, name := range []string{"basic", "sysinit", "sockets", "shutdown"} {
			write("units/"+name+".target", "[Unit]\nDescription=Test\n")
		}
		write("units/multi-user.target", "[Unit]\nWants=sockets.target\n")
		for target, unit := range map[string]string{"sockets.target": "mandos.socket", "multi-user.target": "mandos.service"} {
			wants := filepath.Join(dir, "units", target+".wants")
			if err := errors.Join(os.Mkdir(wants, 0o755), os.Symlink("../"+unit, filepath.Join(wants, unit))); err != nil {
				t.Fatal(err)
			}
		}
		write("etc/mandos.conf", test.conf)
		if err := generate(filepath.Join(dir, "etc"), filepath.Join(dir, "none"), filepath.Join(dir, "generated"), test.enabled); err != nil {
			t.Fatal(err)
		}

		cmd := exec.Command(systemd, "--test", "--system", "--unit=multi-user.target")
		cmd.Env = []string{"SYSTEMD_UNIT_PATH=" + filepath.Join(dir, "units") + ":" + filepath.Join(dir, "generated"), "PATH=" + os.Getenv("PATH")}
		if os.Geteuid() == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			const nobody = 65534
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%.2000s", cmd, err, out)
		}
		for unit, want := range map[string]map[string]bool{
			"mandos.socket": {
				"Before: sockets.target":     test.early,
				"BindsTo: " + device:         test.bound,
				"WantedBy: " + device:        test.starts,
				"WantedBy: sockets.target":   true,
				"Before: mandos.service":     true,
				"Requires: sysinit.target":   true,
				"After: sysinit.target":      true,
				"Conflicts: shutdown.target": true,
				"Before: shutdown.target":    true,
			},
			"mandos.service": {
				"Before: multi-user.target":   test.early,
				"WantedBy: multi-user.target": true,
				"After: mandos.socket":        true,
				"Requires: sysinit.target":    true,
				"After: sysinit.target":       true,
				"After: basic.target":         true,
				"Conflicts: shutdown.target":  true,
				"Before: shutdown.target":     true,
			},
		} {
			says := said(t, string(out), unit)
			for line, want := range want {
				if slices.Contains(says, line) != want {
					t.Errorf("%q, enabled %v: of %s %q is there: %v; systemd says\n%s", test.conf, test.enabled, unit, line, !want, strings.Join(says, "\n"))
				}
			}
		}
	}
}

// said returns what dump, systemd's words on all units, has of one, without the
// origins.
func said(t *testing.T, dump, unit string) (lines []string) {
	t.Helper()
	_, text, ok := strings.Cut(dump, "-> Unit "+unit+":\n")
	if !ok {
		t.Fatalf("no %s in\n%.2000s", unit, dump)
	}
	text, _, _ = strings.Cut(text, "-> Unit ")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " (")
		lines = append(lines, line)
	}
	return lines
}
