package bench_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"

	"mandos/internal/interop"
)

// TestMain is also a journald.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_ROLE") == "journald" {
		os.Exit(journaldMain(os.Args[1:]))
	}
	os.Exit(interop.Main(m))
}

// A journald takes what servers log. It is a process of its own, as the real
// one: among the thousands of goroutines of the load it would seldom have its
// turn, and the server would wait for it.
type journald struct {
	ask    io.Writer
	answer *bufio.Reader
}

// startJournald starts one that listens at these paths until the test ends.
func startJournald(t *testing.T, paths ...string) *journald {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, paths...)
	cmd.Env = append(os.Environ(), "BENCH_ROLE=journald")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} // has a queueLength of its own
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	j := &journald{in, bufio.NewReader(out)}
	j.entries(t) // it listens
	return j
}

// entries returns how many entries have come.
func (j *journald) entries(t *testing.T) (n int) {
	t.Helper()
	if _, err := fmt.Fprintln(j.ask); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(j.answer, &n); err != nil {
		t.Fatalf("the journald doesn't answer: %v", err)
	}
	return n
}

// queueLength makes systemd as long as this, as its first act: how many entries
// the journal's socket holds.
const queueLength = "/proc/sys/net/unix/max_dgram_qlen"

// journaldMain listens until its standard input ends, and tells how many
// entries have come for each line of it.
func journaldMain(paths []string) int {
	if err := os.WriteFile(queueLength, []byte("512"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var count atomic.Int64
	for _, path := range paths {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			err = os.Chmod(path, 0o666)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go func() {
			b := make([]byte, 1<<16)
			for {
				if _, err := conn.Read(b); err != nil {
					return
				}
				count.Add(1)
			}
		}()
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(count.Load())
	}
	return 0
}
