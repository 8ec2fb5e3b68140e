package server

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"

	"mandos/internal/keytls"
)

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
