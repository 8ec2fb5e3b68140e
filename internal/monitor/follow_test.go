package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/operator"
)

// fakeServer is a connection to a bus with a server, or without.
type fakeServer struct {
	clients []operator.Client
	err     error // of Clients
	heard   chan operator.Occurrence
	slow    chan struct{} // if set, Clients waits for it
}

func (f *fakeServer) Clients(ctx context.Context) ([]operator.Client, error) {
	if f.slow != nil {
		<-f.slow
	}
	return f.clients, f.err
}
func (f *fakeServer) Set(context.Context, operator.Client, string, any) error {
	return errors.New("set")
}
func (f *fakeServer) Approve(context.Context, operator.Client, bool) error {
	return errors.New("approve")
}
func (f *fakeServer) Remove(context.Context, operator.Client) error { return errors.New("remove") }
func (f *fakeServer) Watch(context.Context) (<-chan operator.Occurrence, error) {
	return f.heard, nil
}
func (f *fakeServer) Close() error { return nil }

// told collects what a follower tells, in short.
type told struct {
	mu  sync.Mutex
	all []string
}

func (l *told) tell(msg any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch msg := msg.(type) {
	case loaded:
		l.all = append(l.all, fmt.Sprintf("loaded %d", len(msg)))
	case heard:
		l.all = append(l.all, fmt.Sprintf("heard %d", len(msg)))
	case lost:
		l.all = append(l.all, "lost: "+msg.err.Error())
	}
}

func (l *told) is(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.all, want) {
		t.Errorf("told %q, want %q", l.all, want)
	}
	l.all = nil
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var current atomic.Pointer[fakeServer]
		var l told
		f := &follower{tell: l.tell, connect: func(context.Context) (Server, error) {
			if server := current.Load(); server != nil {
				return server, nil
			}
			return nil, errors.New("no bus")
		}}
		ended := make(chan error)
		go func() { ended <- f.run(ctx) }()

		l.is(t, "lost: no bus")
		if err := f.do(ctx, request{}); err == nil {
			t.Error("something was done without a bus")
		}
		// A bus without a server, which then comes.
		server := &fakeServer{err: operator.ErrNoServer, heard: make(chan operator.Occurrence)}
		current.Store(server)
		time.Sleep(retry)
		l.is(t, "lost: "+operator.ErrNoServer.Error())
		server.err, server.clients = nil, make([]operator.Client, 3)
		server.heard <- operator.Occurrence{Kind: operator.Appeared}
		l.is(t, "loaded 3")
		if err := f.do(ctx, request{remove: true}); err == nil || err.Error() != "remove" {
			t.Errorf("remove: %v", err)
		}

		// Signals are told in portions.
		for range 100 {
			server.heard <- operator.Occurrence{Kind: operator.Changed}
		}
		l.is(t)
		time.Sleep(gather)
		l.is(t, "heard 100")

		// The server is started again; what is heard while the clients are
		// read is told after them.
		server.heard <- operator.Occurrence{Kind: operator.Vanished}
		l.is(t, "lost: "+operator.ErrNoServer.Error())
		server.slow = make(chan struct{})
		server.heard <- operator.Occurrence{Kind: operator.Appeared}
		server.heard <- operator.Occurrence{Kind: operator.Changed}
		time.Sleep(time.Minute)
		l.is(t)
		server.slow <- struct{}{}
		l.is(t, "loaded 3", "heard 1")
		server.slow = nil

		// The bus goes away and comes back.
		current.Store(nil)
		close(server.heard)
		l.is(t, "lost: the connection to the system bus was lost")
		time.Sleep(retry)
		l.is(t, "lost: no bus")
		current.Store(&fakeServer{heard: make(chan operator.Occurrence)})
		time.Sleep(retry)
		l.is(t, "loaded 0")

		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestDenied: who may not speak with the server is told so, and not kept
// waiting.
func TestDenied(t *testing.T) {
	denied := fmt.Errorf("listing the clients: %w", operator.ErrDenied)
	server := &fakeServer{err: denied, heard: make(chan operator.Occurrence)}
	f := &follower{tell: func(any) {}, connect: func(context.Context) (Server, error) { return server, nil }}
	if err := f.run(t.Context()); !errors.Is(err, operator.ErrDenied) {
		t.Errorf("got %v", err)
	}
}
