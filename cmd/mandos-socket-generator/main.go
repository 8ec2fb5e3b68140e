// Mandos-socket-generator makes mandos.socket listen where mandos.conf says.
// systemd runs it at boot and at daemon-reload. See
// mandos-socket-generator(8).
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"

	"mandos/internal/config"
)

// defaultsFile has the options of mandos.service, in DAEMON_ARGS.
const defaultsFile = "/etc/default/mandos"

// defaultPort is that of mandos.socket as it is shipped.
const defaultPort = 6637

// enablings are the links of which `systemctl enable` makes one or both.
var enablings = []string{
	"/etc/systemd/system/sockets.target.wants/mandos.socket",
	"/etc/systemd/system/multi-user.target.wants/mandos.service",
}

func main() {
	// systemd.generator(7): the folders for units of normal, early and late
	// priority.
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "mandos-socket-generator: is run by systemd, with three folders; see mandos-socket-generator(8)")
		os.Exit(2)
	}
	enabled := slices.ContainsFunc(enablings, func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
	if err := generate("/etc/mandos", defaultsFile, os.Args[1], enabled); err != nil {
		fmt.Fprintf(os.Stderr, "mandos-socket-generator: %v\n", err)
		os.Exit(1)
	}
}

// generate writes the drop-ins for the configuration in configDir and the
// options in defaults below dir, if any is needed. enabled says that
// mandos.socket is to be started whenever it can be.
func generate(configDir, defaults, dir string, enabled bool) error {
	text, err := os.ReadFile(defaults)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mandos.socket stays as it is: %w", err)
	}
	args := daemonArgs(string(text))
	cl, err := config.ParseArgs(append([]string{"--configdir", configDir}, args...))
	if err != nil {
		return fmt.Errorf("mandos.socket stays as it is, because of %s: %w", defaults, err)
	}
	s, found := config.LoadServer(cl, config.LoadOptions{})
	if err := found.Err(); err != nil {
		return fmt.Errorf("mandos.socket stays as it is, because of errors in mandos.conf: %w", err)
	}
	content := dropIn(s)
	if content == "" {
		return nil
	}
	if err := writeDropIn(dir, "mandos.socket", content); err != nil {
		return err
	}
	name := boundTo(s)
	if name == "" {
		return nil
	}
	// The service waits for its socket, and multi-user.target would for both.
	if err := writeDropIn(dir, "mandos.service", notBeforeBoot+"After=basic.target\n"); err != nil {
		return err
	}
	if enabled {
		return startWith(name, dir)
	}
	return nil
}

func writeDropIn(dir, unit, content string) error {
	// The name sorts before that of `systemctl edit`, override.conf.
	path := filepath.Join(dir, unit+".d", "50-mandos.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte("# Made by mandos-socket-generator from mandos.conf.\n"+content), 0o644)
}

// startWith has systemd start mandos.socket whenever the interface called name
// comes up. It stops when that goes away, as a bridge does that is set up
// anew, and nothing else would start it again.
func startWith(name, dir string) error {
	device := unit.UnitNamePathEscape("/sys/subsystem/net/devices/"+name) + ".device"
	link := filepath.Join(dir, device+".wants", "mandos.socket")
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.Symlink("../mandos.socket", link) // systemd looks at the name only
}

// boundTo returns the interface that s names, or "".
func boundTo(s *config.Server) string {
	if s.Interface != "" {
		return s.Interface
	}
	return s.Address.Zone()
}

// dropIn is what s changes of mandos.socket; empty if that is nothing.
func dropIn(s *config.Server) string {
	var b strings.Builder
	if s.Address.IsValid() || s.Port != 0 || !s.IPv6 {
		fmt.Fprintf(&b, "# An empty one takes back that of mandos.socket.\nListenStream=\nListenStream=%s\n", listenStream(s))
	}
	if s.Address.IsValid() {
		// The network may come up later.
		b.WriteString("FreeBind=yes\n")
	}
	unit := ""
	if name := boundTo(s); name != "" {
		fmt.Fprintf(&b, "BindToDevice=%s\n", name)
		unit = notBeforeBoot
	}
	if b.Len() == 0 {
		return ""
	}
	return unit + "[Socket]\n" + b.String()
}

// notBeforeBoot has no target wait for a unit. A socket that is bound to an
// interface waits for that, and with sockets.target would all services: also the
// one that makes the interface, such as NetworkManager. After 90 seconds systemd
// would give up, for good. What else DefaultDependencies=no leaves out is said
// here (systemd.socket(5) and systemd.service(5), "Default Dependencies").
const notBeforeBoot = `[Unit]
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target
Conflicts=shutdown.target
Before=shutdown.target
`

func listenStream(s *config.Server) string {
	port := s.Port
	if port == 0 {
		port = defaultPort
	}
	switch {
	case s.Address.IsValid():
		// Without its zone, which systemd takes only if that interface is
		// there already; BindToDevice= says the same.
		return netip.AddrPortFrom(s.Address.WithZone(""), port).String()
	case s.IPv6:
		return fmt.Sprint(port) // also works where the kernel has no IPv6
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()
}
