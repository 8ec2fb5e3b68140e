// Package cores spreads work over the processor's cores.
package cores

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// few is how many items are not worth another goroutine, and how many are
// taken at a time.
const few = 128

// Each calls f with each i from 0 up to n, n not included, and returns when
// all calls have. As many run at once as there are cores; they must not panic.
func Each(n int, f func(i int)) {
	var next atomic.Int64
	work := func() {
		for {
			from := int(next.Add(few)) - few
			if from >= n {
				return
			}
			for i := from; i < min(from+few, n); i++ {
				f(i)
			}
		}
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (n+few-1)/few) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}
