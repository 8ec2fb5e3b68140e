package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"mandos/internal/memory/memorytest"
)

func TestMemoryIsHidden(t *testing.T) {
	// It waits until somebody writes into its key.
	fifo := filepath.Join(memorytest.Folder(t), "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--tls-pubkey="+fifo)
	cmd.Args[0], cmd.Dir = "mandos-client", "/"
	memorytest.Hidden(t, cmd)
}
