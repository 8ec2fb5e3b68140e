package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDemo runs what make demo runs, as whoever the test is, and, if that is
// root, as an ordinary user too.
func TestDemo(t *testing.T) {
	bin := ourFolder(t)
	script, err := os.ReadFile("../../tools/demo.sh")
	if err != nil {
		t.Fatal(err)
	}
	demo := filepath.Join(Folder(t), "demo.sh")
	if err := os.WriteFile(demo, script, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, credential *syscall.Credential) {
		t.Parallel()
		tmp := Folder(t)
		if credential != nil {
			if err := os.Chown(tmp, int(credential.Uid), int(credential.Gid)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("sh", demo, bin)
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=" + tmp}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Setpgid: true}
		out, err := cmd.CombinedOutput()
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != syscall.ESRCH {
			t.Errorf("processes were left behind: kill: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		// Its own checks stand in the script; these hold what a newcomer reads.
		for _, want := range []string{"Password: correct horse battery staple\n", "Password: (nothing"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	t.Run("as me", func(t *testing.T) { run(t, nil) })
	if os.Getuid() == 0 {
		t.Run("as an ordinary user", func(t *testing.T) { run(t, &syscall.Credential{Uid: 65534, Gid: 65534}) })
	}
}
