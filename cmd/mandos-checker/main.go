// Mandos-checker is the privileged helper that runs the checkers of
// the Mandos server, each in a scope of its own. See mandos-checker(8).
package main

import (
	"os"

	"mandos/internal/checker/helper"
)

func main() {
	helper.Held(os.Args[1:])
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
