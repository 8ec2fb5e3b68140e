package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const brokenGolden = "testdata/broken.golden.txt"

// TestBroken is for a person to read: testdata/broken.golden.txt shows each
// broken file with what is said about it. Every error must name the file and
// its line, and a remedy.
func TestBroken(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	paths, err := filepath.Glob("testdata/broken/*.conf")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d files (%v)", len(paths), err)
	}
	var all strings.Builder
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".conf")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(name, "-")
		dir := files(t, map[string]string{kind + ".conf": string(text)})
		var found Findings
		if kind == "clients" {
			var clients Clients
			if clients, found = LoadClients(dir, LoadOptions{}); clients != nil {
				t.Errorf("%s: refused, but there are clients", name)
			}
		} else {
			var s *Server
			if s, found = LoadServer(mustArgs(t, "--configdir", dir), LoadOptions{}); s != nil {
				t.Errorf("%s: refused, but there is a Server", name)
			}
		}
		if found.Err() == nil {
			t.Errorf("%s: not refused", name)
		}
		for _, f := range found.Errors() {
			if f.File != filepath.Join(dir, kind+".conf") || f.Line == 0 {
				t.Errorf("%s: no place: %v", name, f)
			}
			if f.Remedy == "" {
				t.Errorf("%s: no remedy: %v", name, f)
			}
			if strings.ContainsAny(f.String(), "\n\r\x00\x1b") {
				t.Errorf("%s: not one line: %q", name, f.String())
			}
		}
		fmt.Fprintf(&all, "### %s\n", name)
		n := 0
		for line := range lines(string(text)) {
			n++
			fmt.Fprintf(&all, "%4d  %s\n", n, strings.ToValidUTF8(line, "�"))
		}
		all.WriteString(strings.ReplaceAll(found.String(), dir, "/etc/mandos") + "\n")
	}
	if *update {
		if err := os.WriteFile(brokenGolden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(brokenGolden)
	if err != nil {
		t.Fatal(err)
	}
	if got := all.String(); got != string(want) {
		t.Errorf("the messages differ from %s; read them, then -update. Got:\n%s", brokenGolden, got)
	}
}
