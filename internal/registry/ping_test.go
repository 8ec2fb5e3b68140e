package registry

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mandos/internal/client"
)

// A hangingStore is a disk whose commits hang, while hangs is set, until let is
// closed.
type hangingStore struct {
	MemoryStore
	hangs      atomic.Bool
	begun, let chan struct{}
}

func (s *hangingStore) Commit(b Batch) error {
	if s.hangs.Load() {
		select {
		case s.begun <- struct{}{}:
		default:
		}
		<-s.let
	}
	return s.MemoryStore.Commit(b)
}

// TestPing: Ping gets no answer from a registry that hangs, whether before its
// loop runs, in a commit, or in a turn; and gets one again afterwards. It runs
// in real time: in a bubble, a goroutine that waits for a mutex keeps time from
// passing.
func TestPing(t *testing.T) {
	ping := func(r *Registry, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return r.Ping(ctx)
	}
	alive := func(r *Registry) {
		t.Helper()
		if err := ping(r, 30*time.Second); err != nil {
			t.Errorf("one that is well: %v", err)
		}
	}
	hangs := func(r *Registry) {
		t.Helper()
		if err := ping(r, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "the registry doesn't answer") {
			t.Errorf("one that hangs: %v, want that it doesn't answer", err)
		}
	}
	store := &hangingStore{begun: make(chan struct{}, 1), let: make(chan struct{})}
	r, err := New(t.Context(), Options{Store: store, Checker: &fakeChecker{}, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	hangs(r)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	alive(r)

	store.hangs.Store(true)
	reloaded := make(chan error, 1)
	go func() {
		_, err := r.Reload([]client.Settings{setting("a")})
		reloaded <- err
	}()
	<-store.begun
	hangs(r)
	close(store.let)
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	alive(r)

	begun, let := make(chan struct{}), make(chan struct{})
	go r.turn(func(*turn) { close(begun); <-let })
	<-begun
	hangs(r)
	close(let)
	alive(r)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
