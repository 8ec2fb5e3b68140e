package config

import (
	"fmt"
	"strings"
)

// Limits of interpolation. The first is Python's. The second is ours: ten
// levels of ten references each would make ten thousand million.
const (
	maxDepth     = 10
	maxExpansion = 32 << 20 // bytes, each reference counting as perReference
	perReference = 64
)

// value returns the entry's value in s with each %(key)s replaced by that
// key's value and each %% by %. The error is a *problem.
func (f *ini) value(s *section, e *entry) (string, error) {
	if !e.hasPercent() {
		return e.value(), nil
	}
	x := expansion{f: f, s: s}
	if err := x.expand(e.value(), 1); err != nil {
		return "", err
	}
	return x.out.String(), nil
}

// literal is the remedy for a % that was meant literally.
const literal = "write %% for a literal %"

type expansion struct {
	f    *ini
	s    *section
	out  strings.Builder
	work int
}

func (x *expansion) expand(raw string, depth int) error {
	if depth > maxDepth {
		return &problem{fmt.Sprintf("the value refers to itself, or to others %d deep", maxDepth), "break the circle"}
	}
	for {
		text, rest, found := strings.Cut(raw, "%")
		x.out.WriteString(text)
		if x.work += perReference + len(text); x.work > maxExpansion {
			return &problem{"the values that it refers to are too large together", "shorten them"}
		}
		switch {
		case !found:
			return nil
		case strings.HasPrefix(rest, "%"):
			x.out.WriteByte('%')
			raw = rest[1:]
		case strings.HasPrefix(rest, "("):
			name, after, closed := strings.Cut(rest[1:], ")")
			if !closed || name == "" || !strings.HasPrefix(after, "s") {
				return &problem{quoteLine("%"+rest) + " is wrong: it must read %(key)s, with an s", literal}
			}
			e, ok := x.f.lookup(x.s, strings.ToLower(name))
			if !ok {
				return &problem{fmt.Sprintf("%%(%s)s refers to a key that neither the section nor [DEFAULT] has", printable(name)), "add that key, or correct its name; " + literal}
			}
			if !e.hasPercent() {
				text := e.value()
				x.out.WriteString(text)
				x.work += perReference + len(text)
			} else if err := x.expand(e.value(), depth+1); err != nil {
				return err
			}
			raw = after[1:]
		default:
			return &problem{fmt.Sprintf("after %%, at %s, there must be %% or (key)s", quoteLine("%"+rest)), literal}
		}
	}
}
