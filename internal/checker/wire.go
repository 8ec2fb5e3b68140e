package checker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"mandos/internal/client"
)

// The helper's protocol: the daemon connects to a SOCK_SEQPACKET socket and
// sends one packet, a JSON object; the helper answers with one packet when the
// command has ended. Closing the connection before that abandons the check.

// MaxPacket is the maximum length of both packets. At worst, JSON needs six
// bytes for one.
const MaxPacket = 6*(MaxClient+MaxCommand) + 1<<10

type wireRequest struct {
	Client  string `json:"client"`
	Command string `json:"command"`
	LimitMS int64  `json:"limit_ms"`
}

type wireReply struct {
	ExitStatus int    `json:"exit_status"`
	Signal     int    `json:"signal"`
	TimedOut   bool   `json:"timed_out"`
	Output     []byte `json:"output"`
	Error      string `json:"error"` // the command could not be run
}

// MarshalRequest returns r as one packet, or an error if r is not valid.
func MarshalRequest(r Request) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(wireRequest{r.Client, r.Command, r.Limit.Milliseconds()})
}

// UnmarshalRequest reads a packet and validates the request.
func UnmarshalRequest(packet []byte) (Request, error) {
	var w wireRequest
	if err := unmarshal(packet, &w); err != nil {
		return Request{}, err
	}
	if w.LimitMS > MaxLimit.Milliseconds() { // before the multiplication can overflow
		return Request{}, fmt.Errorf("the time limit of %d ms is over %v", w.LimitMS, MaxLimit)
	}
	r := Request{w.Client, w.Command, time.Duration(max(w.LimitMS, 0)) * time.Millisecond}
	return r, r.Validate()
}

// MarshalReply returns the packet with the result of a check.
func MarshalReply(exitStatus, signal int, timedOut bool, output []byte, err error) []byte {
	w := wireReply{ExitStatus: exitStatus, Signal: signal, TimedOut: timedOut, Output: output}
	if err != nil {
		w = wireReply{Error: err.Error()}
	}
	packet, err := json.Marshal(w)
	if err != nil { // impossible: no field of wireReply fails to encode
		return []byte(`{"error":"the reply could not be encoded"}`)
	}
	return packet
}

// UnmarshalReply reads the helper's packet.
func UnmarshalReply(packet []byte) (client.CheckResult, error) {
	var w wireReply
	if err := unmarshal(packet, &w); err != nil {
		return client.CheckResult{}, fmt.Errorf("reading the helper's reply: %w", err)
	}
	switch {
	case w.Error != "":
		return client.CheckResult{}, errors.New(printable([]byte(w.Error)))
	case w.ExitStatus < 0 || w.ExitStatus > 255 || w.Signal < 0 || w.Signal > 64 || len(w.Output) > MaxOutput:
		return client.CheckResult{}, errors.New("reading the helper's reply: a value is out of range")
	}
	return client.CheckResult{ExitStatus: w.ExitStatus, Signal: w.Signal, TimedOut: w.TimedOut, Output: printable(w.Output)}, nil
}

// unmarshal is strict where encoding/json is lenient.
func unmarshal(packet []byte, into any) error {
	if len(packet) > MaxPacket {
		return fmt.Errorf("the packet has %d bytes, more than %d", len(packet), MaxPacket)
	}
	if !utf8.Valid(packet) {
		return errors.New("the packet isn't valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(packet))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the packet isn't what it should be: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("the packet holds more than one object")
	}
	return nil
}
