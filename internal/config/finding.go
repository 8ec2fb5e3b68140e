package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Finding is one thing that is wrong, or probably wrong, in a configuration.
// It is written for the person who will fix it.
type Finding struct {
	Warning bool // probably a mistake, but no reason to refuse the configuration

	File    string // a path, or "command line"
	Line    int    // 0: the file as a whole
	Section string // empty: none
	Key     string // an option's key, or its name on the command line; empty: none

	Problem string // what is wrong, and what was expected
	Remedy  string // what to do about it; may be empty
}

// String returns "file:line: [section] key: problem; remedy" in one line.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Warning {
		b.WriteString("warning: ")
	}
	if f.Section != "" {
		b.WriteString("[" + printable(f.Section) + "] ")
	}
	if f.Key != "" {
		b.WriteString(printable(f.Key) + ": ")
	}
	b.WriteString(f.Problem)
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// printable returns s in a form that can't break the line that it becomes part
// of.
func printable(s string) string {
	const most = 100
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		q := strconv.QuoteToASCII(s)
		s = q[1 : len(q)-1]
	}
	return clip(s, most)
}

// Findings are everything that one reading found, in the order of the files.
type Findings []Finding

// Errors returns the findings that are reasons to refuse the configuration.
func (fs Findings) Errors() Findings {
	return slices.DeleteFunc(slices.Clone(fs), func(f Finding) bool { return f.Warning })
}

// Err returns an *Invalid with the errors among fs, or nil if there are none.
func (fs Findings) Err() error {
	if errs := fs.Errors(); len(errs) > 0 {
		return &Invalid{errs}
	}
	return nil
}

// String returns one finding per line.
func (fs Findings) String() string {
	var b strings.Builder
	for _, f := range fs {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

// Invalid is the error for a configuration that is refused.
type Invalid struct {
	Findings Findings // at least one, none of them a warning
}

func (e *Invalid) Error() string {
	if len(e.Findings) == 1 {
		return e.Findings[0].String()
	}
	return fmt.Sprintf("%d errors in the configuration:\n%s", len(e.Findings), strings.TrimSuffix(e.Findings.String(), "\n"))
}

// findings collects the Findings while a configuration is read. A value that
// many sections inherit is reported only once.
type findings struct {
	list Findings
	seen map[Finding]bool
}

func (fs *findings) add(f Finding) {
	once := f
	if f.Key != "" {
		once.Section = ""
	}
	if fs.seen[once] {
		return
	}
	if fs.seen == nil {
		fs.seen = map[Finding]bool{}
	}
	fs.seen[once] = true
	fs.list = append(fs.list, f)
}

// sort puts the findings in the order of files and lines.
func (fs *findings) sort(files []string) {
	order := map[string]int{}
	for i, f := range files {
		order[f] = i + 1 // what is in no file comes first
	}
	slices.SortStableFunc(fs.list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
}
