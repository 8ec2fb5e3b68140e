package pgp

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseLifetime reads when a key expires, in the syntax of gpg(1): "0" or
// "never" for not at all; a number of days, or with a suffix of days (d),
// weeks (w), months of 30 days (m) or years of 365 days (y); "seconds=N";
// or a date, "2030-12-31" or "20301231T235959", in UTC. It returns the time
// from now, 0 for never.
func ParseLifetime(s string, now time.Time) (time.Duration, error) {
	bad := fmt.Errorf("%q doesn't say when a key expires: use 0, a number with d, w, m or y, or a date like 2030-12-31", s)
	switch strings.ToLower(s) {
	case "", "0", "none", "never", "-":
		return 0, nil
	}
	for _, layout := range []string{time.DateOnly, "20060102T150405"} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if layout == time.DateOnly {
			t = t.Add(12 * time.Hour) // as gpg: noon, the same day in most time zones
		}
		d := t.Sub(now).Truncate(time.Second)
		if d <= 0 {
			return 0, fmt.Errorf("%s is past: a key can't expire before it is made", s)
		}
		if d > maxLifetime {
			return 0, tooLong(s)
		}
		return d, nil
	}
	unit, number := day, s
	if n, ok := strings.CutPrefix(s, "seconds="); ok {
		unit, number = time.Second, n
	} else {
		switch s[len(s)-1] {
		case 'd':
			number = s[:len(s)-1]
		case 'w':
			unit, number = 7*day, s[:len(s)-1]
		case 'm':
			unit, number = 30*day, s[:len(s)-1]
		case 'y':
			unit, number = 365*day, s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, bad
	}
	if n > uint64(maxLifetime/unit) {
		return 0, tooLong(s)
	}
	return time.Duration(n) * unit, nil
}

func tooLong(s string) error {
	return fmt.Errorf("%s is too long: an OpenPGP key lives for 136 years at most", s)
}
