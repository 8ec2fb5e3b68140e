// Mandos gives clients that are known, alive and approved the passwords that
// they need to boot. See mandos(8).
package main

import (
	"context"
	"os"

	"mandos/internal/daemon"
)

var version = "(devel)" // set by the linker

func main() {
	os.Exit(daemon.Command{
		Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Version: version,
	}.Run(context.Background()))
}
