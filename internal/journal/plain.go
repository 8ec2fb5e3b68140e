package journal

import (
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// NewPlain returns a handler that writes one line for each entry to w: time,
// level, component, text, attributes.
func NewPlain(w io.Writer, levels Levels) slog.Handler {
	return &handler{sink: &plain{w: w}, levels: levels}
}

type plain struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *plain) write(e entry) error {
	var b strings.Builder
	if !e.time.IsZero() {
		b.WriteString(e.time.Format("2006-01-02T15:04:05.000Z07:00 "))
	}
	name, _ := levelName(e.level)
	b.WriteString(name)
	if e.component != "" {
		b.WriteByte(' ')
		b.WriteString(quoteWord(e.component))
	}
	b.WriteString(": ")
	b.WriteString(e.line())
	b.WriteByte('\n')
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := io.WriteString(p.w, b.String())
	return err
}

// quoteWord returns s in a form that can't be taken for anything but one word:
// in Go's quotes if it contains blanks, quotes, an equals sign, or characters
// that don't print.
func quoteWord(s string) string {
	if s == "" {
		return `""`
	}
	for i, r := range s {
		if r == ' ' || r == '"' || r == '=' || r == '\\' || !printable(s, i, r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// quoteText is quoteWord for prose: blanks are fine.
func quoteText(s string) string {
	for i, r := range s {
		if !printable(s, i, r) {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

func printable(s string, i int, r rune) bool {
	if r == utf8.RuneError {
		_, size := utf8.DecodeRuneInString(s[i:])
		return size > 1
	}
	return unicode.IsPrint(r)
}
