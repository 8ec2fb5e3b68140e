package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// notReadyWait is the wait before the next try while this host's own
	// network isn't ready: that costs the server nothing.
	notReadyWait = 500 * time.Millisecond
	// changedWait is the least time between two rounds through a server's
	// addresses, when they change.
	changedWait = time.Second
	// maxServers bounds the servers that are asked side by side. Where more
	// are announced, the one that has been asked for longest makes room, and
	// has its turn again later: each turnWait, the one that has waited for
	// longest takes the next room.
	maxServers = 64
	turnWait   = time.Second
	// maxWaiting bounds those that wait for their turn. Beyond it an
	// arbitrary one is forgotten.
	maxWaiting = 1024
)

var errInterrupted = errors.New("interrupted before a server gave the password")

// A hunt asks servers until one gives a password that can be decrypted. Each
// server is asked beside the others: one that is silent, because an operator
// must approve or because it is no Mandos server at all, holds up nobody.
type hunt struct {
	ask   func(context.Context, server) ([]byte, error)
	retry time.Duration // between two tries of one server
	log   *notes
}

// A target is one server with all its addresses, which may change.
type target struct {
	addrs   atomic.Pointer[[]server]
	changed chan struct{} // of size 1
}

func newTarget(addrs ...server) *target {
	t := &target{changed: make(chan struct{}, 1)}
	t.addrs.Store(&addrs)
	return t
}

// set replaces the addresses.
func (t *target) set(addrs []server) {
	t.addrs.Store(&addrs)
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// only asks a single server, at one of its addresses after the other until
// one of them answers.
func (h *hunt) only(ctx context.Context, t *target) ([]byte, error) {
	for {
		wait := notReadyWait
		select {
		case <-t.changed: // what comes next is up to date
		default:
		}
		for _, s := range *t.addrs.Load() {
			password, err := h.ask(ctx, s)
			if err == nil {
				return password, nil
			}
			if ctx.Err() != nil {
				return nil, errInterrupted
			}
			h.log.error(s.String(), err)
			if !notReady(err) {
				wait = h.retry
			}
			if _, ok := errors.AsType[connectError](err); !ok {
				break // the server has answered, and won't answer otherwise elsewhere
			}
		}
		if err := t.await(ctx, min(wait, h.retry)); err != nil {
			return nil, err
		}
	}
}

// await waits between two rounds. New addresses cut that short, but not to
// nothing: strangers can announce addresses, too.
func (t *target) await(ctx context.Context, wait time.Duration) error {
	least := min(wait, changedWait)
	select {
	case <-ctx.Done():
		return errInterrupted
	case <-time.After(least):
	}
	if wait == least {
		return nil
	}
	select {
	case <-ctx.Done():
		return errInterrupted
	case <-t.changed:
	case <-time.After(wait - least):
	}
	return nil
}

// A sighting is a server that was announced, or has said goodbye.
type sighting struct {
	name  string   // tells servers apart
	addrs []server // in the order to try them; none: it is gone
}

// all asks each server that seen tells of. A new sighting of a server that is
// being asked changes its addresses.
func (h *hunt) all(ctx context.Context, seen <-chan sighting) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type asking struct {
		name string
		*target
		stop context.CancelFunc
	}
	var asked []asking     // the first has been asked for longest
	var waiting []sighting // the first has waited for longest
	forget := func(name string) {
		waiting = slices.DeleteFunc(waiting, func(s sighting) bool { return s.name == name })
	}
	drop := func(i int) {
		asked[i].stop()
		asked = slices.Delete(asked, i, i+1)
	}
	found := make(chan []byte)
	start := func(s sighting) {
		if len(asked) == maxServers {
			if len(waiting) == maxWaiting {
				i := rand.N(maxWaiting)
				waiting = slices.Delete(waiting, i, i+1)
			}
			waiting = append(waiting, sighting{asked[0].name, *asked[0].addrs.Load()})
			drop(0)
		}
		own, stop := context.WithCancel(ctx)
		t := newTarget(s.addrs...)
		asked = append(asked, asking{s.name, t, stop})
		go func() {
			password, err := h.only(own, t)
			if err != nil {
				return
			}
			select {
			case found <- password:
			case <-ctx.Done():
				clear(password)
			}
		}()
	}
	turn := time.NewTicker(turnWait)
	defer turn.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, errInterrupted
		case password := <-found:
			return password, nil
		case <-turn.C:
			if len(waiting) > 0 {
				s := waiting[0]
				waiting = slices.Delete(waiting, 0, 1)
				start(s)
			}
		case s := <-seen:
			at := slices.IndexFunc(asked, func(a asking) bool { return a.name == s.name })
			forget(s.name)
			if len(s.addrs) == 0 {
				h.log.tell("server %s says goodbye", s.name)
				if at >= 0 {
					drop(at)
				}
				continue
			}
			h.log.tell("server %s at %v", s.name, s.addrs)
			if at >= 0 {
				asked[at].set(s.addrs)
				continue
			}
			start(s)
		}
	}
}
