package journal

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"
)

// TestSettle: Settle returns only when the journal has read everything, and
// begun to read what comes after.
func TestSettle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	log := patient(NewNative(path, "mandos", Levels{}, t.Output()))
	log.Error("last words")
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		Settle(log.With("more", "attributes"))
	}()
	buffer := make([]byte, 4096)
	if n, err := conn.Read(buffer); n == 0 || err != nil {
		t.Fatalf("the entry: %d bytes, %v", n, err)
	}
	select {
	case <-settled:
		t.Error("settled while the entry was still being dealt with")
	default:
	}
	if n, err := conn.Read(buffer); n != 0 || err != nil {
		t.Fatalf("the empty datagram: %d bytes, %v", n, err)
	}
	<-settled
}

// TestSettleWithoutJournal: without a journal there is nothing to wait for.
func TestSettleWithoutJournal(t *testing.T) {
	Settle(slog.New(NewPlain(t.Output(), Levels{})))
	Settle(slog.New(NewNative(filepath.Join(t.TempDir(), "none"), "mandos", Levels{}, t.Output())))
}
