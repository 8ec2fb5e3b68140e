// Package server serves Mandos clients: it accepts their connections and runs a
// session on each, from greeting to close_notify. It doesn't decide whether a
// client may have its secret: it asks a Directory.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"mandos/internal/journal"
	"mandos/internal/keyid"
	"mandos/internal/registry"
)

// A Directory knows the clients and decides who gets a secret. It logs what it
// refuses and what it releases.
type Directory interface {
	// Lookup returns the name of the client that caller's identity belongs
	// to, or a *client.Refusal (Unknown).
	Lookup(caller registry.Caller) (name string, err error)
	// Approve returns nil if the client may have its secret as far as approval
	// and status are concerned; if an operator has to decide, it waits.
	// Otherwise it returns a *client.Refusal, or another error if ctx ended, as
	// it does when the caller hangs up.
	Approve(ctx context.Context, name string, caller registry.Caller) error
	// Release makes the last check of eligibility, at this instant, and
	// journals the hand-out before the secret leaves.
	Release(name string, caller registry.Caller) (*registry.Handout, error)
}

// TLS is what a session needs of a TLS connection; a *keytls.Conn in the TLS
// client's role is one.
type TLS interface {
	// Handshake returns an error that says which side erred; an alert has
	// been sent.
	Handshake() error
	// PeerIdentity returns what the peer proved in the handshake.
	PeerIdentity() keyid.Identity
	// PeerValidity returns the time for which the peer's key claims to be
	// valid.
	PeerValidity() keyid.Validity
	// Read may be called concurrently with WriteLast. After a time-out of Read,
	// both can still be used.
	Read([]byte) (int, error)
	// WriteLast writes all the data that is ever written, then close_notify.
	WriteLast([]byte) error
	// CloseNotify sends close_notify if that hasn't been done, waits at most a
	// second for the peer's, and closes.
	CloseNotify() error
	// Close closes at once.
	Close() error
}

// Defaults of Server's fields.
const (
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultWriteTimeout     = 30 * time.Second
	DefaultStopTimeout      = 5 * time.Second
	DefaultMaxWaiting       = 16384
	DefaultMaxUnproved      = 512
	DefaultMaxProved        = 8192
)

const (
	closeTimeout  = time.Second            // for sending close_notify to a peer that is refused
	acceptBackoff = 100 * time.Millisecond // after an error, such as too many open files
	throttleBurst = 20                     // log entries of one kind per minute

	// patience is how long in total a peer may keep the server waiting while
	// others of its source wait in line: enough for some round trips around the
	// world and a signature by a slow processor.
	patience = 2 * time.Second
	// maxPerClient is how many sessions of one client may be older than
	// patience: the one it uses, and some that it has forgotten.
	maxPerClient = 8
	// lineGreed is the greed of sources for places in line, see stage: a single
	// one, such as a site that boots, gets nearly all.
	lineGreed   = 16
	sweepPeriod = 100 * time.Millisecond // between looks for sessions to cut off, while there are lines
)

// A Server serves clients. Fields are set before Serve is called; those with
// a default may be zero.
type Server struct {
	Directory Directory
	TLS       func(net.Conn) TLS // wraps a connection whose greeting was read
	Log       *slog.Logger

	HandshakeTimeout time.Duration // for greeting and handshake together
	WriteTimeout     time.Duration // for writing the secret
	StopTimeout      time.Duration // for sessions that are open when Serve's context ends

	// How many connections may be open at once: in line, served before they
	// have proved who they are, and after. See table for who gets how many.
	MaxWaiting, MaxUnproved, MaxProved int

	patience time.Duration // see the constant
	throttle *journal.Throttle

	mu       sync.Mutex
	table    table
	sweeping bool           // a sweep is running or scheduled
	stopped  bool           // no session may go on
	sessions sync.WaitGroup // including those in line
	loops    []*loop
}

// Serve accepts connections from all listeners until ctx ends, lets open
// sessions go on for at most StopTimeout, and returns when all have ended. It
// closes the listeners. Its error is nil if ctx ended it.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	s.setDefaults()
	defer s.throttle.Flush()

	accepting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var loops sync.WaitGroup
	for _, l := range listeners {
		context.AfterFunc(accepting, func() { _ = l.Close() })
		one := &loop{server: s, listener: l}
		s.mu.Lock()
		s.loops = append(s.loops, one)
		s.mu.Unlock()
		loops.Go(func() {
			if err := one.run(accepting); err != nil {
				stop(fmt.Errorf("accepting connections at %v: %w", l.Addr(), err))
			}
		})
	}
	<-accepting.Done()
	loops.Wait()

	hurry := time.AfterFunc(s.StopTimeout, s.stop)
	defer hurry.Stop()
	s.sessions.Wait()
	if ctx.Err() == nil {
		return context.Cause(accepting)
	}
	return nil
}

func (s *Server) setDefaults() {
	setDefault(&s.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&s.WriteTimeout, DefaultWriteTimeout)
	setDefault(&s.StopTimeout, DefaultStopTimeout)
	setDefault(&s.MaxWaiting, DefaultMaxWaiting)
	setDefault(&s.MaxUnproved, DefaultMaxUnproved)
	setDefault(&s.MaxProved, DefaultMaxProved)
	s.table.waiting.max, s.table.unproved.max, s.table.proved.max = s.MaxWaiting, s.MaxUnproved, s.MaxProved
	s.table.waiting.greed, s.table.unproved.greed, s.table.proved.greed = lineGreed, 1, 1
	setDefault(&s.patience, patience)
	s.table.maxPerClient, s.table.patience = maxPerClient, s.patience
	s.throttle = journal.NewThrottle(s.Log, throttleBurst)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// stop ends all sessions; those in line end as soon as their turn comes.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for ses := range s.table.served() {
		ses.end(errStopped)
	}
}

// start gives conn a session, at once or when its turn comes.
func (s *Server) start(conn net.Conn) {
	ses := &session{server: s, conn: conn, peer: addrPort(conn.RemoteAddr())}
	ses.source = sourceOf(ses.peer.Addr())
	s.mu.Lock()
	served, ok := s.table.arrive(ses)
	if ok {
		s.sessions.Add(1)
	}
	if served {
		ses.ready()
	}
	sweep := ok && !served && !s.sweeping
	s.sweeping = s.sweeping || sweep
	s.mu.Unlock()
	switch {
	case !ok:
		ses.cut() // so that nothing of it stays in the kernel
		ses.log(journal.TurnedAway)
	case served:
		go ses.serve()
	case sweep:
		s.sweep()
	}
}

// sweep cuts off sessions to make room for those in line, and repeats for as
// long as there are any.
func (s *Server) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, late := range s.table.overdue() {
		late.end(errEvicted)
	}
	if s.sweeping = s.table.lines.Len() > 0; s.sweeping {
		time.AfterFunc(sweepPeriod, s.sweep)
	}
}

// shed ends one session to free its file descriptor.
func (s *Server) shed() {
	s.mu.Lock()
	spare := s.table.spare()
	s.mu.Unlock()
	switch {
	case spare == nil:
	case spare.begun.IsZero(): // was in line
		_ = spare.conn.Close()
		s.sessions.Done()
	default:
		spare.end(errEvicted)
	}
}

// proved notes that ses has proved to be the client called name, and reports
// whether there is room for it.
func (s *Server) proved(ses *session, name string) bool {
	s.mu.Lock()
	late, ok := s.table.prove(ses, name)
	s.mu.Unlock()
	for _, other := range late {
		other.end(errEvicted)
	}
	return ok
}

// giveBack notes that the server has no more work to do for ses at the moment.
func (s *Server) giveBack(ses *session) {
	s.mu.Lock()
	s.table.giveBack(ses)
	s.mu.Unlock()
	s.admit()
}

// ended notes that ses is over.
func (s *Server) ended(ses *session) {
	s.mu.Lock()
	s.table.remove(ses)
	s.mu.Unlock()
	s.admit()
	s.sessions.Done()
}

// admit starts the sessions in line for which there is room.
func (s *Server) admit() {
	for {
		s.mu.Lock()
		next := s.table.next()
		if next != nil {
			next.ready()
		}
		s.mu.Unlock()
		if next == nil {
			return
		}
		go next.serve()
	}
}

// addrPort returns addr, with IPv4-mapped addresses as IPv4, or the zero
// AddrPort if it isn't a TCP address.
func addrPort(addr net.Addr) netip.AddrPort {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
