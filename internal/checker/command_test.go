package checker

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"mandos/internal/testenv"
)

// Each template as Python's % operator with a mapping of quoted values
// treats it; TestExpandLive asks Python itself.
var expansions = []struct {
	template string
	want     string
	wantErr  string
}{
	{template: "", want: ""},
	{template: "true", want: "true"},
	{template: "fping -q -- %(host)s", want: "fping -q -- ::1"},
	{template: "%(host)s%(host)s", want: "::1::1"},
	{template: "%(name)s", want: `'it'"'"'s; rm -rf /'`},
	{template: "a %(empty)s b", want: "a '' b"},
	{template: "date +%%s", want: "date +%s"},
	{template: "%%(host)s", want: "%(host)s"},
	{template: "%%%(host)s%%", want: "%::1%"},
	{template: "100%%", want: "100%"},
	{template: "%(Host)s", wantErr: "%(Host)s has no value"},
	{template: "%(nothing)s", wantErr: "%(nothing)s has no value"},
	{template: "100%", wantErr: `at "%", there must be`},
	{template: "%(host", wantErr: `"%(host" is wrong: it must read %(name)s, with an s`},
	{template: "%(host)", wantErr: `"%(host)" is wrong: it must read %(name)s, with an s`},
	{template: "%()s", wantErr: `"%()s" is wrong: it must read %(name)s, with an s`},
	{template: "date +%Y-%m", wantErr: `at "%Y-%m", there must be`},
	{template: "%q" + strings.Repeat("é", 100), wantErr: `"%q` + strings.Repeat("é", 19) + `…"`},
}

var values = map[string]string{"host": "::1", "name": "it's; rm -rf /", "empty": ""}

func TestExpand(t *testing.T) {
	for _, tt := range expansions {
		got, err := Expand(tt.template, values)
		switch {
		case tt.wantErr != "":
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) || got != "" {
				t.Errorf("Expand(%q) = %q, %v; want an error with %q", tt.template, got, err, tt.wantErr)
			}
		case err != nil || got != tt.want:
			t.Errorf("Expand(%q) = %q, %v; want %q", tt.template, got, err, tt.want)
		}
	}
}

func TestExpandLive(t *testing.T) {
	type answer struct{ Text, Error string }
	var templates []string
	for _, tt := range expansions {
		templates = append(templates, tt.template)
	}
	var answers []answer
	ask(t, `
import json, shlex, sys
templates, values = json.load(sys.stdin)
values = {k: shlex.quote(v) for k, v in values.items()}
out = []
for t in templates:
    try:
        out.append({"Text": t % values})
    except (KeyError, TypeError, ValueError) as e:
        out.append({"Error": type(e).__name__})
print(json.dumps(out))`, []any{templates, values}, &answers)
	for i, tt := range expansions {
		if tt.template == "%()s" {
			continue // Python looks up the empty name, which fails, too
		}
		if failed := answers[i].Error != ""; failed != (tt.wantErr != "") {
			t.Errorf("%q: Python says %+v, the table %q", tt.template, answers[i], tt.wantErr)
		}
		if answers[i].Text != tt.want {
			t.Errorf("%q: Python says %q, the table %q", tt.template, answers[i].Text, tt.want)
		}
	}
}

func TestQuoteLive(t *testing.T) {
	words := []string{"", " ", "'", "''", "a'b", "$HOME", "`id`", "a\nb", "a\\b", "é", "~", "-rf", "a*b", "%(x)s", "\x7f", "\t", "!", "#", "[x]", "{a,b}", "1 day, 0:05:00", "2026-11-22 00:50:43.299547"}
	for c := range rune(128) {
		words = append(words, string(c), "x"+string(c)+"y")
	}
	var want []string
	ask(t, "import json, shlex, sys\nprint(json.dumps([shlex.quote(w) for w in json.load(sys.stdin)]))", words, &want)
	for i, w := range words {
		if got := Quote(w); got != want[i] {
			t.Errorf("Quote(%q) = %s, Python says %s", w, got, want[i])
		}
	}
}

// ask runs a Python program with the JSON of in on stdin, and reads out.
func ask(t *testing.T, program string, in, out any) {
	t.Helper()
	python := testenv.Program(t, "/usr/bin/python3", "python3")
	question, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", program)
	cmd.Stdin = strings.NewReader(string(question))
	cmd.Stderr = os.Stderr
	reply, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(reply, out); err != nil {
		t.Fatal(err)
	}
}

func TestValidateCommand(t *testing.T) {
	for _, good := range []string{"true", "", "fping -q -- %(host)s", "%(dbus_object_path)s %(name)s 100%%"} {
		if err := Validate(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"%(hostname)s", "%(hostname)s is not known; the names are approval_delay"},
		{"50%", "there must be"},
		{"a\x00b", "NUL"},
		{"%(host)d", `"%(host)d" is wrong: it must read %(name)s, with an s`},
		{"%(host)5s", `"%(host)5s" is wrong: it must read %(name)s, with an s`},
	} {
		if err := Validate(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want one with %q", tt.in, err, tt.want)
		}
	}
}

func TestUses(t *testing.T) {
	if !Uses("fping %(host)s", "host") || Uses("fping %%(host)s", "host") || Uses("fping ::1", "host") {
		t.Error("Uses doesn't see the name, or one that isn't there")
	}
}

// FuzzExpand: Expand accepts what Validate accepts, and adds no invalid UTF-8.
func FuzzExpand(f *testing.F) {
	for _, tt := range expansions {
		f.Add(tt.template, "it's")
	}
	f.Fuzz(func(t *testing.T, template, value string) {
		vars := map[string]string{}
		for _, name := range Variables {
			vars[name] = value
		}
		if Validate(template) != nil {
			return
		}
		got, err := Expand(template, vars)
		if err != nil {
			t.Fatalf("%q passed Validate, but: %v", template, err)
		}
		if utf8.ValidString(template) && utf8.ValidString(value) && !utf8.ValidString(got) {
			t.Fatalf("%q with %q gave invalid UTF-8", template, value)
		}
	})
}
