package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"mandos/internal/checker"
	"mandos/internal/config"
	"mandos/internal/ctl"
	"mandos/internal/fetch"
	"mandos/internal/keygen"
)

func page(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile("../man/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

var optionName = regexp.MustCompile(`\bFl (?:\\&)?(-?[A-Za-z?][A-Za-z0-9-]*)`)

// documented returns the options that have an entry in the page, with their
// dashes.
func documented(t *testing.T, name string) (options []string) {
	for _, line := range page(t, name) {
		if !strings.HasPrefix(line, ".It Fl ") {
			continue
		}
		for _, m := range optionName.FindAllStringSubmatch(line, -1) {
			options = append(options, "-"+m[1])
		}
	}
	return options
}

// inTable returns the options of a table, with their dashes.
func inTable(fs *pflag.FlagSet) (options []string) {
	fs.VisitAll(func(f *pflag.Flag) {
		options = append(options, "--"+f.Name)
		if f.Shorthand != "" {
			options = append(options, "-"+f.Shorthand)
		}
	})
	return options
}

// inHelp returns the options that a command prints with --help.
func inHelp(t *testing.T, command string) (options []string) {
	t.Helper()
	cmd := exec.Command("go", "run", "mandos/cmd/"+command, "--help")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	// "  -v, --version   print …"
	for _, m := range regexp.MustCompile(`(?m)^ +(?:(-[A-Za-z]), )?(--[a-z][a-z0-9-]*)`).FindAllStringSubmatch(string(out), -1) {
		options = append(options, m[2])
		if m[1] != "" {
			options = append(options, m[1])
		}
	}
	if len(options) == 0 {
		t.Fatalf("%s: no option in its help:\n%s", command, out)
	}
	return options
}

// same holds two lists against each other, in both directions.
func same(t *testing.T, page string, has, wants []string) {
	t.Helper()
	if len(wants) == 0 {
		t.Fatalf("%s: nothing to hold it against", page)
	}
	for _, o := range wants {
		if !slices.Contains(has, o) {
			t.Errorf("%s says nothing of %s", page, o)
		}
	}
	for i, o := range has {
		if !slices.Contains(wants, o) {
			t.Errorf("%s has %s, which there is not", page, o)
		}
		if slices.Contains(has[:i], o) {
			t.Errorf("%s has %s twice", page, o)
		}
	}
}

// TestManOptions holds every option against its page, and every entry of a
// page against the options.
func TestManOptions(t *testing.T) {
	same(t, "mandos.8", documented(t, "mandos.8"), inTable(config.Flags()))
	same(t, "mandos-ctl.8", documented(t, "mandos-ctl.8"), inTable(ctl.Options()))
	same(t, "mandos-client.8", documented(t, "mandos-client.8"), inTable(fetch.Options()))
	same(t, "mandos-keygen.8", documented(t, "mandos-keygen.8"), inTable(keygen.Options()))
	for _, command := range []string{"mandos-checker", "mandos-monitor"} {
		same(t, command+".8", documented(t, command+".8"), inHelp(t, command))
	}
}

// TestManEnvironment: what a checker's command sees is what its page says.
func TestManEnvironment(t *testing.T) {
	text := strings.Join(page(t, "mandos-checker.8"), "\n")
	for _, variable := range checker.Environment("x") {
		name, value, _ := strings.Cut(variable, "=")
		if name != "MANDOS_CLIENT" {
			name += " ,\nwhich is\n.Ql " + value
		}
		if !strings.Contains(text, ".Ev "+name) {
			t.Errorf("mandos-checker.8 doesn't say %s", variable)
		}
	}
}

// keys returns the keys that have an entry in the page, each with its text.
func keys(t *testing.T, name string) (names []string, texts map[string]string) {
	texts = map[string]string{}
	key := ""
	for _, line := range page(t, name) {
		switch {
		case strings.HasPrefix(line, ".It Ic "):
			key = strings.TrimPrefix(line, ".It Ic ")
			names = append(names, key)
		case strings.HasPrefix(line, ".It ") || line == ".El":
			key = ""
		case key != "":
			texts[key] += line + "\n"
		}
	}
	return names, texts
}

// TestManKeys does the same for the keys of the configuration, and their
// defaults.
func TestManKeys(t *testing.T) {
	defaults := map[string]map[string]string{"mandos.conf.5": {}, "mandos-clients.conf.5": {}}
	for _, o := range config.Options {
		if o.Key != "" {
			defaults["mandos.conf.5"][o.Key] = o.Default
		}
	}
	for _, k := range config.ClientKeys {
		defaults["mandos-clients.conf.5"][k.Key] = k.Default
	}
	for name, wants := range defaults {
		has, texts := keys(t, name)
		var all []string
		for key, value := range wants {
			all = append(all, key)
			if value != "" && !strings.Contains(texts[key], "Default:\n.Ql "+value+" .\n") {
				t.Errorf("%s: the entry of %s doesn't give the default %q", name, key, value)
			}
		}
		same(t, name, has, all)
	}
}

// TestManReferences: each page of ours that another names is there, and each
// command has one.
func TestManReferences(t *testing.T) {
	pages, err := filepath.Glob("../man/*.[1-8]")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, path := range pages {
		for _, line := range page(t, filepath.Base(path)) {
			if m := regexp.MustCompile(`Xr (mandos\S*) (\d)`).FindStringSubmatch(line); m != nil {
				if _, err := os.Stat("../man/" + m[1] + "." + m[2]); err != nil {
					t.Errorf("%s: %s: %v", path, line, err)
				}
			}
		}
	}
	commands, _ := filepath.Glob("../cmd/*")
	for _, c := range commands {
		if _, err := os.Stat("../man/" + filepath.Base(c) + ".8"); err != nil {
			t.Error(err)
		}
	}
}
