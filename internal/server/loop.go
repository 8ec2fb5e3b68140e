package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"mandos/internal/journal"
)

// A loop accepts the connections of one listener.
type loop struct {
	server   *Server
	listener net.Listener

	mu    sync.Mutex
	pings []chan struct{} // to be closed by the loop
}

// run accepts connections until ctx ends. Sessions outlive it.
func (l *loop) run(ctx context.Context) error {
	for {
		conn, err := l.listener.Accept()
		switch {
		case err == nil:
			// Even if ctx has ended: it arrived before the listener was closed.
			l.server.start(conn)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.answer()
		default:
			l.server.throttle.Log(ctx, journal.AcceptFailed, journal.Err(err))
			l.server.shed() // there may be too many open files
			select {
			case <-time.After(acceptBackoff):
			case <-ctx.Done():
			}
		}
	}
}

// ping returns nil if the loop is alive: a deadline in the past wakes it.
func (l *loop) ping(ctx context.Context) error {
	waker, ok := l.listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return nil
	}
	answer := make(chan struct{})
	l.mu.Lock()
	l.pings = append(l.pings, answer)
	err := waker.SetDeadline(time.Unix(1, 0))
	l.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the accept loop of %v doesn't answer: %w", l.listener.Addr(), context.Cause(ctx))
	}
}

func (l *loop) answer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	// This fails only if the listener is closed, and then so does the next
	// Accept.
	_ = l.listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Time{})
	for _, answer := range l.pings {
		close(answer)
	}
	l.pings = nil
}

// Ping returns nil if all accept loops are alive. It is for the watchdog.
func (s *Server) Ping(ctx context.Context) error {
	s.mu.Lock()
	loops := s.loops
	s.mu.Unlock()
	for _, l := range loops {
		if err := l.ping(ctx); err != nil {
			return err
		}
	}
	return nil
}
