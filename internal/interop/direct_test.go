package interop

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A direct is the daemon's connection to its bus, with this test as the bus
// at its other end: dbus-daemon passes only some 5,000 calls a second.
type direct struct {
	conn net.Conn
	in   *bufio.Reader

	mu      sync.Mutex
	serial  uint32
	waiting map[uint32]chan<- *dbus.Message

	ready   chan struct{} // closed when the daemon has its second name
	names   int
	signals atomic.Int64
}

// daemonUnique is the daemon's unique name on the fake bus.
const daemonUnique = ":1.1"

// fakeBus listens as a bus for the daemon to come to. called gets the
// connection that has the daemon's names.
func fakeBus(t *testing.T) (addr string, called <-chan *direct) {
	t.Helper()
	path := filepath.Join(Folder(t), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	ready := make(chan *direct, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			d := &direct{conn: c, in: bufio.NewReaderSize(c, 1<<16), waiting: map[uint32]chan<- *dbus.Message{}, ready: make(chan struct{})}
			go d.run(t)
			go func() { <-d.ready; ready <- d }()
		}
	}()
	return "unix:path=" + path, ready
}

// run is the bus's part: it lets the daemon in (D-Bus Specification,
// "Authentication Protocol"), answers what it asks of its bus, and gives the
// answers to our calls to who waits for them.
func (d *direct) run(t *testing.T) {
	if _, err := d.in.ReadByte(); err != nil { // a NUL comes first
		t.Errorf("reading from the daemon: %v", err)
		return
	}
	for {
		line, err := d.in.ReadString('\n')
		if err != nil {
			t.Errorf("reading from the daemon: %v", err)
			return
		}
		words := strings.Fields(line)
		if words[0] == "BEGIN" {
			break
		}
		answer := "ERROR"
		switch {
		case words[0] == "AUTH" && len(words) == 1:
			answer = "REJECTED EXTERNAL"
		case words[0] == "AUTH", words[0] == "DATA":
			answer = "OK 0123456789abcdef0123456789abcdef"
		}
		if _, err := io.WriteString(d.conn, answer+"\r\n"); err != nil {
			return
		}
	}
	for {
		m, err := dbus.DecodeMessage(d.in)
		if err != nil {
			return // the daemon has ended
		}
		switch m.Type {
		case dbus.TypeSignal:
			d.signals.Add(1)
		case dbus.TypeMethodCall:
			d.answer(m)
		default:
			serial, _ := m.Headers[dbus.FieldReplySerial].Value().(uint32)
			d.mu.Lock()
			c := d.waiting[serial]
			delete(d.waiting, serial)
			d.mu.Unlock()
			if c != nil {
				c <- m
			}
		}
	}
}

// answer is what the bus says to the daemon.
func (d *direct) answer(m *dbus.Message) {
	var body []any
	switch member := m.Headers[dbus.FieldMember].Value(); member {
	case "Hello":
		body = []any{daemonUnique}
	case "RequestName":
		if d.names++; d.names == 2 {
			defer close(d.ready)
		}
		body = []any{uint32(1)}
	case "GetConnectionUnixUser":
		body = []any{uint32(0)}
	}
	reply := &dbus.Message{Type: dbus.TypeMethodReply, Flags: dbus.FlagNoReplyExpected, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(m.Serial()), dbus.FieldSender: dbus.MakeVariant("org.freedesktop.DBus"),
	}}
	if len(body) > 0 {
		reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	_ = d.send(encoded(reply), nil)
}

// encoded returns m as it is on the wire, without its serial.
func encoded(m *dbus.Message) []byte {
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		panic(fmt.Sprintf("encoding a message of the test: %v", err))
	}
	return b.Bytes()
}

// methodCall returns a call as it is on the wire.
func methodCall(path dbus.ObjectPath, iface, member string, args ...any) []byte {
	m := &dbus.Message{Type: dbus.TypeMethodCall, Body: args, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
		dbus.FieldDestination: dbus.MakeVariant(daemonUnique), dbus.FieldSender: dbus.MakeVariant(":1.2"),
	}}
	if len(args) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(args...))
	}
	return encoded(m)
}

// send sends a message; the answer, if one is wanted, goes to c.
func (d *direct) send(message []byte, c chan<- *dbus.Message) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	if c != nil {
		d.waiting[d.serial] = c
	}
	binary.LittleEndian.PutUint32(message[8:], d.serial)
	_, err := d.conn.Write(message)
	return err
}

// call sends a call and waits for the answer.
func (d *direct) call(t *testing.T, path dbus.ObjectPath, iface, member string, args ...any) *dbus.Message {
	t.Helper()
	c := make(chan *dbus.Message, 1)
	if err := d.send(methodCall(path, iface, member, args...), c); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-c:
		return m
	case <-time.After(patience):
		t.Fatalf("%s.%s wasn't answered", iface, member)
		return nil
	}
}
