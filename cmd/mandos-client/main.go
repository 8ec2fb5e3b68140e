// Mandos-client fetches this host's password from a Mandos server, decrypts
// it and prints it. See mandos-client(8).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"mandos/internal/fetch"
	"mandos/internal/memory"
)

var version = "(devel)" // set by the linker

func main() { os.Exit(run()) }

func run() int {
	_ = memory.Guard() // as far as it goes
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	return fetch.Command{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Version: version}.Run(ctx)
}
