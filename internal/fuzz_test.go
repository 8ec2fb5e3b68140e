package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFuzzersAreListed: SECURITY.md lists each fuzzer, and none that isn't; and
// a corpus belongs to a fuzzer that exists.
func TestFuzzersAreListed(t *testing.T) {
	page, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z0-9/-]+) \| (Fuzz[A-Za-z0-9]+) \| .+ \| [0-9]+ \| [0-9]+ % \| [0-9]+ \|$`).FindAllStringSubmatch(string(page), -1) {
		listed[row[1]+" "+row[2]] = true
	}
	fuzzer := regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9]+)\(`)
	found := map[string]bool{}
	var corpora []string
	for _, top := range []string{".", "../cmd"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			dir := strings.TrimPrefix(filepath.Dir(path), "../")
			switch {
			case err != nil:
				return err
			case d.IsDir() && strings.HasSuffix(dir, "/testdata/fuzz"):
				corpora = append(corpora, strings.TrimSuffix(dir, "/testdata/fuzz")+" "+d.Name())
			case strings.HasSuffix(path, "_test.go"):
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				for _, f := range fuzzer.FindAllStringSubmatch(string(text), -1) {
					found[dir+" "+f[1]] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) < 30 {
		t.Errorf("only %d fuzzers were found", len(found))
	}
	for f := range found {
		if !listed[f] {
			t.Errorf("SECURITY.md doesn't list %s: make fuzz-coverage", f)
		}
	}
	for f := range listed {
		if !found[f] {
			t.Errorf("SECURITY.md lists %s, which isn't there: make fuzz-coverage", f)
		}
	}
	for _, f := range corpora {
		if !found[f] {
			t.Errorf("there is a corpus of %s, which isn't there", f)
		}
	}
}

// TestCitedTestsExist: what SECURITY.md names as its proof is there: tests, and
// targets of make.
func TestCitedTestsExist(t *testing.T) {
	page, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	var code, makefiles strings.Builder
	for _, top := range []string{".", "../cmd"} {
		err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			code.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	paths, err := filepath.Glob("../tools/*.mk")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, "../Makefile") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		makefiles.Write(text)
	}
	cited := regexp.MustCompile("`(Test[A-Za-z0-9]+)(…?)`").FindAllStringSubmatch(string(page), -1)
	if len(cited) < 20 {
		t.Errorf("only %d tests are cited", len(cited))
	}
	for _, c := range cited {
		pattern := `(?m)^func ` + c[1]
		if c[2] == "" {
			pattern += `\(`
		}
		if !regexp.MustCompile(pattern).MatchString(code.String()) {
			t.Errorf("SECURITY.md cites %s, which isn't there", c[1])
		}
	}
	for _, c := range regexp.MustCompile("`make ([a-z-]+)").FindAllStringSubmatch(string(page), -1) {
		if !regexp.MustCompile(`(?m)^[a-z -]*\b` + c[1] + `\b[a-z -]*:`).MatchString(makefiles.String()) {
			t.Errorf("SECURITY.md cites make %s, which isn't there", c[1])
		}
	}
}
