package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMemoryIsHidden: as an ordinary user's, the process isn't dumpable, so
// that what there is of it in /proc belongs to root.
func TestMemoryIsHidden(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root, to become another user")
		}
		t.Skip("this test needs root, to become another user")
	}
	dir, err := os.MkdirTemp("", "mandos-client")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	// It waits until somebody writes into its key.
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--tls-pubkey="+fifo)
	cmd.Args[0], cmd.Dir = "mandos-client", "/"
	const nobody = 65534
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
