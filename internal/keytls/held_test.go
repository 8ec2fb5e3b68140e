package keytls

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"mandos/internal/keytls/wire"
)

// writeCounter counts the writes to a transport.
type writeCounter struct {
	net.Conn
	n int
}

func (c *writeCounter) Write(b []byte) (int, error) {
	c.n++
	return c.Conn.Write(b)
}

// TestWriteLast checks that a secret of several sizes, with and without
// HoldFinished, arrives whole and is followed by close_notify, in as few writes
// as possible.
func TestWriteLast(t *testing.T) {
	for _, hold := range []bool{false, true} {
		for size, writes := range map[int]int{0: 2, 1190: 2, wire.MaxPlaintext: 2, 300_000: -1} {
			a, b := transports(t)
			counter := &writeCounter{Conn: a}
			client := Client(counter, &Config{HoldFinished: hold})
			server := Server(b, &Config{Key: testKey("Ed25519"), Policy: Policy{Groups: []wire.Group{wire.X25519}}})
			secret := bytes.Repeat([]byte{7}, size)
			sent := make(chan error, 1)
			go func() {
				err := client.WriteLast(secret)
				if _, e := client.Write(secret); e == nil {
					err = errors.Join(err, errors.New("something was written after close_notify"))
				}
				sent <- err
			}()
			got, err := io.ReadAll(server)
			if err != nil || !bytes.Equal(got, secret) {
				t.Errorf("hold %v: got %d bytes (%v), want %d", hold, len(got), err, size)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			if want := writes + 1; !hold && writes > 0 && counter.n != want {
				t.Errorf("%d bytes: %d writes, want %d", size, counter.n, want)
			}
			if hold && writes > 0 && counter.n != writes {
				t.Errorf("%d bytes, Finished held: %d writes, want %d", size, counter.n, writes)
			}
		}
	}
}

// TestHeldFinished: whatever the TLS client does next, or if it refuses, the
// server learns that the handshake is over.
func TestHeldFinished(t *testing.T) {
	for name, next := range map[string]func(*Conn) error{
		"reads":        func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"writes":       func(c *Conn) error { _, err := c.Write([]byte("x")); return err },
		"closes":       (*Conn).CloseWrite,
		"closes whole": (*Conn).CloseNotify,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := transports(t)
			counter := &writeCounter{Conn: a}
			client := Client(counter, &Config{HoldFinished: true})
			server := Server(b, &Config{Key: testKey("Ed25519"), Policy: Policy{Groups: []wire.Group{wire.X25519}}})
			over := make(chan error, 1)
			go func() {
				err := server.Handshake()
				if err == nil {
					_, err = server.Write([]byte("x")) // ends Read
				}
				over <- err
			}()
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			if counter.n != 1 { // the ClientHello
				t.Errorf("%d writes before the client did anything, want 1", counter.n)
			}
			if err := next(client); err != nil {
				t.Error(err)
			}
			if err := <-over; err != nil {
				t.Error(err)
			}
		})
	}
}
