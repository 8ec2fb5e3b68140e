package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mandos/internal/testenv"
)

// TestPrivileges: started as root, the server goes on as another user, for
// good.
func TestPrivileges(t *testing.T) {
	testenv.Root(t, "to give it up")
	a := newMember(t, "a")
	dir := folder(t, a.section())
	// Root's alone, as an administrator would have it.
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "clients.conf"): 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, nil, "--configdir", dir)
	a.gets(t, loopback(p.Ready()))

	u, err := firstUser()
	if err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d", p.Cmd.Process.Pid)
	tasks, err := filepath.Glob(proc + "/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			fields := strings.Fields(value)
			switch name {
			case "Uid", "Gid", "Groups":
				for _, id := range fields {
					if want := map[string]string{"Uid": u.Uid}[name]; id == "0" || want != "" && id != want {
						t.Errorf("%s: %s", task, line)
					}
				}
			case "CapInh", "CapPrm", "CapEff", "CapAmb":
				if strings.Trim(fields[0], "0") != "" {
					t.Errorf("%s: %s", task, line)
				}
			}
		}
	}
	// For a process that isn't dumpable, the files in /proc belong to root.
	info, err := os.Stat(proc + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("its memory may be read by user %d", owner)
	}
	p.stop()

	// It can be started again, and knows what it knew.
	p = start(t, nil, "--configdir", dir)
	p.Ready()
	p.stop()
	if strings.Contains(p.Log(), "a new client") {
		t.Error("the state was lost")
	}
}

// TestStateOwner: in a folder of the server's user, root makes files that
// are that user's, so that the service can use them later.
func TestStateOwner(t *testing.T) {
	testenv.Root(t, "to be somebody else")
	const uid = 12345
	state := filepath.Join(folder(t), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(state, uid, uid); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "--configdir", folder(t), "--statedir", state)
	p.Ready()
	p.stop()
	info, err := os.Stat(filepath.Join(state, "clients.db"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != uid {
		t.Errorf("the state belongs to user %d, group %d", st.Uid, st.Gid)
	}
}

func TestNoWayBack(t *testing.T) {
	if os.Geteuid() == 0 {
		if err := noWayBack(0, 0); err == nil {
			t.Error("root is said to be harmless")
		}
	}
	if err := noWayBack(os.Getuid()+1, os.Getgid()); err == nil {
		t.Error("another user is taken for the right one")
	}
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mandos.pid")
	cleanup := writePIDFile(path)
	b, err := os.ReadFile(path)
	if err != nil || string(b) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("it holds %q, %v", b, err)
	}
	// A second server leaves it to the first.
	if err := os.WriteFile(path, []byte("first\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	writePIDFile(path)()
	if b, err := os.ReadFile(path); err != nil || string(b) != "first\n" {
		t.Errorf("after a second server it holds %q, %v", b, err)
	}
	cleanup()
	if _, err := os.Stat(path); err == nil {
		t.Error("it is left behind")
	}
	// No folder, no file, no harm.
	writePIDFile(filepath.Join(t.TempDir(), "none", "mandos.pid"))()
}

// TestSelfTestProcess: --check as a process of an ordinary user as well.
func TestSelfTestProcess(t *testing.T) {
	out, err := command([]string{"--check"}, func(cmd *exec.Cmd) {
		if os.Geteuid() == 0 {
			cmd.Path = copyOfTest(t)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
		}
	}).CombinedOutput()
	if err != nil || strings.Count(string(out), "ok ") != len(selfTests) {
		t.Errorf("%v: %s", err, out)
	}
}
