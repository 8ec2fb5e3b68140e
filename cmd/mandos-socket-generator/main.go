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
	"strings"

	"mandos/internal/config"
)

// defaultsFile has the options of mandos.service, in DAEMON_ARGS.
const defaultsFile = "/etc/default/mandos"

// defaultPort is that of mandos.socket as it is shipped.
const defaultPort = 6637

func main() {
	// systemd.generator(7): the folders for units of normal, early and late
	// priority.
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "mandos-socket-generator: is run by systemd, with three folders; see mandos-socket-generator(8)")
		os.Exit(2)
	}
	if err := generate("/etc/mandos", defaultsFile, os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "mandos-socket-generator: %v\n", err)
		os.Exit(1)
	}
}

// generate writes the drop-in for the configuration in configDir and the
// options in defaults below dir, if one is needed.
func generate(configDir, defaults, dir string) error {
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
	// The name sorts before that of `systemctl edit`, override.conf.
	path := filepath.Join(dir, "mandos.socket.d", "50-mandos.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
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
	name := s.Interface
	if name == "" {
		name = s.Address.Zone()
	}
	if name != "" {
		fmt.Fprintf(&b, "BindToDevice=%s\n", name)
	}
	if b.Len() == 0 {
		return ""
	}
	return "# Made by mandos-socket-generator from mandos.conf.\n[Socket]\n" + b.String()
}

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
