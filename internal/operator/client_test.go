package operator

import "testing"

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"":                   "",
		"a b":                "a b",
		"日本 é €":             "日本 é €",
		"\x1b[2J":            `\x1b[2J`,
		"a\nb\r\t\x00\x7f":   `a\nb\r\t\x00\x7f`,
		"\u009b2J":           `\u009b2J`,
		"\x9b2J":             `\x9b2J`, // a control character where terminals take 8-bit ones
		"\u202egpj.exe":      `\u202egpj.exe`,
		"\u200b\u2028\u00a0": `\u200b\u2028\u00a0`,
		"\ufffd":             "\ufffd",
	} {
		if got := Printable(s); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}
