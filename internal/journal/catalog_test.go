package journal

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sourceEvents reads the events from the package's source: every composite
// literal of type Event, so that none can be forgotten in a list.
func sourceEvents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			lit, ok := spec.Values[0].(*ast.CompositeLit)
			if !ok || len(lit.Elts) == 0 {
				return true
			}
			if kind, ok := lit.Type.(*ast.Ident); !ok || kind.Name != "Event" {
				return true
			}
			id, ok := lit.Elts[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: event %s: the ID is no literal", name, spec.Names[0])
				return true
			}
			value, err := strconv.Unquote(id.Value)
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := events[value]; ok {
				t.Errorf("events %s and %s have the same ID", other, spec.Names[0])
			}
			events[value] = spec.Names[0].Name
			return true
		})
	}
	return events
}

func TestCatalogExplainsEachEvent(t *testing.T) {
	events := sourceEvents(t)
	if events[Ready.ID] != "Ready" {
		t.Fatalf("the events were not read from the source: %v", events)
	}
	file, err := os.Open("../../systemd/mandos.catalog")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	head := regexp.MustCompile(`^-- ([0-9a-f]{32})$`)
	entries := map[string]string{} // subject by ID
	id := ""
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch match := head.FindStringSubmatch(line); {
		case match != nil:
			id = match[1]
			if _, ok := entries[id]; ok {
				t.Errorf("line %d: a second entry for %s", n, id)
			}
			entries[id] = ""
			if events[id] == "" {
				t.Errorf("line %d: no event has the ID %s", n, id)
			}
		case strings.HasPrefix(line, "-- "):
			t.Errorf("line %d: %q is no MESSAGE_ID", n, line)
		case strings.HasPrefix(line, "Subject: "):
			entries[id] = line
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	idSyntax := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for id, name := range events {
		if !idSyntax.MatchString(id) {
			t.Errorf("event %s: ID %q is not 32 lower-case hexadecimal digits", name, id)
		}
		if entries[id] == "" {
			t.Errorf("event %s has no entry in systemd/mandos.catalog, or one without a subject:\n-- %s", name, id)
		}
	}
}
