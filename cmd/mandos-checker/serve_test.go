package main

import (
	"context"
	"errors"
	"testing"

	"mandos/internal/checker/helper"
)

// sweeper stands in for systemd, of which only KillScopes is needed.
type sweeper struct {
	helper.Manager
	kill func(context.Context) error
}

func (s sweeper) KillScopes(ctx context.Context) error { return s.kill(ctx) }

// TestSweep: a helper that can't kill what was left over doesn't serve; one
// that is stopped meanwhile ends cleanly.
func TestSweep(t *testing.T) {
	broken := errors.New("broken")
	scopes := &helper.Scopes{Manager: sweeper{kill: func(context.Context) error { return broken }}}
	if err := sweepAndServe(t.Context(), scopes, nil, nil); !errors.Is(err, broken) {
		t.Errorf("a sweep that failed: %v", err)
	}

	ctx, stop := context.WithCancel(t.Context())
	scopes = &helper.Scopes{Manager: sweeper{kill: func(ctx context.Context) error {
		stop()
		<-ctx.Done()
		return ctx.Err()
	}}}
	if err := sweepAndServe(ctx, scopes, nil, nil); err != nil {
		t.Errorf("stopped while it swept: %v", err)
	}
}
