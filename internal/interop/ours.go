package interop

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Ours is this module's programs, built for the test.
func Ours(t testing.TB) Programs {
	t.Helper()
	bin := build(t)
	return Programs{
		server:  []string{filepath.Join(bin, "mandos")},
		client:  []string{filepath.Join(bin, "mandos-client")},
		keygen:  []string{filepath.Join(bin, "mandos-keygen")},
		ctl:     []string{filepath.Join(bin, "mandos-ctl")},
		monitor: []string{filepath.Join(bin, "mandos-monitor")},
	}
}

// build builds every command into a new folder.
func build(t testing.TB) (bin string) {
	t.Helper()
	bin = Folder(t)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "mandos/cmd/...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	output(t, cmd)
	return bin
}
