package operator

import (
	"math"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

func TestDuration(t *testing.T) {
	for ms, want := range map[any]time.Duration{
		uint64(1500): 1500 * time.Millisecond, int32(-1): -time.Millisecond, "x": 0,
		uint64(31449600000000): math.MaxInt64 / time.Millisecond * time.Millisecond, // P1000Y, which Debian's server takes
	} {
		c := Client{Props: map[string]dbus.Variant{"Timeout": dbus.MakeVariant(ms)}}
		if got := c.Duration("Timeout"); got != want {
			t.Errorf("%v ms are %v, want %v", ms, got, want)
		}
	}
}

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

func TestParseTime(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"":                           {},
		"2026-11-22T03:04:05":        at, // Python's datetime.isoformat, with no microseconds
		"2026-11-22T03:04:05.000000": at,
		"2026-11-22T03:04:05.678901": at.Add(678901 * time.Microsecond),
	} {
		if got, err := ParseTime(s); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"2026-11-22", "2026-11-22T03:04:05Z", "2026-11-22T25:04:05", "soon", " "} {
		if got, err := ParseTime(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
