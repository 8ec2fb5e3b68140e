package client

import (
	"testing"
	"time"
)

func TestCheckLimit(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{
		time.Millisecond:    10 * time.Second,
		10 * time.Second:    10 * time.Second,
		2 * time.Minute:     2 * time.Minute,
		24 * time.Hour:      24 * time.Hour,
		30 * 24 * time.Hour: 24 * time.Hour,
	} {
		if got := (&Settings{Interval: interval}).CheckLimit(); got != want {
			t.Errorf("with an interval of %v: %v, want %v", interval, got, want)
		}
	}
}
