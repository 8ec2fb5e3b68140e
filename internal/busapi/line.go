package busapi

import (
	"sync"

	"github.com/godbus/dbus/v5"
)

// lineLength is how many calls may wait; with more, nothing is read from the
// bus until one is done. The bus then holds its senders up, or refuses them.
const lineLength = 64

// A line makes the calls on one connection be done one by one, in the order
// in which they came, as the bus delivers them: an operator who disables a
// client and enables it again, without waiting for answers, ends with one
// that is enabled. godbus by itself starts each in a goroutine of its own.
type line struct {
	places chan struct{} // one for each that waits
	closed chan struct{}

	mu    sync.Mutex
	last  chan struct{} // closed when the last that joined has left
	calls map[*dbus.Message]place
}

// A place is a call's place in a line.
type place struct {
	before <-chan struct{} // closed when the one before has left
	left   chan struct{}
}

func newLine() *line {
	first := make(chan struct{})
	close(first)
	return &line{
		places: make(chan struct{}, lineLength), closed: make(chan struct{}),
		last: first, calls: map[*dbus.Message]place{},
	}
}

// join gives a call its place; it waits while the line is full. It is the
// connection's interceptor, and sees each message before it is handled.
func (l *line) join(msg *dbus.Message) {
	if msg.Type != dbus.TypeMethodCall {
		return
	}
	if of, _ := msg.Headers[dbus.FieldInterface].Value().(string); of == "org.freedesktop.DBus.Peer" {
		return // godbus answers it by itself
	}
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := place{l.last, make(chan struct{})}
	l.calls[msg], l.last = p, p.left
}

// enter waits for a call's turn. leave must be called once, when it is done.
func (l *line) enter(msg *dbus.Message) (leave func()) {
	l.mu.Lock()
	p := l.calls[msg]
	delete(l.calls, msg)
	l.mu.Unlock()
	<-p.before
	return func() {
		close(p.left)
		select {
		case <-l.places:
		case <-l.closed:
		}
	}
}

// close lets the connection's reader go.
func (l *line) close() { close(l.closed) }
