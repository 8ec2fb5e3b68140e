package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Ours is this module's programs, built once for all tests of a package. Its
// TestMain is Main, which removes them.
func Ours(t testing.TB) Programs {
	t.Helper()
	bin := ourFolder(t)
	return Programs{
		server:  []string{filepath.Join(bin, "mandos")},
		client:  []string{filepath.Join(bin, "mandos-client")},
		keygen:  []string{filepath.Join(bin, "mandos-keygen")},
		ctl:     []string{filepath.Join(bin, "mandos-ctl")},
		monitor: []string{filepath.Join(bin, "mandos-monitor")},
	}
}

// ourFolder is the folder with each of our commands.
func ourFolder(t testing.TB) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// toRemove is the folder that built has made.
var toRemove string

var built = sync.OnceValues(func() (bin string, err error) {
	if bin, err = os.MkdirTemp("", "mandos-"); err != nil {
		return "", err
	}
	toRemove = bin
	if err := os.Chmod(bin, 0o755); err != nil { // for users that the tests become
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "mandos/cmd/...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return bin, nil
})

// Main runs the tests of a package that uses Ours, and returns their exit status.
func Main(m *testing.M) int {
	defer func() { os.RemoveAll(toRemove) }()
	return m.Run()
}
