package keytls

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurnstile: as many pass at once as there are places; others wait for a
// limited time.
func TestTurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(2, time.Second)
		inside, leave := 0, make(chan struct{})
		for range 2 {
			go s.pass(func() { inside++; <-leave })
			synctest.Wait()
		}
		if err := s.pass(func() { t.Error("a third is inside") }); err != errCrowd || inside != 2 {
			t.Errorf("%v, with %d inside", err, inside)
		}
		third := make(chan error)
		go func() { third <- s.pass(func() { inside++ }) }()
		synctest.Wait()
		leave <- struct{}{}
		if err := <-third; err != nil || inside != 3 {
			t.Errorf("who waited: %v, with %d inside", err, inside)
		}
		leave <- struct{}{}
	})
}

// TestCrowdOfOldClients: with all places for the old generation taken, one more
// old client is refused for that reason, and a new one is served.
func TestCrowdOfOldClients(t *testing.T) {
	before := old
	defer func() { old = before }()
	old = newTurnstile(0, time.Millisecond)
	client, _, wait := startPeer12(t, Policy{}, script{key: pgpVector(t, "rsa2048")})
	if err := client.Handshake(); !errors.Is(err, errCrowd) {
		t.Errorf("of the old generation: %v", err)
	}
	client.Close()
	_ = wait()

	a, b := transports(t)
	done := make(chan error, 1)
	go func() {
		server := Server(b, &Config{Key: testKey("Ed25519")})
		_, err := io.ReadAll(server)
		done <- err
	}()
	c := Client(a, &Config{})
	if err := c.Handshake(); err != nil {
		t.Errorf("of the new generation: %v", err)
	}
	_ = c.CloseNotify()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestQueue: of those that wait the oldest connection comes first, and no more
// compute at once than there are places.
func TestQueue(t *testing.T) {
	q := &queue{places: 2}
	q.enter(0)
	q.enter(0)
	waiting := func() int {
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.waiting)
	}
	var order []uint64 // unguarded: one place stays taken
	var all sync.WaitGroup
	numbers := []uint64{5, 2, 9, 1, 7, 3}
	for i, n := range numbers {
		all.Go(func() { q.pass(n, func() { order = append(order, n) }) })
		for waiting() != i+1 {
			runtime.Gosched()
		}
	}
	q.leave()
	all.Wait()
	slices.Sort(numbers)
	if !slices.Equal(order, numbers) {
		t.Errorf("they come in the order %v", order)
	}
	q.leave()
	if q.places != 2 || waiting() != 0 {
		t.Errorf("%d places are free, and %d wait", q.places, waiting())
	}
}
