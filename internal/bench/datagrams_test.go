package bench_test

import (
	"bytes"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// datagrams are what a server writes to a socket of the service manager.
type datagrams struct {
	count atomic.Int64
	ready chan struct{} // closed after READY=1
}

// receive takes what comes at path until the test ends.
func receive(t *testing.T, path string) *datagrams {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	d := &datagrams{ready: make(chan struct{})}
	var reader sync.WaitGroup
	reader.Go(func() {
		var once sync.Once
		b := make([]byte, 1<<16)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			d.count.Add(1)
			if bytes.Contains(b[:n], []byte("READY=1")) {
				once.Do(func() { close(d.ready) })
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		reader.Wait()
	})
	return d
}
