package registry

import (
	"container/heap"
	"time"
)

// timers is a heap of the entries that have a timer, the earliest first.
type timers struct{ h entryHeap }

// set sets the timer of e to due and reports whether it is now the earliest.
func (t *timers) set(e *entry, due time.Duration) (first bool) {
	switch {
	case e.pos < 0:
		e.due = due
		heap.Push(&t.h, e)
	case e.due != due:
		e.due = due
		heap.Fix(&t.h, e.pos)
	}
	return t.h[0] == e
}

// stop removes e's timer, if it has one.
func (t *timers) stop(e *entry) {
	if e.pos >= 0 {
		heap.Remove(&t.h, e.pos)
	}
}

// first returns the entry with the earliest timer, or nil.
func (t *timers) first() *entry {
	if len(t.h) == 0 {
		return nil
	}
	return t.h[0]
}

type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.pos = len(*h)
	*h = append(*h, e)
}
func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.pos = -1
	*h = old[:len(old)-1]
	return e
}
