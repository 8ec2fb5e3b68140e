package registry

import (
	"sync"

	"mandos/internal/client"
)

// A NoticeKind says what a Notice is about.
type NoticeKind uint8

// The kinds of Notice.
const (
	ClientAdded    NoticeKind = iota + 1 // Client is new
	ClientRemoved                        // Client as it last was
	ClientChanged                        // Changes, in order; Client as it is after them
	ClientNotFound                       // Caller has a key that no client has
	Lost                                 // some notices were dropped: read everything again (List)
)

// A Notice is one entry of the change feed.
type Notice struct {
	Kind    NoticeKind
	Client  View
	Changes []client.Notice
	Caller  Caller // of ClientNotFound, and of Changes with GotSecret or RejectedNotice
}

// A Feed is a subscription to the registry's changes. It never blocks the
// registry: a reader that is too slow misses notices and gets one of kind Lost
// instead.
type Feed struct {
	C <-chan *Notice // feeds share the notices: don't change them

	c    chan *Notice // its last slot is reserved for Lost
	lost bool         // the last notice sent was Lost; guarded by the registry's mu
	stop func()
	once sync.Once
}

// Close ends the subscription. C is closed, too.
func (f *Feed) Close() { f.once.Do(f.stop) }

// Subscribe returns a Feed that holds up to size unread notices, size >= 1.
// Every change that is not in the feed is visible to a Get, List or Names
// called after Subscribe.
func (r *Registry) Subscribe(size int) *Feed {
	f := &Feed{c: make(chan *Notice, max(size, 1)+1)}
	f.C = f.c
	f.stop = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.feeds, f)
		close(f.c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feeds[f] = struct{}{}
	return f
}

// publish gives n to all feeds.
func (r *Registry) publish(n Notice) {
	if len(r.feeds) == 0 {
		return
	}
	shared := new(n)
	for f := range r.feeds {
		f.publish(shared)
	}
}

func (f *Feed) publish(n *Notice) {
	switch full := len(f.c) >= cap(f.c)-1; {
	case !full:
		f.c <- n
		f.lost = false
	case !f.lost:
		f.c <- &Notice{Kind: Lost}
		f.lost = true
	}
}
