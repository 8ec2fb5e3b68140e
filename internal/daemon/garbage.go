package daemon

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// ballast is the size of memory that is allocated but never written to, so
	// that it occupies none of the machine's. The garbage collector then waits
	// until at least as much again has been allocated; without it, a server
	// with few clients would collect after every fifty hand-outs.
	ballast = 8 << 20
	// startGCPercent has the garbage collector run half as often until clients
	// are served: most of what a start allocates is needed until then.
	startGCPercent = 200
	// giveBackEvery is how often memory is given back. A burst of hand-outs
	// takes as much again as everything that is kept, and Go would hold on to
	// it.
	giveBackEvery = time.Minute
)

// giveBackMemory regularly returns unused memory to the system, until ctx ends.
func giveBackMemory(ctx context.Context) {
	tick := time.NewTicker(giveBackEvery)
	defer tick.Stop()
	for {
		debug.FreeOSMemory()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
