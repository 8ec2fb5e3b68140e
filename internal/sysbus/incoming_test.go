package sysbus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// read returns what gets through of sent, on a connection after its
// authentication.
func read(directed bool, sent []byte) ([]byte, error) {
	r := &incoming{in: bufio.NewReader(bytes.NewReader(sent)), directed: directed, begun: true}
	return io.ReadAll(r)
}

func encode(t *testing.T, kind dbus.Type, order binary.ByteOrder, headers map[dbus.HeaderField]any, body ...any) []byte {
	t.Helper()
	m := &dbus.Message{Type: kind, Headers: map[dbus.HeaderField]dbus.Variant{}, Body: body}
	for field, v := range headers {
		m.Headers[field] = dbus.MakeVariant(v)
	}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, order); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestIncoming(t *testing.T) {
	const bus, us, stranger = "org.freedesktop.DBus", ":1.5", ":1.66"
	signal := func(sender, destination string, more map[dbus.HeaderField]any) map[dbus.HeaderField]any {
		headers := map[dbus.HeaderField]any{
			dbus.FieldPath: dbus.ObjectPath("/clients/a"), dbus.FieldInterface: "a.b", dbus.FieldMember: "C", dbus.FieldSender: sender,
		}
		if destination != "" {
			headers[dbus.FieldDestination] = destination
		}
		for field, v := range more {
			headers[field] = v
		}
		return headers
	}
	call := signal(stranger, us, nil)
	reply := map[dbus.HeaderField]any{dbus.FieldReplySerial: uint32(1), dbus.FieldSender: stranger, dbus.FieldDestination: us}
	failure := map[dbus.HeaderField]any{dbus.FieldReplySerial: uint32(1), dbus.FieldErrorName: "a.b", dbus.FieldDestination: us}
	long := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		what               string
		kind               dbus.Type
		headers            map[dbus.HeaderField]any
		body               []any
		comes, comesDirect bool
	}{
		{"a call", dbus.TypeMethodCall, call, []any{long}, true, true},
		{"an answer", dbus.TypeMethodReply, reply, []any{long}, true, true},
		{"an error", dbus.TypeError, failure, []any{"x"}, true, true},
		{"a signal to everybody", dbus.TypeSignal, signal(stranger, "", nil), []any{long}, true, true},
		{"the bus's to us", dbus.TypeSignal, signal(bus, us, nil), []any{us}, true, true},
		{"one to us", dbus.TypeSignal, signal(stranger, us, nil), nil, false, true},
		{"one to us by name", dbus.TypeSignal, signal(stranger, "se.recompile.Mandos", nil), []any{"x"}, false, true},
		{"one as if from the bus", dbus.TypeSignal, signal(stranger, us, map[dbus.HeaderField]any{dbus.FieldInterface: bus}), nil, false, true},
		{"a long one to us", dbus.TypeSignal, signal(stranger, us, nil), []any{long}, false, false},
		{"one of a long path", dbus.TypeSignal, signal(stranger, us, map[dbus.HeaderField]any{dbus.FieldPath: dbus.ObjectPath("/" + long)}), nil, false, false},
	} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			for range 5 { // the fields of the header come in any order
				sent, next := encode(t, tt.kind, order, tt.headers, tt.body...), encode(t, dbus.TypeMethodCall, order, call)
				for directed, comes := range map[bool]bool{false: tt.comes, true: tt.comesDirect} {
					want := next
					if comes {
						want = slices.Concat(sent, next)
					}
					got, err := read(directed, slices.Concat(sent, next))
					if err != nil || !bytes.Equal(got, want) {
						t.Fatalf("%s: comes %t, where directed ones are wanted %t; %v", tt.what, len(got) > len(next), directed, err)
					}
				}
			}
		}
	}
}

// FuzzIncoming: whatever the bus passes on, each message gets through whole or
// not at all, and of those that godbus can read, no stranger's signal to us
// gets through.
func FuzzIncoming(f *testing.F) {
	good := "\x01\x01o\x00\x01\x00\x00\x00/\x00\x00\x00\x00\x00\x00\x00\x02\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00\x03\x01s\x00\x01\x00\x00\x00C\x00\x00\x00\x00\x00\x00\x00"
	f.Add(false, byte(4), []byte(good), []byte{})
	f.Add(false, byte(4), []byte(good+"\x06\x01s\x00\x04\x00\x00\x00:1.5\x00\x00\x00\x00\x07\x01s\x00\x04\x00\x00\x00:1.6\x00"), []byte("x"))
	f.Add(true, byte(1), []byte("\x08\x01g\x00\x00\x00\x00\x00\x05\x01u\x00\x00\x00\x00\x01"), []byte{})
	f.Fuzz(func(t *testing.T, big bool, kind byte, fields, body []byte) {
		var order binary.AppendByteOrder = binary.LittleEndian
		sent := []byte{'l', kind, 0, 1}
		if big {
			order, sent[0] = binary.BigEndian, 'B'
		}
		sent = order.AppendUint32(sent, uint32(len(body)))
		sent = order.AppendUint32(sent, 1)
		sent = order.AppendUint32(sent, uint32(len(fields)))
		sent = append(sent, fields...)
		for len(sent)%8 != 0 {
			sent = append(sent, 0)
		}
		sent = append(sent, body...)
		next := encode(t, dbus.TypeMethodReply, binary.LittleEndian, map[dbus.HeaderField]any{dbus.FieldReplySerial: uint32(1)}, "x")
		got, err := read(false, slices.Concat(sent, next))
		came := bytes.Equal(got, slices.Concat(sent, next))
		if err != nil || !came && !bytes.Equal(got, next) {
			t.Fatalf("of %q came %q, %v", sent, got, err)
		}
		m, err := dbus.DecodeMessage(bytes.NewReader(sent))
		if err != nil || m.Type != dbus.TypeSignal {
			return
		}
		_, directed := m.Headers[dbus.FieldDestination]
		if directed && m.Headers[dbus.FieldSender].Value() != "org.freedesktop.DBus" && came {
			t.Errorf("a stranger's %v came through", m)
		}
	})
}

// TestBroken: a message that no bus would pass on ends the connection.
func TestBroken(t *testing.T) {
	if got, err := read(false, []byte("l\x04\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff")); err == nil {
		t.Errorf("a message of 8 GiB came as %q", got)
	}
}

// TestBegin: until authentication is over, lines are read.
func TestBegin(t *testing.T) {
	ours, bus := net.Pipe()
	defer bus.Close()
	r := incomingOf(ours, false)
	line := func(text string) {
		t.Helper()
		go io.WriteString(bus, text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	line("B longer than a message's header\r\n")
	go r.Write([]byte("BEGIN\r\n"))
	if _, err := io.ReadFull(bus, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	message := encode(t, dbus.TypeSignal, binary.LittleEndian, map[dbus.HeaderField]any{
		dbus.FieldPath: dbus.ObjectPath("/"), dbus.FieldInterface: "a.b", dbus.FieldMember: "C", dbus.FieldDestination: ":1.1",
	})
	go bus.Write(append(message, "l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"...))
	got := make([]byte, 16)
	if _, err := io.ReadFull(r, got); err != nil || got[1] != 1 {
		t.Errorf("got %q, %v", got, err)
	}
}
