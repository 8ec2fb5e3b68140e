package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mandos/internal/journal"
	"mandos/internal/sd"
)

// listen returns the sockets to serve: those that systemd made, the one of
// --socket, or one of its own.
func (d *daemon) listen(inherited []sd.Socket) ([]net.Listener, error) {
	var listeners []net.Listener
	switch {
	case len(inherited) > 0:
		for _, s := range inherited {
			listeners = append(listeners, s.Listener)
		}
		d.warnOverruled(listeners)
	case d.Config.Socket >= 0:
		l, err := d.listenOn(d.Config.Socket)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Config.Where("socket"), err)
		}
		listeners = append(listeners, l)
	default:
		l, err := d.listenSelf()
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
	}
	d.listening(listeners)
	return listeners, nil
}

// warnOverruled warns about each option that disagrees with the sockets that
// systemd made.
func (d *daemon) warnOverruled(listeners []net.Listener) {
	agrees := map[string]func(net.Listener) bool{
		"port": func(l net.Listener) bool {
			return d.Config.Port == 0 || addrOf(l).Port() == d.Config.Port
		},
		"address": func(l net.Listener) bool {
			return !d.Config.Address.IsValid() || addrOf(l).Addr().WithZone("") == d.Config.Address.WithZone("")
		},
		"interface": func(l net.Listener) bool {
			return d.Config.Interface == "" || boundTo(l) == d.Config.Interface
		},
		"socket":   func(net.Listener) bool { return d.Config.Socket < 0 },
		"use_ipv6": func(l net.Listener) bool { return d.Config.IPv6 == addrOf(l).Addr().Is6() },
	}
	for _, key := range []string{"port", "address", "interface", "socket", "use_ipv6"} {
		where := d.Config.Where(key)
		if where == "" {
			continue
		}
		for _, l := range listeners {
			if agrees[key](l) {
				continue
			}
			why := fmt.Sprintf("mandos.socket listens on %v", l.Addr())
			if key == "interface" {
				why = "mandos.socket isn't bound to it, so it is only announced there"
			}
			// mandos-socket-generator makes the socket follow all of these
			// options but --socket; a drop-in may override that.
			remedy := "systemctl daemon-reload && systemctl restart mandos.socket; if that doesn't help: systemctl cat mandos.socket"
			if key == "socket" {
				remedy = "systemctl edit mandos.socket"
			}
			journal.OptionOverruled.Log(context.Background(), d.log, journal.Setting(where), journal.Reason(why+"; to change that: "+remedy))
			break
		}
	}
}

// boundTo returns the interface that l is bound to, or "".
func boundTo(l net.Listener) (name string) {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			name, _ = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		})
	}
	return strings.TrimRight(name, "\x00")
}

func addrOf(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// listenSelf makes a listening socket as the options say. Without an address it
// listens on all of them; with IPv6, that includes those of IPv4.
func (d *daemon) listenSelf() (net.Listener, error) {
	network, addr := "tcp", d.Config.Address
	switch {
	case !d.Config.IPv6:
		network = "tcp4"
		if !addr.IsValid() {
			addr = netip.IPv4Unspecified()
		}
	case !addr.IsValid():
		addr = netip.IPv6Unspecified()
	}
	if addr.IsLinkLocalUnicast() && addr.Is6() && addr.Zone() == "" {
		addr = addr.WithZone(d.Config.Interface)
	}
	lc := net.ListenConfig{Control: d.bindToInterface}
	at := netip.AddrPortFrom(addr, d.Config.Port)
	l, err := lc.Listen(context.Background(), network, at.String())
	if err != nil {
		return nil, fmt.Errorf("listening on %v: %w%s", at, reason(err), d.hint(err))
	}
	return l, nil
}

// reason returns err without the address, which the message already names.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// hint says what to do about an error from listening.
func (d *daemon) hint(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return " (another program uses this port: stop it, or choose another --port)"
	case errors.Is(err, unix.EACCES):
		return " (only root may use ports below 1024)"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return " (no network interface has this address: see --address)"
	case errors.Is(err, unix.EAFNOSUPPORT):
		return " (this kernel has no IPv6: see --no-ipv6)"
	}
	return ""
}

// bindToInterface binds a socket to the interface of the options. If there is
// no such interface, or binding isn't permitted, the server goes on without.
func (d *daemon) bindToInterface(_, _ string, c syscall.RawConn) error {
	if d.Config.Interface == "" {
		return nil
	}
	var err error
	if err := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), d.Config.Interface) }); err != nil {
		return err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOPROTOOPT):
		journal.NotBound.Log(context.Background(), d.log, journal.Interface(d.Config.Interface), journal.Err(err))
		return nil
	}
	return fmt.Errorf("binding to the interface %s: %w", d.Config.Interface, err)
}

// listenOn makes a listener from the inherited descriptor fd. If that doesn't
// listen yet, it is bound to the address and port of the options, if any, and
// made to listen.
func (d *daemon) listenOn(fd int) (net.Listener, error) {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listening == 0 {
		if err := d.bindAndListen(fd); err != nil {
			return nil, err
		}
	}
	return sd.ListenerOf(fd) // its error says what is wrong if fd is no such socket
}

func (d *daemon) bindAndListen(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return nil // ListenerOf reports that
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if d.Config.Address.IsValid() || d.Config.Port != 0 {
		at, err := d.sockaddr(family)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		if err := unix.Bind(fd, at); err != nil {
			return fmt.Errorf("binding descriptor %d: %w%s", fd, err, d.hint(err))
		}
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return fmt.Errorf("listening on descriptor %d: %w", fd, err)
	}
	return nil
}

// sockaddr returns the address and port of the options, for a socket of
// family.
func (d *daemon) sockaddr(family int) (unix.Sockaddr, error) {
	addr, port := d.Config.Address, int(d.Config.Port)
	switch family {
	case unix.AF_INET6:
		at := &unix.SockaddrInet6{Port: port}
		if addr.IsValid() {
			at.Addr = addr.As16()
			if zone := addr.Zone(); zone != "" || addr.IsLinkLocalUnicast() {
				if zone == "" {
					zone = d.Config.Interface
				}
				i, err := net.InterfaceByName(zone)
				if err != nil {
					return nil, fmt.Errorf("the interface of %v: %w", addr, err)
				}
				at.ZoneId = uint32(i.Index)
			}
		}
		return at, nil
	case unix.AF_INET:
		at := &unix.SockaddrInet4{Port: port}
		if addr.IsValid() {
			if addr = addr.Unmap(); !addr.Is4() {
				return nil, errors.New("an IPv4 socket can't have the address " + strconv.Quote(addr.String()))
			}
			at.Addr = addr.As4()
		}
		return at, nil
	}
	return nil, nil
}
