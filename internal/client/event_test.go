package client

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mandos/internal/journal"
	"mandos/internal/secret"
)

// TestDecisionInVain: a decision about a client that needs no approval is
// logged as being without effect, and no other is.
func TestDecisionInVain(t *testing.T) {
	for delay, inVain := range map[time.Duration]bool{0: true, time.Second: false} {
		for _, ev := range []Event{Approve{By: "a test"}, Deny{By: "a test"}} {
			_, effects := Step(Client{Settings: Settings{ApprovalDelay: delay}}, Instant{}, ev)
			var logs []Log
			for _, effect := range effects {
				if l, ok := effect.(Log); ok {
					logs = append(logs, l)
				}
			}
			why := journal.Reason("without effect: its approval_delay is 0, so it needs no approval")
			if len(logs) != 1 || slices.ContainsFunc(logs[0].Attrs, why.Equal) != inVain {
				t.Errorf("%T with approval_delay %v logs %v", ev, delay, logs)
			}
		}
	}
}

// TestValidate: what comes from outside is within its limits, or refused.
func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		ev Event
		ok bool
	}{
		{SetText{Property: PropHost}, true},
		{SetText{Property: PropHost, Value: strings.Repeat("x", MaxText)}, true},
		{SetText{Property: PropHost, Value: strings.Repeat("x", MaxText+1)}, false},
		{SetText{Property: PropChecker, Value: strings.Repeat("x", MaxText)}, true},
		{SetText{Property: PropChecker, Value: strings.Repeat("x", MaxText+1)}, false},
		{SetText{Property: PropChecker}, false},
		{SetText{Property: PropTimeout, Value: "x"}, false},
		{SetSecret{Value: secret.New(make([]byte, 1))}, true},
		{SetSecret{Value: secret.New(make([]byte, MaxSecret))}, true},
		{SetSecret{Value: secret.New(make([]byte, MaxSecret+1))}, false},
		{SetSecret{Value: secret.New(nil)}, false},
		{SetSecret{}, false},
		{SetDuration{Property: PropTimeout}, true},
		{SetDuration{Property: PropTimeout, Value: MaxDuration}, true},
		{SetDuration{Property: PropTimeout, Value: MaxDuration + 1}, false},
		{SetDuration{Property: PropTimeout, Value: -1}, false},
		{SetDuration{Property: PropInterval}, false},
		{SetDuration{Property: PropInterval, Value: 1}, true},
		{SetDuration{Property: PropHost, Value: time.Second}, false},
		{Enable{}, true},
	} {
		if err := Validate(tt.ev); (err == nil) != tt.ok {
			t.Errorf("%T of %.40v: %v", tt.ev, tt.ev, err)
		}
	}
}
