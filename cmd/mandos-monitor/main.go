// Mandos-monitor shows the clients of the Mandos server on a full
// screen. See mandos-monitor(8).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"mandos/internal/monitor"
	"mandos/internal/operator"
)

var version = "(devel)" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	c := monitor.Command{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version, Env: os.Environ(),
		Terminal: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())),
		Connect:  connect,
	}
	os.Exit(c.Run(ctx))
}

func connect(ctx context.Context) (monitor.Server, error) {
	conn, err := operator.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
