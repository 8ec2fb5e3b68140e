package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"mandos/internal/cmdline"
	"mandos/internal/journal"
)

// An Option is one setting of the server: its place on the command line, its
// key in mandos.conf, or both.
type Option struct {
	Long  string // without dashes
	Short string // one letter, or empty
	Key   string // in mandos.conf; empty: only on the command line
	Arg   string // the name of the value; empty: a flag without one
	// Default is the key's default, as written in the file.
	Default string
	Help    string

	flag   string                      // what a flag sets
	action Action                      // what a flag without a key asks for
	set    func(*Server, string) error // reads a value
}

// Options are all options and keys of the server, in the order of its help.
var Options = []Option{
	{Long: "help", Short: "h", Help: "print this help and exit", action: ShowHelp},
	{Long: "version", Short: "v", Help: "print the version and exit", action: ShowVersion},
	{Long: "check", Help: "run self-tests and exit", action: SelfTest},
	{Long: "check-config", Help: "check the configuration, report what is wrong or suspicious, and exit", action: CheckConfig},

	{Long: "interface", Short: "i", Key: "interface", Arg: "INTERFACE", Help: "serve and announce on this network interface only", set: setInterface},
	{Long: "address", Short: "a", Key: "address", Arg: "ADDRESS", Help: "listen on this address; a link-local one needs an interface", set: setAddress},
	{Long: "port", Short: "p", Key: "port", Arg: "PORT", Help: "listen on this TCP port; 0: any", set: setPort},
	{Long: "debug", Key: "debug", Default: "False", flag: "True", Help: "log everything, but never keys or secrets", set: boolean(func(s *Server) *bool { return &s.Debug })},
	{Long: "debuglevel", Key: "debuglevel", Arg: "LEVEL", Help: "log from this level on: critical, error, warning, notice, info or debug; also per component, as in warning,server=debug", set: setLevels},
	{Long: "priority", Key: "priority", Arg: "STRING", Help: "what TLS may use, as a GnuTLS priority string; by default, what suits both old and new clients", set: setPriority},
	{Long: "servicename", Key: "servicename", Arg: "NAME", Default: "Mandos", Help: "the name to announce by Zeroconf", set: setServiceName},
	{Long: "configdir", Arg: "DIR", Default: "/etc/mandos", Help: "where mandos.conf and clients.conf are", set: folder(func(s *Server) *string { return &s.ConfigDir })},
	{Long: "statedir", Key: "statedir", Arg: "DIR", Default: "/var/lib/mandos", Help: "where the clients' state is kept", set: folder(func(s *Server) *string { return &s.StateDir })},
	{Long: "max-checkers", Key: "max_checkers", Arg: "NUMBER", Default: "64", Help: "how many checkers may run at once; the others wait their turn", set: setMaxCheckers},
	{Long: "no-dbus", Key: "use_dbus", Default: "True", flag: "False", Help: "offer no D-Bus interface", set: boolean(func(s *Server) *bool { return &s.DBus })},
	{Long: "no-ipv6", Key: "use_ipv6", Default: "True", flag: "False", Help: "use IPv4 instead of IPv6", set: boolean(func(s *Server) *bool { return &s.IPv6 })},
	{Long: "no-restore", Key: "restore", Default: "True", flag: "False", Help: "start from clients.conf alone, without the saved state", set: boolean(func(s *Server) *bool { return &s.Restore })},
	{Long: "socket", Key: "socket", Arg: "FD", Help: "listen on this inherited file descriptor", set: setSocket},
	{Long: "foreground", Key: "foreground", Default: "False", flag: "True", Help: "no effect: the server is always in the foreground", set: boolean(func(s *Server) *bool { return &s.Foreground })},
	{Long: "no-zeroconf", Key: "zeroconf", Default: "True", flag: "False", Help: "announce nothing; needs a port or a socket", set: boolean(func(s *Server) *bool { return &s.Zeroconf })},
}

// A Server is the server's configuration.
type Server struct {
	Interface string     // empty: all
	Address   netip.Addr // invalid: any
	Port      uint16     // 0: any
	Socket    int        // an inherited file descriptor; -1: none

	Debug  bool
	Levels journal.Levels // what to log; as DebugLevel says

	Priority    string // a GnuTLS priority string, not checked here; empty: the default
	ServiceName string // 1 to 63 bytes
	ConfigDir   string
	StateDir    string
	MaxCheckers int // 1 to 1000

	DBus       bool
	IPv6       bool // else IPv4
	Restore    bool
	Foreground bool // without effect
	Zeroconf   bool

	where map[string]place // of each key that doesn't have its default
}

// Where returns where a key of mandos.conf was set: "--port", "FILE:LINE", or
// "" if it has its default.
func (s *Server) Where(key string) string {
	p, ok := s.where[key]
	switch {
	case !ok:
		return ""
	case p.file == commandLine:
		return "--" + longOf(key)
	}
	return p.String()
}

// CheckReachable returns a *cmdline.UsageError if no client could find the
// server: without Zeroconf it needs a port or a socket. inherited says that
// systemd has passed it one.
func (s *Server) CheckReachable(inherited bool) error {
	if s.Zeroconf || s.Port != 0 || s.Socket >= 0 || inherited {
		return nil
	}
	return cmdline.Usagef("%s: clients can't find the server without Zeroconf unless --port or --socket is given", s.Where("zeroconf"))
}

func longOf(key string) string {
	for i := range Options {
		if Options[i].Key == key {
			return Options[i].Long
		}
	}
	return key
}

func boolean(field func(*Server) *bool) func(*Server, string) error {
	return func(s *Server, v string) error {
		b, ok := booleans[strings.ToLower(v)]
		if !ok {
			return fmt.Errorf("%q is neither yes nor no: write True or False", v)
		}
		*field(s) = b
		return nil
	}
}

func folder(field func(*Server) *string) func(*Server, string) error {
	return func(s *Server, v string) error {
		if v == "" || strings.ContainsRune(v, 0) {
			return fmt.Errorf("%q is no folder: write its path", v)
		}
		*field(s) = filepath.Clean(v)
		return nil
	}
}

func setInterface(s *Server, v string) error {
	if err := checkInterface(v); err != nil {
		return err
	}
	s.Interface = v
	return nil
}

// checkInterface accepts only names that systemd accepts, too: it would ignore
// a BindToDevice= with any other, and mandos.socket would listen on all
// interfaces.
func checkInterface(name string) error {
	const longest = 15 // IFNAMSIZ - 1
	digits := strings.Trim(name, "0123456789") == ""
	switch {
	case name == "":
		return nil
	case name == "all", name == "default", name == ".", name == "..", digits, len(name) > longest,
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }):
		return fmt.Errorf("%q can't be the name of a network interface: write one that ip link shows, or none for all", name)
	}
	return nil
}

func setAddress(s *Server, v string) error {
	s.Address = netip.Addr{}
	if v == "" {
		return nil
	}
	a, err := netip.ParseAddr(v)
	if err != nil {
		return fmt.Errorf("%q is no IP address: write a numeric one, such as 2001:db8::1", v)
	}
	// Package netip accepts anything as a zone.
	if err := checkInterface(a.Zone()); err != nil {
		return err
	}
	s.Address = a
	return nil
}

func setPort(s *Server, v string) error {
	s.Port = 0
	if v == "" {
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strip(v), "+"), 10, 16)
	if err != nil {
		return fmt.Errorf("%q is no port: write a number from 1 to 65535, or 0 for any", v)
	}
	s.Port = uint16(n)
	return nil
}

func setSocket(s *Server, v string) error {
	s.Socket = -1
	if v == "" {
		return nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strip(v), "+"), 10, 20)
	if err != nil {
		return fmt.Errorf("%q is no file descriptor: write its number", v)
	}
	s.Socket = int(n)
	return nil
}

func setLevels(s *Server, v string) error {
	levels, err := journal.ParseLevels(v)
	if err != nil {
		return err
	}
	s.Levels = levels
	return nil
}

func setPriority(s *Server, v string) error {
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("%q is no priority string: write it in one line", v)
	}
	s.Priority = v
	return nil
}

// mostCheckers is below the number of requests that the checker helper serves
// at once.
const mostCheckers = 1000

func setMaxCheckers(s *Server, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > mostCheckers {
		return fmt.Errorf("%q is no number of checkers: write one from 1 to %d", v, mostCheckers)
	}
	s.MaxCheckers = n
	return nil
}

func setServiceName(s *Server, v string) error {
	const longest = 63 // RFC 6763, section 4.1.1
	switch {
	case v == "":
		return errors.New("the service needs a name: write one, such as Mandos")
	case len(v) > longest:
		return fmt.Errorf("%q has %d bytes: write at most %d", v, len(v), longest)
	case !utf8.ValidString(v): // from the command line; avahi-daemon accepts only UTF-8
		return fmt.Errorf("%q isn't UTF-8: write a name that is", v)
	case strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%q has control characters: write a name without", v)
	}
	s.ServiceName = v
	return nil
}
