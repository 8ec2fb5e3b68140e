package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/keytls"
	"mandos/internal/pgp"
)

const (
	dialTimeout = 10 * time.Second
	// handshakeTimeout bounds greeting and handshake; Mandos servers give
	// them 10 s.
	handshakeTimeout = 15 * time.Second
	// dataTimeout bounds the wait for more of a secret that has begun. For
	// its beginning there is no limit: an operator may have to approve.
	dataTimeout = 30 * time.Second
	// maxMessage bounds the encrypted password.
	maxMessage = pgp.MaxPassword + 1<<20
	// maxShort is the size in bytes up to which all servers may send at once;
	// longer messages come one after the other, each within longTimeout.
	maxShort    = 1 << 20
	longTimeout = 5 * time.Minute
)

// greeting tells the server the version of the protocol.
const greeting = "1\r\n"

// errNoSecret is what a server says that doesn't know the client, or denies
// it: it doesn't tell which.
var errNoSecret = errors.New("the server gives no password: it doesn't know this host's key, or the host is disabled there, or wasn't approved; its journal tells")

// An asker asks servers, each once.
type asker struct {
	tls *keytls.Config
	key *pgp.Key
	log *notes

	// Strangers can announce servers by the dozen, and an initramfs has little
	// memory: one server at a time may send a long message, and one message at
	// a time is decrypted, which may make it far longer.
	long, opening sync.Mutex
}

// ask returns the password that s has for this host.
func (a *asker) ask(ctx context.Context, s server) ([]byte, error) {
	a.log.tell("%v: connecting", s)
	conn, err := dial(ctx, s)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The end of ctx ends every read and write at once.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	long := false
	defer func() {
		if long {
			a.long.Unlock()
		}
	}()
	message, err := a.receive(conn, s, func() { a.long.Lock(); long = true })
	if err != nil {
		return nil, err
	}
	if len(message) == 0 {
		return nil, errNoSecret
	}
	a.opening.Lock()
	password, signed, err := a.key.Open(message, time.Now())
	a.opening.Unlock()
	if err != nil {
		return nil, err
	}
	if !signed {
		a.log.warn("%v: the password isn't signed by this host's key, as it would be if mandos-keygen had made it", s)
	}
	return password, nil
}

// receive greets, takes the TLS server's role, and reads the secret up to
// the server's close_notify. It calls awaitTurn before it goes on to read a
// long message.
func (a *asker) receive(transport net.Conn, s server, awaitTurn func()) ([]byte, error) {
	_ = transport.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := io.WriteString(transport, greeting); err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	conn := keytls.Server(transport, a.tls)
	if err := conn.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	a.log.tell("%v: connected, waiting for the password", s)
	_ = conn.SetDeadline(time.Time{})

	var message []byte
	var end time.Time          // of a long message
	buf := make([]byte, 1<<14) // the most that a record holds
	for {
		n, err := conn.Read(buf)
		message = append(message, buf[:n]...)
		if err == io.EOF { // the server's close_notify: nothing was cut off
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the password: %w", err)
		}
		if len(message) > maxMessage {
			return nil, fmt.Errorf("reading the password: more than %d bytes", maxMessage)
		}
		if len(message) > maxShort && end.IsZero() {
			awaitTurn()
			end = time.Now().Add(longTimeout)
		}
		deadline := time.Now().Add(dataTimeout)
		if !end.IsZero() && end.Before(deadline) {
			deadline = end
		}
		_ = conn.SetDeadline(deadline)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if err := conn.CloseWrite(); err != nil {
		a.log.tell("%v: closing: %v", s, err)
	}
	return message, nil
}

// dial connects. A server that is switched off while the client waits for an
// operator's approval is noticed within a minute.
func dial(ctx context.Context, s server) (net.Conn, error) {
	d := net.Dialer{
		Timeout: dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 4,
		},
	}
	if s.device != "" {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), s.device) }); e != nil {
				return e
			}
			if err != nil {
				return fmt.Errorf("binding to interface %s: %w", s.device, err)
			}
			return nil
		}
	}
	conn, err := d.DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // without the address, which the line begins with
		}
		if call, ok := errors.AsType[*os.SyscallError](err); ok {
			err = call.Err
		}
		return nil, connectError{err}
	}
	return conn, nil
}

// A connectError means that nobody answered at an address.
type connectError struct{ err error }

func (e connectError) Error() string { return "connecting: " + e.err.Error() }
func (e connectError) Unwrap() error { return e.err }

// notReady reports whether err says that this host's network isn't ready:
// link-local addresses are tentative for a second or two after an interface
// comes up (RFC 4862, section 5.4).
func notReady(err error) bool {
	for _, e := range []error{unix.EADDRNOTAVAIL, unix.ENETUNREACH, unix.ENETDOWN, unix.ENODEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
