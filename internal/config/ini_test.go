package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	ini1 "gopkg.in/ini.v1"

	"mandos/internal/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew; those of the INI dialect need /usr/bin/python3")

const iniGolden = "testdata/ini.golden.json"

// A dialectFile is how Python's configparser, or our reader, reads a file.
type dialectFile struct {
	Error    string           `json:"error,omitempty"` // its kind; only whether there is one is compared
	Sections []dialectSection `json:"sections,omitempty"`
}

type dialectSection struct {
	Name   string                  `json:"name"`
	Values map[string]dialectValue `json:"values"`
}

type dialectValue struct {
	Value string `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// TestDialectGolden reads the hard files as Python did when the golden file
// was written.
func TestDialectGolden(t *testing.T) {
	if *update {
		if err := os.WriteFile(iniGolden, askPython(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(iniGolden)
	if err != nil {
		t.Fatal(err)
	}
	compareDialect(t, golden)
}

// TestDialectLive reads them as the Python of this machine does.
func TestDialectLive(t *testing.T) { compareDialect(t, askPython(t)) }

func askPython(t *testing.T) []byte {
	t.Helper()
	python := testenv.Program(t, "/usr/bin/python3", "python3")
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, "testdata/golden.py", "testdata/ini")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return out
}

func compareDialect(t *testing.T, golden []byte) {
	var want map[string]dialectFile
	if err := json.Unmarshal(golden, &want); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("testdata/ini/*.ini")
	if err != nil || len(names) < 40 || len(names) != len(want) {
		t.Fatalf("%d files, of which the golden file knows %d (%v)", len(names), len(want), err)
	}
	for _, path := range names {
		name := filepath.Base(path)
		t.Run(strings.TrimSuffix(name, ".ini"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, want := readDialect(string(text)), want[name]
			if (got.Error != "") != (want.Error != "") {
				t.Fatalf("error %q, Python's %q", got.Error, want.Error)
			}
			if len(got.Sections) != len(want.Sections) {
				t.Fatalf("%d sections, Python has %d", len(got.Sections), len(want.Sections))
			}
			for i, g := range got.Sections {
				w := want.Sections[i]
				if g.Name != w.Name {
					t.Errorf("section %q, Python has %q", g.Name, w.Name)
				}
				for key, gv := range g.Values {
					wv, ok := w.Values[key]
					if !ok || gv.Value != wv.Value || (gv.Error != "") != (wv.Error != "") {
						t.Errorf("[%s] %q:\ngot    %q\nPython %q", g.Name, key, gv, wv)
					}
				}
				if len(g.Values) != len(w.Values) {
					t.Errorf("[%s] has %d keys, Python %d", g.Name, len(g.Values), len(w.Values))
				}
			}
		})
	}
}

func readDialect(text string) dialectFile {
	f := newINI()
	f.read("x.ini", text)
	if err := f.found.list.Err(); err != nil {
		return dialectFile{Error: err.Error()}
	}
	var all dialectFile
	for _, s := range append([]*section{nil}, f.sections...) {
		d := dialectSection{Name: defaultSection, Values: map[string]dialectValue{}}
		entries := map[string]*entry{}
		for key, e := range f.defaults {
			entries[key] = e
		}
		if s != nil {
			d.Name = s.name
			for i := range s.entries {
				entries[s.entries[i].key] = &s.entries[i]
			}
		}
		for key, e := range entries {
			v, err := f.value(s, e)
			if err != nil {
				d.Values[key] = dialectValue{Error: err.Error()}
			} else {
				d.Values[key] = dialectValue{Value: v}
			}
		}
		all.Sections = append(all.Sections, d)
	}
	return all
}

// TestIni1StillDiffers is why the reader is our own. The library is set to be
// as close to Python's dialect as it can be, and interpolation, which we would
// add to it, is left out of the comparison. If it ever reads every file as
// Python does, and has line numbers, it can replace our reader.
func TestIni1StillDiffers(t *testing.T) {
	golden, err := os.ReadFile(iniGolden)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]dialectFile
	if err := json.Unmarshal(golden, &want); err != nil {
		t.Fatal(err)
	}
	var differ []string
	for name, w := range want {
		text, err := os.ReadFile("testdata/ini/" + name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ini1.LoadSources(ini1.LoadOptions{
			InsensitiveKeys: true, IgnoreContinuation: true, IgnoreInlineComment: true, AllowPythonMultilineValues: true,
			PreserveSurroundedQuote: true, ChildSectionDelimiter: "\x00", ReaderBufferSize: len(text) + 1,
		}, text)
		if (err != nil) != (w.Error != "") {
			differ = append(differ, name)
			continue
		}
		if err != nil {
			continue
		}
		same := len(f.Sections()) == len(w.Sections)
		for _, s := range w.Sections {
			g, err := f.GetSection(s.Name)
			if err != nil {
				same = false
				continue
			}
			for key, v := range s.Values {
				if !g.HasKey(key) && s.Name != defaultSection && f.Section("").HasKey(key) {
					continue // inherited
				}
				if v.Error == "" && !strings.Contains(g.Key(key).Value(), "%") && g.Key(key).Value() != v.Value {
					same = false
				}
			}
		}
		if !same {
			differ = append(differ, name)
		}
	}
	t.Logf("gopkg.in/ini.v1 reads %d of %d files in another way than Python", len(differ), len(want))
	if len(differ) == 0 {
		t.Error("gopkg.in/ini.v1 reads every file as Python does: use it")
	}
}

// TestLines: every entry and section knows its place, in each kind of file.
func TestLines(t *testing.T) {
	f := newINI()
	f.read("f", "# c\r\n[a]\r\nk = 1\r\n\r\n  2\r\n# c\r\nj = 3\r\n[b]\rk=4\r\n")
	var got []string
	for _, s := range f.sections {
		got = append(got, fmt.Sprintf("%s@%d", s.name, s.line))
		for _, e := range s.entries {
			got = append(got, fmt.Sprintf("%s@%d", e.key, e.line))
		}
	}
	if want := []string{"a@2", "k@3", "j@7", "b@8", "k@9"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestManyEntries looks up keys in a section with more than manyEntries.
func TestManyEntries(t *testing.T) {
	var b strings.Builder
	b.WriteString("[a]\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "k%d = %d %%(k%d)s\n", i, i, (i/10)*10+9)
	}
	f := newINI()
	f.read("f", strings.ReplaceAll(b.String(), "9 %(k", "9 %%(k"))
	s := f.byName["a"]
	for i := range 1000 {
		e, ok := s.get(fmt.Sprintf("k%d", i))
		if !ok || e.line != i+2 {
			t.Fatalf("k%d is %+v", i, e)
		}
	}
	if _, ok := s.get("k1000"); ok {
		t.Error("there is a k1000")
	}
}

// TestExpansionIsBounded: small files can't expand to huge values.
func TestExpansionIsBounded(t *testing.T) {
	for _, last := range []string{"", "0123456789"} {
		var b strings.Builder
		b.WriteString("[a]\n")
		for i := range 9 {
			fmt.Fprintf(&b, "k%d = %s\n", i, strings.Repeat(fmt.Sprintf("%%(k%d)s", i+1), 50))
		}
		fmt.Fprintf(&b, "k9 = %s\n", last)
		f := newINI()
		f.read("f", b.String())
		e, _ := f.sections[0].get("k0")
		if _, err := f.value(f.sections[0], e); err == nil || !strings.Contains(err.Error(), "too large together") {
			t.Errorf("with %q at the end: error %v", last, err)
		}
	}
}
