package daemon

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// ballast is memory that is never written to, so that it takes none of the
	// machine's. The garbage collector waits until as much again was allocated:
	// with few clients it would run after every fifty hand-outs.
	ballast = 8 << 20
	// startGCPercent has the garbage collector run half as often until clients
	// are served: of what a start makes, most is needed until then.
	startGCPercent = 200
	// giveBackEvery is how often memory is given back. What a burst of hand-outs
	// takes is as much again as all that is kept, and Go would keep it.
	giveBackEvery = time.Minute
)

// giveBackMemory gives memory that isn't used back to the system, until ctx
// ends.
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
