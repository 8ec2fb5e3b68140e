package memory

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mandos/internal/testenv"
)

const childEnv = "MEMORY_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// child guards its memory, gets more of it, gives it back, and gets it again.
func child() {
	fmt.Println(Guard())
	const size = 64 << 20
	for range 2 {
		b := make([]byte, size)
		for i := 0; i < size; i += 4096 {
			b[i] = 1
		}
		runtime.KeepAlive(b)
		b = nil
		runtime.GC()
	}
	b := make([]byte, size)
	b[0] = 1
	fmt.Println("done")
	bufio.NewScanner(os.Stdin).Scan()
	runtime.KeepAlive(b)
}

// run starts a child, perhaps as another user, and returns its process ID and
// what Guard said.
func run(t *testing.T, attr *syscall.SysProcAttr) (pid int, said string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // the folder of this program may be for root only
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr, cmd.Dir = attr, "/"
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	lines := bufio.NewScanner(stdout)
	lines.Scan()
	said = lines.Text()
	if lines.Scan(); lines.Text() != "done" {
		t.Fatalf("it said %q", lines.Text())
	}
	return cmd.Process.Pid, said
}

// unlocked returns the writable mappings of a process that may be swapped.
func unlocked(t *testing.T, pid int) (mappings []string) {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mapping, all := "", 0
	for line := range strings.Lines(string(smaps)) {
		first, _, _ := strings.Cut(line, " ")
		flags, ok := strings.CutPrefix(line, "VmFlags:")
		switch {
		case ok:
			all++
			f := " " + strings.TrimSpace(flags) + " "
			if strings.Contains(f, " wr ") && !strings.Contains(f, " lo ") {
				mappings = append(mappings, mapping)
			}
		case strings.Contains(first, "-"):
			mapping = strings.TrimSpace(line)
		}
	}
	if all == 0 {
		t.Fatalf("no mappings in %s", smaps)
	}
	return mappings
}

// TestGuard: as root, all is locked, also what came later, and none but root
// may look.
func TestGuard(t *testing.T) {
	testenv.Root(t, "to lock memory")
	pid, said := run(t, nil)
	if said != "<nil>" {
		t.Errorf("Guard: %s", said)
	}
	if left := unlocked(t, pid); len(left) > 0 {
		t.Errorf("not locked:\n%s", strings.Join(left, "\n"))
	}

	// An ordinary user's can't, as a rule, says so, and runs on; and nobody
	// else of this user can look.
	const uid = 65534
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	pid, said = run(t, attr)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	if left := unlocked(t, pid); (said == "<nil>") != (len(left) == 0) || (said == "<nil>") != (limit.Max == unix.RLIM_INFINITY) {
		t.Errorf("Guard of an ordinary user with a limit of %d: %s, and %d mappings aren't locked", limit.Max, said, len(left))
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("its memory may be read by user %d", owner)
	}
	look := exec.Command("cat", fmt.Sprintf("/proc/%d/environ", pid))
	look.SysProcAttr, look.Env = attr, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	if out, err := look.CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("another process of its user reads its environment: %v, %.40q", err, out)
	}
}
