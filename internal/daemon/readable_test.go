package daemon

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mandos/internal/config"
	"mandos/internal/testenv"
)

// TestUnreadable: root is told which secfiles the service's user can't read,
// and the suggested command fixes that.
func TestUnreadable(t *testing.T) {
	testenv.Root(t, "to become another user")
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	// Its folders are open to all, unlike those of T.TempDir.
	top, err := os.MkdirTemp("", "mandos-readable-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	unreadable := unreadableBy(u, nil)

	for name, tt := range map[string]struct {
		owner, folder, file int // modes in octal, as in chmod
		closed              bool
	}{
		"open to all":          {0, 0o755, 0o644, false},
		"the user's own":       {uid, 0o700, 0o400, false},
		"root's file":          {0, 0o755, 0o600, true},
		"root's folder":        {0, 0o700, 0o644, true},
		"root's both":          {0, 0o700, 0o600, true},
		"may list, not enter":  {0, 0o744, 0o644, true},
		"may enter, not list":  {0, 0o711, 0o644, false},
		"the user's, but 0200": {uid, 0o755, 0o200, true},
		"it's a quoted  name":  {0, 0o700, 0o600, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(top, name)
			path := filepath.Join(dir, "secret.bin")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			for p, mode := range map[string]int{path: tt.file, dir: tt.folder} {
				if err := os.Chown(p, tt.owner, 0); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(p, os.FileMode(mode)); err != nil {
					t.Fatal(err)
				}
			}
			problem, remedy := unreadable(path)
			if got := problem != ""; got != tt.closed {
				t.Fatalf("%q", problem)
			}
			if tt.closed {
				if out, err := exec.Command("sh", "-euc", remedy).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", remedy, err, out)
				}
			}
			// As the user would.
			if out, err := exec.Command("setpriv", "--reuid="+u.Uid, "--regid="+u.Gid, "--clear-groups", "cat", path).CombinedOutput(); err != nil {
				t.Errorf("after %q: %v\n%s", remedy, err, out)
			}
		})
	}
	if os.Geteuid() != 0 {
		t.Error("no longer root")
	}

	t.Run("through a link", func(t *testing.T) {
		link := filepath.Join(top, "link")
		if err := os.Mkdir(filepath.Join(top, "closed"), 0o700); err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(top, "closed", "secret.bin")
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if _, remedy := unreadable(link); !strings.Contains(remedy, filepath.Dir(target)) {
			t.Errorf("the remedy is %q", remedy)
		}
	})
	t.Run("hidden by the sandbox", func(t *testing.T) {
		problem, remedy := unreadableBy(u, []string{top})(filepath.Join(top, "open to all", "secret.bin"))
		if !strings.Contains(problem, "the service doesn't see "+top) || !strings.HasPrefix(remedy, "install -m 640 -g ") {
			t.Errorf("%q, %q", problem, remedy)
		}
	})
	t.Run("in the findings", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "secret.bin")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		text := "[one]\nkey_id = " + strings.Repeat("ab", 32) + "\nsecfile = " + path + "\n"
		if err := os.WriteFile(filepath.Join(dir, "clients.conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, found := config.LoadClients(dir, config.LoadOptions{Unreadable: unreadable})
		errs := found.Errors()
		if len(errs) != 1 || errs[0].Line != 3 || errs[0].Key != "secfile" || !strings.Contains(errs[0].Remedy, "chmod g+r "+path) {
			t.Errorf("found:\n%s", found)
		}
		if _, found := config.LoadClients(dir, config.LoadOptions{}); found.Err() != nil {
			t.Errorf("found:\n%s", found)
		}
	})
}
