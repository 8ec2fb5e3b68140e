package server

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/keytls"
)

// TestEviction: with all sessions taken by silent peers, a client gets in.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(l *lab) { l.MaxSessions, l.MaxPerSource = 3, 2 })
		var silent []net.Conn
		for _, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			silent = append(silent, l.pipes.dial(addr))
		}
		got, err := l.fetch(t, l.pipes.dial("fe80::1%eth0"))
		if err != nil || string(got) != "the secret" {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := silent[0].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the oldest session is not cut off: %v", err)
		}
		synctest.Wait()
		if !strings.Contains(l.log.String(), "cut off a session to make room for another: peer=192.0.2.1:1234") {
			t.Errorf("logged: %s", l.log)
		}
		for _, c := range silent {
			c.Close()
		}
		l.end(t)
		if l.table.open != 0 {
			t.Errorf("%d sessions are still counted", l.table.open)
		}
	})
}

// TestFullOfClients: proved clients are never cut off for newcomers.
func TestFullOfClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		approved := make(chan struct{})
		l := newLab(t, func(l *lab) {
			l.MaxSessions = 1
			l.dir.approve = func(context.Context) error { <-approved; return nil }
		})
		first := l.client(t, l.pipes.dial("fe80::1%eth0"))
		if err := first.Handshake(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		second := l.pipes.dial("fe80::2%eth0")
		if _, err := second.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the newcomer isn't turned away: %v", err)
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
	})
}

// TestIdleConnections: peers that connect and say nothing cost little, and
// not more than the limit allows, however many they are.
func TestIdleConnections(t *testing.T) {
	const limit, peers = 1000, 5000
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, func(l *lab) {
		l.MaxSessions, l.MaxPerSource = limit, limit
		l.HandshakeTimeout = time.Hour
	}, listener)
	if err := l.Ping(t.Context()); err != nil { // it has begun
		t.Fatal(err)
	}
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := inUse()
	conns := make([]net.Conn, 0, peers)
	for range peers {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	// When the first of those that stay is still open, and all before it are
	// closed, the server has seen all.
	for _, conn := range conns[:peers-limit] {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("an old session is open: %v", err)
		}
	}
	l.mu.Lock()
	open := l.table.open
	l.mu.Unlock()
	if open != limit {
		t.Errorf("%d sessions are open, want %d", open, limit)
	}
	// The clients' ends are in here too.
	if each := (inUse() - min(before, inUse())) / limit; each > 32<<10 {
		t.Errorf("an idle session takes %d bytes, want at most 32 KiB", each)
	} else {
		t.Logf("an idle session takes %d bytes", each)
	}
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.fetch(t, conn); err != nil || string(got) != "the secret" {
		t.Errorf("a client among them got %q, %v", got, err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	l.end(t)
}

// TestWaitingMemory: a client that waits for approval, with all of its TLS
// connection, costs less than 32 KiB.
func TestWaitingMemory(t *testing.T) {
	const clients = 300
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Add(clients)
	approved := make(chan struct{})
	l := newLab(t, func(l *lab) {
		l.dir.approve = func(context.Context) error {
			waiting.Done()
			<-approved
			return nil
		}
	}, listener)
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
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
	if each > 32<<10 {
		t.Errorf("a waiting session takes %d bytes, want at most 32 KiB", each)
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
