package client

import (
	"math"
	"time"
)

// An Instant is a moment as both clocks show it. Wall is for people and for the
// state file; Elapsed (CLOCK_BOOTTIME: it keeps running in suspend and can't be
// set) is what every rule goes by while the server runs.
type Instant struct {
	Wall    time.Time
	Elapsed time.Duration
}

// never is later than every instant.
const never = time.Duration(math.MaxInt64)

// after returns from + d, or never if that would overflow.
func after(from, d time.Duration) time.Duration {
	if d > 0 && from > never-d {
		return never
	}
	return from + d
}

// stamp is how an instant is written in texts: UTC, to the second.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
