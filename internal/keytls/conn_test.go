package keytls

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/keytls/wire"
)

// goodSession runs f in a bubble, with a client and a puppet that have shaken
// hands.
func goodSession(t *testing.T, f func(c *Conn, p *puppet)) {
	t.Helper()
	testKey("Ed25519") // outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := Client(ours, &Config{})
		p := newPuppet(t, theirs)
		done := make(chan error)
		go func() { done <- c.Handshake() }()
		p.handshake()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		f(c, p)
		c.Close()
		theirs.Close()
	})
}

func TestCloseNotify(t *testing.T) {
	t.Run("answered", func(t *testing.T) {
		goodSession(t, func(c *Conn, p *puppet) {
			start := time.Now()
			go func() {
				if typ, b, err := p.next(); typ != wire.TypeAlert || !bytes.Equal(b, []byte{1, 0}) {
					t.Errorf("got %v, %x, %v", typ, b, err)
				}
				p.send(wire.TypeApplicationData, []byte("this is thrown away"))
				p.send(wire.TypeAlert, []byte{1, 0})
			}()
			if err := c.CloseNotify(); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != 0 {
				t.Errorf("it took %v", d)
			}
		})
	})
	t.Run("not answered", func(t *testing.T) {
		goodSession(t, func(c *Conn, p *puppet) {
			start := time.Now()
			if err := c.CloseNotify(); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != time.Second {
				t.Errorf("it took %v", d)
			}
			p.drain() // ends, as the transport is closed
			if len(p.alerts) != 1 || p.alerts[0] != wire.CloseNotify {
				t.Errorf("it sent %v", p.alerts)
			}
		})
	})
	t.Run("not answered, deadline near", func(t *testing.T) {
		goodSession(t, func(c *Conn, p *puppet) {
			start := time.Now()
			if err := c.SetDeadline(start.Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseNotify(); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != 100*time.Millisecond {
				t.Errorf("it took %v", d)
			}
		})
	})
	t.Run("answered without end", func(t *testing.T) {
		goodSession(t, func(c *Conn, p *puppet) {
			start := time.Now()
			go func() {
				for time.Since(start) < 3*time.Second {
					p.send(wire.TypeApplicationData, []byte("more"))
					time.Sleep(10 * time.Millisecond)
				}
			}()
			if err := c.CloseNotify(); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != time.Second {
				t.Errorf("it took %v", d)
			}
			time.Sleep(3 * time.Second)
		})
	})
	t.Run("while another goroutine reads", func(t *testing.T) {
		goodSession(t, func(c *Conn, p *puppet) {
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the read ended with %v", err)
				}
			})
			synctest.Wait()
			if err := c.CloseNotify(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			if d := time.Since(start); d != time.Second {
				t.Errorf("it took %v", d)
			}
		})
	})
	t.Run("the transport is gone", func(t *testing.T) {
		goodSession(t, func(c *Conn, p *puppet) {
			p.conn.Close()
			if err := c.CloseNotify(); err == nil {
				t.Error("close_notify was sent into the void")
			}
		})
	})
	t.Run("before the handshake", func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		if err := Client(a, &Config{}).CloseNotify(); err == nil {
			t.Error("there was something to close")
		}
	})
}

func TestNothingAfterClose(t *testing.T) {
	goodSession(t, func(c *Conn, p *puppet) {
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("late")); err == nil {
			t.Error("a write after close_notify succeeded")
		}
		if err := c.CloseWrite(); err != nil {
			t.Errorf("a second CloseWrite: %v", err)
		}
		// The other direction goes on.
		go p.send(wire.TypeApplicationData, []byte("x"))
		if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		c.Close()
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a read after Close: %v", err)
		}
	})
}

// TestCloseEndsWaits closes while one goroutine reads and another writes to a
// peer that reads nothing: this is how a client that is disabled is cut off.
func TestCloseEndsWaits(t *testing.T) {
	for name, handshaken := range map[string]bool{"in the handshake": false, "after it": true} {
		t.Run(name, func(t *testing.T) {
			testKey("Ed25519") // outside of the bubble
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				c := Client(ours, &Config{})
				var wg sync.WaitGroup
				if handshaken {
					wg.Go(func() {
						if err := c.Handshake(); err != nil {
							t.Error(err)
						}
					})
					// ClientHello, ChangeCipherSpec, Finished.
					newPuppetThatTakes(t, theirs, 3).handshake()
					wg.Wait()
				}
				wg.Go(func() {
					if _, err := c.Read(make([]byte, 1)); err == nil {
						t.Error("the read succeeded")
					}
				})
				wg.Go(func() {
					if _, err := c.Write(make([]byte, 1<<20)); err == nil {
						t.Error("the write succeeded")
					}
				})
				synctest.Wait()
				c.Close()
				wg.Wait()
			})
		})
	}
}

// TestReadGoesOnAfterTimeout lets a deadline cut a record in two.
func TestReadGoesOnAfterTimeout(t *testing.T) {
	goodSession(t, func(c *Conn, p *puppet) {
		record, err := p.out.Seal(nil, wire.TypeApplicationData, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		go p.raw(record[:7]...)
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the read ended with %v", err)
		}
		_ = c.SetReadDeadline(time.Time{})
		go p.raw(record[7:]...)
		b := make([]byte, 10)
		if n, err := c.Read(b); err != nil || string(b[:n]) != "x" {
			t.Errorf("got %q, %v", b[:n], err)
		}
	})
}

// countingConn counts the writes to a transport.
type countingConn struct {
	net.Conn
	writes int
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes++
	return c.Conn.Write(b)
}

// TestOneWritePerFlight counts what each side writes to the transport: two
// writes where one would do cost a delayed ACK with Nagle's algorithm.
func TestOneWritePerFlight(t *testing.T) {
	for name, tt := range map[string]struct {
		groups         []wire.Group
		client, server int
	}{
		"one round trip":      {nil, 2, 1},
		"a HelloRetryRequest": {[]wire.Group{wire.P384}, 3, 2},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := transports(t)
			x, y := &countingConn{Conn: a}, &countingConn{Conn: b}
			client := Client(x, &Config{Policy: Policy{Groups: []wire.Group{wire.X25519, wire.P384}}})
			server := Server(y, &Config{Key: testKey("RSA 2048"), Policy: Policy{Groups: tt.groups}})
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := server.Handshake(); err != nil {
					t.Error(err)
				}
			})
			if err := client.Handshake(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			if x.writes != tt.client || y.writes != tt.server {
				t.Errorf("the client wrote %d times, the server %d times, want %d and %d", x.writes, y.writes, tt.client, tt.server)
			}
		})
	}
}

// TestRedacted prints connections and configurations in every way, before,
// within and after use, and looks for the private key and the traffic secrets.
func TestRedacted(t *testing.T) {
	key := testKey("Ed25519").(ed25519.PrivateKey)
	cfg := &Config{Key: key}
	a, b := transports(t)
	client, server := Client(a, &Config{}), Server(b, cfg)
	var out strings.Builder
	show := func() {
		type holder struct {
			Conn   *Conn
			Config *Config
			Value  Config
			conn   *Conn
		}
		for _, c := range []*Conn{client, server} {
			h := holder{c, cfg, *cfg, c}
			for _, v := range []any{c, cfg, *cfg, h, &h} {
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
					fmt.Fprintf(&out, verb+"\n", v)
				}
				slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
				slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
			}
		}
	}
	show()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Handshake(); err != nil {
			t.Error(err)
		}
	})
	if err := client.Handshake(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	show()
	for what, secret := range map[string][]byte{"private key": key.Seed()} {
		for _, form := range []string{string(secret[:8]), fmt.Sprintf("%x", secret[:8]), fmt.Sprintf("%X", secret[:8]),
			strings.Trim(fmt.Sprint(secret[:5]), "[]"), strings.Join(strings.Fields(strings.Trim(fmt.Sprint(secret[:5]), "[]")), ",")} {
			if strings.Contains(out.String(), form) {
				t.Errorf("the %s is printed, as %q", what, form)
			}
		}
	}
}

// TestUnusable starts handshakes that can't succeed because something is
// missing on this side: an error says what, and nothing panics.
func TestUnusable(t *testing.T) {
	if err := Client(nil, &Config{Policy: Policy{Suites: []wire.Suite{}}}).clientHandshake(); err == nil || !strings.Contains(err.Error(), "the policy leaves no") {
		t.Errorf("no suite: %v", err)
	}
	if err := Client(nil, &Config{Policy: Policy{KeyShares: []wire.Group{0x1E}}}).clientHandshake(); err == nil || !strings.Contains(err.Error(), "not a group that is known") {
		t.Errorf("an unknown group: %v", err)
	}
	o := against(t, serverSide(&Config{}), func(p *puppet) { m, _ := p.offer(); p.say(must(m.Marshal())) })
	if o.err == nil || !strings.Contains(o.err.Error(), "no key to authenticate with") || len(o.alerts) != 1 || o.alerts[0] != wire.InternalError {
		t.Errorf("no key: %v, alerts %v", o.err, o.alerts)
	}
}
