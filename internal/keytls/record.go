package keytls

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

const (
	// maxUseless is how many records or messages in a row may be of no use:
	// empty ones, ChangeCipherSpecs, KeyUpdates, tickets, user_canceled.
	maxUseless = 32

	// idleBuffer is the size in bytes of the buffer of a connection that waits
	// for a record; it grows to the size of a larger record that arrives.
	idleBuffer = 1024

	// writeBuffer is how many bytes of records are collected before they are
	// written: four of the largest.
	writeBuffer = 4 * (wire.HeaderLen + wire.MaxCiphertext13)
)

// A lock is a mutex made of a channel with a buffer of one: to
// testing/synctest, a goroutine that waits for a sync.Mutex is busy, so fake
// time would stand still.
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

func (l lock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// A reader is the connection's receiving half.
type reader struct {
	lock
	err error // why nothing more can be read

	raw        []byte // read from the transport and not yet taken
	data       []byte // application data not yet read; a part of buf
	buf        []byte // backs raw and data
	messages   []byte // handshake messages not yet taken
	useless    int    // see maxUseless
	protection schedule.Records
	traffic    *schedule.Traffic // TLS 1.3
	noCCS      bool              // ChangeCipherSpec records are no longer accepted, or not yet
}

// A writer is the connection's sending half.
type writer struct {
	lock
	err    error // why nothing more can be written
	closed bool  // close_notify has been sent

	flight       []byte      // records that wait for flush
	held         atomic.Bool // flight is the end of the handshake: see Config.HoldFinished
	protection   schedule.Records
	traffic      *schedule.Traffic // TLS 1.3
	updateWanted atomic.Bool       // the peer asked for a KeyUpdate
}

func (r *reader) setTraffic(t *schedule.Traffic) { r.traffic, r.protection = t, t.Protection() }
func (w *writer) setTraffic(t *schedule.Traffic) { w.traffic, w.protection = t, t.Protection() }

// fail ends reading: it keeps the first error, and drops keys and data.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	if r.traffic != nil {
		r.traffic.Wipe()
	}
	clear(r.buf)
	r.raw, r.data, r.buf, r.messages, r.protection, r.traffic = nil, nil, nil, nil, nil, nil
}

// fail ends writing: it keeps the first error, and drops the keys.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	if w.traffic != nil {
		w.traffic.Wipe()
	}
	w.flight, w.protection, w.traffic = nil, nil, nil
}

// release frees what only the handshake needed.
func (c *Conn) release() {
	if !c.out.held.Load() {
		c.out.flight = nil
	}
	if len(c.in.raw) == 0 {
		c.in.raw, c.in.buf = nil, nil
	}
	c.in.messages = nil
}

// fill reads from the transport until raw has n bytes.
func (c *Conn) fill(n int) error {
	r := &c.in
	if len(r.raw) == 0 {
		r.raw = r.buf[:0]
	}
	for len(r.raw) < n {
		if cap(r.raw) < n {
			// Make room: at the buffer's start if it is large enough.
			buf := r.buf
			if len(buf) < n {
				buf = make([]byte, max(n, idleBuffer))
			}
			r.raw = buf[:copy(buf, r.raw)]
			r.buf = buf
		}
		got, err := c.conn.Read(r.raw[len(r.raw):cap(r.raw)])
		r.raw = r.raw[:len(r.raw)+got]
		if err != nil && len(r.raw) < n {
			return err
		}
	}
	return nil
}

// readRecord reads one record, opens it and returns its type and content, which
// is valid until the next call. It handles alerts, and drops the
// ChangeCipherSpec records of TLS 1.3's compatibility mode; in TLS 1.2 it
// returns those. c.in is locked, or the handshake runs.
func (c *Conn) readRecord() (wire.ContentType, []byte, error) {
	for {
		h, fragment, err := c.readFragment()
		if err != nil {
			return 0, nil, err
		}
		t := h.Type
		if t == wire.TypeChangeCipherSpec && c.version != wire.VersionTLS12 {
			if err := c.dropChangeCipherSpec(fragment); err != nil {
				return 0, nil, err
			}
			continue
		}
		// A client that can't use the ServerHello has no keys to protect its
		// alert.
		plainAlert := t == wire.TypeAlert && c.role == roleServer && !c.done.Load()
		if c.in.protection != nil && !plainAlert {
			if t, fragment, err = c.in.protection.Open(h, fragment); err != nil {
				return 0, nil, c.unprotected(err)
			}
		}
		switch t {
		case wire.TypeAlert:
			if err := c.handleAlert(fragment); err != nil {
				return 0, nil, err
			}
			continue
		case wire.TypeHandshake, wire.TypeChangeCipherSpec:
			// RFC 8446, section 5.1, and RFC 5246, section 6.2.1.
			if len(fragment) == 0 {
				return 0, nil, fault(wire.UnexpectedMessage, "%s sent an empty %v record", c.peer(), t)
			}
		case wire.TypeApplicationData:
			if c.in.protection == nil {
				return 0, nil, fault(wire.UnexpectedMessage, "%s sent unprotected application data", c.peer())
			}
		default:
			return 0, nil, fault(wire.UnexpectedMessage, "%s sent a record of %v", c.peer(), t)
		}
		if t == wire.TypeChangeCipherSpec && c.version != wire.VersionTLS12 {
			// RFC 8446, section 5: never protected.
			return 0, nil, fault(wire.UnexpectedMessage, "%s sent a protected ChangeCipherSpec", c.peer())
		}
		return t, fragment, nil
	}
}

// readFragment reads one record as it is on the wire.
func (c *Conn) readFragment() (wire.Header, []byte, error) {
	if err := c.fill(wire.HeaderLen); err != nil {
		return wire.Header{}, nil, c.transport(err, len(c.in.raw) > 0)
	}
	h, err := wire.ParseHeader(c.in.raw)
	if err != nil {
		return h, nil, c.malformed(err)
	}
	limit := wire.MaxPlaintext
	switch {
	case c.in.protection != nil && c.version == wire.VersionTLS12:
		limit = wire.MaxCiphertext12
	case c.in.protection != nil:
		limit = wire.MaxCiphertext13
	}
	switch {
	case h.Type < wire.TypeChangeCipherSpec || h.Type > wire.TypeApplicationData || h.Version>>8 != 3:
		return h, nil, fault(wire.UnexpectedMessage, "%s sent something that isn't TLS (a record of %v, %v)", c.peer(), h.Type, h.Version)
	case h.Length > limit:
		return h, nil, fault(wire.RecordOverflow, "%s sent a record of %d bytes, more than %d", c.peer(), h.Length, limit)
	}
	if err := c.fill(wire.HeaderLen + h.Length); err != nil {
		return h, nil, c.transport(err, true)
	}
	fragment := c.in.raw[wire.HeaderLen : wire.HeaderLen+h.Length]
	c.in.raw = c.in.raw[wire.HeaderLen+h.Length:]
	return h, fragment, nil
}

// transport wraps an error from the transport's Read.
func (c *Conn) transport(err error, inside bool) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading from %s: %w", c.peer(), err)
	}
	switch {
	case inside:
		return c.hungUp("inside a record")
	case c.done.Load():
		return c.hungUp("without close_notify")
	default:
		return c.hungUp("during the handshake")
	}
}

// dropChangeCipherSpec checks a ChangeCipherSpec record, which has no meaning
// (RFC 8446, section 5 and appendix D.4).
func (c *Conn) dropChangeCipherSpec(fragment []byte) error {
	switch {
	case len(fragment) != 1 || fragment[0] != 1:
		return fault(wire.UnexpectedMessage, "%s sent a malformed ChangeCipherSpec", c.peer())
	case c.in.noCCS:
		return fault(wire.UnexpectedMessage, "%s sent a ChangeCipherSpec outside of the handshake", c.peer())
	case len(c.in.messages) > 0:
		return fault(wire.UnexpectedMessage, "%s sent a ChangeCipherSpec inside a handshake message", c.peer())
	}
	return c.useless("ChangeCipherSpecs")
}

// handleAlert returns io.EOF for close_notify, nil for an alert that can be
// ignored, and an error for any other.
func (c *Conn) handleAlert(fragment []byte) error {
	level, a, err := wire.ParseAlert(fragment)
	if err != nil {
		return c.malformed(err)
	}
	if len(c.in.messages) > 0 && a == wire.CloseNotify {
		return fault(wire.UnexpectedMessage, "%s sent %v inside a handshake message", c.peer(), a)
	}
	switch {
	case a == wire.CloseNotify && c.done.Load():
		return io.EOF
	case a == wire.CloseNotify:
		return fmt.Errorf("%s ended the handshake with close_notify: %w", c.peer(), io.ErrUnexpectedEOF)
	case a == wire.UserCanceled, c.version == wire.VersionTLS12 && level == wire.LevelWarning:
		return c.useless("warnings")
	}
	// RFC 8446, section 6: all others are fatal, whatever their level.
	return &AlertError{Alert: a, Remote: true, err: fmt.Errorf("%s refused with the alert %v", c.peer(), a)}
}

// useless counts a record or message that gets the connection no further, and
// returns an error after too many in a row.
func (c *Conn) useless(what string) error {
	if c.in.useless++; c.in.useless > maxUseless {
		return fault(wire.UnexpectedMessage, "%s sent too many %s", c.peer(), what)
	}
	return nil
}

// nextMessage takes the next message from c.in.messages, or returns nil if it
// isn't complete yet.
func (c *Conn) nextMessage() ([]byte, error) {
	buf := c.in.messages
	if len(buf) < wire.MessageHeaderLen {
		return nil, nil
	}
	t, n, err := wire.ParseMessageHeader(buf)
	if err != nil {
		return nil, c.malformed(err)
	}
	if limit := wire.MaxMessage(t); n > limit {
		return nil, fault(wire.DecodeError, "%s sent %v of %d bytes, more than %d", c.peer(), t, n, limit)
	}
	if n += wire.MessageHeaderLen; len(buf) < n {
		return nil, nil
	}
	c.in.messages = buf[n:]
	return buf[:n:n], nil
}

// readMessage reads the next handshake message, with its header. It must be of
// one of the types in want.
func (c *Conn) readMessage(want ...wire.HandshakeType) ([]byte, error) {
	for {
		msg, err := c.nextMessage()
		if err != nil {
			return nil, err
		}
		if msg != nil {
			t := wire.HandshakeType(msg[0])
			for _, w := range want {
				if t == w {
					c.in.useless = 0
					return msg, nil
				}
			}
			return nil, fault(wire.UnexpectedMessage, "%s sent %v where %v belongs", c.peer(), t, want[0])
		}
		t, fragment, err := c.readRecord()
		if err != nil {
			return nil, err
		}
		if t != wire.TypeHandshake {
			return nil, fault(wire.UnexpectedMessage, "%s sent a record of %v where %v belongs", c.peer(), t, want[0])
		}
		// This never overwrites messages that were returned.
		c.in.messages = append(c.in.messages, fragment...)
	}
}

// atRecordEnd checks that no handshake message has begun where keys change (RFC
// 8446, section 5.1).
func (c *Conn) atRecordEnd(after wire.HandshakeType) error {
	if len(c.in.messages) > 0 {
		return fault(wire.UnexpectedMessage, "%s sent more in the record that ends with %v", c.peer(), after)
	}
	return nil
}

// queue appends payload to the flight, in as many records as it takes.
func (c *Conn) queue(t wire.ContentType, payload []byte) error {
	w := &c.out
	for {
		part := payload[:min(len(payload), wire.MaxPlaintext)]
		payload = payload[len(part):]
		if w.protection == nil || t == wire.TypeChangeCipherSpec && c.version == wire.VersionTLS13 {
			version := wire.VersionTLS12
			if c.version == 0 && c.role == roleClient {
				version = wire.VersionTLS10 // RFC 8446, section 5.1: of the first ClientHello
			}
			w.flight = wire.AppendHeader(w.flight, wire.Header{Type: t, Version: version, Length: len(part)})
			w.flight = append(w.flight, part...)
		} else {
			flight, err := w.protection.Seal(w.flight, t, part)
			if err != nil {
				return fmt.Errorf("writing to %s: %w", c.peer(), err)
			}
			w.flight = flight
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

// flush writes the flight, in one write.
func (c *Conn) flush() error {
	w := &c.out
	if w.err != nil {
		return w.err
	}
	if len(w.flight) == 0 {
		return nil
	}
	_, err := c.conn.Write(w.flight)
	w.flight = w.flight[:0]
	w.held.Store(false)
	if err != nil {
		// Part of a record may have been sent: nothing can follow it.
		w.fail(fmt.Errorf("writing to %s: %w", c.peer(), err))
	}
	return w.err
}

// flushHeld writes the end of the handshake if it was held back.
func (c *Conn) flushHeld() error {
	if !c.out.held.Load() {
		return nil
	}
	c.out.Lock()
	defer c.out.Unlock()
	err := c.flush()
	c.out.flight = nil
	return err
}

// writeData writes application data and, if it is the last, close_notify.
// c.out is locked.
func (c *Conn) writeData(b []byte, last bool) (written int, err error) {
	w := &c.out
	if w.err != nil {
		return 0, w.err
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	w.flight = append(buf[:0], w.flight...)
	defer func() { w.flight = nil }()
	for len(b) > 0 || last {
		if err := c.renewKeys(); err != nil {
			return written, err
		}
		queued := 0
		for len(b) > 0 && cap(w.flight)-len(w.flight) >= wire.HeaderLen+wire.MaxCiphertext13 && !w.protection.Exhausted() {
			n := min(len(b), wire.MaxPlaintext)
			if err := c.queue(wire.TypeApplicationData, b[:n]); err != nil {
				w.fail(err)
				return written, err
			}
			queued += n
			b = b[n:]
		}
		if len(b) == 0 && last {
			last = false
			if err := c.queue(wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify)); err != nil {
				w.fail(err)
				return written, err
			}
		}
		if err := c.flush(); err != nil {
			return written, err
		}
		written += queued
	}
	return written, nil
}

// renewKeys sends a KeyUpdate if the peer asked for one or the keys have been
// used long enough (RFC 8446, sections 4.6.3 and 5.5).
func (c *Conn) renewKeys() error {
	w := &c.out
	if c.version == wire.VersionTLS12 && w.protection.Exhausted() {
		return fmt.Errorf("writing to %s: %w", c.peer(), schedule.ErrExhausted)
	}
	if c.version != wire.VersionTLS13 || !w.updateWanted.Swap(false) && !w.protection.Exhausted() {
		return nil
	}
	update := wire.KeyUpdate{}
	if err := c.queue(wire.TypeHandshake, update.Marshal()); err != nil {
		w.fail(err)
		return err
	}
	w.traffic.Update()
	w.protection = w.traffic.Protection()
	return nil
}

// writeAlert sends one alert. c.out is locked.
func (c *Conn) writeAlert(a wire.Alert) error {
	if c.out.err != nil {
		return c.out.err
	}
	if err := c.queue(wire.TypeAlert, wire.MarshalAlert(a)); err != nil {
		return err
	}
	err := c.flush()
	c.out.flight = nil
	return err
}

// sendAlertFor sends the alert that belongs to err, if any, and ends writing.
// It doesn't wait for a Write in progress: the connection is lost anyway.
func (c *Conn) sendAlertFor(err error) {
	if _, ok := errors.AsType[*AlertError](err); ok && c.out.TryLock() {
		defer c.out.Unlock()
		c.lastAlert(err)
	}
}

// lastAlert is sendAlertFor for callers that have locked c.out.
func (c *Conn) lastAlert(err error) {
	if alert, ok := errors.AsType[*AlertError](err); ok && !alert.Remote {
		_ = c.writeAlert(alert.Alert)
	}
	c.out.fail(err)
}

// buffers holds flights of writeData: no connection keeps one.
var buffers = sync.Pool{New: func() any { return new([writeBuffer]byte) }}

func takeBuffer() []byte { return buffers.Get().(*[writeBuffer]byte)[:] }

// giveBuffer takes back a buffer from takeBuffer. It isn't wiped, as it has
// held only protected records (and, for a moment within Seal, payload).
func giveBuffer(b []byte) { buffers.Put((*[writeBuffer]byte)(b)) }
