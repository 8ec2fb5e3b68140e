package main

import (
	"os/exec"
	"testing"

	"mandos/internal/memory/memorytest"
)

func TestMemoryIsHidden(t *testing.T) {
	// Such keys take a while.
	cmd := exec.Command("/proc/self/exe", "--dir="+memorytest.Folder(t), "--name=x", "--length=8192", "--sublength=8192")
	cmd.Args[0], cmd.Dir = "mandos-keygen", "/"
	memorytest.Hidden(t, cmd)
}
