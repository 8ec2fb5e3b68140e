package bench

import (
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// A transport is a TCP connection of a host. A net.Dialer's costs the machine
// twice the system calls, which the server then lacks the time for.
type transport struct {
	*os.File
	from, to netip.AddrPort
}

// LocalAddr is without the port, which nobody asks for.
func (t transport) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(t.from) }
func (t transport) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(t.to) }

// dial begins to connect. A Read or Write waits until that has succeeded or
// failed.
func dial(from netip.Addr, to netip.AddrPort) (*transport, error) {
	family, local, remote := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: from.As16()}), unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
	if from.Is4() {
		family, local, remote = unix.AF_INET, &unix.SockaddrInet4{Addr: from.As4()}, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// The port is chosen when it is known for which connection.
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, local))
	}
	if err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, remote))
	}
	if err != nil && err.(*os.SyscallError).Err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err
	}
	return &transport{os.NewFile(uintptr(fd), "host"), netip.AddrPortFrom(from, 0), to}, nil
}
