package operator

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzPrintable: what comes from elsewhere can't break a line or steer a
// terminal, and what is harmless stays.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "host.example.org", "a\nb", "\x1b]0;x\x07", "\x9b2J", "\u202e", "ö", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		harmful := func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, harmful) {
			t.Errorf("%q is printed as %q", s, got)
		}
		if utf8.ValidString(s) && !strings.ContainsFunc(s, harmful) && got != s || Printable(got) != got {
			t.Errorf("%q became %q", s, got)
		}
	})
}

// FuzzTime: an instant that is read is written the same.
func FuzzTime(f *testing.F) {
	f.Add("2026-11-22T03:04:05.678901")
	f.Add("")
	f.Add("2026-11-22T03:04:05")
	f.Fuzz(func(t *testing.T, s string) {
		at, err := ParseTime(s)
		if err != nil || at.IsZero() {
			return
		}
		if again, err := ParseTime(at.Format(TimeFormat)); err != nil || at.Sub(again).Abs() >= 1000 {
			t.Errorf("%q is %v, which is written so that it is %v, %v", s, at, again, err)
		}
	})
}
