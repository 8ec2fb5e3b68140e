package busapi

import (
	"context"
	"errors"
	"sync"

	"github.com/godbus/dbus/v5"
)

// lineLength is how many calls may wait; when there are more, nothing is read
// from the bus until one is done. The bus then blocks the senders, or refuses
// their calls.
const lineLength = 64

// A line serialises the calls on one connection, in the order in which the bus
// delivers them: if an operator disables a client and enables it again, without
// waiting for answers, it ends up enabled. godbus by itself runs each call in
// its own goroutine.
type line struct {
	places chan struct{} // one for each waiting call
	closed chan struct{}

	mu    sync.Mutex
	over  bool          // nobody joins any more
	last  chan struct{} // closed when the last that joined has left
	calls map[*dbus.Message]place
}

// A place is a call's place in a line.
type place struct {
	before <-chan struct{} // closed when the call before has left
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

// join gives a call its place; it blocks while the line is full. It is the
// connection's interceptor, and so sees each message before it is handled.
func (l *line) join(msg *dbus.Message) {
	if msg.Type != dbus.TypeMethodCall {
		return
	}
	if of, _ := msg.Headers[dbus.FieldInterface].Value().(string); of == "org.freedesktop.DBus.Peer" {
		return // godbus answers that itself
	}
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	p := place{l.last, make(chan struct{})}
	l.calls[msg], l.last = p, p.left
}

// errOver is the error for a call that came too late.
var errOver = errors.New("the connection to the bus has ended")

// enter waits for a call's turn. leave must be called once, when it is done. A
// call that hasn't joined gets errOver.
func (l *line) enter(msg *dbus.Message) (leave func(), err error) {
	l.mu.Lock()
	p, joined := l.calls[msg]
	delete(l.calls, msg)
	l.mu.Unlock()
	if !joined {
		return nil, errOver
	}
	<-p.before
	return func() {
		close(p.left)
		select {
		case <-l.places:
		case <-l.closed:
		}
	}, nil
}

// close releases the connection's reader. Nobody joins any more.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	close(l.closed)
}

// empty waits, after close, until all that joined have left, or ctx ends.
func (l *line) empty(ctx context.Context) {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	select {
	case <-last:
	case <-ctx.Done():
	}
}
