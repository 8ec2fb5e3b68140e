package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	mandosconf "mandos/internal/config"
	"mandos/internal/journal"
)

// options are what a server made of mandos.conf.
type options struct {
	Interface, Address, Priority, ServiceName, StateDir string
	Port, Socket                                        int // Socket -1: none
	Debug, DBus, IPv6, Restore, Zeroconf, Foreground    bool
	Levels                                              journal.Levels
}

func ourOptions(s *mandosconf.Server) options {
	o := options{
		Interface: s.Interface, Priority: s.Priority, ServiceName: s.ServiceName, StateDir: s.StateDir,
		Port: int(s.Port), Socket: s.Socket, Debug: s.Debug, DBus: s.DBus, IPv6: s.IPv6, Restore: s.Restore, Zeroconf: s.Zeroconf,
		Foreground: s.Foreground || s.Debug, // as it is there
		Levels:     s.Levels,
	}
	if s.Address.IsValid() {
		o.Address = s.Address.String()
	}
	return o
}

// debianOptions reads what testdata/mandos.py has printed. Debian's keys that
// aren't set are empty texts, and its default for TLS isn't ours.
func debianOptions(t *testing.T, m map[string]any) options {
	t.Helper()
	text := func(key string) string {
		s, ok := m[key].(string)
		if !ok {
			t.Fatalf("%s is %v", key, m[key])
		}
		return s
	}
	number := func(key string, none int) int {
		n, ok := m[key].(float64)
		if !ok && m[key] != "" {
			t.Fatalf("%s is %v", key, m[key])
		}
		if !ok {
			return none
		}
		return int(n)
	}
	flag := func(key string) bool {
		b, ok := m[key].(bool)
		if !ok {
			t.Fatalf("%s is %v", key, m[key])
		}
		return b
	}
	o := options{
		Interface: text("interface"), Address: strings.ToLower(text("address")), Priority: text("priority"), ServiceName: text("servicename"), StateDir: text("statedir"),
		Port: number("port", 0), Socket: number("socket", -1), Debug: flag("debug"), DBus: flag("use_dbus"), IPv6: flag("use_ipv6"),
		Restore: flag("restore"), Zeroconf: flag("zeroconf"), Foreground: flag("foreground"),
	}
	if o.Priority == "SECURE128:!CTYPE-X.509:+CTYPE-RAWPK:!RSA:!VERS-ALL:+VERS-TLS1.3:%PROFILE_ULTRA" {
		o.Priority = ""
	}
	if level := text("debuglevel"); level != "" {
		levels, err := journal.ParseLevels(level)
		if err != nil {
			t.Fatal(err)
		}
		o.Levels = levels
	}
	return o
}

// confVariants are hard to read right.
var confVariants = map[string]string{
	"no file":               "",
	"only the section":      "[DEFAULT]\n",
	"all strings":           "[DEFAULT]\ninterface = lo\naddress = 2001:db8::1\nservicename = Cellar\nstatedir = /srv/state\ndebuglevel = info\n",
	"all numbers":           "[DEFAULT]\nport = 1234\nsocket = 7\n",
	"all booleans, turned":  "[DEFAULT]\ndebug = True\nuse_dbus = False\nuse_ipv6 = False\nrestore = False\nforeground = True\nzeroconf = False\nport = 1\n",
	"other booleans":        "[DEFAULT]\ndebug = YES\nuse_dbus = 0\nuse_ipv6 = oN\nrestore = no\nforeground = 1\nzeroconf = OFF\nport = 1\n",
	"comments":              "# one\n; two\n[DEFAULT]\n  # indented\n;port = 1\n#port = 2\nport = 3\n",
	"colons":                "[DEFAULT]\nport: 1234\nservicename : Mandos: two\naddress:2001:db8::1\n",
	"equals in a value":     "[DEFAULT]\nservicename = a = b\n",
	"odd spacing":           "[DEFAULT]\nport   =     1234   \t\nservicename=Tight\n\n\ninterface =\n",
	"case of keys":          "[DEFAULT]\nPORT = 1234\nServiceName = CaSe\n",
	"empty values":          "[DEFAULT]\ninterface =\naddress =\nport =\nsocket =\ndebuglevel =\n",
	"port 0":                "[DEFAULT]\nport = 0\n",
	"port with a sign":      "[DEFAULT]\nport = +1234\n",
	"a comment in between":  "[DEFAULT]\nport =\n# not this\n  1234\n",
	"percent in priority":   "[DEFAULT]\npriority = SECURE128:!CTYPE-X.509:+CTYPE-RAWPK:%COMPAT\n",
	"percent in a name":     "[DEFAULT]\nservicename = 100% Mandos\n",
	"two percent in a name": "[DEFAULT]\nservicename = 100%% Mandos\n",
	"interpolated boolean":  "[DEFAULT]\nverbose = yes\ndebug = %(verbose)s\n",
	"interpolated port":     "[DEFAULT]\nbase = 12\nport = %(base)s34\n",
	"reference in a name":   "[DEFAULT]\nservicename = %(statedir)s\n",
	"another section":       "[server]\nport = 1\n[DEFAULT]\nport = 2\n[other]\nport = 3\n",
	"DEFAULT in two parts":  "[DEFAULT]\nport = 2\n[other]\nx = y\n[DEFAULT]\nservicename = later\n",
	"unknown keys":          "[DEFAULT]\ncolour = blue\n",
	"inline comment":        "[DEFAULT]\nservicename = Mandos # ours\n",
	"quotes":                "[DEFAULT]\nservicename = \"Mandos\"\n",
	"UTF-8":                 "[DEFAULT]\nservicename = Bücher\n",
	"CRLF":                  "[DEFAULT]\r\nport = 1234\r\nservicename = x\r\n",
	"no newline at the end": "[DEFAULT]\nport = 1234",
	"IPv4":                  "[DEFAULT]\nuse_ipv6 = no\naddress = 192.0.2.3\n",
	"IPv4 in IPv6":          "[DEFAULT]\naddress = ::FFFF:192.0.2.3\n",
	"link-local":            "[DEFAULT]\naddress = fe80::1\ninterface = eth0\n",
	"level in capitals":     "[DEFAULT]\ndebuglevel = WARNING\n",
}

// TestMandosConf compares what both servers make of mandos.conf: Debian's
// example, as it is and with all that it has commented out, and the variants,
// value by value.
func TestMandosConf(t *testing.T) {
	root := DebianRoot(t)
	shipped, err := os.ReadFile(filepath.Join(root, "etc/mandos/mandos.conf"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"Debian's example": string(shipped)}
	all := regexp.MustCompile(`(?m)^;`).ReplaceAllString(string(shipped), "")
	if strings.Count(all, "\n") != strings.Count(string(shipped), "\n") || strings.Count(all, " =") < 12 {
		t.Fatal("Debian's example isn't what it was")
	}
	files["Debian's example, all of it"] = all
	for name, text := range confVariants {
		files[name] = text
	}

	dir := t.TempDir()
	var names, folders []string
	for name, text := range files {
		folder := filepath.Join(dir, fmt.Sprint(len(names)))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			write(t, filepath.Join(folder, "mandos.conf"), []byte(text))
		}
		names, folders = append(names, name), append(folders, folder)
	}
	debian := readByDebian[map[string]any](t, "testdata/mandos.py", folders)
	different := 0
	for i, folder := range folders {
		cl, err := mandosconf.ParseArgs([]string{"--configdir", folder})
		if err != nil {
			t.Fatal(err)
		}
		s, found := mandosconf.LoadServer(cl, mandosconf.LoadOptions{})
		if err := found.Err(); err != nil {
			t.Errorf("%s: %v\n%s", names[i], err, files[names[i]])
			continue
		}
		got, want := ourOptions(s), debianOptions(t, debian[i])
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read as\n%+v\nby Debian's server as\n%+v\nfrom\n%s", names[i], got, want, files[names[i]])
		}
		if want.Port != 0 || want.ServiceName != "Mandos" || want.Debug {
			different++
		}
	}
	if different < 15 {
		t.Errorf("only %d files say anything", different)
	}
}
