package bench_test

import (
	"bytes"
	"net"
	"os"
	"sync"
	"testing"
)

// awaitReady listens where a server tells the service manager of itself,
// until the test ends. What it returns is closed when the server is ready.
func awaitReady(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		var once sync.Once
		b := make([]byte, 1<<16)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			if bytes.Contains(b[:n], []byte("READY=1")) {
				once.Do(func() { close(ready) })
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		reader.Wait()
	})
	return ready
}
