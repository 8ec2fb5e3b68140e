package registry

import (
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/client"
)

// A Clock tells the time. Tests bring their own.
type Clock interface {
	Now() client.Instant
}

// SystemClock reads the wall clock and CLOCK_BOOTTIME, which keeps running in
// suspend and can't be set.
type SystemClock struct{}

// Now implements [Clock].
func (SystemClock) Now() client.Instant {
	var ts unix.Timespec
	// It fails only for a clock that the kernel doesn't have; this one it has.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	// Round(0) takes off Go's monotonic reading, which stops in suspend.
	return client.Instant{Wall: time.Now().UTC().Round(0), Elapsed: time.Duration(ts.Nano())}
}
