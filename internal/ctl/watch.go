package ctl

import (
	"context"
	"errors"
	"time"

	"mandos/internal/operator"
)

// settle is how long changes are gathered before the table is drawn again.
const settle = 100 * time.Millisecond

// watch draws the table, and again whenever something has changed, until ctx
// ends. On a terminal each table takes the place of the one before.
func (c Command) watch(ctx context.Context, server Server, o *options) error {
	heard, err := server.Watch(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		clients, err := selected(ctx, server, o)
		if ctx.Err() != nil {
			return nil
		}
		text := ""
		switch {
		case err == nil:
			text = o.tableOf(clients).render(style{c.Colour, c.Width})
		case first && !errors.Is(err, operator.ErrNoServer):
			return err
		default: // the server may be stopping or starting, and tells when it has
			text = printableLines(err.Error()) + "\n"
		}
		if c.Width > 0 {
			text = "\x1b[H\x1b[2J" + text
		} else {
			text += "\n"
		}
		if err := c.print(text); err != nil {
			return err
		}
		if open := next(ctx, heard); !open {
			if ctx.Err() != nil {
				return nil
			}
			return errors.New("the connection to the system bus was lost")
		}
	}
}

// next returns when something was heard and nothing more for a moment; false
// when nothing will be heard any more.
func next(ctx context.Context, heard <-chan operator.Occurrence) bool {
	var quiet <-chan time.Time
	for {
		select {
		case _, open := <-heard:
			if !open {
				return false
			}
			if quiet == nil {
				quiet = time.After(settle)
			}
		case <-quiet:
			return true
		case <-ctx.Done():
			return false
		}
	}
}
