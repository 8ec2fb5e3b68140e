package sysbus

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/godbus/dbus/v5"
)

// Signals sends signals on a connection, many with one write. It is for one
// goroutine.
type Signals struct {
	to      io.Writer // takes whole messages, from godbus too
	serials *serials
	queue   []byte          // whole messages
	body    []byte          // of the message at hand
	checked dbus.ObjectPath // is valid: most come several times in turn
}

// full is the length of the queue, in bytes, at which it is sent.
const full = 32 << 10

// NewSignals returns Signals that have messages numbered by themselves.
func NewSignals(to io.Writer) *Signals { return &Signals{to: to, serials: &serials{}} }

// Values that signals can have, besides string, bool, int16, int64, uint64,
// [dbus.ObjectPath], []string, and lists of structs of those.
type (
	// A Variant is a value that tells its type: v.
	Variant struct{ Value any }
	// Properties are a{sv}, in their order.
	Properties []Property
	// A Property is a name and a value.
	Property struct {
		Name  string
		Value any
	}
	// Interfaces are a{sa{sv}}, in their order.
	Interfaces []Interface
	// An Interface is a name and values.
	Interface struct {
		Name       string
		Properties Properties
	}
)

// Add queues one signal for each of the interfaces, with the same values. It
// sends nothing before Flush but what there is too much of, for which it waits
// for the bus. After an error the connection is of no use.
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

// message queues a message with s.body (D-Bus Specification, "Message
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

// field begins a field of a message's header, whose value has the type kind.
func (e *encoder) field(field dbus.HeaderField, kind string) {
	e.align(8)
	e.out = append(e.out, byte(field))
	e.signature(kind)
}

// Flush sends what is queued. It waits for the bus.
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

// serials are the numbers of a connection's messages, whoever sends them. It
// implements [dbus.SerialGenerator]; unlike godbus's own it doesn't remember
// which calls are under way, as they are answered before the numbers recur.
type serials struct{ last atomic.Uint32 }

// GetSerial returns the next number, which isn't zero.
func (s *serials) GetSerial() uint32 {
	for {
		if n := s.last.Add(1); n != 0 {
			return n
		}
	}
}

// RetireSerial implements [dbus.SerialGenerator].
func (s *serials) RetireSerial(uint32) {}
