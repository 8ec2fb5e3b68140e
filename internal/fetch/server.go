package fetch

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"mandos/internal/cmdline"
)

// A server is where a Mandos server may be.
type server struct {
	addr   netip.AddrPort // with the zone, if link-local
	device string         // the interface to go out by; empty: by the routes
}

func (s server) String() string { return s.addr.String() }

// onLink is a server that was found on an interface's link. An IPv6 address
// that is link-local has that as its zone; one of IPv4 (RFC 3927) has none.
func onLink(addr netip.AddrPort, ifName string) server {
	s := server{addr: addr}
	if addr.Addr().Is4() && addr.Addr().IsLinkLocalUnicast() {
		s.device = ifName
	}
	return s
}

// interfaces are the network interfaces to use.
type interfaces struct {
	names []string // empty: all that suit
	none  bool     // bring up none but those in up
	up    []string // those of names that are brought up
}

// parseInterfaces reads the values of --interface. What comes after "none" is
// used, but not brought up.
func parseInterfaces(values []string) (interfaces, error) {
	var use interfaces
	for _, name := range values {
		switch {
		case name == "": // as in "eth0,", which Debian's takes
		case name == "none":
			use.none = true
		case len(name) > 15 || strings.ContainsAny(name, "/ \t\n%") || name == "." || name == "..":
			// 15 is IFNAMSIZ-1.
			return interfaces{}, cmdline.Usagef("--interface: %q can't be the name of a network interface", name)
		case !slices.Contains(use.names, name):
			use.names = append(use.names, name)
			if !use.none {
				use.up = append(use.up, name)
			}
		}
	}
	return use, nil
}

// parseConnect reads the value of --connect: an IPv6 address, with or without
// brackets and zone, or an IPv4 address; and, after the last colon, a port.
func parseConnect(s string, use interfaces) (server, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return server{}, cmdline.Usagef("--connect %s: no port; it is ADDRESS:PORT", s)
	}
	host, portText := s[:i], s[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return server{}, cmdline.Usagef("--connect %s: %q is no port; it is a number from 1 to 65535", s, portText)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return server{}, cmdline.Usagef("--connect %s: a bracket is missing", s)
		}
		host = inner
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return server{}, cmdline.Usagef("--connect %s: %q is no IPv6 or IPv4 address; names can't be looked up before the disk is there", s, host)
	}
	one := ""
	if len(use.names) == 1 {
		one = use.names[0]
	}
	if addr.Is6() && (addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast()) && addr.Zone() == "" {
		if one == "" {
			return server{}, cmdline.Usagef("--connect %s: a link-local address needs its interface: %s%%INTERFACE, or --interface with one name", s, host)
		}
		addr, one = addr.WithZone(one), ""
	}
	if zone := addr.Zone(); zone != "" && one != "" {
		if zone != one {
			return server{}, cmdline.Usagef("--connect %s: it names another interface than --interface %s", s, one)
		}
		one = ""
	}
	switch {
	case addr.IsUnspecified(), addr.IsMulticast():
		return server{}, cmdline.Usagef("--connect %s: %v isn't the address of a server", s, addr)
	case addr.IsLoopback():
		one = "" // reached by the loopback interface alone
	}
	return server{netip.AddrPortFrom(addr, uint16(port)), one}, nil
}
