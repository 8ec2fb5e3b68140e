package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func at(n int) server {
	return server{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 6637)}
}

func found(n int, more ...server) sighting {
	return sighting{name: fmt.Sprint(n), addrs: append([]server{at(n)}, more...)}
}

func gone(n int) sighting { return sighting{name: fmt.Sprint(n)} }

func TestHuntRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		start, times := time.Now(), []time.Duration(nil)
		h := &hunt{retry: 10 * time.Second, log: &notes{w: &log}, ask: func(context.Context, server) ([]byte, error) {
			times = append(times, time.Since(start))
			switch len(times) {
			case 1, 2:
				return nil, fmt.Errorf("connecting: %w", unix.EADDRNOTAVAIL)
			case 5:
				return []byte("password"), nil
			}
			return nil, errNoSecret
		}}
		password, err := h.only(t.Context(), newTarget(at(1)))
		if err != nil || string(password) != "password" {
			t.Fatalf("got %q, %v", password, err)
		}
		// The network isn't ready twice, which is tried again soon; then the
		// server refuses twice.
		if want := []time.Duration{0, notReadyWait, 2 * notReadyWait, 2*notReadyWait + 10*time.Second, 2*notReadyWait + 20*time.Second}; !slices.Equal(times, want) {
			t.Errorf("asked at %v, want %v", times, want)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines, want one for each of the two errors:\n%s", n, &log)
		}
	})
}

func TestHuntEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, _ server) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		if password, err := h.only(ctx, newTarget(at(1))); err != errInterrupted || password != nil {
			t.Errorf("only: %q, %v; want %v", password, err, errInterrupted)
		}
		seen := make(chan sighting, 1)
		seen <- found(1)
		if password, err := h.all(ctx, seen); err != errInterrupted || password != nil {
			t.Errorf("all: %q, %v; want %v", password, err, errInterrupted)
		}
	})
}

// A silent server holds up nobody.
func TestHuntAsksSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			switch s {
			case at(1):
				<-ctx.Done()
				return nil, ctx.Err()
			case at(2):
				return nil, errNoSecret
			}
			time.Sleep(time.Second)
			return []byte("password"), nil
		}}
		seen := make(chan sighting, 9)
		for i := range 3 {
			seen <- found(i + 1)
			seen <- found(i + 1) // again, as in each answer
		}
		start := time.Now()
		password, err := h.all(t.Context(), seen)
		if err != nil || string(password) != "password" || time.Since(start) != time.Second {
			t.Errorf("%q, %v after %v; want the password after 1s", password, err, time.Since(start))
		}
	})
}

func TestHuntGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped atomic.Int32
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			<-ctx.Done()
			stopped.Add(1)
			return nil, ctx.Err()
		}}
		ctx, cancel := context.WithCancel(t.Context())
		seen := make(chan sighting)
		go h.all(ctx, seen)
		seen <- found(1)
		seen <- gone(1)
		seen <- gone(2) // never seen before
		synctest.Wait()
		if n := stopped.Load(); n != 1 {
			t.Errorf("%d servers were given up after the goodbye, want 1", n)
		}
		cancel()
	})
}

// A host that announces ever more servers makes the oldest of them go, and
// no more than maxServers are asked at once.
func TestHuntIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		h := &hunt{retry: time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		seen := make(chan sighting)
		go func() {
			_, err := h.all(ctx, seen)
			done <- err
		}()
		for i := range maxServers + 50 {
			seen <- found(i + 1)
			synctest.Wait()
		}
		if n := running.Load(); n != maxServers {
			t.Errorf("%d servers are asked, want %d", n, maxServers)
		}
		cancel()
		if err := <-done; !errors.Is(err, errInterrupted) {
			t.Error(err)
		}
		synctest.Wait()
		// The new one may begin before the old one has ended.
		if n, m := running.Load(), most.Load(); n != 0 || m > maxServers+1 {
			t.Errorf("%d still running, %d at most; want 0, %d", n, m, maxServers)
		}
	})
}

// A server that had to make room for others, which an enemy can announce at
// will, is asked again, though it isn't announced again: the cache tells of
// changes alone.
func TestHuntComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32 // two of its goroutines can follow one another
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			if s != at(1) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if tries.Add(1) == 1 {
				return nil, errNoSecret
			}
			return []byte("password"), nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		seen := make(chan sighting, 200)
		seen <- found(1)
		for i := range 199 {
			seen <- found(i + 2)
		}
		start := time.Now()
		password, err := h.all(ctx, seen)
		if err != nil || string(password) != "password" || time.Since(start) > 200*turnWait {
			t.Errorf("%q, %v after %v", password, err, time.Since(start))
		}
	})
}

// Who has said goodbye doesn't come back.
func TestHuntForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [256]atomic.Int32
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			asked[s.addr.Addr().As4()[3]].Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		seen := make(chan sighting)
		go h.all(ctx, seen)
		for i := range maxServers + 2 {
			seen <- found(i + 1)
			synctest.Wait()
		}
		seen <- gone(1) // it waits, as does 2
		time.Sleep(maxServers * turnWait)
		synctest.Wait()
		if n, m := asked[1].Load(), asked[2].Load(); n != 1 || m < 2 {
			t.Errorf("asked %d times after its goodbye, the other %d times; want 1, 2", n, m)
		}
	})
}

// A server's addresses are tried in turn, up to one that answers.
func TestHuntTriesAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []server
		start := time.Now()
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(_ context.Context, s server) ([]byte, error) {
			asked = append(asked, s)
			switch {
			case s == at(1):
				return nil, connectError{unix.ECONNREFUSED}
			case time.Since(start) < 5*time.Second:
				return nil, errNoSecret
			}
			return []byte("password"), nil
		}}
		seen := make(chan sighting, 1)
		seen <- found(1, at(2), at(3))
		if password, err := h.all(t.Context(), seen); err != nil || string(password) != "password" {
			t.Errorf("%q, %v", password, err)
		}
		if want := []server{at(1), at(2), at(1), at(2)}; !slices.Equal(asked, want) {
			t.Errorf("asked %v, want %v: the third has the same server behind it", asked, want)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("took %v, want 10s", d)
		}
	})
}

// An address that becomes known later is tried soon, but however many come,
// the server isn't asked more than once a second.
func TestHuntTakesNewAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds []time.Duration
		start := time.Now()
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(_ context.Context, s server) ([]byte, error) {
			if s == at(1) {
				rounds = append(rounds, time.Since(start))
			}
			if s == at(3) {
				return []byte("password"), nil
			}
			return nil, connectError{unix.ECONNREFUSED}
		}}
		seen := make(chan sighting)
		go func() {
			seen <- found(1)
			for range 15 {
				time.Sleep(100 * time.Millisecond)
				seen <- found(1, at(2))
			}
			seen <- found(1, at(3))
		}()
		if password, err := h.all(t.Context(), seen); err != nil || string(password) != "password" {
			t.Errorf("%q, %v", password, err)
		}
		if want := []time.Duration{0, time.Second, 2 * time.Second}; !slices.Equal(rounds, want) {
			t.Errorf("rounds at %v, want %v", rounds, want)
		}
	})
}

// Addresses that came during a short wait are tried in the next round, and don't
// cut the wait after it short as well.
func TestHuntTakesNewAddressesOnce(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var asked []server
			start, times := time.Now(), []time.Duration(nil)
			h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(_ context.Context, s server) ([]byte, error) {
				asked, times = append(asked, s), append(times, time.Since(start))
				switch len(asked) {
				case 1:
					return nil, fmt.Errorf("connecting: %w", unix.EADDRNOTAVAIL)
				case 3:
					return []byte("password"), nil
				}
				return nil, errNoSecret
			}}
			to := newTarget(at(1))
			time.AfterFunc(notReadyWait/2, func() { to.set([]server{at(2)}) })
			if password, err := h.only(t.Context(), to); err != nil || string(password) != "password" {
				t.Errorf("%q, %v", password, err)
			}
			wantTimes := []time.Duration{0, notReadyWait, notReadyWait + 10*time.Second}
			if want := []server{at(1), at(2), at(2)}; !slices.Equal(asked, want) || !slices.Equal(times, wantTimes) {
				t.Errorf("asked %v at %v, want %v at %v", asked, times, want, wantTimes)
			}
		})
	}
}
