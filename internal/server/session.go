package server

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/registry"
)

// Why sessions end before their time.
var (
	errEvicted    = errors.New("cut off to make room")
	errStopped    = errors.New("the server stops")
	errHungUp     = errors.New("the client hung up")
	errSpoke      = errors.New("the client sent data, which no client does")
	errRevoked    = errors.New("the client stopped being eligible while its secret was sent")
	errCrashed    = errors.New("the session crashed")
	errNoGreeting = errors.New("hung up without a word")
	errNoRoom     = errors.New("too many sessions of clients are open")
)

// A session is one connection's life.
type session struct {
	server *Server
	conn   net.Conn
	peer   netip.AddrPort
	source source

	// Set by ready.
	begun time.Time
	waits stopwatch // counts how long the peer keeps the session waiting

	mu    sync.Mutex
	cause error       // why the session was ended, if it was
	onEnd func(error) // called with cause, if set

	// The table's.
	in      stageName
	place   *list.Element
	client  string    // in inProved
	since   time.Time // when it was proved
	borrows bool      // a place among the unproved
}

// A stageName says in which stage of its life a session is counted.
type stageName uint8

const (
	nowhere stageName = iota
	inWaiting
	inUnproved
	inProved
)

// ready prepares s for serve. The server's mu is held: from now on others may
// end s.
func (s *session) ready() {
	s.begun = time.Now()
	if s.server.stopped {
		s.end(errStopped)
	}
}

// end ends s, for the first cause that is given. It may be called at any time,
// with any lock held.
func (s *session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return
	}
	s.cause = cause
	if s.onEnd != nil {
		s.onEnd(cause)
	}
	go s.cut() // Close waits for a Write in progress
}

// ended returns why s was ended, or nil.
func (s *session) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// tellEnd has f called when s is ended, or at once if it already was.
func (s *session) tellEnd(f func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onEnd = f; s.cause != nil {
		f(s.cause)
	}
}

// A timedConn is a connection that measures how long the peer keeps the session
// waiting. Time that the server takes doesn't count, apart from the time until
// the goroutine is scheduled after data has arrived.
type timedConn struct {
	net.Conn
	s *session
}

func (p timedConn) Read(b []byte) (int, error) {
	p.s.waits.start(time.Since(p.s.begun))
	n, err := p.Conn.Read(b)
	p.s.waits.stop(time.Since(p.s.begun))
	return n, err
}

// A stopwatch adds up times. One goroutine starts and stops it, others read it.
type stopwatch struct {
	sum   atomic.Int64 // nanoseconds
	since atomic.Int64 // nanoseconds plus 1; 0: stopped
}

func (w *stopwatch) start(now time.Duration) { w.since.Store(int64(now) + 1) }

func (w *stopwatch) stop(now time.Duration) {
	w.sum.Add(int64(now) - (w.since.Swap(0) - 1))
}

// waited returns how long the peer has kept the session waiting.
func (s *session) waited() time.Duration {
	now := time.Since(s.begun)
	sum := time.Duration(s.waits.sum.Load())
	if since := s.waits.since.Load(); since > 0 {
		sum += now - time.Duration(since-1)
	}
	return sum
}

// run runs the whole session, in seven steps. Its error says why the peer got
// no secret, and is to be logged as event; it is nil, too, if the registry has
// already logged the reason.
func (s *session) run() (event journal.Event, err error) {
	// 1. Deadline: for everything that a peer can do before it has proved
	// anything.
	if err := s.conn.SetDeadline(time.Now().Add(s.server.HandshakeTimeout)); err != nil {
		return journal.HandshakeFailed, err
	}

	// 2. Greeting.
	conn, err := readGreeting(timedConn{s.conn, s})
	if err != nil {
		return journal.BadGreeting, err
	}

	// 3. Handshake.
	growStack() // not before: a silent peer should cost little
	tls := s.server.TLS(conn)
	defer tls.Close()
	if err := tls.Handshake(); err != nil {
		return journal.HandshakeFailed, err
	}
	caller := registry.Caller{Addr: s.peer, Identity: tls.PeerIdentity(), Validity: tls.PeerValidity()}

	// 4. Lookup.
	name, err := s.server.Directory.Lookup(caller)
	if err != nil {
		return journal.HandshakeFailed, s.refuse(tls, err)
	}
	if !s.server.proved(s, name) {
		return journal.TurnedAway, errNoRoom
	}

	// 5. Approval, for as long as it takes or the client waits.
	gone := &watch{s: s, tls: tls}
	err = s.server.Directory.Approve(gone, name, caller)
	cause := gone.stop()
	if err != nil {
		if cause != nil && !isRefusal(err) {
			err = cause
		}
		return journal.HungUp, s.refuse(tls, err)
	}

	// 6. Release and write: the registry checks for the last time, and logs.
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.server.WriteTimeout)); err != nil {
		return journal.HungUp, err
	}
	handout, err := s.server.Directory.Release(name, caller)
	s.server.giveBack(s) // from here on it is the peer's turn
	if err != nil {
		return journal.HungUp, s.refuse(tls, err)
	}
	if s.handOut(tls, handout) != nil {
		return journal.Event{}, nil
	}

	// 7. Close, once the client has had a chance to say goodbye.
	_ = tls.CloseNotify()
	return journal.Event{}, nil
}

// refuse tells the peer that it gets nothing, with close_notify and not one
// byte of application data. It returns the error that is left to be logged: nil
// for a refusal, which the registry has logged.
func (s *session) refuse(tls TLS, err error) error {
	if s.ended() == nil { // otherwise it has been cut off
		_ = s.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
		_ = tls.CloseNotify()
	}
	if isRefusal(err) {
		return nil
	}
	return err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*client.Refusal](err)
	return ok
}

// A watch is a context that ends when the client hangs up, or when the session
// ends. A client has nothing to say, so its first byte of data counts as a
// hang-up too. The client is watched only once the context is used; for most
// hand-outs it never is.
type watch struct {
	s   *session
	tls TLS

	once   sync.Once
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when read has returned
}

func (w *watch) begun() context.Context {
	w.once.Do(func() {
		w.ctx, w.cancel = context.WithCancelCause(context.Background())
		w.done = make(chan struct{})
		w.s.tellEnd(w.cancel)
		_ = w.s.conn.SetDeadline(time.Time{}) // it may wait for as long as it likes
		go w.read()
		w.s.server.giveBack(w.s) // it is an operator's turn
	})
	return w.ctx
}

func (w *watch) read() {
	defer close(w.done)
	defer w.s.survive()
	var b [1]byte
	n, err := w.tls.Read(b[:])
	switch {
	case n > 0:
		w.cancel(errSpoke)
	case errors.Is(err, os.ErrDeadlineExceeded): // stop was called
	case err == io.EOF:
		w.cancel(errHungUp)
	default:
		w.cancel(fmt.Errorf("%w: %w", errHungUp, err))
	}
}

// stop ends the watch, and returns why the context had ended, if it had.
func (w *watch) stop() (cause error) {
	w.once.Do(func() {}) // no watch begins from now on
	if w.ctx == nil {
		return w.s.ended()
	}
	cause = context.Cause(w.ctx)
	_ = w.s.conn.SetReadDeadline(time.Unix(1, 0)) // ends Read
	<-w.done
	w.cancel(nil)
	return cause
}

// The methods below are those of [context.Context].

func (w *watch) Deadline() (time.Time, bool) { return time.Time{}, false }
func (w *watch) Done() <-chan struct{}       { return w.begun().Done() }
func (w *watch) Err() error                  { return w.begun().Err() }
func (w *watch) Value(key any) any           { return w.begun().Value(key) }

// handOut writes the secret and then close_notify, without which the client
// would throw the secret away. The connection is cut off when the client stops
// being eligible meanwhile. The registry learns, and logs, how it ended.
func (s *session) handOut(tls TLS, handout *registry.Handout) (err error) {
	err = errCrashed // unless it turns out otherwise
	defer func() {
		if cause := s.ended(); cause != nil && err != nil {
			err = cause
		}
		handout.Done(err)
	}()
	handout.OnRevoked(func() { s.end(errRevoked) })
	if cause := s.ended(); cause != nil {
		return cause
	}
	return tls.WriteLast(handout.Secret.Reveal())
}

// cut closes the connection so that nothing leaves this host that hasn't left
// it already.
func (s *session) cut() {
	if l, ok := s.conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = s.conn.Close()
}

// survive recovers from a panic. It is deferred wherever a peer's data are
// read: a peer that triggers a bug must not end the other sessions.
func (s *session) survive() {
	if p := recover(); p != nil {
		journal.SessionCrashed.Log(context.Background(), s.server.Log, journal.Peer(s.peer), journal.Err(fmt.Errorf("%v\n%s", p, debug.Stack())))
		s.end(errCrashed)
	}
}

// serve runs the session and logs how it ended.
func (s *session) serve() {
	defer s.server.ended(s)
	defer s.conn.Close()
	defer s.survive()

	if s.server.Log.Enabled(context.Background(), journal.Connected.Level) {
		s.log(journal.Connected)
	}
	event, err := s.run()
	switch cause := s.ended(); {
	case err == nil || errors.Is(err, errNoGreeting):
	case cause == errEvicted:
		s.log(journal.Evicted)
	case cause == errStopped:
		s.log(journal.SessionCut)
	case errors.Is(err, os.ErrDeadlineExceeded) && event != journal.HungUp:
		s.log(event, journal.Err(fmt.Errorf("not done within %v", s.server.HandshakeTimeout)))
	default:
		s.log(event, journal.Err(err))
	}
}

// growStack grows the stack of this goroutine to what a session needs: at once,
// while there is little on it, rather than in steps that copy all of it.
//
//go:noinline
func growStack() {
	var frame [10 << 10]byte
	use(&frame)
}

// use keeps the compiler from leaving frame out.
//
//go:noinline
func use(*[10 << 10]byte) {}

// log logs, throttled, what peers can cause as often as they like.
func (s *session) log(event journal.Event, attrs ...slog.Attr) {
	s.server.throttle.Log(context.Background(), event, append([]slog.Attr{journal.Peer(s.peer)}, attrs...)...)
}
