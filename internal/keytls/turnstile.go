package keytls

import (
	"container/heap"
	"errors"
	"runtime"
	"sync"
	"time"
)

// A turnstile limits how many goroutines do something at once. Waiting costs no
// processor time.
type turnstile struct {
	places chan struct{}
	wait   time.Duration // the longest wait for a place
}

func newTurnstile(places int, wait time.Duration) *turnstile {
	return &turnstile{make(chan struct{}, places), wait}
}

// old is the turnstile for all work with keys of the old generation: with one
// connection, an unknown peer can cause some tenths of a second of that, by a
// certificate with many signatures or a DH group of its own. So half of the
// processors, if there are several, always remain for other work.
var old = newTurnstile(max(1, runtime.GOMAXPROCS(0)/2), 4*time.Second)

var errCrowd = errors.New("too many handshakes of TLS 1.2 at once")

// pass calls f once there is a place, or returns errCrowd after the longest
// wait.
func (s *turnstile) pass(f func()) error {
	select {
	case s.places <- struct{}{}:
	default:
		timer := time.NewTimer(s.wait)
		defer timer.Stop()
		select {
		case s.places <- struct{}{}:
		case <-timer.C:
			return errCrowd
		}
	}
	defer func() { <-s.places }()
	f()
	return nil
}

// A queue limits how many connections compute at once, and serves the oldest
// first. Go's scheduler keeps no such order: of hundreds of connections at
// once, some would wait twice as long as others.
type queue struct {
	mu      sync.Mutex
	places  int // free
	waiting waiters
}

// handshakes is the queue for the key exchanges of TLS 1.3. A connection that
// has got through it computes, and waits for nobody.
var handshakes = &queue{places: runtime.GOMAXPROCS(0)}

// pass calls f when it is the turn of the connection with this number: when no
// older one waits.
func (q *queue) pass(number uint64, f func()) {
	q.enter(number)
	defer q.leave()
	f()
}

func (q *queue) enter(number uint64) {
	w := &waiter{number: number}
	w.turn.Lock()
	q.mu.Lock()
	heap.Push(&q.waiting, w)
	q.mu.Unlock()
	runtime.Gosched() // goroutines that are ready to run, but don't wait here yet, may be older
	q.next()
	w.turn.Lock() // until it is next
}

func (q *queue) leave() {
	q.mu.Lock()
	q.places++
	q.mu.Unlock()
	q.next()
}

// next gives a free place, if there is one, to the oldest waiter.
func (q *queue) next() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.places > 0 && len(q.waiting) > 0 {
		q.places--
		heap.Pop(&q.waiting).(*waiter).turn.Unlock()
	}
}

// A waiter is a connection in a queue.
type waiter struct {
	number uint64
	turn   sync.Mutex // not a channel: in testing/synctest, channels can't leave their bubble
}

// waiters is a heap: the lowest number comes first.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].number < w[j].number }
func (w waiters) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiters) Push(x any)        { *w = append(*w, x.(*waiter)) }
func (w *waiters) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return x
}
