package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/keytls"
	"mandos/internal/testenv"
)

// TestEviction: with all places taken by silent peers, a client gets in, and
// that costs one of them its place.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(l *lab) { l.MaxUnproved = 3 })
		var silent []net.Conn
		for _, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			silent = append(silent, l.pipes.dial(addr))
		}
		start := time.Now()
		got, err := l.fetch(t, l.pipes.dial("fe80::1%eth0"))
		if err != nil || string(got) != "the secret" {
			t.Errorf("got %q, %v", got, err)
		}
		if took := time.Since(start); took > 2*patience {
			t.Errorf("that took %v", took)
		}
		synctest.Wait()
		if n := strings.Count(l.log.String(), "cut off a session to make room for another: peer=192.0.2."); n != 1 {
			t.Errorf("%d are cut off: %s", n, l.log)
		}
		for _, c := range silent {
			c.Close()
		}
		l.end(t)
		if n := l.table.unproved.len + l.table.proved.len + l.table.waiting.len; n != 0 {
			t.Errorf("%d sessions are still counted", n)
		}
	})
}

// TestFullOfClients: a client that waits is never cut off for one that comes.
func TestFullOfClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		approved := make(chan struct{})
		l := newLab(t, func(l *lab) {
			l.MaxProved = 1
			l.dir.approve = func(ctx context.Context) error { return await(ctx, approved) }
		})
		first := l.client(t, l.pipes.dial("fe80::1%eth0"))
		if err := first.Handshake(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, err := l.fetch(t, l.pipes.dial("fe80::2%eth0")); err == nil || len(got) > 0 {
			t.Errorf("the newcomer isn't turned away: %q", got)
		}
		close(approved)
		if got, err := io.ReadAll(first); err != nil || string(got) != "the secret" {
			t.Errorf("got %q, %v", got, err)
		}
		first.CloseNotify()
		l.end(t)
		if !strings.Contains(l.log.String(), "turned a connection away") {
			t.Errorf("logged: %s", l.log)
		}
		if len(l.dir.done) != 1 {
			t.Errorf("%d secrets were handed out", len(l.dir.done))
		}
	})
}

// TestSlowHandouts: hosts that boot at once aren't turned away because their
// handshakes are faster than the journal, without which no secret leaves.
func TestSlowHandouts(t *testing.T) {
	for name, addr := range map[string]string{"one source": "fe80::1%eth0", "many": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const hosts, places = 40, 4
				journal := make(chan struct{})
				l := newLab(t, func(l *lab) {
					l.MaxUnproved, l.MaxProved = places, 3*places
					l.dir.release = func() error { <-journal; return nil }
				})
				var all sync.WaitGroup
				for i := range hosts {
					all.Go(func() {
						conn := l.pipes.dial(cmp.Or(addr, fmt.Sprintf("192.0.2.%d", i)))
						if got, err := l.fetch(t, conn); err != nil || string(got) != "the secret" {
							t.Errorf("got %q, %v", got, err)
						}
					})
				}
				time.Sleep(2 * patience)
				l.mu.Lock()
				if n := l.table.unproved.len + l.table.proved.len; n > places {
					t.Errorf("%d sessions are under way, want at most %d", n, places)
				}
				l.mu.Unlock()
				close(journal)
				all.Wait()
				l.end(t)
				if n := l.table.unproved.lent; n != 0 {
					t.Errorf("%d places are still taken", n)
				}
			})
		})
	}
}

// TestWaitingForApproval: clients that wait for an operator keep nobody else
// waiting.
func TestWaitingForApproval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		approved, asked := make(chan struct{}), false
		l := newLab(t, func(l *lab) {
			l.MaxUnproved = 1
			l.dir.approve = func(ctx context.Context) error {
				if asked {
					return nil
				}
				asked = true
				select {
				case <-approved:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		first := l.client(t, l.pipes.dial("2001:db8::1"))
		if err := first.Handshake(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, err := l.fetch(t, l.pipes.dial("2001:db8::1")); err != nil || string(got) != "the secret" {
			t.Errorf("who doesn't wait got %q, %v", got, err)
		}
		close(approved)
		if got, err := io.ReadAll(first); err != nil || string(got) != "the secret" {
			t.Errorf("who waited got %q, %v", got, err)
		}
		first.CloseNotify()
		l.end(t)
	})
}

// TestStaleSessions: the sessions of one client that wait for approval, or for
// a peer that doesn't take its secret, are limited; the newest count.
func TestStaleSessions(t *testing.T) {
	for name, change := range map[string]func(*lab){
		"waiting for approval": func(l *lab) {
			l.dir.approve = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		},
		"not reading": func(l *lab) { l.dir.secret = make([]byte, 1<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, func(l *lab) {
					l.WriteTimeout = time.Hour
					change(l)
				})
				var conns []*keytls.Conn
				for range maxPerClient + 3 {
					c := l.client(t, l.pipes.dial("2001:db8::1"))
					if err := c.Handshake(); err != nil {
						t.Fatal(err)
					}
					conns = append(conns, c)
					time.Sleep(patience)
				}
				l.mu.Lock()
				open := l.table.proved.len
				l.mu.Unlock()
				if open != maxPerClient {
					t.Errorf("%d sessions are open, want %d", open, maxPerClient)
				}
				for i, c := range conns {
					_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
					_, err := io.Copy(io.Discard, c)
					if open := errors.Is(err, os.ErrDeadlineExceeded) || err == nil; open != (i >= 3) {
						t.Errorf("session %d is open: %v (%v)", i, open, err)
					}
					c.Close()
				}
				l.end(t)
				if n := l.table.proved.len; n != 0 {
					t.Errorf("%d sessions are still counted", n)
				}
			})
		})
	}
}

// TestSlowServer: hosts that boot at once aren't cut off because the server
// can't keep up with them.
func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts = 40
		processor := make(chan struct{}, 1) // there is one, and a handshake takes it for a second
		l := newLab(t, func(l *lab) {
			l.MaxUnproved = 8
			l.HandshakeTimeout = time.Hour
			inner := l.Server.TLS
			l.Server.TLS = func(c net.Conn) TLS { return slowTLS{inner(c), processor} }
		})
		var served atomic.Int32
		var all sync.WaitGroup
		for range hosts {
			all.Go(func() {
				if got, err := l.fetch(t, l.pipes.dial("fe80::1%eth0")); err != nil || string(got) != "the secret" {
					t.Errorf("got %q, %v", got, err)
					return
				}
				served.Add(1)
			})
		}
		all.Wait()
		if n := served.Load(); n != hosts {
			t.Errorf("%d of %d hosts are served", n, hosts)
		}
		l.end(t)
	})
}

// slowTLS takes a second of processor for its handshake.
type slowTLS struct {
	TLS
	processor chan struct{}
}

func (s slowTLS) Handshake() error {
	s.processor <- struct{}{}
	time.Sleep(time.Second)
	<-s.processor
	return s.TLS.Handshake()
}

// TestHostilePeers: a peer that sends nonsense is cut off after a little of it,
// however fast it comes.
func TestHostilePeers(t *testing.T) {
	record := func(content byte, body ...byte) []byte {
		return append([]byte{content, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	const handshake, changeCipherSpec, alert = 22, 20, 21
	random := rand.New(rand.NewPCG(1, 2))
	// Each function returns the n-th piece of an endless stream.
	for name, tt := range map[string]struct {
		say  func(n int) []byte
		most int // bytes that the server takes
	}{
		"noise": {func(int) []byte { return []byte{byte(random.Uint32())} }, 100},
		"text":  {func(int) []byte { return []byte("GET / HTTP/1.0\r\n") }, 100},
		"a record that is too long": {func(n int) []byte {
			if n == 0 {
				return []byte{handshake, 3, 3, 0xff, 0xff}
			}
			return make([]byte, 1000)
		}, 2000},
		"a message that is too long": {func(n int) []byte {
			if n == 0 {
				return record(handshake, 2, 0xff, 0xff, 0xff)
			}
			return record(handshake, make([]byte, 1000)...)
		}, 4000},
		"a message in records of a byte": {func(n int) []byte {
			return record(handshake, []byte{2, 0, 0x40, 0, 0}[min(n, 4)])
		}, 6 * (1<<14 + 10)},
		"empty records":      {func(int) []byte { return record(handshake) }, 1000},
		"ChangeCipherSpecs":  {func(int) []byte { return record(changeCipherSpec, 1) }, 1000},
		"warnings":           {func(int) []byte { return record(alert, 1, 90) }, 1000},
		"data before a key":  {func(int) []byte { return record(23, make([]byte, 1000)...) }, 4000},
		"its own hello back": {func(int) []byte { return record(handshake, 1, 0, 0, 1, 0) }, 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, nil)
				conn := l.pipes.dial("2001:db8::1")
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				if _, err := io.WriteString(conn, "1\r\n"); err != nil {
					t.Fatal(err)
				}
				start, said := time.Now(), 0
				for i := 0; ; i++ {
					n, err := conn.Write(tt.say(i))
					if said += n; err != nil {
						break
					}
				}
				if took := time.Since(start); took > 0 {
					t.Errorf("it is cut off after %v", took)
				}
				if said > tt.most {
					t.Errorf("it is cut off after %d bytes, want at most %d", said, tt.most)
				}
				conn.Close()
				l.end(t)
				if len(l.dir.calls) > 0 {
					t.Errorf("the directory was asked %q", l.dir.calls)
				}
				if !strings.Contains(l.log.String(), "a TLS handshake failed") {
					t.Errorf("logged: %s", l.log)
				}
			})
		})
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held at the first
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// fewCores keeps small what a test of memory measures beside what it should:
// each core of a machine has some memory for itself.
func fewCores(t *testing.T) {
	before := runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// raced tells whether the race detector is in this program: the stack of a
// handshake is twice as large then.
var raced = sync.OnceValue(func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
})

// needFiles ends a test that opens more descriptors than this process may.
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n += 50 // for all else
	// Go has raised it to the hard limit.
	testenv.Need(t, limit.Cur >= n, fmt.Sprintf("%d descriptors, and has %d (ulimit -Hn)", n, limit.Cur))
}

// TestIdleConnections: peers that connect and send nothing cost little, those
// in line even less, and never more than the limits allow. SECURITY.md says how
// much, for these and for the peers of the next two tests; the tests allow a
// little more, as the measurement isn't exact.
func TestIdleConnections(t *testing.T) {
	fewCores(t)
	const served, waiting = 400, 1600
	needFiles(t, 2*(served+waiting)) // both ends of each connection are here
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, func(l *lab) {
		l.MaxUnproved, l.MaxWaiting = 2*served, waiting*(lineGreed+1)/lineGreed
		l.HandshakeTimeout, l.patience = time.Hour, time.Hour
	}, listener)
	if err := l.Ping(t.Context()); err != nil { // it has begun
		t.Fatal(err)
	}
	var conns []net.Conn
	each := func(n int) uint64 {
		before := inUse()
		for range n {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			conns = append(conns, conn)
		}
		for {
			l.mu.Lock()
			known := l.table.unproved.len + l.table.waiting.len
			l.mu.Unlock()
			if known == len(conns) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		return (max(inUse(), before) - before) / uint64(n)
	}
	// The clients' ends are in here too.
	if size := each(served); size > 16<<10 {
		t.Errorf("an idle session takes %d bytes, want at most 16 KiB", size)
	} else {
		t.Logf("an idle session takes %d bytes", size)
	}
	if size := each(waiting); size > 2<<10 {
		t.Errorf("an idle connection in line takes %d bytes, want at most 2 KiB", size)
	} else {
		t.Logf("an idle connection in line takes %d bytes", size)
	}
	l.mu.Lock()
	if l.table.unproved.len != served || l.table.waiting.len != waiting {
		t.Errorf("%d are served and %d wait, want %d and %d", l.table.unproved.len, l.table.waiting.len, served, waiting)
	}
	l.mu.Unlock()
	// One too many.
	if conn, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("one too many isn't turned away")
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
	l.end(t)
}

// TestHalfHandshakes: a peer that sends all but the end of the longest
// handshake message that is accepted costs a bounded amount of memory.
func TestHalfHandshakes(t *testing.T) {
	fewCores(t)
	synctest.Test(t, func(t *testing.T) {
		const peers = 100
		l := newLab(t, func(l *lab) { l.MaxUnproved = 2 * peers })
		var before uint64
		var conns []net.Conn
		for i := range 1 + peers {
			if i == 1 { // what is made once is made
				synctest.Wait()
				before = inUse()
			}
			conn := l.pipes.dial("2001:db8::1")
			conns = append(conns, conn)
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			message := append([]byte{11, 0, 0xff, 0xff}, make([]byte, 0xfff0)...) // a Certificate
			if _, err := io.WriteString(conn, "1\r\n"); err != nil {
				t.Fatal(err)
			}
			for part := range slices.Chunk(message, 1<<14) {
				header := []byte{22, 3, 3, byte(len(part) >> 8), byte(len(part))}
				if _, err := conn.Write(append(header, part...)); err != nil {
					t.Fatal(err)
				}
			}
		}
		synctest.Wait()
		each := (max(inUse(), before) - before) / peers
		if raced() {
			each -= 10 << 10 // its stack, once more
		}
		t.Logf("half a handshake takes %d bytes", each)
		if each > 132<<10 {
			t.Errorf("half a handshake takes %d bytes, want at most 132 KiB", each)
		}
		for _, conn := range conns {
			conn.Close()
		}
		l.end(t)
	})
}

// TestWaitingMemory: a client that waits for approval, with all of its TLS
// connection, costs less than 12 KiB.
func TestWaitingMemory(t *testing.T) {
	fewCores(t)
	const clients = 300
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Add(clients)
	approved := make(chan struct{})
	l := newLab(t, func(l *lab) {
		l.patience = time.Hour // the clients have one name here
		l.dir.approve = func(ctx context.Context) error {
			ctx.Done() // who waits has the client watched
			waiting.Done()
			<-approved
			return nil
		}
	}, listener)
	before := inUse()
	conns := make([]*keytls.Conn, clients)
	for i := range conns {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = l.client(t, conn)
		if err := conns[i].Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	waiting.Wait()
	// Both ends are in this process.
	each := (max(inUse(), before) - before) / (2 * clients)
	t.Logf("a waiting session takes %d bytes", each)
	if each > 12<<10 {
		t.Errorf("a waiting session takes %d bytes, want at most 12 KiB", each)
	}
	for _, c := range conns {
		c.Close()
	}
	close(approved)
	l.end(t)
	if got := len(l.dir.done); got != clients {
		t.Errorf("Done was called %d times for %d hand-outs", got, clients)
	}
}

// await waits until c is closed, like a Directory that asks an operator.
func await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
