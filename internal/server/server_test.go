package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/keyid"
	"mandos/internal/keytls"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// directory is a Directory with one client, whose parts tests replace.
type directory struct {
	id      keyid.KeyID
	secret  []byte
	approve func(context.Context) error
	release func() error
	revoked chan struct{}

	mu    sync.Mutex
	calls []string
	done  []error
}

func (d *directory) called(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, what)
}

func (d *directory) Lookup(c registry.Caller) (string, error) {
	d.called("lookup")
	if c.Identity.KeyID != d.id || d.id.IsZero() {
		return "", &client.Refusal{Reason: client.Unknown}
	}
	return "foo", nil
}

func (d *directory) Approve(ctx context.Context, name string, _ registry.Caller) error {
	d.called("approve " + name)
	if d.approve != nil {
		return d.approve(ctx)
	}
	return nil
}

func (d *directory) Release(name string, _ registry.Caller) (*registry.Handout, error) {
	d.called("release " + name)
	if d.release != nil {
		if err := d.release(); err != nil {
			return nil, err
		}
	}
	return &registry.Handout{Secret: secret.New(d.secret), OnRevoked: d.onRevoked, Done: func(err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.done = append(d.done, err)
	}}, nil
}

func (d *directory) onRevoked(cut func()) {
	select {
	case <-d.revoked: // a nil one never is
		cut()
	default:
		if d.revoked != nil {
			go func() { <-d.revoked; cut() }()
		}
	}
}

// handedOut returns how the only hand-out ended.
func (d *directory) handedOut(t *testing.T) error {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.done) != 1 {
		t.Fatalf("Done was called %d times, want once", len(d.done))
	}
	return d.done[0]
}

// pipes is a listener whose connections are net.Pipes, for synctest.
type pipes struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection that seems to come from addr.
type from struct {
	net.Conn
	addr netip.Addr
}

func (c from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.addr, 1234))
}

// dial connects to a server behind p.
func (p *pipes) dial(addr string) net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- from{theirs, netip.MustParseAddr(addr)}
	return ours
}

// A lab is a server with one client's key.
type lab struct {
	*Server
	dir   *directory
	pipes *pipes
	key   ed25519.PrivateKey
	log   *lockedBuffer
	stop  context.CancelFunc
	ended chan error // gets what Serve returned
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newLab starts a server behind listeners, or behind pipes.
func newLab(t *testing.T, change func(*lab), listeners ...net.Listener) *lab {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		dir:   &directory{id: keyid.OfSPKI(spki), secret: []byte("the secret")},
		pipes: newPipes(), key: key, log: new(lockedBuffer), ended: make(chan error, 1),
	}
	l.Server = &Server{
		Directory: l.dir,
		TLS:       func(c net.Conn) TLS { return keytls.Client(c, &keytls.Config{HoldFinished: true}) },
		Log:       slog.New(journal.NewPlain(l.log, journal.Debug())),
	}
	if change != nil {
		change(l)
	}
	if listeners == nil {
		listeners = []net.Listener{l.pipes}
	}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	go func() { l.ended <- l.Serve(ctx, listeners...) }()
	return l
}

// end stops the server and waits until all its sessions are over.
func (l *lab) end(t *testing.T) {
	t.Helper()
	l.stop()
	if err := <-l.ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// client greets over conn, and returns its end of a TLS connection on which
// no handshake was made yet.
func (l *lab) client(t *testing.T, conn net.Conn) *keytls.Conn {
	t.Helper()
	if _, err := io.WriteString(conn, "1\r\n"); err != nil {
		t.Fatal(err)
	}
	return keytls.Server(conn, &keytls.Config{Key: l.key})
}

// fetch is a whole client: it returns what it got. Without close_notify
// there is an error.
func (l *lab) fetch(t *testing.T, conn net.Conn) ([]byte, error) {
	t.Helper()
	tls := l.client(t, conn)
	b, err := io.ReadAll(tls)
	_ = tls.CloseNotify()
	return b, err
}

func TestSecretIsSent(t *testing.T) {
	for _, size := range []int{1, 4 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			want := bytes.Repeat([]byte{0xa5}, size)
			l := newLab(t, func(l *lab) { l.dir.secret = want })
			got, err := l.fetch(t, l.pipes.dial("2001:db8::1"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes (%v), want %d", len(got), err, size)
			}
			l.end(t)
			if err := l.dir.handedOut(t); err != nil {
				t.Errorf("the registry heard %v", err)
			}
			if got, want := strings.Join(l.dir.calls, ", "), "lookup, approve foo, release foo"; got != want {
				t.Errorf("the directory was asked %q, want %q", got, want)
			}
		})
	}
}

// TestOverTCP is the same over real sockets, with segments as Debian's client
// sends them.
func TestOverTCP(t *testing.T) {
	for _, addr := range []string{"[::1]:0", "127.0.0.1:0"} {
		t.Run(addr, func(t *testing.T) {
			listener, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			l := newLab(t, nil, listener)
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, segment := range []string{"1", "\r\n"} {
				if _, err := io.WriteString(conn, segment); err != nil {
					t.Fatal(err)
				}
			}
			tls := keytls.Server(conn, &keytls.Config{Key: l.key})
			got, err := io.ReadAll(tls)
			if err != nil || string(got) != "the secret" {
				t.Errorf("got %q, %v", got, err)
			}
			if err := tls.CloseNotify(); err != nil {
				t.Error(err)
			}
			l.end(t)
			if err := l.dir.handedOut(t); err != nil {
				t.Errorf("the registry heard %v", err)
			}
		})
	}
}

// TestRefused: a peer that is refused gets close_notify and not one byte of
// data.
func TestRefused(t *testing.T) {
	refusal := func(r client.Reason) error { return &client.Refusal{Reason: r} }
	for name, change := range map[string]func(*directory){
		"unknown":  func(d *directory) { d.id = keyid.KeyID{1} },
		"disabled": func(d *directory) { d.approve = func(context.Context) error { return refusal(client.Disabled) } },
		"denied":   func(d *directory) { d.approve = func(context.Context) error { return refusal(client.Denied) } },
		"approval timed out": func(d *directory) {
			d.approve = func(context.Context) error { return refusal(client.ApprovalTimedOut) }
		},
		"approval broke":          func(d *directory) { d.approve = func(context.Context) error { return errors.New("broken") } },
		"disabled at the last":    func(d *directory) { d.release = func() error { return refusal(client.Disabled) } },
		"expired at the last":     func(d *directory) { d.release = func() error { return refusal(client.Expired) } },
		"the registry is at odds": func(d *directory) { d.release = func() error { return errors.New("broken") } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, func(l *lab) { change(l.dir) })
				got, err := l.fetch(t, l.pipes.dial("2001:db8::1"))
				if err != nil || len(got) > 0 {
					t.Errorf("got %q and error %v, want nothing and close_notify", got, err)
				}
				l.end(t)
				if len(l.dir.done) > 0 {
					t.Error("a secret was handed out")
				}
				if broken := strings.Contains(l.log.String(), "error=broken"); broken != (strings.Contains(name, "broke") || strings.Contains(name, "odds")) {
					t.Errorf("logged: %s", l.log)
				}
			})
		})
	}
}

// TestRevoked: a client that stops being eligible after its secret was released
// is cut off, before or in the middle of it.
func TestRevoked(t *testing.T) {
	t.Run("before the first byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, func(l *lab) {
				l.dir.revoked = make(chan struct{})
				close(l.dir.revoked)
			})
			got, err := l.fetch(t, l.pipes.dial("2001:db8::1"))
			if err == nil || len(got) > 0 {
				t.Errorf("got %q, error %v; want nothing, and no close_notify", got, err)
			}
			l.end(t)
			if err := l.dir.handedOut(t); err != errRevoked {
				t.Errorf("the registry heard %v", err)
			}
		})
	})
	t.Run("in the middle", func(t *testing.T) {
		listener, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Fatal(err)
		}
		l := newLab(t, func(l *lab) {
			l.dir.secret = make([]byte, 64<<20) // more than any buffer on the way
			l.dir.revoked = make(chan struct{})
			l.StopTimeout = time.Minute
		}, listener)
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		tls := l.client(t, conn)
		if _, err := io.ReadFull(tls, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		close(l.dir.revoked)
		l.end(t) // it is cut off before anything else is read
		rest, err := io.ReadAll(tls)
		if err == nil {
			t.Errorf("the whole secret arrived (%d bytes)", len(rest))
		}
		if err := l.dir.handedOut(t); err != errRevoked {
			t.Errorf("the registry heard %v", err)
		}
	})
}

// TestApproval: a client may wait for as long as an operator takes; one that
// hangs up meanwhile is noticed at once.
func TestApproval(t *testing.T) {
	wait := func(l *lab) chan error {
		ended := make(chan error, 1)
		l.dir.approve = func(ctx context.Context) error {
			select {
			case <-time.After(time.Hour):
				ended <- nil
				return nil
			case <-ctx.Done():
				ended <- context.Cause(ctx)
				return ctx.Err()
			}
		}
		return ended
	}
	t.Run("approved after an hour", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, func(l *lab) { wait(l) })
			got, err := l.fetch(t, l.pipes.dial("2001:db8::1"))
			if err != nil || string(got) != "the secret" {
				t.Errorf("got %q, %v", got, err)
			}
			l.end(t)
		})
	})
	for name, leave := range map[string]struct {
		how   func(*keytls.Conn)
		cause error
	}{
		"hangs up":           {func(c *keytls.Conn) { c.Close() }, errHungUp},
		"sends close_notify": {func(c *keytls.Conn) { c.CloseNotify() }, errHungUp},
		"speaks":             {func(c *keytls.Conn) { io.WriteString(c, "well?"); io.Copy(io.Discard, c) }, errSpoke},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended chan error
				l := newLab(t, func(l *lab) { ended = wait(l) })
				tls := l.client(t, l.pipes.dial("2001:db8::1"))
				if err := tls.Handshake(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // until it waits for approval
				start := time.Now()
				leave.how(tls)
				if cause := <-ended; !errors.Is(cause, leave.cause) {
					t.Errorf("Approve ended with %v, want %v", cause, leave.cause)
				}
				if d := time.Since(start); d > time.Second {
					t.Errorf("that took %v", d)
				}
				tls.Close()
				l.end(t)
				if len(l.dir.done) > 0 {
					t.Error("a secret was handed out")
				}
			})
		})
	}
}

// TestDeadlines: whatever a peer does or doesn't do, its time is limited.
func TestDeadlines(t *testing.T) {
	for name, tt := range map[string]struct {
		peer    func(t *testing.T, l *lab, conn net.Conn)
		wantLog string
	}{
		"silent": {func(t *testing.T, l *lab, conn net.Conn) {}, "no proper greeting: peer=[2001:db8::1]:1234 error=\"not done within 10s\""},
		"a byte a second": {func(t *testing.T, l *lab, conn net.Conn) {
			for range 20 {
				if _, err := io.WriteString(conn, " "); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, "no proper greeting"},
		"no handshake": {func(t *testing.T, l *lab, conn net.Conn) {
			io.WriteString(conn, "1\n")
			io.Copy(io.Discard, conn)
		}, "TLS handshake failed: peer=[2001:db8::1]:1234 error=\"not done within 10s\""},
		"reads nothing": {func(t *testing.T, l *lab, conn net.Conn) {
			io.WriteString(conn, "1\n")
		}, "TLS handshake failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil)
				conn := l.pipes.dial("2001:db8::1")
				start := time.Now()
				var peer sync.WaitGroup
				peer.Go(func() { tt.peer(t, l, conn) })
				synctest.Wait() // the session has begun
				l.sessions.Wait()
				if d := time.Since(start); d > 10*time.Second {
					t.Errorf("the session took %v", d)
				}
				conn.Close()
				peer.Wait()
				l.end(t)
				if !strings.Contains(l.log.String(), tt.wantLog) {
					t.Errorf("log has no %q: %s", tt.wantLog, l.log)
				}
				if len(l.dir.calls) > 0 {
					t.Errorf("the directory was asked %q", l.dir.calls)
				}
			})
		})
	}
	t.Run("takes a byte of its secret a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, func(l *lab) { l.dir.secret = make([]byte, 1<<20) })
			conn := l.pipes.dial("2001:db8::1")
			tls := l.client(t, conn)
			if err := tls.Handshake(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for {
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			if d := time.Since(start); d > 31*time.Second {
				t.Errorf("the session took %v", d)
			}
			conn.Close()
			l.end(t)
			if err := l.dir.handedOut(t); err == nil {
				t.Error("the registry thinks that the client has it")
			}
		})
	})
	t.Run("doesn't take its secret", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, func(l *lab) { l.dir.secret = make([]byte, 1<<20) })
			conn := l.pipes.dial("2001:db8::1")
			tls := l.client(t, conn)
			if err := tls.Handshake(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			l.sessions.Wait()
			if d := time.Since(start); d < 29*time.Second || d > 31*time.Second {
				t.Errorf("the session took %v", d)
			}
			conn.Close()
			l.end(t)
			if err := l.dir.handedOut(t); err == nil {
				t.Error("the registry thinks that the client has it")
			}
		})
	})
}

// TestBadGreetings: not a byte is sent in answer.
func TestBadGreetings(t *testing.T) {
	for _, greeting := range []string{"2\n", "GET / HTTP/1.0\r\n", "\n", "1\n1\n"} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, nil)
			conn := l.pipes.dial("2001:db8::1")
			if _, err := io.WriteString(conn, greeting); err != nil {
				t.Fatal(err)
			}
			if answer, _ := io.ReadAll(conn); len(answer) > 0 {
				t.Errorf("%q is answered with %q", greeting, answer)
			}
			l.end(t)
			if !strings.Contains(l.log.String(), "WARNING: a peer sent no proper greeting") {
				t.Errorf("logged: %s", l.log)
			}
		})
	}
}

// TestStop: sessions that are open when the server is told to stop have five
// seconds, and no more.
func TestStop(t *testing.T) {
	for name, tt := range map[string]struct {
		approval time.Duration
		want     string
	}{
		"soon done":    {4 * time.Second, "the secret"},
		"takes longer": {6 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, func(l *lab) {
					l.dir.approve = func(ctx context.Context) error {
						select {
						case <-time.After(tt.approval):
							return nil
						case <-ctx.Done():
							return ctx.Err()
						}
					}
				})
				silent := l.pipes.dial("2001:db8::2")
				tls := l.client(t, l.pipes.dial("2001:db8::1"))
				if err := tls.Handshake(); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				l.stop()
				got, err := io.ReadAll(tls)
				if string(got) != tt.want || tt.want != "" && err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				tls.CloseNotify()
				silent.Close()
				if err := <-l.ended; err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("stopping took %v", d)
				}
			})
		})
	}
}

// A crashingReader crashes when it is read from after the handshake.
type crashingReader struct{ TLS }

func (crashingReader) Read([]byte) (int, error) { panic("at the disco") }

// TestCrash: a session that crashes harms no other, even while it waits for
// approval.
func TestCrash(t *testing.T) {
	for name, approve := range map[string]func(context.Context) error{
		"at once": func(context.Context) error { panic("at the disco") },
		"while it waits": func(ctx context.Context) error {
			<-ctx.Done() // listens to the client
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, func(l *lab) {
					l.Server.TLS = func(c net.Conn) TLS { return crashingReader{keytls.Client(c, &keytls.Config{})} }
					l.dir.approve = func(ctx context.Context) error {
						if len(l.dir.calls) == 2 {
							return approve(ctx)
						}
						return nil
					}
				})
				if got, err := l.fetch(t, l.pipes.dial("2001:db8::1")); err == nil || len(got) > 0 {
					t.Errorf("got %q, %v", got, err)
				}
				if got, err := l.fetch(t, l.pipes.dial("2001:db8::1")); err != nil || string(got) != "the secret" {
					t.Errorf("got %q, %v", got, err)
				}
				l.end(t)
				if !strings.Contains(l.log.String(), "CRITICAL: a session crashed") {
					t.Errorf("logged: %s", l.log)
				}
			})
		})
	}
}

// TestAcceptErrors: the loop goes on after an error that may pass.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.pipes.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		got, err := l.fetch(t, l.pipes.dial("2001:db8::1"))
		if err != nil || string(got) != "the secret" {
			t.Errorf("got %q, %v", got, err)
		}
		l.end(t)
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		l.pipes.Close()
		if err := <-l.ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v, want that the listener is closed", err)
		}
	})
}

func TestPing(t *testing.T) {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, nil, listener)
	for range 3 {
		if err := l.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Pings don't get in the way of connections.
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.fetch(t, conn); err != nil || string(got) != "the secret" {
		t.Errorf("got %q, %v", got, err)
	}
	l.end(t)

	// A loop that is stuck: it never takes the lock.
	stuck := &Server{loops: []*loop{{listener: listener}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := stuck.Ping(ctx); err == nil {
		t.Error("a loop that doesn't run answers")
	}
}
