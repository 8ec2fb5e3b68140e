// Package fetchtest is a Mandos server for tests of mandos-client: it does
// what the test tells it, wrong things included.
package fetchtest

import (
	"bufio"
	"net"
	"sync"
	"testing"
	"time"

	"mandos/internal/keyid"
	"mandos/internal/keytls"
)

// A Session is one client's connection after a handshake.
type Session struct {
	*keytls.Conn
	N        int           // how many sessions there were before
	Greeting string        // the line that the client sent
	KeyID    keyid.KeyID   // what the client proved
	TCP      *net.TCPConn  // below TLS
	Stop     chan struct{} // closed at the test's end
}

// Serve answers clients on an unused port of the loopback until the test
// ends. handle runs for each in turn; the connection is closed after it,
// without close_notify.
func Serve(t testing.TB, handle func(*Session)) (addr string) {
	t.Helper()
	return Raw(t, func(n int, tcp *net.TCPConn, stop chan struct{}) {
		_ = tcp.SetDeadline(time.Now().Add(30 * time.Second))
		// What follows the line belongs to TLS; a client sends nothing
		// before it has been answered.
		line, err := bufio.NewReaderSize(tcp, 16).ReadString('\n')
		if err != nil {
			t.Errorf("reading the greeting: %v", err)
			return
		}
		conn := keytls.Client(tcp, &keytls.Config{})
		if err := conn.Handshake(); err != nil {
			t.Errorf("handshake with the client: %v", err)
			return
		}
		handle(&Session{conn, n, line, conn.PeerIdentity().KeyID, tcp, stop})
	})
}

// Raw is like Serve, without greeting and TLS.
func Raw(t testing.TB, handle func(n int, tcp *net.TCPConn, stop chan struct{})) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				handle(n, conn.(*net.TCPConn), stop)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(stop)
		all.Wait()
	})
	return l.Addr().String()
}

// Give sends secret and takes leave as a Mandos server does.
func (s *Session) Give(secret []byte) {
	_, _ = s.Write(secret)
	_ = s.CloseWrite()
	var b [1]byte
	_, _ = s.Read(b[:]) // the client's close_notify
}
