package sysbus

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/godbus/dbus/v5"
)

// Signals sends signals on a connection, many with one write. It is not safe
// for concurrent use.
type Signals struct {
	to      io.Writer // takes whole messages; godbus writes to it as well
	serials *serials
	queue   []byte          // whole messages
	body    []byte          // of the current message
	checked dbus.ObjectPath // known to be valid: most come several times in a row
}

// full is the length, in bytes, at which the queue is sent.
const full = 32 << 10

// NewSignals returns Signals with message numbers of their own.
func NewSignals(to io.Writer) *Signals { return &Signals{to: to, serials: &serials{}} }

// Types of values that signals can carry, besides string, bool, int16, int64,
// uint64, [dbus.ObjectPath], []string, and lists of structs of those.
type (
	// A Variant is a value with its type: v.
	Variant struct{ Value any }
	// Properties are an a{sv} in a given order.
	Properties []Property
	// A Property is a name and a value.
	Property struct {
		Name  string
		Value any
	}
	// Interfaces are an a{sa{sv}} in a given order.
	Interfaces []Interface
	// An Interface is a name and its properties.
	Interface struct {
		Name       string
		Properties Properties
	}
)

// Add queues one signal for each of the interfaces, with the same values.
// Nothing is sent before Flush unless the queue is full; then it is flushed.
// After an error the connection can't be used any more.
func (s *Signals) Add(path dbus.ObjectPath, interfaces []string, member string, values ...any) error {
	if (path == "" || path != s.checked) && !path.IsValid() {
		return fmt.Errorf("sending the signal %s: the object path %q is invalid", member, string(path))
	}
	s.checked = path
	body, signature := encoder{out: s.body[:0]}, ""
	for _, v := range values {
		body.value(v)
		signature += signatureOf(v)
	}
	s.body = body.out
	err := body.err
	for _, name := range interfaces {
		if err == nil {
			err = s.message(path, name, member, signature)
		}
	}
	if err != nil {
		return fmt.Errorf("encoding the signal %s of %s: %w", member, path, err)
	}
	if len(s.queue) >= full {
		return s.Flush()
	}
	return nil
}

// message queues one signal with s.body (D-Bus Specification, "Message
// Protocol").
func (s *Signals) message(path dbus.ObjectPath, name, member, signature string) error {
	e := encoder{out: s.queue, start: len(s.queue)}
	const flags, version = 0, 1
	e.out = append(e.out, 'l', byte(dbus.TypeSignal), flags, version)
	e.uint32(uint32(len(s.body)))
	e.uint32(s.serials.GetSerial())
	e.array(8, func() {
		e.field(dbus.FieldPath, "o")
		e.text(string(path))
		e.field(dbus.FieldInterface, "s")
		e.text(name)
		e.field(dbus.FieldMember, "s")
		e.text(member)
		if signature != "" {
			e.field(dbus.FieldSignature, "g")
			e.signature(signature)
		}
	})
	e.align(8)
	e.out = append(e.out, s.body...)
	if len(e.out)-e.start > maxMessage {
		e.fail(errors.New("it is too long"))
	}
	if e.err == nil {
		s.queue = e.out
	}
	return e.err
}

// field begins a header field whose value has the type kind.
func (e *encoder) field(field dbus.HeaderField, kind string) {
	e.align(8)
	e.out = append(e.out, byte(field))
	e.signature(kind)
}

// Flush sends what is queued. It blocks until the bus has taken it.
func (s *Signals) Flush() error {
	if len(s.queue) == 0 {
		return nil
	}
	_, err := s.to.Write(s.queue)
	s.queue = s.queue[:0]
	if cap(s.queue)+cap(s.body) > 4*full {
		s.queue, s.body = nil, nil // long ones are rare
	}
	return err
}

// serials numbers a connection's messages, from Signals and from godbus. It
// implements [dbus.SerialGenerator]; unlike godbus's own it doesn't keep track
// of calls in progress, as they are answered long before the numbers repeat.
type serials struct{ last atomic.Uint32 }

// GetSerial returns the next number, which is never zero.
func (s *serials) GetSerial() uint32 {
	for {
		if n := s.last.Add(1); n != 0 {
			return n
		}
	}
}

// RetireSerial implements [dbus.SerialGenerator].
func (s *serials) RetireSerial(uint32) {}
