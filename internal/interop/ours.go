package interop

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Ours is this module's programs, built for the test.
func Ours(t testing.TB) Programs {
	t.Helper()
	bin := Folder(t)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "mandos/cmd/...")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	output(t, build)
	return Programs{
		server: []string{filepath.Join(bin, "mandos")},
		client: []string{filepath.Join(bin, "mandos-client")},
		keygen: []string{filepath.Join(bin, "mandos-keygen")},
	}
}
