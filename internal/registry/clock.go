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

// SystemClock reads the wall clock and CLOCK_BOOTTIME, which runs on in
// suspend and which nobody can set.
type SystemClock struct{}

// Now implements [Clock].
func (SystemClock) Now() client.Instant {
	var ts unix.Timespec
	// It fails for no clock that the kernel has, and this one it always has.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	// Round(0) takes off Go's monotonic reading, which stops in suspend.
	return client.Instant{Wall: time.Now().UTC().Round(0), Elapsed: time.Duration(ts.Nano())}
}
