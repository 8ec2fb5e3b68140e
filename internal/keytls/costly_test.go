package keytls

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestCostlyTurns: while others do what is costly, a connection of TLS 1.2
// waits its turn, but not for ever, and one of TLS 1.3 doesn't.
func TestCostlyTurns(t *testing.T) {
	old := func(t *testing.T) (client *Conn, ended chan error) {
		x, y := net.Pipe()
		t.Cleanup(func() { x.Close(); y.Close() })
		p := &peer12{conn: y, script: script{key: pgpVector(t, "rsa2048")}}
		go func() { _ = p.handshake() }()
		client, ended = Client(x, &Config{}), make(chan error, 1)
		go func() { ended <- client.Handshake() }()
		return client, ended
	}
	inBubble := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				was := costly
				costly = make(chan struct{}, 1) // the bubble's own
				defer func() { costly = was }()
				costly <- struct{}{}
				f(t)
			})
		})
	}
	inBubble("TLS 1.2", func(t *testing.T) {
		_, ended := old(t)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("it doesn't wait its turn: %v", err)
		default:
		}
		<-costly
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if len(costly) > 0 {
			t.Error("its turn hasn't ended")
		}
	})
	inBubble("TLS 1.2, no end", func(t *testing.T) {
		start := time.Now()
		client, ended := old(t)
		if err := <-ended; err != errTooCostly {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != maxCostlyWait {
			t.Errorf("waited for %v", took)
		}
		client.Close()
	})
	inBubble("TLS 1.3", func(t *testing.T) {
		x, y := net.Pipe()
		key := testKey("Ed25519")
		go func() { _ = Server(y, &Config{Key: key}).Handshake() }()
		if err := Client(x, &Config{}).Handshake(); err != nil {
			t.Error(err)
		}
	})
}
