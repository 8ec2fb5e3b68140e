package interop

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
)

// A relay stands between client and server, and tells of each connection that
// ended how many bytes the server has sent.
type relay struct {
	addr  string
	ended chan int64
}

func newRelay(t *testing.T, server string) *relay {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &relay{addr: l.Addr().String(), ended: make(chan int64, 1000)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp6", server)
			if err != nil {
				c.Close()
				continue
			}
			go func() {
				io.Copy(s, c)
				s.(*net.TCPConn).CloseWrite()
			}()
			go func() {
				n, _ := io.Copy(c, s)
				c.Close()
				s.Close()
				r.ended <- n
			}()
		}
	}()
	return r
}

// TestStranger asks each server with keys that aren't in clients.conf.
func TestStranger(t *testing.T) {
	all := programs(t)
	password := make([]byte, 64<<10) // random, as secrets are compressed
	rand.Read(password)
	for serverName, server := range all {
		for clientName, client := range all {
			t.Run("server="+serverName+"/client="+clientName, func(t *testing.T) {
				t.Parallel()
				known, stranger := client.Keygen(t, "ed25519"), client.Keygen(t, "ed25519")
				section := client.Section(t, known, "known", password)
				r := newRelay(t, server.Server(t, section))

				// The known client's password passes the relay, so what the
				// stranger doesn't get would have been seen.
				got := client.Client(t, known, r.addr).Password(t)
				if !bytes.Equal(got, password) {
					t.Fatalf("known client got %q", abbreviate(got))
				}
				if n := <-r.ended; n < int64(len(password)) {
					t.Fatalf("server sent only %d bytes to the known client", n)
				}

				c := client.Client(t, stranger, r.addr)
				// It asks again and again, as it doesn't know of clients.conf.
				for range 2 {
					if n := <-r.ended; n == 0 || n > 4<<10 {
						t.Errorf("server sent %d bytes to the stranger in a handshake and no secret", n)
					}
				}
				if got := c.Kill(t); len(got) != 0 {
					t.Errorf("stranger printed %q", abbreviate(got))
				}
			})
		}
	}
}
