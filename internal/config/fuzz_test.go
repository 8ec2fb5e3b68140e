package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mandos/internal/checker"
)

// FuzzClients: whatever a clients.conf holds, reading it ends, says what is
// wrong and where, and leaves only clients that the rules can work with.
func FuzzClients(f *testing.F) {
	for _, pattern := range []string{"testdata/ini/*.ini", "testdata/broken/clients-*.conf"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Add("[DEFAULT]\nchecker = true\n[foo]\nkey_id = " + keyA + "\nfingerprint = " + fprA + "\nsecret = YQ==\n[bar]\nkey_id = " + keyB + "\nsecret =\n YQ==\ntimeout = 5m 1s\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), "secfile") {
			return // reads no file of this machine
		}
		l := newLoader(LoadOptions{Suspect: true})
		l.read("f", text)
		clients, found := l.load()
		for _, f := range found {
			s := f.String()
			if !strings.HasPrefix(s, "f:") || f.Line == 0 || f.Problem == "" || strings.ContainsAny(s, "\n\x00\x1b") {
				t.Errorf("%q", s)
			}
		}
		if found.Err() != nil {
			if clients != nil {
				t.Error("refused, but there are clients")
			}
			return
		}
		seen := map[string]bool{}
		for _, c := range clients {
			ids := []string{"name " + c.Name}
			if !c.KeyID.IsZero() {
				ids = append(ids, "key ID "+c.KeyID.String())
			}
			if !c.Fingerprint.IsZero() {
				ids = append(ids, "fingerprint "+c.Fingerprint.String())
			}
			for _, id := range ids {
				if seen[id] {
					t.Errorf("two clients have the %s", id)
				}
				seen[id] = true
			}
			if c.KeyID.IsZero() && c.Fingerprint.IsZero() || c.KeyID.IsOfNothing() {
				t.Errorf("%q has no identity", c.Name)
			}
			for _, d := range []time.Duration{c.Timeout - 1, c.Interval - 1, c.ExtendedTimeout, c.ApprovalDelay, c.ApprovalDuration} {
				if d < 0 || d > maxDuration {
					t.Errorf("%q has the duration %v", c.Name, d)
				}
			}
			if err := checker.Validate(c.Checker); err != nil || c.Checker == "" {
				t.Errorf("%q has the checker %q: %v", c.Name, c.Checker, err)
			}
		}
	})
}

// FuzzServer: whatever a mandos.conf holds, reading it ends and says what is
// wrong and where.
func FuzzServer(f *testing.F) {
	paths, err := filepath.Glob("testdata/broken/mandos-*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := files(t, map[string]string{"mandos.conf": text})
		s, found := LoadServer(mustArgs(t, "--configdir", dir), LoadOptions{Suspect: true})
		if (s == nil) != (found.Err() != nil) {
			t.Errorf("%v beside %v", s, found)
		}
		for _, f := range found {
			if f.Line == 0 || strings.ContainsAny(f.String(), "\n\x00\x1b") {
				t.Errorf("%q", f)
			}
		}
	})
}

// FuzzArgs: a command line is accepted, or refused with a reason; the options
// of one that is accepted are still valid when they are set.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{"", "--port=6637\x00-i\x00eth0", "--check", "--debug\x00--no-dbus", "--priority\x00NONE", "-a::1", "--port=x", "--socket=-1", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		cl, err := ParseArgs(strings.Split(line, "\x00"))
		if (cl == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", line, cl, err)
		}
		if err != nil {
			if err.Error() == "" {
				t.Errorf("%q is refused without a word", line)
			}
			return
		}
		if cl.ConfigDir() == "" {
			t.Errorf("%q: no folder", line)
		}
		for _, g := range cl.given {
			if err := g.option.set(new(Server), g.value); err != nil {
				t.Errorf("%q: --%s %q: %v", line, g.option.Long, g.value, err)
			}
		}
	})
}

// manyClients returns a clients.conf with n clients as mandos-keygen makes
// them, secrets of 1,190 bytes included.
func manyClients(n int) string {
	secret := strings.Repeat("    "+strings.Repeat("QUJD", 19)+"\n", 21) // 1,197 bytes
	var b strings.Builder
	b.WriteString("[DEFAULT]\ninterval = PT2M\n\n")
	for i := range n {
		fmt.Fprintf(&b, "[host%d.example.org]\nhost = host%[1]d.example.org\nkey_id = %064x\nfingerprint = %040X\nsecret =\n%s\n", i, i+1, i+1, secret)
	}
	return b.String()
}

// BenchmarkLoadClients100k is what a start with 100,000 clients takes.
func BenchmarkLoadClients100k(b *testing.B) {
	const n = 100_000
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "clients.conf"), []byte(manyClients(n)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		clients, found := LoadClients(dir, LoadOptions{})
		if len(clients) != n || len(found) != 0 {
			b.Fatal(len(clients), found)
		}
	}
}
