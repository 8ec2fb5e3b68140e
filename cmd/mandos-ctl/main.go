// Mandos-ctl shows and controls the clients of the Mandos server. See
// mandos-ctl(8).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"mandos/internal/ctl"
	"mandos/internal/operator"
)

var version = "(devel)" // set by the linker

func main() {
	c := ctl.Command{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version,
		Connect: connect, Now: time.Now, Interrupted: interrupted,
	}
	if fd := int(os.Stdout.Fd()); term.IsTerminal(fd) {
		c.Terminal = true
		c.Width, _, _ = term.GetSize(fd)
		c.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // no-color.org
	}
	os.Exit(c.Run(context.Background()))
}

func interrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}

func connect(ctx context.Context, trace func(string)) (ctl.Server, error) {
	conn, err := operator.Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn.Trace = trace
	return conn, nil
}
