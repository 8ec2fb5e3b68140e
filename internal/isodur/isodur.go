// Package isodur reads and writes durations as Mandos' files and tools do:
// RFC 3339, appendix A ("PT5M"), and the older "5m 30s".
//
// A year is 52 weeks and a month is 4 weeks, as in Debian's Mandos. Whatever
// doesn't fit into a time.Duration (about 292 years) is an error.
package isodur

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
)

// The units that time has no names for.
const (
	Day   = 24 * time.Hour
	Week  = 7 * Day
	Month = 4 * Week
	Year  = 52 * Week
)

// ErrTooLong says that a duration doesn't fit into a time.Duration.
var ErrTooLong = errors.New("it is longer than 292 years")

// Parse reads s in either form. The older form may be negative, and the
// empty string is zero; the caller says what it can use.
func Parse(s string) (time.Duration, error) {
	read := parseOld
	if strings.HasPrefix(s, "P") {
		read = parseRFC3339
	}
	d, err := read(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: %w", s, err)
	}
	return d, nil
}

// A unit is a letter of a duration and the letter that alone may come next.
type unit struct {
	letter byte
	length time.Duration
	next   byte // 0: none
}

// The grammar of RFC 3339, appendix A, allows no gap within the date or
// within the time: P1Y3D and PT1H5S are errors.
var (
	dateUnits = []unit{{'Y', Year, 'M'}, {'M', Month, 'D'}, {'D', Day, 0}, {'W', Week, 0}}
	timeUnits = []unit{{'H', time.Hour, 'M'}, {'M', time.Minute, 'S'}, {'S', time.Second, 0}}
)

func parseRFC3339(s string) (time.Duration, error) {
	date, clock, hasTime := strings.Cut(s[1:], "T")
	total, weeks, err := parseUnits(date, dateUnits)
	if err != nil {
		return 0, err
	}
	if !hasTime {
		if date == "" {
			return 0, errors.New(`nothing follows "P"`)
		}
		return total, nil
	}
	if weeks {
		return 0, errors.New(`weeks stand alone, as in "P2W"`)
	}
	if clock == "" {
		return 0, errors.New(`nothing follows "T"`)
	}
	d, _, err := parseUnits(clock, timeUnits)
	if err != nil {
		return 0, err
	}
	return add(total, d)
}

// parseUnits reads "1Y2M3D" and says whether there were weeks in it.
func parseUnits(s string, units []unit) (total time.Duration, weeks bool, err error) {
	var next byte          // the only letter allowed; 0 before the first item
	var last time.Duration // the unit before
	for i, first := 0, true; i < len(s); first = false {
		start := i
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		if i == start {
			return 0, false, fmt.Errorf("a whole number belongs before %q", s[i:])
		}
		if i == len(s) {
			return 0, false, fmt.Errorf("%q has no unit", s[start:])
		}
		var u *unit
		for k := range units {
			if units[k].letter == s[i] {
				u = &units[k]
			}
		}
		switch {
		case u == nil && (s[i] == '.' || s[i] == ','):
			return 0, false, fmt.Errorf("numbers are whole, and %q isn't", s[start:])
		case u == nil:
			return 0, false, fmt.Errorf("%q begins with no unit that is allowed here", s[i:])
		case first || u.letter == next:
		case u.letter == 'W':
			return 0, false, errors.New(`weeks stand alone, as in "P2W"`)
		case next == 0:
			return 0, false, fmt.Errorf("nothing can come before %q", s[start:])
		case u.length < last: // RFC 3339, appendix A, allows no gap
			return 0, false, fmt.Errorf("no unit can be left out: write 0%c before %q", next, s[start:])
		default:
			return 0, false, fmt.Errorf("longer units come first, and %q is too late", s[start:])
		}
		n, err := number(s[start:i], u.length)
		if err != nil {
			return 0, false, err
		}
		if total, err = add(total, n); err != nil {
			return 0, false, err
		}
		weeks = weeks || u.letter == 'W'
		next, last = u.next, u.length
		i++
	}
	return total, weeks, nil
}

// parseOld reads items such as "1d 5m -30s", in any order; repeats add up.
func parseOld(s string) (time.Duration, error) {
	var total time.Duration
	for item := range strings.FieldsFuncSeq(s, unicode.IsSpace) {
		var length time.Duration
		switch item[len(item)-1] {
		case 'w':
			length = Week
		case 'd':
			length = Day
		case 'h':
			length = time.Hour
		case 'm':
			length = time.Minute
		case 's':
			length = time.Second
		default:
			return 0, fmt.Errorf("%q doesn't end with a unit: w, d, h, m or s", item)
		}
		digits, negative := item[:len(item)-1], false
		switch {
		case strings.HasPrefix(digits, "-"):
			digits, negative = digits[1:], true
		case strings.HasPrefix(digits, "+"):
			digits = digits[1:]
		}
		n, err := number(digits, length)
		if err != nil {
			return 0, err
		}
		if negative {
			n = -n
		}
		if total, err = add(total, n); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// number returns length times the decimal number digits.
func number(digits string, length time.Duration) (time.Duration, error) {
	if digits == "" {
		return 0, errors.New("a unit without a number")
	}
	var n int64
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q is no whole number", digits)
		}
		if n > (math.MaxInt64-int64(c-'0'))/10 {
			return 0, ErrTooLong
		}
		n = n*10 + int64(c-'0')
	}
	if n > math.MaxInt64/int64(length) {
		return 0, ErrTooLong
	}
	return time.Duration(n) * length, nil
}

func add(a, b time.Duration) (time.Duration, error) {
	if b > 0 && a > math.MaxInt64-b || b < 0 && a < -math.MaxInt64-b {
		return 0, ErrTooLong
	}
	return a + b, nil
}
