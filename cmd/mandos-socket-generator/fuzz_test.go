package main

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mandos/internal/config"
)

// FuzzDefaults: whatever /etc/default/mandos holds, systemd is told an address,
// a port and an interface, or nothing, and never another setting.
func FuzzDefaults(f *testing.F) {
	for _, text := range []string{
		"",
		"DAEMON_ARGS=\"--port 77 --debug\"\n",
		"# none\nDAEMON_ARGS='--address fe80::1 --interface \"eth0\"' \\\n\n",
		"OTHER=x\n DAEMON_ARGS = --no-ipv6 -p\\ 5 -a 192.0.2.1\n",
		"DAEMON_ARGS=-a 2001:db8::1 -i a%b",
		"DAEMON_ARGS=\"--address fe80::1%eth0\"",
		"DAEMON_ARGS=\"-i 'a\\\\\nExecStartPre=x'\"",
		"DAEMON_ARGS=-i\\\\ a\\\r",
	} {
		f.Add(text)
	}
	interfaceName := regexp.MustCompile(`^[!-~]{1,15}$`)
	empty := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		// The file itself can't name a folder here: it would be read.
		cl, err := config.ParseArgs(append(daemonArgs(text), "--configdir", empty))
		if err != nil {
			return
		}
		s, found := config.LoadServer(cl, config.LoadOptions{})
		if found.Err() != nil {
			return
		}
		_, lines, _ := strings.Cut(dropIn(s), "[Socket]\n")
		for line := range strings.Lines(lines) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			ok := false
			switch name {
			case "# An empty one takes back that of mandos.socket.":
				ok = value == ""
			case "ListenStream":
				_, portErr := strconv.ParseUint(value, 10, 16)
				addr, addrErr := netip.ParseAddrPort(value)
				ok = value == "" || portErr == nil || addrErr == nil && addr.Addr().Zone() == ""
			case "FreeBind":
				ok = value == "yes"
			case "BindToDevice":
				ok = interfaceName.MatchString(value)
			}
			if !ok {
				t.Errorf("%q makes the line %q", text, line)
			}
		}
	})
}
