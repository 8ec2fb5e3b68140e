package config

import (
	"fmt"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The files are in the dialect of Python's configparser.ConfigParser (3.11), as
// Debian's Mandos reads them. The reader is our own, since no library reads
// that dialect: gopkg.in/ini.v1 in its most Python-like mode still accepts
// duplicates silently, ends a value at a blank line, keeps comments inside
// values, interprets quotes and backquotes, lets [a.b] inherit from [a], and
// has no line numbers (TestIni1StillDiffers).

// defaultSection holds what every other section inherits.
const defaultSection = "DEFAULT"

// A place is where something was written.
type place struct {
	file string
	line int // from 1; 0: nowhere in particular
}

// String returns "file:line".
func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// An entry is one option as it was written, before interpolation.
type entry struct {
	key    string // in lower case
	raw    string // the value
	folded bool   // raw has several lines, each as in the file
	place
}

// value returns e's value: the lines joined, without blanks at the end.
func (e *entry) value() string {
	if !e.folded {
		return e.raw
	}
	return rstrip(string(appendFolded(nil, e.raw, "\n")))
}

// hasPercent reports whether e may have to be interpolated.
func (e *entry) hasPercent() bool { return strings.IndexByte(e.raw, '%') >= 0 }

// appendFolded appends the lines of a folded value to b, without the blanks
// around them and the comments between them, each but the first after sep.
func appendFolded(b []byte, raw, sep string) []byte {
	first, rest, _ := strings.Cut(raw, "\n")
	b = append(b, strip(first)...)
	for line := range lines(rest) {
		if text := strip(line); !isComment(text) {
			b = append(append(b, sep...), text...)
		}
	}
	return b
}

// isComment reports whether text, a line without the blanks around it, is a
// comment.
func isComment(text string) bool { return text != "" && (text[0] == '#' || text[0] == ';') }

// A section is a named list of entries, in the order of the file.
type section struct {
	name string
	place
	entries []entry
	index   map[string]int // key to entry; only for sections with many
}

// manyEntries is the length from which searching a list costs more than a map.
const manyEntries = 32

// get returns s's own entry, not an inherited one.
func (s *section) get(key string) (*entry, bool) {
	if len(s.entries) > manyEntries {
		if s.index == nil {
			s.index = make(map[string]int, len(s.entries))
			for i := range s.entries {
				s.index[s.entries[i].key] = i
			}
		}
		i, ok := s.index[key]
		if !ok {
			return nil, false
		}
		return &s.entries[i], true
	}
	for i := range s.entries {
		if s.entries[i].key == key {
			return &s.entries[i], true
		}
	}
	return nil, false
}

// An ini is the content of one or more files, read one after the other.
type ini struct {
	defaults map[string]*entry // of all [DEFAULT] sections; a later file overrides
	sections []*section        // the others
	byName   map[string]*section
	files    []string // in the order of reading
	found    findings
}

func newINI() *ini {
	return &ini{defaults: map[string]*entry{}, byName: map[string]*section{}}
}

// builtIn gives key a default value, which [DEFAULT] of any file overrides.
func (f *ini) builtIn(key, value string) {
	f.defaults[key] = &entry{key: key, raw: value, place: place{file: "built-in default"}}
}

// lookup finds the entry that key has in s, which may be nil: its own or an
// inherited one.
func (f *ini) lookup(s *section, key string) (*entry, bool) {
	if s != nil {
		if e, ok := s.get(key); ok {
			return e, true
		}
	}
	e, ok := f.defaults[key]
	return e, ok
}

// errorAt notes a syntax error.
func (f *ini) errorAt(p place, section, key, problem, remedy string) {
	f.found.add(Finding{File: p.file, Line: p.line, Section: section, Key: key, Problem: problem, Remedy: remedy})
}

// A reading is the state of reading one file.
type reading struct {
	*ini
	file string
	text string

	name     string   // of the current section; for messages
	current  *section // nil before the first header
	ordinal  int      // of the current section
	indent   int      // of the last line that was no continuation
	from, to int      // the current entry's value, in text
	folded   bool     // it has several lines
	open     bool     // an entry may be continued
	skip     bool     // don't report lines that continue one that was no entry
	headless bool     // text before the first header was reported

	inDefault map[string]int     // the line of each key in this file's [DEFAULT]
	seen      map[string]seenKey // the last other section that had a key
}

type seenKey struct{ ordinal, line int }

// read adds the text of one file. Errors in it are noted, and reading goes on.
func (f *ini) read(file, text string) {
	if strings.HasPrefix(text, "\ufeff") {
		f.errorAt(place{file, 1}, "", "", "the file begins with a byte order mark", "remove it: sed -i '1s/^\\xef\\xbb\\xbf//' "+file)
		text = strings.TrimPrefix(text, "\ufeff")
	}
	if !utf8.ValidString(text) {
		f.errorAt(place{file, firstInvalidLine(text)}, "", "", "the line isn't valid UTF-8", "convert it, as with iconv -f latin1 -t utf-8 "+file+" >"+file+".new, and put that in its place")
		return
	}
	if strings.ContainsRune(text, '\r') {
		text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	}
	r := &reading{ini: f, file: file, text: text, inDefault: map[string]int{}, seen: map[string]seenKey{}}
	for n, from := 1, 0; from < len(text); n++ {
		to := len(text)
		if i := strings.IndexByte(text[from:], '\n'); i >= 0 {
			to = from + i
		}
		r.line(n, from, to)
		from = to + 1
	}
	r.endValue()
	r.endSection()
}

// lines yields the lines of text without their ends.
func lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for text != "" {
			line, rest, _ := strings.Cut(text, "\n")
			if !yield(line) {
				return
			}
			text = rest
		}
	}
}

func firstInvalidLine(text string) int {
	n := 0
	for line := range lines(text) {
		n++
		if !utf8.ValidString(line) {
			break
		}
	}
	return n
}

// line handles line n, which is text[from:to]. It makes its decisions in the
// same order as Python's parser.
func (r *reading) line(n, from, to int) {
	line := r.text[from:to]
	if r.continues(line) {
		r.to, r.folded = to, true
		return
	}
	text := strip(line)
	if text == "" || isComment(text) {
		return
	}
	indent := indentation(line)
	if indent > r.indent && r.open {
		r.to, r.folded = to, true
		return
	}
	if indent > r.indent && r.skip {
		return
	}
	r.endValue()
	r.indent, r.skip = indent, false
	if name, ok := header(text); ok {
		r.startSection(n, name)
		return
	}
	if problem := noHeader(text); problem != "" {
		r.errorAt(place{r.file, n}, "", "", quoteLine(text)+" is no section: "+problem, "write [name]")
		r.endSection()
		r.ordinal++
		r.name, r.current = "", &section{place: place{r.file, n}} // collects the keys below, and is dropped
		return
	}
	if r.current == nil {
		if !r.headless {
			r.headless = true
			r.errorAt(place{r.file, n}, "", "", fmt.Sprintf("%s stands before the first section", quoteLine(text)),
				"begin the file with a line [DEFAULT], or make this line a comment with #")
		}
		return
	}
	r.startEntry(n, from, to)
}

// continues reports whether line is a continuation of the plainest kind, as
// most lines are: those of secrets.
func (r *reading) continues(line string) bool {
	n := blanks(line)
	return r.open && n > r.indent && n < len(line) && isPlain(line[n]) && !isComment(line[n:])
}

// header returns the name in "[name]"; whatever follows the last bracket is
// ignored, as in Python.
func header(text string) (string, bool) {
	if text[0] != '[' {
		return "", false
	}
	end := strings.LastIndexByte(text, ']')
	if end < 2 {
		return "", false
	}
	return text[1:end], true
}

// noHeader says what is wrong with text if it was probably meant as a header.
func noHeader(text string) string {
	switch {
	case text == "[]":
		return "it has no name"
	case text[0] == '[' && !strings.ContainsAny(text, "]=:"):
		return "its name doesn't end with ]"
	}
	return ""
}

func (r *reading) startSection(n int, name string) {
	r.endSection()
	r.ordinal++
	r.name = name
	r.current = &section{name: name, place: place{r.file, n}}
	if name == defaultSection {
		return
	}
	if first, dup := r.byName[name]; dup {
		r.errorAt(r.current.place, name, "", "a section of this name is at "+first.place.String()+" already", "give each client one section with a name of its own")
		return
	}
	r.byName[name] = r.current
	r.sections = append(r.sections, r.current)
}

// endSection moves the entries of a [DEFAULT] section to the defaults.
func (r *reading) endSection() {
	if r.current == nil || r.name != defaultSection {
		return
	}
	for i := range r.current.entries {
		e := &r.current.entries[i]
		r.defaults[e.key] = e
	}
}

func (r *reading) startEntry(n, from, to int) {
	text := strip(r.text[from:to])
	at := strings.IndexAny(text, "=:")
	p := place{r.file, n}
	r.skip = at <= 0
	switch {
	case at < 0:
		remedy := "add what is missing, make it a comment with #, or indent it if it continues the value above"
		if looksLikeBase64(text) {
			remedy = "indent it: it looks like a line of the secret above"
		}
		r.errorAt(p, r.name, "", fmt.Sprintf("%s is neither a section nor \"key = value\"", quoteLine(text)), remedy)
		return
	case at == 0:
		r.errorAt(p, r.name, "", fmt.Sprintf("%s has no key before the %q", quoteLine(text), text[:1]), "write \"key = value\"")
		return
	}
	key := strings.ToLower(rstrip(text[:at]))
	r.open, r.folded = true, false
	r.from, r.to = from+strings.IndexAny(r.text[from:to], "=:")+1, to

	if before, ok := r.note(key, n); ok {
		r.errorAt(p, r.name, key, fmt.Sprintf("it is set at %s already", place{r.file, before}), "remove one of the two")
	}
	r.current.entries = append(r.current.entries, entry{key: key, place: p})
}

// note remembers that the current section has key at line, and returns the line
// where it already had it, if it did. A second [DEFAULT] continues the first.
func (r *reading) note(key string, line int) (before int, ok bool) {
	if r.name == defaultSection {
		before, ok = r.inDefault[key]
		r.inDefault[key] = line
		return before, ok
	}
	last := r.seen[key]
	r.seen[key] = seenKey{r.ordinal, line}
	return last.line, last.ordinal == r.ordinal
}

// endValue sets the value of the last entry.
func (r *reading) endValue() {
	if !r.open {
		return
	}
	r.open = false
	e := &r.current.entries[len(r.current.entries)-1]
	e.raw, e.folded = r.text[r.from:r.to], r.folded
	if !e.folded {
		e.raw = strip(e.raw)
	}
}

// isSpace is Python's str.isspace for one character: unlike Go's, it includes
// the four information separators.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f
}

func strip(s string) string { return rstrip(strings.TrimLeftFunc(s[blanks(s):], isSpace)) }

func rstrip(s string) string {
	if n := len(s); n == 0 || isPlain(s[n-1]) {
		return s
	}
	return strings.TrimRightFunc(s, isSpace)
}

// blanks returns the number of blanks and tabs at the start of s.
func blanks(s string) int {
	n := 0
	for n < len(s) && (s[n] == ' ' || s[n] == '\t') {
		n++
	}
	return n
}

// isPlain reports whether c is an ASCII character other than a space.
func isPlain(c byte) bool { return ' ' < c && c < utf8.RuneSelf }

// indentation returns the number of characters before the first that isn't a
// space.
func indentation(line string) int {
	n := blanks(line)
	for _, r := range line[n:] {
		if !isSpace(r) {
			break
		}
		n++
	}
	return n
}

// quoteLine returns text for a message, short and in one line. It may be a line
// of a secret that has lost its indentation: of that, little is shown.
func quoteLine(text string) string {
	most := 32
	if looksLikeBase64(text) {
		most = 4
	}
	return fmt.Sprintf("%q", clip(text, most))
}

// clip returns s, or its first most characters and an ellipsis.
func clip(s string, most int) string {
	n := 0
	for i := range s { // which may be a whole file
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// looksLikeBase64 reports whether text is long and has only characters of
// base64.
func looksLikeBase64(text string) bool {
	const short = 24
	return len(text) > short && strings.IndexFunc(text, func(r rune) bool {
		return r >= utf8.RuneSelf || base64Value[r] == notBase64 && r != '='
	}) < 0
}
