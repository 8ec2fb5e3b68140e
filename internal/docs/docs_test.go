package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mandos/internal/config"
)

const root = "../.."

// ways returns the examples that are run in a way, each with it.
func ways(t *testing.T, is func(Way) bool) map[Example]Way {
	t.Helper()
	examples, err := Examples(root)
	if err != nil {
		t.Fatal(err)
	}
	all, _ := Pair(examples, Ways)
	maps.DeleteFunc(all, func(_ Example, w Way) bool { return !is(w) })
	if len(all) == 0 {
		t.Fatal("no examples")
	}
	return all
}

// TestPaired: each example is run in one way, and each way runs one.
func TestPaired(t *testing.T) {
	examples, err := Examples(root)
	if err != nil {
		t.Fatal(err)
	}
	pairs, errs := Pair(examples, Ways)
	for _, err := range errs {
		t.Error(err)
	}
	if n := len(pairs); n < 40 || n != len(Ways) {
		t.Errorf("%d examples, %d ways", n, len(Ways))
	}
	for _, w := range Ways {
		if w.On != "" {
			if _, err := regexp.Compile(w.Want); err != nil || (w.Want == "") != (w.File != "") || w.File != "" && w.Then == "" {
				t.Errorf("%s: %q: want %q: %v", w.Doc, w.Begins, w.Want, err)
			}
		}
	}
}

func TestPair(t *testing.T) {
	examples := []Example{{"a", 1, "one\n"}, {"a", 3, "two\n"}, {"b", 1, "one\n"}}
	one, two, b := Way{Doc: "a", Begins: "one", NotRun: "x"}, Way{Doc: "a", Begins: "two", NotRun: "x"}, Way{Doc: "b", Begins: "one", Dry: true, Test: "x"}
	for _, c := range []struct {
		name string
		ways []Way
		want string
	}{
		{"all well", []Way{one, two, b}, ""},
		{"an example without a way", []Way{one, b}, "a:3: two: nothing runs"},
		{"a way without an example", []Way{one, two, b, {Doc: "b", Begins: "two", Dry: true}}, `b has no example`},
		{"two ways", []Way{one, two, b, {Doc: "b", Begins: "o", Dry: true}}, "b:1: one: there are two"},
		{"two examples", []Way{{Doc: "a", Dry: true}, b}, "a:3: two: the way to run it is another"},
		{"no kind of way", []Way{one, two, {Doc: "b", Begins: "one"}}, "in 0 ways"},
		{"two kinds", []Way{one, two, {Doc: "b", Begins: "one", On: Server, NotRun: "x"}}, "in 2 ways"},
	} {
		_, errs := Pair(examples, c.ways)
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) == 0 || !strings.Contains(fmt.Sprint(errs), c.want)) {
			t.Errorf("%s: %v", c.name, errs)
		}
	}
}

func TestExtract(t *testing.T) {
	for _, c := range []struct {
		name    string
		extract func(doc, text string) ([]Example, error)
		text    string
		want    []Example // nil: an error
	}{
		{"fences", markdown, "# x\n\n```sh\na\n\n    b\n```\ntext\n```\nc\n```\n", []Example{{"d", 4, "a\n\n    b\n"}, {"d", 10, "c\n"}}},
		{"a fence in a list", markdown, "1. x\n\n   ```sh\n   a\n   ```\n", []Example{{"d", 4, "a\n"}}},
		{"no fence", markdown, "text\n\n    a\n", nil},
		{"an item goes on", markdown, "- text\n\n    and more\n", []Example{}},
		{"no end", markdown, "```sh\na\n", nil},
		{"displays", mdoc, ".Sh X\n.Bd -literal\na \\e\n    b\\-c\n.Ed\n.Dl d\n", []Example{{"d", 3, "a \\\n    b-c\n"}, {"d", 6, "d\n"}}},
		{"a macro in a display", mdoc, ".Bd -literal\n.Nm\n.Ed\n", nil},
		{"a display without end", mdoc, ".Bd -literal\na\n", nil},
		{"comments", comments, "# text:\n#   a\n#     b\n#\n# text\n[Service]\n#   c\nd\n", []Example{{"d", 2, "a\nb\n"}, {"d", 7, "c\n"}}},
	} {
		got, err := c.extract("d", c.text)
		if (err != nil) != (c.want == nil) || err == nil && len(got)+len(c.want) > 0 && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

// TestParsed parses the examples of configuration files.
func TestParsed(t *testing.T) {
	for e, w := range ways(t, func(w Way) bool { return w.Parsed != "" }) {
		dir := t.TempDir()
		t.Setenv("CREDENTIALS_DIRECTORY", dir)
		text := strings.ReplaceAll(e.Text, "/etc/mandos/secrets", dir)
		for _, m := range regexp.MustCompile(`(?m)^secfile = (.*)`).FindAllStringSubmatch(text, -1) {
			write(t, filepath.Join(dir, filepath.Base(m[1])), "secret")
		}
		if w.Parsed == "clients.conf" && !strings.Contains(text, "key_id") {
			identity := "key_id = " + strings.Repeat("5f", 32) + "\nhost = x\n"
			if strings.HasPrefix(text, "[DEFAULT]\n") {
				text += "[x]\nsecret = YQ==\n" + identity
			} else {
				text += identity
			}
		}
		write(t, filepath.Join(dir, w.Parsed), text)
		cl, err := config.ParseArgs([]string{"--configdir", dir})
		if err != nil {
			t.Fatal(err)
		}
		_, clients, found := config.Load(cl, config.LoadOptions{Suspect: true})
		for _, f := range found {
			// The secrets are made up.
			if filepath.Base(f.File) == w.Parsed && f.Key != "secret" && f.Key != "secfile" || !f.Warning {
				t.Errorf("%v: %v", e, f)
			}
		}
		if w.Parsed == "clients.conf" && len(clients) == 0 {
			t.Errorf("%v: it has no clients", e)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDry has make look up the targets.
func TestDry(t *testing.T) {
	for e := range ways(t, func(w Way) bool { return w.Dry }) {
		for line := range strings.Lines(e.Text) {
			words, _, _ := strings.Cut(line, "#")
			args := strings.Fields(words)
			if args[0] != "make" {
				t.Errorf("%v: %s is no make", e, words)
				continue
			}
			cmd := exec.Command("make", append([]string{"--dry-run", "--no-print-directory"}, args[1:]...)...)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil || len(out) == 0 {
				t.Errorf("%v: %s: %v\n%s", e, words, err, out)
			}
		}
	}
}

// TestGo compiles the examples in Go.
func TestGo(t *testing.T) {
	for e, w := range ways(t, func(w Way) bool { return w.Go != "" }) {
		folder, err := filepath.Abs(filepath.Join(root, w.Go))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		source := filepath.Join(dir, "example.go")
		write(t, source, "package interop_test\n\nimport (\n\"testing\"\n\n\"mandos/"+w.Go+"\"\n)\n\nfunc TestExample(t *testing.T) {\npassword := []byte(\"x\")\n"+e.Text+"_ = got\n}\n")
		overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(folder, "zz_example_test.go"): source}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "overlay"), string(overlay))
		cmd := exec.Command("go", "vet", "-overlay", filepath.Join(dir, "overlay"), ".")
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", e, err, out)
		}
	}
}

// TestTree holds the layout against the folders.
func TestTree(t *testing.T) {
	for e := range ways(t, func(w Way) bool { return w.Tree }) {
		// What comes before the description of a line, which two blanks set off.
		var named []string
		for line := range strings.Lines(e.Text) {
			in := strings.HasPrefix(line, " ")
			for _, word := range strings.Fields(regexp.MustCompile(`^( *\S.*?)  .*`).ReplaceAllString(strings.TrimSuffix(line, "\n"), "$1")) {
				if name := strings.TrimSuffix(word, "/"); in && !slices.Contains([]string{"below"}, name) {
					named = append(named, "internal/"+name)
				} else {
					named = append(named, name)
				}
			}
		}
		for _, name := range named {
			if info, err := os.Stat(filepath.Join(root, name)); err != nil || !info.IsDir() {
				t.Errorf("%v: it names %s, which is no folder", e, name)
			}
		}
		there, err := os.ReadDir(filepath.Join(root, "internal"))
		if err != nil || len(there) < 20 {
			t.Fatal(there, err)
		}
		for _, folder := range there {
			if folder.IsDir() && !slices.Contains(named, "internal/"+folder.Name()) && !strings.Contains(e.Text, " "+folder.Name()+"/") {
				t.Errorf("%v: it doesn't name internal/%s", e, folder.Name())
			}
		}
	}
}

// TestTests: the tests that are said to run an example are there.
func TestTests(t *testing.T) {
	for _, w := range Ways {
		if w.Test == "" {
			continue
		}
		folder, name, _ := strings.Cut(w.Test, " ")
		files, _ := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
		if !slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(text), "\nfunc "+name+"(t *testing.T) {\n")
		}) {
			t.Errorf("%s: %q: there is no test %s", w.Doc, w.Begins, w.Test)
		}
	}
}
