package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestSignals: each of them ends the command, also while it waits for what
// never comes.
func TestSignals(t *testing.T) {
	keys := t.TempDir()
	ours(t, "--dir", keys, "--name", "x", "--length", "2048", "--sublength", "2048")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		pipe := filepath.Join(t.TempDir(), "password")
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-S", "-n", "x", "-d", keys, "-F", pipe)
		cmd.Args[0] = "mandos-keygen"
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // returns when it is being read
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); ctx.Err() != nil || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v: it ended only by force, or otherwise than it should: %v", signal, err)
		}
	}
}
