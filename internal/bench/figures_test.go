package bench_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"mandos/internal/bench"
)

var update = flag.Bool("update", false, "draw the README's figures anew from testdata/results.json: make readme-figures")

const (
	readme = "../../README.md"
	chart  = "man/images/bench.svg"
	begin  = "<!-- By make readme-figures, from internal/bench/testdata/results.json. -->\n"
	end    = "<!-- The end of the figures. -->\n"
)

// TestFigures holds that the README shows the figures that were measured.
func TestFigures(t *testing.T) {
	b, err := os.ReadFile("testdata/results.json")
	if err != nil {
		t.Fatal(err)
	}
	var r bench.Results
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	b, err = os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(b), begin)
	shown, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("README.md has no lines %q and %q", begin, end)
	}
	drawn, _ := os.ReadFile("../../" + chart) // if it can't be read, it differs

	section := r.Section(chart)
	if *update {
		if err := os.WriteFile("../../"+chart, []byte(r.Chart()), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(readme, []byte(before+begin+section+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if shown != section {
		t.Error("the README's figures aren't those of testdata/results.json: make readme-figures")
	}
	if string(drawn) != r.Chart() {
		t.Errorf("%s isn't drawn from testdata/results.json: make readme-figures", chart)
	}
}
