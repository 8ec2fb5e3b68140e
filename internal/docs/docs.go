// Package docs finds the examples in the documents, which are README.md, the
// manual pages and the comments of the example files, and says for each how
// it is run. It is for tests only: this package's run what takes no more than
// the source tree, those of package lab run the rest on booted hosts.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An Example is a block of a document that is set off from its text.
type Example struct {
	Doc  string // the file's name without its folder
	Line int    // where it begins
	Text string // with a line break at its end
}

func (e Example) String() string {
	first, _, _ := strings.Cut(e.Text, "\n")
	return fmt.Sprintf("%s:%d: %s", e.Doc, e.Line, first)
}

// Examples returns all examples of the source tree root, those of a document
// in their order.
func Examples(root string) ([]Example, error) {
	var all []Example
	for _, source := range []struct {
		glob    string
		extract func(doc, text string) ([]Example, error)
	}{
		{"README.md", markdown}, {"SECURITY.md", markdown}, {"man/*.[1-8]", mdoc},
		{"man/examples/*.conf", comments}, {"systemd/examples/*.conf", comments},
	} {
		paths, err := filepath.Glob(filepath.Join(root, source.glob))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			examples, err := source.extract(filepath.Base(path), string(text))
			if err != nil {
				return nil, err
			}
			all = append(all, examples...)
		}
	}
	return all, nil
}

// markdown returns the blocks between fences, and those that are indented by
// four blanks more than what is around them.
func markdown(doc, text string) (examples []Example, err error) {
	const fence = "```"
	var in *Example
	indent, blank, list := "", true, false
	for n, line := range numbered(text) {
		bare := strings.TrimLeft(line, " ")
		switch {
		case in != nil && bare == fence:
			examples, in = append(examples, *in), nil
		case in != nil:
			in.Text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(bare, fence):
			indent = line[:len(line)-len(bare)]
			in = &Example{Doc: doc, Line: n + 1}
		case blank && !list && strings.HasPrefix(line, "    "):
			return nil, fmt.Errorf("%s:%d: a block that is only indented: put it between fences", doc, n)
		}
		if in == nil && bare != "" {
			list = isItem(bare) || list && strings.HasPrefix(line, " ")
		}
		blank = bare == ""
	}
	if in != nil {
		return nil, fmt.Errorf("%s:%d: the block has no end", doc, in.Line)
	}
	return examples, nil
}

// isItem tells whether a line begins an item of a list.
func isItem(line string) bool {
	number := strings.TrimLeft(line, "0123456789")
	return strings.HasPrefix(line, "- ") || number != line && strings.HasPrefix(number, ". ")
}

// mdoc returns the displays of a manual page, of several lines or of one.
func mdoc(doc, text string) (examples []Example, err error) {
	var in *Example
	unescape := strings.NewReplacer(`\e`, `\`, `\-`, `-`, `\&`, ``)
	for n, line := range numbered(text) {
		one, isOne := strings.CutPrefix(line, ".Dl ")
		switch {
		case isOne, strings.HasPrefix(line, ".D1 "):
			examples = append(examples, Example{doc, n, unescape.Replace(one) + "\n"})
		case strings.HasPrefix(line, ".Bd "):
			in = &Example{Doc: doc, Line: n + 1}
		case line == ".Ed":
			if in == nil {
				return nil, fmt.Errorf("%s:%d: the display has no beginning", doc, n)
			}
			examples, in = append(examples, *in), nil
		case in != nil && strings.HasPrefix(line, "."):
			return nil, fmt.Errorf("%s:%d: a macro in a display, which isn't understood here", doc, n)
		case in != nil:
			in.Text += unescape.Replace(line) + "\n"
		}
	}
	if in != nil {
		return nil, fmt.Errorf("%s:%d: the display has no end", doc, in.Line)
	}
	return examples, nil
}

// comments returns what a file's comments set off by three blanks, or more
// after the first line.
func comments(doc, text string) (examples []Example, err error) {
	var in *Example
	for n, line := range numbered(text) {
		if example, ok := strings.CutPrefix(line, "#   "); ok && (in != nil || !strings.HasPrefix(example, " ")) {
			if in == nil {
				in = &Example{Doc: doc, Line: n}
			}
			in.Text += strings.TrimLeft(example, " ") + "\n"
		} else if in != nil {
			examples, in = append(examples, *in), nil
		}
	}
	return examples, nil
}

// numbered returns the lines of text, by their numbers from 1.
func numbered(text string) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if !yield(i+1, line) {
				return
			}
		}
	}
}

// Pair finds the one way of each example. The errors are of examples that
// have none or several, and of ways that have no example.
func Pair(examples []Example, ways []Way) (pairs map[Example]Way, errs []error) {
	pairs = map[Example]Way{}
	used := make([]bool, len(ways))
	for _, e := range examples {
		for i, w := range ways {
			if w.Doc != e.Doc || !strings.HasPrefix(e.Text, w.Begins) {
				continue
			}
			if _, has := pairs[e]; has {
				errs = append(errs, fmt.Errorf("%v: there are two ways to run it", e))
			}
			if used[i] {
				errs = append(errs, fmt.Errorf("%v: the way to run it is another example's, too", e))
			}
			pairs[e], used[i] = w, true
		}
		if _, has := pairs[e]; !has {
			errs = append(errs, fmt.Errorf("%v: nothing runs this example: say how in internal/docs/ways.go", e))
		}
	}
	for i := range ways {
		if !used[i] {
			errs = append(errs, fmt.Errorf("%s has no example that begins with %q", ways[i].Doc, ways[i].Begins))
		}
	}
	for i := range ways {
		if n := len(slices.DeleteFunc(ways[i].kinds(), func(is bool) bool { return !is })); n != 1 {
			errs = append(errs, fmt.Errorf("%s: %q is run in %d ways", ways[i].Doc, ways[i].Begins, n))
		}
	}
	return pairs, errs
}
