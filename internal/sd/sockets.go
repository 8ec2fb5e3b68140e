// Package sd is the daemon's side of the contract with systemd: inherited
// sockets, readiness and status, watchdog. Without systemd its functions do
// nothing.
package sd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// A Socket is a listening stream socket that somebody else made.
type Socket struct {
	Name     string // of FileDescriptorName=, or of the socket unit
	Listener *net.TCPListener
}

// PassedTo returns the process that systemd passed sockets to, if that is
// another than this one, and "" otherwise. Sockets forgets it.
func PassedTo() (pid string) {
	pid = os.Getenv("LISTEN_PID")
	if os.Getenv("LISTEN_FDS") == "" || pid == strconv.Itoa(os.Getpid()) {
		return ""
	}
	return pid
}

// Sockets returns the sockets that systemd passed to this process
// (sd_listen_fds(3)), in its order, and forgets the variables that say so.
// None is no error. A descriptor that isn't a listening TCP socket is one:
// the unit that made it is wrong.
func Sockets() ([]Socket, error) {
	var sockets []Socket
	files := activation.Files(true)
	for i, f := range files {
		l, err := listener(f)
		if err != nil {
			for _, rest := range files[i:] {
				rest.Close()
			}
			for _, s := range sockets {
				s.Listener.Close()
			}
			return nil, fmt.Errorf("socket %q from systemd (descriptor %d): %w", f.Name(), 3+i, err)
		}
		sockets = append(sockets, Socket{f.Name(), l})
		f.Close()
	}
	return sockets, nil
}

// ListenerOf returns a listener on a copy of the inherited descriptor fd.
func ListenerOf(fd int) (*net.TCPListener, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(dup), fmt.Sprintf("descriptor %d", fd))
	defer f.Close()
	l, err := listener(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return l, nil
}

// listener returns a listener on a copy of f's descriptor.
func listener(f *os.File) (*net.TCPListener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var kind error
	if err := raw.Control(func(fd uintptr) { kind = checkListening(int(fd)) }); err != nil {
		return nil, err
	}
	if kind != nil {
		return nil, kind
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("it listens on %s, not on TCP", l.Addr().Network())
	}
	return tcp, nil
}

func checkListening(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("it is no socket: %w", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	switch {
	case family != unix.AF_INET && family != unix.AF_INET6:
		return errors.New("it is no internet socket: use ListenStream= with a port")
	case kind == unix.SOCK_DGRAM:
		return errors.New("it is a datagram socket, Mandos needs a stream socket: use ListenStream=, not ListenDatagram=")
	case kind != unix.SOCK_STREAM:
		return fmt.Errorf("it is no stream socket (type %d): use ListenStream=", kind)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	if listening == 0 {
		return errors.New("it doesn't listen (is it a connection, of a unit with Accept=yes?): use Accept=no")
	}
	return nil
}
