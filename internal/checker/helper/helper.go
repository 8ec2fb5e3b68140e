// Package helper is the privileged side of checking: it runs as root behind a
// private socket, accepts narrow requests from the daemon's user and nobody
// else, and runs each command as an unprivileged user in a transient scope of
// its own.
//
// An attacker who takes over the daemon gains nothing here but the ability to
// run commands as the checkers' user, within the slice's limits.
package helper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/checker"
	"mandos/internal/journal"
)

// maxConns limits how many connections a misbehaving daemon can hold open; a
// well-behaved one has its own, lower limit.
const maxConns = 1024

// requestTimeout is how long a connection may take to send its one packet.
const requestTimeout = 5 * time.Second

// A Runner runs one command and returns how the shell ended and the beginning
// of its output, or why it could not be run.
type Runner interface {
	Run(ctx context.Context, r checker.Request) (Outcome, error)
}

// An Outcome is how a command has ended, with its raw output.
type Outcome struct {
	ExitStatus, Signal int
	TimedOut           bool
	Output             []byte
}

// A Server answers requests.
type Server struct {
	AllowUID uint32 // the daemon's user, the only one who may ask
	Runner   Runner
	Log      *slog.Logger

	mu    sync.Mutex
	names map[string]*turn // clients with a check running or waiting
}

// A turn lets the checks of one client run one after the other: they share
// the name of their scope.
type turn struct {
	users int
	sem   chan struct{}
}

// Serve serves requests on l until ctx ends; then it abandons the running
// checks and returns nil when all of them are gone.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { l.Close() })

	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{}
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting requests: %w", err)
		}
		sessions.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			s.session(ctx, conn)
		})
	}
}

// errStopped is the answer to requests that are still open when Serve ends.
var errStopped = errors.New("it was stopped meanwhile (systemctl status mandos-checker.socket)")

func (s *Server) session(serving context.Context, conn *net.UnixConn) {
	r, err := s.receive(conn)
	if err != nil {
		journal.CheckRequestRefused.Log(serving, s.Log, journal.Err(err))
		_, _ = conn.Write(checker.MarshalReply(0, 0, false, nil, err))
		return
	}

	// The daemon abandons a check by closing; it never sends a second packet.
	ctx, cancel := context.WithCancel(serving)
	defer cancel()
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()

	out, err := s.run(ctx, r)
	switch {
	case err == nil:
	case serving.Err() != nil:
		err = errStopped
	case ctx.Err() == nil:
		journal.CheckNotRun.Log(ctx, s.Log, journal.Client(r.Client), journal.Err(err))
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTimeout))
	_, _ = conn.Write(checker.MarshalReply(out.ExitStatus, out.Signal, out.TimedOut, out.Output, err))
}

// receive returns the request of a peer that is allowed to make one.
func (s *Server) receive(conn *net.UnixConn) (checker.Request, error) {
	if err := conn.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return checker.Request{}, err
	}
	// Read first: if data were unread at the close, the peer would lose the
	// answer.
	packet := make([]byte, checker.MaxPacket+1) // one more, to notice a packet that is too long
	n, err := conn.Read(packet)
	if err != nil {
		return checker.Request{}, fmt.Errorf("reading the request: %w", err)
	}
	cred, err := peerCredentials(conn)
	if err != nil {
		return checker.Request{}, fmt.Errorf("learning who asks: %w", err)
	}
	if cred.Uid != s.AllowUID {
		return checker.Request{}, fmt.Errorf("uid %d (process %d) may not ask, only uid %d", cred.Uid, cred.Pid, s.AllowUID)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return checker.Request{}, err
	}
	return checker.UnmarshalRequest(packet[:n])
}

// run runs r once no other check of its client is running.
func (s *Server) run(ctx context.Context, r checker.Request) (Outcome, error) {
	t := s.enter(r.Client)
	defer s.leave(r.Client, t)
	select {
	case t.sem <- struct{}{}:
	case <-ctx.Done():
		return Outcome{}, context.Cause(ctx)
	}
	defer func() { <-t.sem }()
	return s.Runner.Run(ctx, r)
}

func (s *Server) enter(client string) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = make(map[string]*turn)
	}
	t := s.names[client]
	if t == nil {
		t = &turn{sem: make(chan struct{}, 1)}
		s.names[client] = t
	}
	t.users++
	return t
}

func (s *Server) leave(client string, t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(s.names, client)
	}
}

func peerCredentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, credErr)
}
