package fetch

import (
	"context"
	"errors"
	"time"
)

const (
	// notReadyWait is the wait before the next try while this host's own
	// network isn't ready: that costs the server nothing.
	notReadyWait = 500 * time.Millisecond
	// maxServers bounds the servers that are asked side by side. Where more
	// are announced, the one that has been asked for longest makes room; it
	// comes back with its next announcement.
	maxServers = 64
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

// only asks a single server.
func (h *hunt) only(ctx context.Context, s server) ([]byte, error) {
	for {
		password, err := h.ask(ctx, s)
		if err == nil {
			return password, nil
		}
		if ctx.Err() != nil {
			return nil, errInterrupted
		}
		h.log.error(s.String(), err)
		wait := h.retry
		if notReady(err) {
			wait = min(wait, notReadyWait)
		}
		select {
		case <-ctx.Done():
			return nil, errInterrupted
		case <-time.After(wait):
		}
	}
}

// A sighting is a server that was announced, or has said goodbye.
type sighting struct {
	server
	gone bool
}

// all asks each server that seen tells of. A server that is seen again while
// it is being asked changes nothing.
func (h *hunt) all(ctx context.Context, seen <-chan sighting) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type asking struct {
		server
		stop context.CancelFunc
	}
	var asked []asking // the first has been asked for longest
	drop := func(i int) {
		asked[i].stop()
		asked = append(asked[:i], asked[i+1:]...)
	}
	found := make(chan []byte)
	for {
		select {
		case <-ctx.Done():
			return nil, errInterrupted
		case password := <-found:
			return password, nil
		case s := <-seen:
			at := -1
			for i := range asked {
				if asked[i].server == s.server {
					at = i
				}
			}
			if s.gone {
				if at >= 0 {
					h.log.tell("%v: the server says goodbye", s)
					drop(at)
				}
				continue
			}
			if at >= 0 {
				continue
			}
			if len(asked) == maxServers {
				drop(0)
			}
			h.log.tell("%v: a server", s)
			own, stop := context.WithCancel(ctx)
			asked = append(asked, asking{s.server, stop})
			go func() {
				password, err := h.only(own, s.server)
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
	}
}
