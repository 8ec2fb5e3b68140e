package config

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of interpolation. The first is Python's. The second is ours: ten
// levels of ten references each would be ten thousand million.
const (
	maxDepth     = 10
	maxExpansion = 32 << 20 // bytes, each reference counting as perReference
	perReference = 64
)

// value returns the entry's value in s with each %(key)s replaced by that
// key's value and each %% by %.
func (f *ini) value(s *section, e *entry) (string, error) {
	if strings.IndexByte(e.value, '%') < 0 {
		return e.value, nil
	}
	x := expansion{f: f, s: s}
	if err := x.expand(e.value, 1); err != nil {
		return "", err
	}
	return x.out.String(), nil
}

type expansion struct {
	f    *ini
	s    *section
	out  strings.Builder
	work int
}

func (x *expansion) expand(raw string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%%(…)s refers to itself, or through more than %d values", maxDepth)
	}
	for {
		text, rest, found := strings.Cut(raw, "%")
		x.out.WriteString(text)
		if x.work += perReference + len(text); x.work > maxExpansion {
			return errors.New("the values that %(…)s refers to are too large together")
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
				return fmt.Errorf("%s is no %%(key)s", quoteLine("%"+rest))
			}
			e, ok := x.f.lookup(x.s, strings.ToLower(name))
			if !ok {
				return fmt.Errorf("%%(%s)s refers to a key that neither this section nor [DEFAULT] has", printable(name))
			}
			if strings.IndexByte(e.value, '%') < 0 {
				x.out.WriteString(e.value)
				x.work += perReference + len(e.value)
			} else if err := x.expand(e.value, depth+1); err != nil {
				return err
			}
			raw = after[1:]
		default:
			return fmt.Errorf("after %%, at %s, there must be %% or (key)s", quoteLine("%"+rest))
		}
	}
}
