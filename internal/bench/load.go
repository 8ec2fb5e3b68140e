package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mandos/internal/keytls"
)

// RetryWait is mandos-client's time between two tries, unless --retry says
// another.
const RetryWait = 10 * time.Second

// A Target is a server under load.
type Target struct {
	Port uint16
	// From is the address that a host connects from.
	From func(Host) netip.Addr
}

// The values of Storm.Source.
const (
	OwnAddresses = "own addresses"
	OneLink      = "one link"
)

// OwnAddress gives each host an address of its own, below 127.0.0.0/8, as the
// hosts of a site have.
func OwnAddress(h Host) netip.Addr {
	n := h.Number + 1
	return netip.AddrFrom4([4]byte{127, 1 + byte(n>>16), byte(n >> 8), byte(n)})
}

// OneSource lets all hosts come from one address. So they look to a server
// that counts by network, when they are all on one link.
func OneSource(Host) netip.Addr { return netip.IPv6Loopback() }

// Ask has h fetch its secret, and returns an error unless it was the right
// one. It does what mandos-client does, without the decryption.
func (t Target) Ask(ctx context.Context, h Host) error {
	from := t.From(h)
	to := netip.AddrPortFrom(netip.IPv6Loopback(), t.Port)
	if from.Is4() {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), t.Port)
	}
	transport, err := dial(from, to)
	if err != nil {
		return err
	}
	defer transport.Close()
	defer context.AfterFunc(ctx, func() { transport.Close() })()
	if _, err := io.WriteString(transport, "1\r\n"); err != nil {
		return err
	}
	conn := keytls.Server(transport, h.config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	var got [SecretSize + 1]byte
	n, err := io.ReadFull(conn, got[:]) // until close_notify
	// Not errors.Is: a connection that was cut off is another error around it.
	if err != io.ErrUnexpectedEOF || n != SecretSize {
		return fmt.Errorf("after %d bytes of the secret: %w", n, err)
	}
	if !bytes.Equal(got[:n], h.Secret()) {
		return errors.New("this is not the host's secret")
	}
	return conn.CloseWrite()
}

// Waits are how long hosts waited for their secrets.
type Waits struct {
	Served []time.Duration // the shortest first
	InTime int             // of those, how many were served before the load's end
	Failed map[string]int  // tries that failed, by why
}

// fail counts a try that failed with err.
func (w *Waits) fail(err error) {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			break
		}
		err = inner
	}
	if w.Failed == nil {
		w.Failed = map[string]int{}
	}
	w.Failed[err.Error()]++
}

// Load has atOnce hosts ask at any time, one chosen at random after the other,
// for as long as duration; after it, those that still wait get patience.
func (t Target) Load(ctx context.Context, hosts []Host, atOnce int, duration, patience time.Duration) Waits {
	ctx, cancel := context.WithTimeout(ctx, duration+patience)
	defer cancel()
	until := time.Now().Add(duration)
	var waits Waits
	var mu sync.Mutex
	var all sync.WaitGroup
	for w := range atOnce {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for time.Now().Before(until) {
				began := time.Now()
				err := t.Ask(ctx, hosts[random.IntN(len(hosts))])
				ended := time.Now()
				mu.Lock()
				if err == nil {
					waits.Served = append(waits.Served, ended.Sub(began))
					if ended.Before(until) {
						waits.InTime++
					}
				} else {
					waits.fail(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(waits.Served)
	return waits
}

// Storm has all hosts ask at the same moment, and try again after RetryWait
// until they have their secrets, or ctx ends. How long a host has waited
// counts from the beginning, over all its tries.
func (t Target) Storm(ctx context.Context, hosts []Host) Waits {
	var waits Waits
	var mu sync.Mutex
	var all sync.WaitGroup
	start := make(chan struct{})
	var began time.Time
	for _, h := range hosts {
		all.Go(func() {
			<-start
			for ctx.Err() == nil {
				err := t.Ask(ctx, h)
				wait := time.Since(began)
				mu.Lock()
				if err == nil {
					waits.Served = append(waits.Served, wait)
				} else if ctx.Err() == nil {
					waits.fail(err)
				}
				mu.Unlock()
				if err == nil {
					return
				}
				select {
				case <-time.After(RetryWait):
				case <-ctx.Done():
				}
			}
		})
	}
	began = time.Now()
	close(start)
	all.Wait()
	slices.Sort(waits.Served)
	return waits
}
