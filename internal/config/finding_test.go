package config

import (
	"strings"
	"testing"
)

// TestPrintable: a name that is quoted in a finding can't break its line or
// steer a terminal, and one that does no harm is shown as it is.
func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"web1":                   "web1",
		"l'été":                  "l'été",
		`"a" \ b`:                `"a" \ b`,
		"a\nb":                   `a\nb`,
		"\x1b[31mred":            `\x1b[31mred`,
		"\u202etxt":              `\u202etxt`,
		"\x9b31m":                `\x9b31m`,
		strings.Repeat("é", 200): strings.Repeat("é", 100) + "…",
	} {
		if got := printable(name); got != want {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
	}
}
