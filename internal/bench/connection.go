package bench

import (
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The bytes of a session in each direction, in the least number of steps: the
// greeting; ClientHello; the host's flight; Finished, secret and close_notify
// at once; the host's close_notify.
const (
	greetingBytes = 3
	helloBytes    = 300
	flightBytes   = 500
	secretBytes   = 80 + SecretSize + 22 + 24
	closeBytes    = 24
)

// measureConnection returns the CPU time that a thread needs which serves such
// connections with system calls alone, on the loopback.
func measureConnection() (each time.Duration, err error) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(listener)
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	if err := unix.Listen(listener, 8); err != nil {
		return 0, err
	}
	addr, err := unix.Getsockname(listener)
	if err != nil {
		return 0, err
	}

	const calls = 2000
	var hosts sync.WaitGroup
	var hostsErr error
	hosts.Go(func() {
		for range calls {
			if hostsErr = bareHost(addr); hostsErr != nil {
				_ = unix.Shutdown(listener, unix.SHUT_RDWR) // ends accept
				return
			}
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()
	for range calls {
		if err = bareServer(listener); err != nil {
			break
		}
	}
	each = (threadTime() - began) / calls
	hosts.Wait()
	return each, errors.Join(err, hostsErr)
}

func bareServer(listener int) error {
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	return errors.Join(receiveBytes(conn, greetingBytes), sendBytes(conn, helloBytes),
		receiveBytes(conn, flightBytes), sendBytes(conn, secretBytes), receiveBytes(conn, closeBytes))
}

func bareHost(addr unix.Sockaddr) error {
	conn, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	if err := unix.Connect(conn, addr); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(conn, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	return errors.Join(sendBytes(conn, greetingBytes), receiveBytes(conn, helloBytes),
		sendBytes(conn, flightBytes), receiveBytes(conn, secretBytes), sendBytes(conn, closeBytes))
}

func sendBytes(conn, n int) error {
	_, err := unix.Write(conn, make([]byte, n)) // a blocking socket takes all
	return err
}

func receiveBytes(conn, n int) error {
	b := make([]byte, n)
	for len(b) > 0 {
		n, err := unix.Read(conn, b)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("the other side has closed the connection")
		}
		b = b[n:]
	}
	return nil
}
