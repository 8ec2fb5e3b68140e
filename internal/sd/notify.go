package sd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the service serves, or serves again after Reloading.
func Ready(status string) error { return notify("READY=1", "STATUS="+oneLine(status)) }

// Status says in one line how the service is, for systemctl status.
func Status(status string) error { return notify("STATUS=" + oneLine(status)) }

// Reloading says that the configuration is being re-read; Ready must follow.
func Reloading() error {
	return notify("RELOADING=1", strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// Stopping says that the service has begun to stop.
func Stopping() error { return notify("STOPPING=1", "STATUS=stopping") }

// notify sends lines to the service manager; without one it does nothing.
func notify(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("telling systemd %s: %w", lines[0], err)
	}
	return nil
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// A Probe asks a part of the program whether it is alive.
type Probe struct {
	Name string
	Ping func(context.Context) error // returns soon after its context ends
}

// Watchdog sends pings to the service manager until ctx ends, for as long as
// all probes answer: each ping says that all of them have answered since the
// last one. When some don't, it calls silent with the error, and no ping is
// sent. It returns at once where systemd wants no pings.
func Watchdog(ctx context.Context, silent func(error), probes ...Probe) error {
	limit, err := daemon.SdWatchdogEnabled(true)
	if err != nil || limit == 0 {
		return err
	}
	// Half of the limit, as sd_watchdog_enabled(3) recommends; the answers
	// take at most half of that.
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		err := ask(ctx, limit/4, probes)
		if err == nil {
			err = notify("WATCHDOG=1")
		}
		if err != nil && ctx.Err() == nil {
			silent(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ask returns nil when all probes answer within limit.
func ask(ctx context.Context, limit time.Duration, probes []Probe) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	errs := make([]error, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			if err := p.Ping(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", p.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
