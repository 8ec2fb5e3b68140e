// Package testenv ends tests that need something of the machine that it doesn't
// have: in CI, where nothing may be missing, as failed, and elsewhere as
// skipped.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Need ends the test unless have. what says what it needs.
func Need(t testing.TB, have bool, what string) {
	t.Helper()
	switch {
	case have:
	case os.Getenv("CI") == "true":
		t.Fatalf("this test needs %s", what)
	default:
		t.Skipf("this test needs %s", what)
	}
}

// Root ends the test unless it is root's, which it has to be for what why says.
func Root(t testing.TB, why string) {
	t.Helper()
	Need(t, os.Geteuid() == 0, "root, "+why)
}

// Program returns the path of a program, which Debian's package pkg has.
func Program(t testing.TB, name, pkg string) (path string) {
	t.Helper()
	path, err := exec.LookPath(name)
	Need(t, err == nil, name+": install "+pkg+", or all that is missing with make deps")
	return path
}
