package sysbus

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"

	"github.com/godbus/dbus/v5"
)

// incoming reads from a connection, through a buffer rather than field by
// field, and drops signals that nobody asked for. Every user may send a signal
// to any connection. One with a destination arrives whether or not it matches a
// rule and its sender, and decoding it may take seconds and a gigabyte.
type incoming struct {
	net.Conn
	in       *bufio.Reader
	directed bool // short signals sent to this connection are wanted
	begun    bool // authentication is over: messages follow
	left     int  // bytes left of a message that has been read in part
}

// maxDirected is the maximum length of a signal sent to this connection, in
// bytes.
const maxDirected = 4 << 10

func incomingOf(c net.Conn, directed bool) *incoming {
	return &incoming{Conn: c, in: bufio.NewReader(c), directed: directed}
}

// Write implements [io.Writer].
func (r *incoming) Write(p []byte) (int, error) {
	if !r.begun && string(p) == "BEGIN\r\n" {
		r.begun = true // no race: nothing is read at this time
	}
	return r.Conn.Write(p)
}

// Read implements [io.Reader].
func (r *incoming) Read(p []byte) (int, error) {
	if !r.begun {
		return r.in.Read(p)
	}
	for r.left == 0 {
		length, wanted, err := r.next()
		if err != nil {
			return 0, err
		}
		if wanted {
			r.left = length
		} else if _, err := r.in.Discard(length); err != nil {
			return 0, err
		}
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// next looks at the header of the next message (D-Bus Specification, "Message
// Protocol"), and returns the message's length and whether it is wanted.
func (r *incoming) next() (length int, wanted bool, err error) {
	const fixed = 16
	b, err := r.in.Peek(fixed)
	if err != nil {
		return 0, false, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[0] == 'B' {
		order = binary.BigEndian
	}
	body, fields := uint64(order.Uint32(b[4:])), uint64(order.Uint32(b[12:]))
	total := fixed + (fields+7)&^7 + body
	if total > maxMessage {
		return 0, false, fmt.Errorf("a message of %d bytes on the bus", total)
	}
	length = int(total)
	switch dbus.Type(b[1]) {
	case dbus.TypeMethodCall, dbus.TypeMethodReply, dbus.TypeError:
		return length, true, nil
	}
	if fields > uint64(r.in.Size()-fixed) {
		return length, false, nil
	}
	if b, err = r.in.Peek(fixed + int(fields)); err != nil {
		return 0, false, err
	}
	texts, ok := textFields(b[fixed:], order)
	switch {
	case !ok:
		return length, false, nil
	case texts[dbus.FieldDestination] == "":
		return length, true, nil // it matches a rule
	case texts[dbus.FieldSender] == "org.freedesktop.DBus":
		return length, true, nil // the bus vouches for the sender
	}
	return length, r.directed && length <= maxDirected, nil
}

// textFields reads the fields of a header that are texts. It isn't ok if a
// field has a type that the specification doesn't provide for.
func textFields(b []byte, order binary.ByteOrder) (texts map[dbus.HeaderField]string, ok bool) {
	texts = map[dbus.HeaderField]string{}
	for len(b) > 0 {
		if len(b) < 4+2 { // the shortest field is an empty signature
			return nil, false
		}
		kind, value := string(b[1:4]), b[4:]
		size := 0
		switch kind {
		case "\x01g\x00":
			size = 1 + int(value[0]) + 1
		case "\x01u\x00":
			size = 4
		case "\x01s\x00", "\x01o\x00":
			if len(value) < 4 {
				return nil, false
			}
			length := uint64(order.Uint32(value))
			if length >= uint64(len(value)-4) {
				return nil, false
			}
			texts[dbus.HeaderField(b[0])] = string(value[4 : 4+length])
			size = 4 + int(length) + 1
		default:
			return nil, false
		}
		if size > len(value) {
			return nil, false
		}
		b = b[min((4+size+7)&^7, len(b)):]
	}
	return texts, true
}
