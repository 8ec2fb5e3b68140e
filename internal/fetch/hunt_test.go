package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func at(n int) server {
	return server{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 6637)}
}

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
		password, err := h.only(t.Context(), at(1))
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
		if password, err := h.only(ctx, at(1)); err != errInterrupted || password != nil {
			t.Errorf("only: %q, %v; want %v", password, err, errInterrupted)
		}
		seen := make(chan sighting, 1)
		seen <- sighting{server: at(1)}
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
			seen <- sighting{server: at(i + 1)}
			seen <- sighting{server: at(i + 1)} // again, as in each answer
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
		stopped := 0
		h := &hunt{retry: 10 * time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			<-ctx.Done()
			stopped++
			return nil, ctx.Err()
		}}
		ctx, cancel := context.WithCancel(t.Context())
		seen := make(chan sighting)
		go h.all(ctx, seen)
		seen <- sighting{server: at(1)}
		seen <- sighting{server: at(1), gone: true}
		seen <- sighting{server: at(2), gone: true} // never seen before
		synctest.Wait()
		if stopped != 1 {
			t.Errorf("%d servers were given up after the goodbye, want 1", stopped)
		}
		cancel()
	})
}

// A host that announces ever more servers makes the oldest of them go, and
// no more than maxServers are asked at once.
func TestHuntIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running, most := 0, 0
		h := &hunt{retry: time.Second, log: &notes{w: new(bytes.Buffer)}, ask: func(ctx context.Context, s server) ([]byte, error) {
			running++
			most = max(most, running)
			defer func() { running-- }()
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
			seen <- sighting{server: server{addr: netip.AddrPortFrom(netip.IPv6LinkLocalAllNodes(), uint16(i+1))}}
			synctest.Wait()
		}
		if running != maxServers {
			t.Errorf("%d servers are asked, want %d", running, maxServers)
		}
		cancel()
		if err := <-done; !errors.Is(err, errInterrupted) {
			t.Error(err)
		}
		synctest.Wait()
		if running != 0 || most > maxServers+1 { // the new one may begin before the old one has ended
			t.Errorf("%d still running, %d at most; want 0, %d", running, most, maxServers)
		}
	})
}
