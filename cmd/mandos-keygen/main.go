// Mandos-keygen makes the keys of a Mandos client, and its section for the
// server's clients.conf. See mandos-keygen(8).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"mandos/internal/keygen"
	"mandos/internal/memory"
)

var version = "(devel)" // set by the linker

func main() { os.Exit(run()) }

func run() int {
	_ = memory.Guard() // as far as it goes
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	syscall.Umask(0o077)
	return keygen.Command{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version,
	}.Run(ctx)
}
