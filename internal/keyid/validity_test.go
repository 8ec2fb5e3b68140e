package keyid

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestValidityAt(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 11, d, 12, 0, 0, 0, time.UTC) }
	for name, tt := range map[string]struct {
		v    Validity
		now  time.Time
		want error
		date string
	}{
		"zero value":               {now: day(1)},
		"made before":              {v: Validity{NotBefore: day(1)}, now: day(2)},
		"made at this instant":     {v: Validity{NotBefore: day(2)}, now: day(2)},
		"made later":               {v: Validity{NotBefore: day(3)}, now: day(2), want: ErrFuture, date: "2026-11-03T12:00:00Z"},
		"expires later":            {v: Validity{NotAfter: day(3)}, now: day(2)},
		"expires at this instant":  {v: Validity{NotAfter: day(2)}, now: day(2), want: ErrExpired, date: "2026-11-02T12:00:00Z"},
		"expired":                  {v: Validity{NotBefore: day(1), NotAfter: day(2)}, now: day(3), want: ErrExpired, date: "2026-11-02T12:00:00Z"},
		"revoked":                  {v: Validity{Revoked: day(1)}, now: day(2), want: ErrRevoked, date: "2026-11-01T12:00:00Z"},
		"revoked, dated later":     {v: Validity{Revoked: day(9)}, now: day(2), want: ErrRevoked, date: "2026-11-09T12:00:00Z"},
		"revoked weighs most":      {v: Validity{NotAfter: day(1), Revoked: day(1)}, now: day(2), want: ErrRevoked, date: "2026-11-01"},
		"future outweighs expired": {v: Validity{NotBefore: day(5), NotAfter: day(1)}, now: day(2), want: ErrFuture, date: "2026-11-05"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.v.At(tt.now)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil && !strings.Contains(err.Error(), tt.date) {
				t.Errorf("error %q doesn't hold the date %s", err, tt.date)
			}
		})
	}
}
