package isodur

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Format returns d as RFC 3339, appendix A, has it: "PT5M", "P1DT12H". A
// fraction of a second is cut off, and a negative d has a leading minus sign,
// which the RFC has no word for.
func Format(d time.Duration) string {
	if d <= -time.Second {
		return "-" + Format(-max(d, -1<<63+1))
	}
	d = d.Truncate(time.Second)
	if d == 0 {
		return "PT0S"
	}
	var b strings.Builder
	b.WriteByte('P')
	if days := d / Day; days > 0 {
		b.WriteString(strconv.FormatInt(int64(days), 10) + "D")
	}
	h, m, s := d%Day/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second
	if h+m+s == 0 {
		return b.String()
	}
	b.WriteByte('T')
	if h > 0 {
		fmt.Fprintf(&b, "%dH", h)
	}
	// Minutes can't be left out between hours and seconds.
	if m > 0 || h > 0 && s > 0 {
		fmt.Fprintf(&b, "%dM", m)
	}
	if s > 0 {
		fmt.Fprintf(&b, "%dS", s)
	}
	return b.String()
}

// FormatTable returns d as mandos-ctl's tables have it: "00:05:00", and
// "1T00:00:00" for a day. A fraction of a second is cut off.
func FormatTable(d time.Duration) string {
	sign := ""
	if d <= -time.Second {
		sign, d = "-", -max(d, -1<<63+1)
	}
	days := ""
	if d >= Day {
		days = strconv.FormatInt(int64(d/Day), 10) + "T"
	}
	d = max(d, 0) % Day
	return fmt.Sprintf("%s%s%02d:%02d:%02d", sign, days, d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
}

// FormatPython returns d as Python prints a timedelta, which is what a
// checker's %(timeout)s and the like have always been: "0:05:00",
// "1 day, 0:00:00", "-1 day, 23:59:59", "0:00:00.500000". What is below a
// microsecond is rounded down.
func FormatPython(d time.Duration) string {
	days := d / Day
	if d%Day < 0 {
		days--
	}
	d -= days * Day // of [0, 24 h) now, also after a wrap-around
	var b strings.Builder
	if days != 0 {
		plural := "s"
		if days == 1 || days == -1 {
			plural = ""
		}
		fmt.Fprintf(&b, "%d day%s, ", days, plural)
	}
	fmt.Fprintf(&b, "%d:%02d:%02d", d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
	if us := d % time.Second / time.Microsecond; us > 0 {
		fmt.Fprintf(&b, ".%06d", us)
	}
	return b.String()
}
