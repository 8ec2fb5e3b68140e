package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const port = 5353

var (
	group4 = netip.MustParseAddr("224.0.0.251")
	group6 = netip.MustParseAddr("ff02::fb")
)

// A socket sends and receives in one address family, on all links.
type socket interface {
	join(net.Interface) error
	send([]byte, net.Interface) error
	// receive returns the next packet, and where it was sent to.
	receive(buf []byte) (n int, h header, err error)
	close() error
}

// A header is what the IP and UDP headers of a packet say.
type header struct {
	ifIndex  int
	from     netip.AddrPort
	to       netip.Addr // invalid if unknown
	hopLimit int
}

// listen opens a socket on the port of multicast DNS, beside any other that
// is there. Where that is impossible it takes any port, and gets answers by
// unicast (RFC 6762, section 6.7).
func listen(ctx context.Context, network, host string) (net.PacketConn, error) {
	shared := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		e := raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		})
		return errors.Join(e, err)
	}}
	c, err := shared.ListenPacket(ctx, network, net.JoinHostPort(host, fmt.Sprint(port)))
	if err == nil {
		return c, nil
	}
	if c, e := new(net.ListenConfig).ListenPacket(ctx, network, net.JoinHostPort(host, "0")); e == nil {
		return c, nil
	}
	return nil, err
}

type socket6 struct{ *ipv6.PacketConn }

func openIPv6(ctx context.Context) (socket, error) {
	c, err := listen(ctx, "udp6", "::")
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(c)
	if err := errors.Join(
		p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst|ipv6.FlagHopLimit, true),
		p.SetMulticastHopLimit(255), // RFC 6762, section 11
		p.SetMulticastLoopback(true),
	); err != nil {
		c.Close()
		return nil, err
	}
	return socket6{p}, nil
}

func (s socket6) join(ifi net.Interface) error {
	return joined(s.JoinGroup(&ifi, &net.UDPAddr{IP: group6.AsSlice()}))
}

func (s socket6) send(b []byte, ifi net.Interface) error {
	_, err := s.WriteTo(b, &ipv6.ControlMessage{IfIndex: ifi.Index},
		&net.UDPAddr{IP: group6.AsSlice(), Port: port, Zone: ifi.Name})
	return reason(err)
}

func (s socket6) receive(buf []byte) (int, header, error) {
	n, cm, from, err := s.ReadFrom(buf)
	h := header{from: addrPort(from)}
	if cm != nil {
		h.ifIndex, h.hopLimit = cm.IfIndex, cm.HopLimit
		h.to, _ = netip.AddrFromSlice(cm.Dst)
	}
	return n, h, err
}

func (s socket6) close() error { return s.Close() }

type socket4 struct{ *ipv4.PacketConn }

func openIPv4(ctx context.Context) (socket, error) {
	c, err := listen(ctx, "udp4", "0.0.0.0")
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(c)
	if err := errors.Join(
		p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst|ipv4.FlagTTL, true),
		p.SetMulticastTTL(255),
		p.SetMulticastLoopback(true),
	); err != nil {
		c.Close()
		return nil, err
	}
	return socket4{p}, nil
}

func (s socket4) join(ifi net.Interface) error {
	return joined(s.JoinGroup(&ifi, &net.UDPAddr{IP: group4.AsSlice()}))
}

func (s socket4) send(b []byte, ifi net.Interface) error {
	_, err := s.WriteTo(b, &ipv4.ControlMessage{IfIndex: ifi.Index}, &net.UDPAddr{IP: group4.AsSlice(), Port: port})
	return reason(err)
}

func (s socket4) receive(buf []byte) (int, header, error) {
	n, cm, from, err := s.ReadFrom(buf)
	h := header{from: addrPort(from)}
	if cm != nil {
		h.ifIndex, h.hopLimit = cm.IfIndex, cm.TTL
		h.to, _ = netip.AddrFromSlice(cm.Dst)
		h.to = h.to.Unmap()
	}
	return n, h, err
}

func (s socket4) close() error { return s.Close() }

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// joined takes no offence at a group that was joined before.
func joined(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	return reason(err)
}

// reason returns err without the addresses that the net package adds.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// receive passes on what comes from s, until ctx ends.
func receive(ctx context.Context, s socket, packets chan<- packet, log func(string, ...any)) {
	buf := make([]byte, maxPacket+1)
	for {
		n, h, err := s.receive(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log("multicast DNS: receiving: %v", reason(err))
			select {
			case <-ctx.Done():
				return
			case <-time.After(pollInterval):
			}
			continue
		}
		if !fromLink(h, prefixes(h.ifIndex)) {
			continue
		}
		select {
		case packets <- packet{data: append([]byte(nil), buf[:n]...), ifIndex: h.ifIndex}:
		case <-ctx.Done():
			return
		}
	}
}

// fromLink reports whether a packet was sent by a multicast DNS responder on
// this link: from its port (RFC 6762, section 6), and to a link-local group,
// or else from an address of the link and over no router (section 11).
func fromLink(h header, prefixes func() []netip.Prefix) bool {
	switch {
	case h.from.Port() != port || h.ifIndex == 0:
		return false
	case h.to == group4 || h.to == group6:
		return true
	case h.to.IsMulticast() || !h.to.IsValid() || h.hopLimit != 255:
		return false
	}
	from := h.from.Addr().WithZone("")
	if from.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range prefixes() {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// prefixes returns a function that lists the networks of an interface.
func prefixes(ifIndex int) func() []netip.Prefix {
	return func() []netip.Prefix {
		ifi, err := net.InterfaceByIndex(ifIndex)
		if err != nil {
			return nil
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			return nil
		}
		var all []netip.Prefix
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if p, err := netip.ParsePrefix(n.String()); err == nil {
					all = append(all, p.Masked())
				}
			}
		}
		return all
	}
}
