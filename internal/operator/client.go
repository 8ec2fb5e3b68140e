// Package operator is the server as its operators see it over D-Bus: the
// clients with their properties, what may be done to them, and what is heard
// of them. It works against Debian's server as well as against ours.
package operator

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"
)

// Names on the bus.
const (
	BusName         = "se.recompile.Mandos"
	ServerInterface = "se.recompile.Mandos"
	ClientInterface = "se.recompile.Mandos.Client"
	// Ours, with what the standard ones have no room for; Debian's server
	// has neither. See mandos-dbus(7).
	OurServerInterface = "mandos.go.Server1"
	OurClientInterface = "mandos.go.Client1"

	ServerPath = dbus.ObjectPath("/")
)

// A Client is one client's properties as the server told them.
type Client struct {
	Path  dbus.ObjectPath
	Props map[string]dbus.Variant // of ClientInterface, and of OurClientInterface where the server has it
}

// Name returns the client's name.
func (c Client) Name() string { return c.String("Name") }

// String returns a property that is a text, or "".
func (c Client) String(property string) string {
	s, _ := c.Props[property].Value().(string)
	return s
}

// Bool returns a property that is a boolean, or false.
func (c Client) Bool(property string) bool {
	b, _ := c.Props[property].Value().(bool)
	return b
}

// Int returns a property that is an integer of any width, or 0.
func (c Client) Int(property string) int64 {
	switch v := c.Props[property].Value().(type) {
	case int16:
		return int64(v)
	case uint32:
		return int64(v)
	case int32:
		return int64(v)
	case int64:
		return v
	case uint64:
		return int64(v)
	}
	return 0
}

// Duration returns a property that is a number of milliseconds. Of more than
// 292 years, which Debian's server takes, it makes 292.
func (c Client) Duration(property string) time.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	return time.Duration(max(min(c.Int(property), most), -most)) * time.Millisecond
}

// TimeFormat is how the server writes instants, in UTC.
const TimeFormat = "2006-01-02T15:04:05.000000"

// Time returns a property that is an instant; the zero time stands for none.
func (c Client) Time(property string) time.Time {
	t, _ := ParseTime(c.String(property))
	return t
}

// ParseTime reads an instant as the server writes it; "" is the zero time.
// Debian's server leaves a fraction of zero out.
func ParseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse("2006-01-02T15:04:05", s) // and any fraction
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time of the form %s", s, TimeFormat)
	}
	return t, nil
}

// Printable returns s with all that could break a line or steer a terminal
// escaped: hosts and checkers come from whoever may set them, and names from
// a file.
func Printable(s string) string {
	unprintable := func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1: // no UTF-8, but perhaps a C1 control
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
