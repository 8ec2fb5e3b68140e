package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"mandos/internal/config"
	"mandos/internal/ctl"
	"mandos/internal/fetch"
	"mandos/internal/journal"
	"mandos/internal/keygen"
	"mandos/internal/testenv"
)

// sources are the texts of all files of the tree that program says, such as
// "*.go", without tests.
func sources(t *testing.T, glob string, folders ...string) (all string) {
	t.Helper()
	var b strings.Builder
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if ok, _ := filepath.Match(glob, filepath.Base(path)); !ok || err != nil || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			b.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func readme(t *testing.T) string { return page(t, "README.md") }

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSymptoms: what README.md says that a program says is in the program.
func TestSymptoms(t *testing.T) {
	_, text, _ := strings.Cut(readme(t), "\n## When something is wrong\n")
	text, _, _ = strings.Cut(text, "\n## ")
	code := sources(t, "*.go", "internal", "cmd")
	// These are made of parts.
	parts := map[string]string{"exit status 127": `exit status %d`, "exit status 4": `exit status %d`, "everybody may read or change the file": `"read or change"`}
	checked := 0
	for line := range strings.Lines(text) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			if m[1] == "journalctl MESSAGE_ID=" {
				continue
			}
			said := m[1]
			if part, ok := parts[said]; ok {
				said = part
			}
			checked++
			if !strings.Contains(code, said) {
				t.Errorf("README.md says that something says %q, but nothing does", m[1])
			}
		}
	}
	if checked < 25 {
		t.Errorf("only %d messages", checked)
	}
}

// TestCitedDocuments: what a program's comment or message refers to is there.
func TestCitedDocuments(t *testing.T) {
	cited := regexp.MustCompile(`\w+\.md\b`).FindAllString(sources(t, "*.go", "internal", "cmd", "tools"), -1)
	if len(cited) == 0 {
		t.Error("nothing is cited")
	}
	for _, name := range cited {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("%s isn't in the source tree", name)
		}
	}
}

// TestComponents: the components that --debuglevel takes are those that log.
func TestComponents(t *testing.T) {
	var logging []string
	for _, m := range regexp.MustCompile(`journal\.Component\("(\w+)"\)`).FindAllStringSubmatch(sources(t, "*.go", "internal", "cmd"), -1) {
		logging = append(logging, m[1])
	}
	slices.Sort(logging)
	if logging = slices.Compact(logging); !slices.Equal(logging, journal.Components) {
		t.Errorf("%q log, but journal.Components are %q", logging, journal.Components)
	}
}

// TestMessageIDs: each MESSAGE_ID is there, and beside its own text.
func TestMessageIDs(t *testing.T) {
	events := map[string]string{}
	for _, m := range regexp.MustCompile(`Event\{"([0-9a-f]{32})", [\w.]+, "(.*)"\}`).FindAllStringSubmatch(sources(t, "events.go", "internal/journal"), -1) {
		events[m[1]] = m[2]
	}
	if len(events) < 50 {
		t.Fatalf("only %d events", len(events))
	}
	text := readme(t)
	inTable := 0
	for _, m := range regexp.MustCompile(`(?m)^.*\b([0-9a-f]{32})\b.*$`).FindAllStringSubmatch(text, -1) {
		message, known := events[m[1]]
		if !known {
			t.Errorf("there is no event of the ID in %q", m[0])
		}
		if strings.HasPrefix(m[0], "| ") {
			inTable++
			if m[0] != "| "+message+" | "+m[1]+" |" {
				t.Errorf("%q: the message is %q", m[0], message)
			}
		}
	}
	if inTable < 5 {
		t.Errorf("only %d entries in the table", inTable)
	}
}

// TestOptionsInText: each option that a text gives to one of our commands is
// one that the command has.
func TestOptionsInText(t *testing.T) {
	has := map[string]*pflag.FlagSet{"mandos": config.Flags(), "mandos-ctl": ctl.Options(), "mandos-client": fetch.Options(), "mandos-keygen": keygen.Options()}
	text := readme(t) + sources(t, "*.[1-8]", "man") + sources(t, "*.conf", "man/examples", "systemd/examples") + sources(t, "mandos.catalog", "systemd") + page(t, "SECURITY.md")
	// A command with what follows it, up to something that isn't of it.
	found := 0
	for _, m := range regexp.MustCompile(`(?:^|[\s"'`+"`"+`])(-u )?(mandos(?:-ctl|-client|-keygen)?) +(-[^"'`+"`"+`;|&\n]*)`).FindAllStringSubmatch(strings.ReplaceAll(text, "\\\n", " "), -1) {
		if m[1] != "" {
			continue // journalctl's
		}
		for _, word := range strings.Fields(m[3]) {
			name, _, _ := strings.Cut(word, "=")
			long, ok := strings.CutPrefix(strings.TrimRight(name, ".,:)"), "--")
			if !ok {
				continue
			}
			found++
			if has[m[2]].Lookup(long) == nil {
				t.Errorf("%s has no option --%s: %s", m[2], long, strings.TrimSpace(m[0]))
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d options", found)
	}
}

// TestLinks: what README.md links to is there.
func TestLinks(t *testing.T) {
	text := readme(t)
	var anchors []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchors = append(anchors, "#"+regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), ""))
	}
	for i := range anchors {
		anchors[i] = strings.ReplaceAll(anchors[i], " ", "-")
	}
	found := 0
	for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		found++
		switch target := m[1]; {
		case strings.HasPrefix(target, "https://"):
		case strings.HasPrefix(target, "#"):
			if !slices.Contains(anchors, target) {
				t.Errorf("README.md has no section %s", target)
			}
		default:
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Error(err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d links", found)
	}
}

// TestHTML: make html makes a page of each, and the links between them are
// whole.
func TestHTML(t *testing.T) {
	testenv.Program(t, "mandoc", "mandoc")
	cmd := exec.Command("make", "--no-print-directory", "html")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(root, "man/*.[1-8]"))
	if err != nil || len(pages) < 10 {
		t.Fatal(pages, err)
	}
	folder := filepath.Join(root, "build/html")
	links := 0
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(folder, filepath.Base(page)+".html"))
		if err != nil {
			t.Error(err)
		}
		for _, m := range regexp.MustCompile(`href="([^"#:]+)["#]`).FindAllStringSubmatch(string(text), -1) {
			links++
			if _, err := os.Stat(filepath.Join(folder, m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links", links)
	}
}

// TestInstallOverDebians: make install stops before it puts its unit over that
// of Debian's server, which then couldn't save who is disabled.
func TestInstallOverDebians(t *testing.T) {
	old := filepath.Join(t.TempDir(), "mandos")
	if err := os.WriteFile(old, []byte("#!/usr/bin/python3 -bbI\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		stop bool
	}{
		{"OLDSERVER=" + old, true},
		{"OLDSERVER=" + old + " DESTDIR=/nonexistent", false}, // for a package
		{"OLDSERVER=" + self, false},
		{"OLDSERVER=/nonexistent", false},
	} {
		cmd := exec.Command("make", append([]string{"--no-print-directory", "no-old-server"}, strings.Fields(test.args)...)...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if (err != nil) != test.stop || test.stop && !strings.Contains(string(out), old+" is Debian's: install a package") {
			t.Errorf("%s: %v\n%s", test.args, err, out)
		}
	}
	first := exec.Command("make", "--no-print-directory", "--dry-run", "install", "OLDSERVER="+old)
	first.Dir = root
	if out, err := first.Output(); err != nil || !strings.HasPrefix(string(out), "test -n '' || ! head -c 2 "+old) {
		t.Errorf("make install doesn't begin with looking for it: %v\n%.500s", err, out)
	}
}
