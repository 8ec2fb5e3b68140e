package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"mandos/internal/clientkeys"
	"mandos/internal/memory/memorytest"
)

func TestMemoryIsHidden(t *testing.T) {
	// It waits until somebody writes into its key.
	dir := memorytest.Folder(t)
	fifo := filepath.Join(dir, clientkeys.PubKey)
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--password", "--dir="+dir, "--name=x")
	cmd.Args[0], cmd.Dir = "mandos-keygen", "/"
	memorytest.Hidden(t, cmd)
}
