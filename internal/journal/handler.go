package journal

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// An entry is one record with all of its attributes, flat.
type entry struct {
	time      time.Time // may be zero
	level     slog.Level
	component string
	text      string
	fields    []field
}

// A field is one attribute; its key is prefixed with the names of its groups,
// joined with dots.
type field struct{ key, value string }

// A sink writes entries somewhere. It is safe for concurrent use.
type sink interface{ write(entry) error }

// handler is the slog.Handler of every sink: it filters by level and
// component, and flattens attributes.
type handler struct {
	sink      sink
	levels    Levels
	component string
	prefix    string // of the open groups: "a.b."
	fields    []field
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.levels.of(h.component)
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	e := entry{time: r.Time, level: r.Level, component: h.component, text: r.Message}
	e.fields = slices.Grow(slices.Clip(h.fields), r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		e.fields = appendAttr(e.fields, h.prefix, a)
		return true
	})
	return h.sink.write(e)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h2 := *h
	h2.fields = slices.Clip(h.fields)
	for _, a := range attrs {
		if a.Key == keyComponent && h.prefix == "" {
			h2.component = a.Value.Resolve().String()
			continue
		}
		h2.fields = appendAttr(h2.fields, h.prefix, a)
	}
	return &h2
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	h2 := *h
	h2.prefix += name + "."
	return &h2
}

// appendAttr appends a or, if it is a group, its members.
func appendAttr(fields []field, prefix string, a slog.Attr) []field {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}): // to be ignored, as slog.Handler requires
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			fields = appendAttr(fields, prefix, member)
		}
	default:
		fields = append(fields, field{prefix + a.Key, valueString(v)})
	}
	return fields
}

func valueString(v slog.Value) string {
	switch v.Kind() {
	case slog.KindString: // most are
		return v.String()
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	}
	if err, ok := v.Any().(error); ok {
		return err.Error()
	}
	return v.String()
}

// line returns the text followed by the attributes, for people: one line, no
// control characters. It is the same on a terminal and in the journal's
// MESSAGE.
func (e entry) line() string {
	var b strings.Builder
	size := len(e.text)
	for _, f := range e.fields {
		size += len(f.key) + len(f.value) + 4
	}
	b.Grow(size)
	b.WriteString(quoteText(e.text))
	separator := ": "
	for _, f := range e.fields {
		if f.key == keyMessageID {
			continue
		}
		b.WriteString(separator)
		separator = " "
		key := f.key
		if short, ours := strings.CutPrefix(key, fieldPrefix); ours {
			key = strings.ToLower(short)
		}
		b.WriteString(quoteWord(key))
		b.WriteByte('=')
		b.WriteString(quoteWord(f.value))
	}
	return b.String()
}
