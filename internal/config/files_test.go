package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mandos/internal/client"
)

const good = "[foo]\nkey_id = " + keyA + "\nsecret = YQ==\n"

// refused loads the clients of dir and returns the error, which must be there.
func refused(t *testing.T, dir string) string {
	t.Helper()
	clients, found := LoadClients(dir, LoadOptions{})
	err := found.Err()
	if err == nil || clients != nil {
		t.Fatalf("not refused: %d clients, %v", len(clients), err)
	}
	return err.Error()
}

func TestPermissions(t *testing.T) {
	for _, name := range []string{"clients.conf", "clients.conf.d/a.conf"} {
		dir := files(t, map[string]string{name: good})
		path := filepath.Join(dir, name)
		for mode := range os.FileMode(0o1000) {
			mode |= 0o400 // root could read it without
			if mode&0o070 != 0o040 && mode&0o070 != 0 {
				continue
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, found := LoadClients(dir, LoadOptions{})
			if err := found.Err(); (err != nil) != (mode&0o007 != 0) {
				t.Errorf("%s with mode %04o: %v", name, mode, err)
			} else if err != nil && !strings.Contains(err.Error(), "chmod o-rwx "+path) {
				t.Errorf("no remedy: %v", err)
			}
		}
	}
	dir := files(t, map[string]string{"mandos.conf": "[DEFAULT]\nport = 1\n"})
	path := filepath.Join(dir, "mandos.conf")
	for mode, ok := range map[os.FileMode]bool{0o644: true, 0o640: true, 0o646: false, 0o642: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, found := LoadServer(mustArgs(t, "--configdir", dir), LoadOptions{})
		if err := found.Err(); (err == nil) != ok || !ok && !strings.Contains(err.Error(), "chmod o-w "+path) {
			t.Errorf("mandos.conf with mode %04o: %v", mode, err)
		}
	}
}

// TestExposedFile: a file that others may read is refused, and all else that is
// wrong in it is reported with that.
func TestExposedFile(t *testing.T) {
	dir := files(t, map[string]string{"clients.conf": good + "timeout = soon\n"})
	path := filepath.Join(dir, "clients.conf")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	want := "2 errors in the configuration:\n" +
		path + ": everybody may read or change the file (mode 0644); forbid it: chmod o-rwx " + path + "\n" +
		path + `:4: [foo] timeout: "soon" is no duration`
	if got := refused(t, dir); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestNotRegular refuses what isn't a file, without waiting for anybody to
// write to it.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "clients.conf")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := refused(t, dir), path+": this is no regular file; name one, or put one there"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := refused(t, dir); !strings.Contains(got, "no regular file") {
		t.Errorf("a folder: %q", got)
	}
}

// TestNotOpened calls notOpened itself, because root, as whom tests often run,
// can open every file.
func TestNotOpened(t *testing.T) {
	err := notOpened("/a/b", &fs.PathError{Op: "open", Path: "/a/b", Err: syscall.EACCES})
	if p := asProblem(err); p.what != "the server's user may not read the file" || p.remedy != "let its group: chgrp mandos /a/b && chmod g+r /a/b" {
		t.Errorf("%+v", p)
	}
	err = notOpened("/a/b", &fs.PathError{Op: "open", Path: "/a/b", Err: syscall.EMFILE})
	if got, want := err.Error(), "the file can't be opened: too many open files"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSizeLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readText(path, 10, 0); err == nil || !strings.Contains(err.Error(), "11 bytes, more than the 10") {
		t.Errorf("error %v", err)
	}
	if text, err := readText(path, 11, 0); err != nil || len(text) != 11 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	// A file whose size isn't known in advance.
	if _, err := readText("/proc/self/status", 10, 0); err == nil || !strings.Contains(err.Error(), "more than the 10 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestMissing(t *testing.T) {
	dir := t.TempDir()
	clients, found := LoadClients(dir, LoadOptions{})
	if len(clients) != 0 || found.Err() != nil || len(found) != 1 || !strings.Contains(found[0].String(), "clients.conf: warning: the file doesn't exist, so there are no clients") {
		t.Errorf("%d clients, findings:\n%v", len(clients), found)
	}
	dir = files(t, map[string]string{"clients.conf": "# none yet\n"})
	clients, found = LoadClients(dir, LoadOptions{})
	if len(clients) != 0 || found.Err() != nil || len(found) != 1 || !strings.Contains(found[0].String(), "warning: it has no clients") {
		t.Errorf("%d clients, findings:\n%v", len(clients), found)
	}
	dir = files(t, map[string]string{"clients.conf.d/a.conf": good})
	clients, found = LoadClients(dir, LoadOptions{})
	if len(clients) != 1 || len(found) != 0 {
		t.Errorf("%d clients, findings:\n%v", len(clients), found)
	}
}

// TestFolder: the files of clients.conf.d come after clients.conf, in order;
// [DEFAULT] is shared, and a client has one place.
func TestFolder(t *testing.T) {
	dir := files(t, map[string]string{
		"clients.conf":               "[DEFAULT]\nhost = first\nchecker = true\n" + good,
		"clients.conf.d/10-b.conf":   "[bar]\nkey_id = " + keyB + "\nsecret = Yg==\n",
		"clients.conf.d/9-a.conf":    "[DEFAULT]\nhost = nine\n",
		"clients.conf.d/10-a.conf":   "[DEFAULT]\nhost = ten\n",
		"clients.conf.d/x.conf.save": "broken",
		"clients.conf.d/.x.conf":     "broken",
	})
	clients, found := LoadClients(dir, LoadOptions{})
	if len(found) != 0 {
		t.Fatalf("findings:\n%v", found)
	}
	if len(clients) != 2 || clients[0].Name != "foo" || clients[1].Name != "bar" || clients[1].File != filepath.Join(dir, "clients.conf.d/10-b.conf") {
		t.Fatalf("%+v", clients)
	}
	for _, c := range clients {
		if c.Host != "nine" || c.Checker != "true" {
			t.Errorf("%s has host %q and checker %q", c.Name, c.Host, c.Checker)
		}
	}

	dir = files(t, map[string]string{
		"clients.conf":          good,
		"clients.conf.d/a.conf": "[foo]\ntimeout = PT1M\n[bar]\nkey_id = " + keyA + "\nsecret = Yg==\n",
	})
	got := refused(t, dir)
	for _, want := range []string{
		"clients.conf.d/a.conf:1: [foo] a section of this name is at " + dir + "/clients.conf:1 already",
		`clients.conf.d/a.conf:4: [bar] key_id: client "foo" has the same one at ` + dir + "/clients.conf:2",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}

	if err := os.Symlink("nowhere", filepath.Join(dir, "clients.conf.d/z.conf")); err != nil {
		t.Fatal(err)
	}
	if got := refused(t, dir); !strings.Contains(got, "z.conf: the file is a link to nothing; remove it") {
		t.Errorf("got:\n%s", got)
	}
}

func TestSecfile(t *testing.T) {
	dir := t.TempDir()
	secret := "\x85\x01\x00 bytes\r\n"
	path := filepath.Join(dir, "secret.bin")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	t.Setenv("MANDOS_TEST_DIR", dir)
	t.Setenv("MANDOS_TEST_TILDE", "~")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for _, name := range []string{path, "~/secret.bin", "$MANDOS_TEST_DIR/secret.bin", "${MANDOS_TEST_DIR}/secret.bin", "$MANDOS_TEST_TILDE/secret.bin", "secret.bin", "$MANDOS_TEST_DIR//secret.bin"} {
		dir := files(t, map[string]string{"clients.conf": "[foo]\nkey_id = " + keyA + "\nsecfile = " + name + "\n"})
		clients, found := LoadClients(dir, LoadOptions{})
		if len(found) != 0 {
			t.Errorf("%s: %v", name, found)
			continue
		}
		if got := string(clients[0].Secret.Reveal()); got != secret {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for name, want := range map[string]string{
		"$MANDOS_TEST_UNSET/secret.bin": `"$MANDOS_TEST_UNSET/secret.bin" is neither`,
		"other.bin":                     `no credential "other.bin"`,
		"..":                            `".." is neither`,
		"../secret.bin":                 "is neither an absolute path nor",
		"/proc/self/mem":                "",
		"":                              `"" is neither`,
	} {
		dir := files(t, map[string]string{"clients.conf": "[foo]\nkey_id = " + keyA + "\nsecfile = " + name + "\n"})
		if got := refused(t, dir); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}

	// secret wins over secfile, which isn't even opened.
	dir = files(t, map[string]string{"clients.conf": good + "secfile = /nonexistent\n"})
	if _, found := LoadClients(dir, LoadOptions{}); len(found) != 0 {
		t.Errorf("findings:\n%v", found)
	}
}

// TestSecfileLimit refuses a file that is too large for a secret.
func TestSecfileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for size, ok := range map[int64]bool{client.MaxSecret: true, client.MaxSecret + 1: false} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		dir := files(t, map[string]string{"clients.conf": "[foo]\nkey_id = " + keyA + "\nsecfile = " + path + "\n"})
		if _, found := LoadClients(dir, LoadOptions{}); (found.Err() == nil) != ok {
			t.Errorf("%d bytes: %v", size, found.Err())
		}
	}
}

func TestExpandVariables(t *testing.T) {
	t.Setenv("MANDOS_A", "a")
	t.Setenv("MANDOS_EMPTY", "")
	for in, want := range map[string]string{
		"":                          "",
		"x":                         "x",
		"$MANDOS_A":                 "a",
		"${MANDOS_A}b$MANDOS_A/":    "aba/",
		"$MANDOS_EMPTY.":            ".",
		"$MANDOS_UNSET/${MANDOS_U}": "$MANDOS_UNSET/${MANDOS_U}",
		"$":                         "$",
		"$$MANDOS_A":                "$a",
		"${MANDOS_A":                "${MANDOS_A",
		"${}":                       "${}",
		"$/x":                       "$/x",
	} {
		if got := expandVariables(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
