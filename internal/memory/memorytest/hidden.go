// Package memorytest holds commands to what package memory promises.
package memorytest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/testenv"
)

const nobody = 65534

// Folder makes one that every user can write to. It ends a test that isn't
// root's: as a failure where CI relies on it.
func Folder(t *testing.T) string {
	t.Helper()
	testenv.Root(t, "to become another user")
	dir, err := os.MkdirTemp("", "mandos-test-") // t.TempDir's are below one that is root's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Hidden runs cmd as an ordinary user, and waits until the process isn't
// dumpable: what there is of it in /proc belongs to root then. cmd must run
// on until it is killed.
func Hidden(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
		status, err := os.ReadFile(proc + "status")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", nobody)) || !strings.Contains(string(status), "\nVmSize:") {
			t.Fatalf("it isn't running as another user:\n%s", status)
		}
		info, err := os.Stat(proc + "mem")
		if err == nil && info.Sys().(*syscall.Stat_t).Uid == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("its memory belongs to its user")
		}
	}
}
