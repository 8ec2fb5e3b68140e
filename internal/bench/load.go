package bench

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net/netip"
	"runtime"
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
	// Pairs are for the hosts of Load and Storm.
	Pairs Pairs
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
func (t Target) Ask(ctx context.Context, h Host) error { return t.ask(ctx, h, newPair()) }

func (t Target) ask(ctx context.Context, h Host, pair *ecdh.PrivateKey) error {
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
	if h.certificate != nil {
		return h.fetchSecret(transport, pair)
	}
	if _, err := io.WriteString(transport, "1\r\n"); err != nil {
		return err
	}
	conn := keytls.Server(transport, h.config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	got, err := io.ReadAll(conn) // until close_notify
	if err != nil {
		return err
	}
	if !bytes.Equal(got, h.Secret()) {
		return errors.New("this is not the host's secret")
	}
	return conn.CloseWrite()
}

// Pairs are key pairs for X25519 that were made before they are needed: hosts
// have processors of their own for that, which this machine lacks.
type Pairs chan *ecdh.PrivateKey

// MakePairs makes n key pairs. Hosts that find none left make their own.
func MakePairs(n int) Pairs {
	p := make(Pairs, n)
	var all sync.WaitGroup
	for w := range runtime.NumCPU() {
		all.Go(func() {
			for range (n + w) / runtime.NumCPU() {
				p <- newPair()
			}
		})
	}
	all.Wait()
	return p
}

// take returns a pair that nobody else has, also when all are gone.
func (p Pairs) take() *ecdh.PrivateKey {
	select {
	case pair := <-p:
		return pair
	default:
		return newPair()
	}
}

func newPair() *ecdh.PrivateKey {
	pair := must(ecdh.X25519().GenerateKey(rand.Reader))
	pair.PublicKey()
	return pair
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
// for as long as duration, and at least once; after it, those that still wait
// get patience.
func (t Target) Load(ctx context.Context, hosts []Host, atOnce int, duration, patience time.Duration) Waits {
	ctx, cancel := context.WithTimeout(ctx, duration+patience)
	defer cancel()
	until := time.Now().Add(duration)
	var waits Waits
	var mu sync.Mutex
	var all sync.WaitGroup
	for w := range atOnce {
		all.Go(func() {
			random := mathrand.New(mathrand.NewPCG(1, uint64(w)))
			for began := time.Now(); ; began = time.Now() {
				err := t.ask(ctx, hosts[random.IntN(len(hosts))], t.Pairs.take())
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
				if !ended.Before(until) {
					return
				}
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
				err := t.ask(ctx, h, t.Pairs.take())
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
