package daemon

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// oldKeys are those that the clients have in the old server's state.
var oldKeys = map[string]string{
	"normal":   "317B32C143692B9939C197F6A5DF54F9698DF9A4882FE8BF19608968662BE4FA",
	"disabled": "17EB3C0168D0D7B21EDE5481150F17233427D89833EC121B4DBC4FB96CFAB71E",
	"resecret": "EFDD8CCC10F0F04F2034C78E3B846F60B8E4EA78503A4153A708D81ED3294DC5",
	"removed":  "E1F79758CC42E6FE6037941205D1FBC37F5780F13AA077D0BA8287FD93CECD52",
}

// putOldState puts what Debian's server wrote into the folder of the state,
// with the keys of the members.
func putOldState(t *testing.T, dir string, members map[string]member) string {
	t.Helper()
	data, err := os.ReadFile("../oldstate/testdata/python3.pickle")
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range oldKeys {
		if !bytes.Contains(data, []byte(key)) {
			t.Fatalf("the state has no key of %s", name)
		}
		data = bytes.ReplaceAll(data, []byte(key), []byte(members[name].keyID()))
	}
	path := filepath.Join(dir, "state", "clients.pickle")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	// When Debian's server was stopped.
	stopped := time.Date(2026, 11, 22, 3, 57, 0, 0, time.UTC)
	if err := os.Chtimes(path, stopped, stopped); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOldState: what Debian's server had saved applies here, too, now and at
// the next start.
func TestOldState(t *testing.T) {
	members := map[string]member{}
	var sections []string
	for name := range oldKeys {
		m := newMember(t, name)
		m.secret = []byte("secret of " + name)
		members[name] = m
		print := sha1.Sum([]byte(name)) // as in python3.conf
		sections = append(sections, m.section("fingerprint = "+hex.EncodeToString(print[:])))
	}
	dir := folder(t, sections...)
	path := putOldState(t, dir, members)

	// --no-restore logs how many clients it enables that this state would not.
	p := start(t, nil, "--configdir", dir, "--no-restore")
	p.Ready()
	p.stop()
	if want := "the saved state is left aside, clients start as clients.conf says: count=2\n"; !strings.Contains(p.Log(), want) {
		t.Errorf("not logged: %s", want)
	}

	for range 2 {
		p := start(t, nil, "--configdir", dir)
		addr := loopback(p.Ready())
		members["normal"].gets(t, addr)
		members["resecret"].gets(t, addr)
		members["disabled"].getsNothing(t, addr)
		members["removed"].getsNothing(t, addr)
		p.stop()
		log := p.Log()
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		} else if _, err := os.Stat(path + ".imported"); err != nil {
			t.Error(err)
		}
		first := strings.Contains(log, "took over the state")
		// On a busy machine there may be no time to find that out for some clients.
		lost, unknown := strings.Count(log, "the one of clients.conf counts now"), strings.Count(log, "no time to find out")
		if want := map[bool]int{true: 1, false: 0}[first]; lost != want && unknown == 0 || lost > want || unknown > 0 && !first {
			t.Errorf("taken over: %v, secrets that were set at run time: %d, unknown: %d, in\n%s", first, lost, unknown, log)
		}
	}
}

// TestOldStateBroken: a state that can't be read stops the start, with the
// way out, and stays where it is.
func TestOldStateBroken(t *testing.T) {
	a := newMember(t, "a")
	dir := folder(t, a.section())
	path := filepath.Join(dir, "state", "clients.pickle")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(dir, "outside")
	for name, put := range map[string]func() error{
		"a command": func() error {
			return os.WriteFile(path, []byte("\x80\x02cos\nsystem\nX\x07\x00\x00\x00touch x\x85R."), 0o600)
		},
		"empty": func() error { return os.WriteFile(path, nil, 0o600) },
		"huge": func() error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, 1<<30)
		},
		"a link":   func() error { return os.Symlink(outside, path) },
		"a folder": func() error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := put(); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			p := start(t, nil, "--configdir", dir)
			if status := p.Wait(); status != 1 {
				t.Errorf("exit status %d", status)
			}
			for _, want := range []string{path, "not starting", "move it away"} {
				if !strings.Contains(p.Log(), want) {
					t.Errorf("the log has no %q:\n%s", want, p.Log())
				}
			}
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		})
	}
	// With --no-restore it is no obstacle.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "--configdir", dir, "--no-restore")
	a.gets(t, loopback(p.Ready()))
	p.stop()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
