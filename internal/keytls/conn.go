package keytls

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"mandos/internal/keyid"
	"mandos/internal/keytls/wire"
)

// closeWait is how long CloseNotify waits for the peer's close_notify.
const closeWait = time.Second

var errClosed = errors.New("close_notify has been sent; nothing can be written after it")

type role bool

const (
	roleClient role = false
	roleServer role = true
)

func (r role) String() string {
	if r == roleServer {
		return "the TLS server"
	}
	return "the TLS client"
}

// A Conn is one TLS connection. Read and Write run the handshake first. One
// goroutine may read while another writes and a third closes. Deadlines are
// those of the underlying net.Conn; without them, any call may block for ever.
type Conn struct {
	conn   net.Conn
	number uint64 // counts up: older connections have lower numbers
	role   role
	config func() *Config // a closure, as a Config holds a private key
	policy Policy         // config's, completed

	done atomic.Bool // the handshake has succeeded

	// What the handshake found; not changed after it.
	version  wire.Version // 0 until negotiated
	suite    wire.Suite
	group    wire.Group
	identity keyid.Identity
	validity keyid.Validity

	in  reader
	out writer

	readDeadline atomic.Pointer[time.Time] // as the caller set it
}

var _ net.Conn = (*Conn)(nil)

var connections atomic.Uint64 // how many there have been

func newConn(conn net.Conn, cfg *Config, r role) *Conn {
	return &Conn{
		conn: conn, number: connections.Add(1), role: r, config: func() *Config { return cfg }, policy: cfg.Policy.complete(),
		in: reader{lock: make(lock, 1)}, out: writer{lock: make(lock, 1)},
	}
}

// peer names the other side in errors.
func (c *Conn) peer() role { return !c.role }

// Format prints neither keys nor data, under any verb.
func (c *Conn) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "[TLS connection, peer %v]", c.conn.RemoteAddr())
}

// Handshake runs the handshake, once. An error says which side erred; the alert
// that belongs to it has been sent, and the connection can only be closed.
func (c *Conn) Handshake() error {
	if c.done.Load() {
		return nil
	}
	c.in.Lock()
	defer c.in.Unlock()
	c.out.Lock()
	defer c.out.Unlock()
	if c.done.Load() {
		return nil
	}
	if c.in.err != nil {
		return c.in.err
	}
	run := c.clientHandshake
	if c.role == roleServer {
		run = c.serverHandshake
	}
	if err := run(); err != nil {
		c.lastAlert(err)
		c.in.fail(err)
		return err
	}
	c.release()
	c.done.Store(true)
	return nil
}

// PeerIdentity returns the identity that the TLS server has proved, after a
// handshake in the TLS client's role.
func (c *Conn) PeerIdentity() keyid.Identity {
	if !c.done.Load() {
		return keyid.Identity{}
	}
	return c.identity
}

// PeerValidity returns the time for which the key of PeerIdentity claims to be
// valid. The caller has to check that this includes now.
func (c *Conn) PeerValidity() keyid.Validity {
	if !c.done.Load() {
		return keyid.Validity{}
	}
	return c.validity
}

// Negotiated returns the version, the cipher suite and the group that the
// handshake settled on, or zeros before it has succeeded.
func (c *Conn) Negotiated() (wire.Version, wire.Suite, wire.Group) {
	if !c.done.Load() {
		return 0, 0, 0
	}
	return c.version, c.suite, c.group
}

// Read reads application data. It returns io.EOF after the peer's close_notify,
// and an error that wraps io.ErrUnexpectedEOF if the connection ended without
// one. After a time-out it can be called again.
func (c *Conn) Read(b []byte) (int, error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	if err := c.flushHeld(); err != nil {
		return 0, err
	}
	c.in.Lock()
	defer c.in.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	for len(c.in.data) == 0 {
		if err := c.readData(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.in.data)
	clear(c.in.data[:n])
	c.in.data = c.in.data[n:]
	return n, nil
}

// Write writes application data, in as many records as it takes.
func (c *Conn) Write(b []byte) (int, error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	c.out.Lock()
	defer c.out.Unlock()
	if c.out.closed {
		return 0, errClosed
	}
	return c.writeData(b, false)
}

// WriteLast writes all of b and then close_notify, in one write if b isn't
// large.
func (c *Conn) WriteLast(b []byte) error {
	if err := c.Handshake(); err != nil {
		return err
	}
	c.out.Lock()
	defer c.out.Unlock()
	if c.out.closed {
		return errClosed
	}
	c.out.closed = true
	_, err := c.writeData(b, true)
	return err
}

// CloseWrite sends close_notify; nothing can be written after it. The peer may
// still write.
func (c *Conn) CloseWrite() error {
	if !c.done.Load() {
		return errors.New("no handshake has succeeded: there is nothing to close")
	}
	c.out.Lock()
	defer c.out.Unlock()
	if c.out.closed || c.out.err != nil {
		return c.out.err
	}
	c.out.closed = true
	return c.writeAlert(wire.CloseNotify)
}

// CloseNotify ends the connection in good order: it sends close_notify, waits
// for the peer's for at most a second (less if the deadline for reading is
// nearer), discarding what the peer may still send, and closes. An error means
// that close_notify couldn't be sent, which the peer takes for a failed
// transfer; a peer that doesn't answer is no error.
func (c *Conn) CloseNotify() error {
	err := c.CloseWrite()
	if err == nil {
		c.awaitCloseNotify()
	}
	_ = c.Close()
	return err
}

func (c *Conn) awaitCloseNotify() {
	until := time.Now().Add(closeWait)
	if d := c.readDeadline.Load(); d != nil && !d.IsZero() && d.Before(until) {
		until = *d
	}
	// Before taking the lock, as this also ends a Read that holds it.
	if c.conn.SetReadDeadline(until) != nil {
		return
	}
	c.in.Lock()
	defer c.in.Unlock()
	for c.readData() == nil {
		clear(c.in.data)
		c.in.data = nil
	}
}

// Close closes the transport at once, without close_notify, and ends blocked
// Reads and Writes. The peer takes that for a failed transfer.
func (c *Conn) Close() error {
	err := c.conn.Close()
	// A Read or Write in progress fails, and drops its keys itself.
	if c.in.TryLock() {
		c.in.fail(net.ErrClosed)
		c.in.Unlock()
	}
	if c.out.TryLock() {
		c.out.fail(net.ErrClosed)
		c.out.Unlock()
	}
	return err
}

// LocalAddr returns the transport's local address.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the transport's remote address.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets the transport's deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readDeadline.Store(&t)
	return c.conn.SetDeadline(t)
}

// SetReadDeadline sets the transport's deadline for reading.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.Store(&t)
	return c.conn.SetReadDeadline(t)
}

// SetWriteDeadline sets the transport's deadline for writing.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// readData reads records until there is application data in c.in.data, and
// handles the rest. c.in is locked.
func (c *Conn) readData() error {
	if c.in.err != nil {
		return c.in.err
	}
	err := c.readOneForData()
	if err == nil {
		return nil
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return err // the record may still come
	}
	c.in.fail(err)
	c.sendAlertFor(err)
	return err
}

func (c *Conn) readOneForData() error {
	for {
		t, fragment, err := c.readRecord()
		if err != nil {
			return err
		}
		switch {
		case t == wire.TypeApplicationData && len(c.in.messages) > 0:
			// RFC 8446, section 5.1.
			return fault(wire.UnexpectedMessage, "%s sent application data inside a handshake message", c.peer())
		case t == wire.TypeApplicationData && len(fragment) == 0:
			if err := c.useless("empty records"); err != nil {
				return err
			}
		case t == wire.TypeApplicationData:
			c.in.useless = 0
			c.in.data = fragment
			return nil
		case t == wire.TypeHandshake:
			if err := c.postHandshake(fragment); err != nil {
				return err
			}
		default:
			return fault(wire.UnexpectedMessage, "%s sent a %v record after the handshake", c.peer(), t)
		}
	}
}

// postHandshake handles a fragment of messages that come after the handshake.
func (c *Conn) postHandshake(fragment []byte) error {
	if c.version != wire.VersionTLS13 {
		// RFC 5246, section 7.4.1.1: a HelloRequest may be refused. Nothing
		// is renegotiated here.
		return fault(wire.NoRenegotiation, "%s wants to renegotiate", c.peer())
	}
	c.in.messages = append(c.in.messages, fragment...)
	for len(c.in.messages) > 0 {
		// Checked before the message is complete: no other type is worth
		// buffering.
		t := wire.HandshakeType(c.in.messages[0])
		if t != wire.TypeKeyUpdate && (t != wire.TypeNewSessionTicket || c.role != roleClient) {
			return fault(wire.UnexpectedMessage, "%s sent %v after the handshake", c.peer(), t)
		}
		msg, err := c.nextMessage()
		if err != nil {
			return err
		}
		if msg == nil {
			c.in.messages = bytes.Clone(c.in.messages) // without the memory of what came before
			return nil
		}
		if err := c.afterHandshake(msg); err != nil {
			return err
		}
	}
	c.in.messages = nil
	return nil
}

// afterHandshake handles one message of RFC 8446, section 4.6: a KeyUpdate or
// a NewSessionTicket.
func (c *Conn) afterHandshake(msg []byte) error {
	if wire.HandshakeType(msg[0]) == wire.TypeKeyUpdate {
		return c.handleKeyUpdate(msg)
	}
	// Read and dropped: nothing is ever resumed.
	if _, err := wire.ParseNewSessionTicket(msg); err != nil {
		return c.malformed(err)
	}
	return c.useless("session tickets")
}

// handleKeyUpdate renews the keys for reading, and has the next Write renew its
// own if the peer wants that (RFC 8446, section 4.6.3).
func (c *Conn) handleKeyUpdate(msg []byte) error {
	update, err := wire.ParseKeyUpdate(msg)
	if err != nil {
		return c.malformed(err)
	}
	// RFC 8446, section 5.1: keys change at the end of a record.
	if len(c.in.messages) > 0 {
		return fault(wire.UnexpectedMessage, "%s sent a KeyUpdate that doesn't end its record", c.peer())
	}
	if err := c.useless("KeyUpdates"); err != nil {
		return err
	}
	c.in.traffic.Update()
	c.in.protection = c.in.traffic.Protection()
	if update.Requested {
		c.out.updateWanted.Store(true)
	}
	return nil
}
