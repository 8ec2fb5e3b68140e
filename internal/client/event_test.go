package client

import (
	"strings"
	"testing"
	"time"

	"mandos/internal/secret"
)

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
		{SetDuration{Property: PropTimeout, Value: maxDuration}, true},
		{SetDuration{Property: PropTimeout, Value: maxDuration + 1}, false},
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
