package checker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/client"
)

var valid = Request{Client: "a", Command: "true", Limit: time.Second}

func TestValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change  func(*Request)
		wantErr string // empty: valid
	}{
		"as it is":             {func(*Request) {}, ""},
		"a name with anything": {func(r *Request) { r.Client = "ö / \n\t\x01 " + strings.Repeat("x", 300) }, ""},
		"no name":              {func(r *Request) { r.Client = "" }, "client's name is empty"},
		"a name too long":      {func(r *Request) { r.Client = strings.Repeat("x", MaxClient+1) }, "more than 4096"},
		"NUL in the name":      {func(r *Request) { r.Client = "a\x00b" }, "client's name holds a NUL"},
		"a name not UTF-8":     {func(r *Request) { r.Client = "a\xff" }, "client's name isn't valid UTF-8"},
		"no command":           {func(r *Request) { r.Command = "" }, "command is empty"},
		"a command too long":   {func(r *Request) { r.Command = strings.Repeat("x", MaxCommand+1) }, "more than 16384"},
		"NUL in the command":   {func(r *Request) { r.Command = "true\x00" }, "command holds a NUL"},
		"no limit":             {func(r *Request) { r.Limit = 0 }, "time limit"},
		"a negative limit":     {func(r *Request) { r.Limit = -1 }, "time limit"},
		"a limit too long":     {func(r *Request) { r.Limit = MaxLimit + 1 }, "time limit"},
	} {
		t.Run(name, func(t *testing.T) {
			r := valid
			tt.change(&r)
			packet, err := MarshalRequest(r)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := UnmarshalRequest(packet); err != nil || got != r {
				t.Errorf("came back as %+v, %v", got, err)
			}
		})
	}
}

// TestLargestRequest compares MaxPacket with what JSON makes of the worst bytes
// that are allowed.
func TestLargestRequest(t *testing.T) {
	r := Request{strings.Repeat("\x01", MaxClient), strings.Repeat("\x01", MaxCommand), MaxLimit}
	packet, err := MarshalRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := UnmarshalRequest(packet); err != nil || got != r {
		t.Errorf("the largest request (%d bytes) didn't come back: %v", len(packet), err)
	}
}

func TestUnmarshalRequestRefuses(t *testing.T) {
	for name, packet := range map[string]string{
		"nothing":         ``,
		"no object":       `[]`,
		"an unknown key":  `{"client":"a","command":"true","limit_ms":1000,"uid":0}`,
		"two objects":     `{"client":"a","command":"true","limit_ms":1000}{}`,
		"trailing bytes":  `{"client":"a","command":"true","limit_ms":1000}x`,
		"escaped NUL":     `{"client":"a\u0000","command":"true","limit_ms":1000}`,
		"not UTF-8":       "{\"client\":\"a\xff\",\"command\":\"true\",\"limit_ms\":1000}",
		"a missing field": `{"client":"a","limit_ms":1000}`,
		"overflow":        `{"client":"a","command":"true","limit_ms":9223372036854775807}`,
		"negative":        `{"client":"a","command":"true","limit_ms":-9223372036854775808}`,
		"too long":        `{"client":"a","command":"true","limit_ms":1000` + strings.Repeat(" ", MaxPacket) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := UnmarshalRequest([]byte(packet)); err == nil {
				t.Errorf("was taken as %+v", r)
			}
		})
	}
}

func TestReply(t *testing.T) {
	got, err := UnmarshalReply(MarshalReply(3, 0, true, []byte("a\x1b[31m\xff\n"), nil))
	want := client.CheckResult{ExitStatus: 3, TimedOut: true, Output: `a\u001b[31m\xff`}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if _, err := UnmarshalReply(MarshalReply(0, 0, false, nil, errors.New("no such user"))); err == nil || err.Error() != "no such user" {
		t.Errorf("error %v, want the helper's own", err)
	}
	for _, packet := range []string{``, `{`, `{"exit_status":256}`, `{"exit_status":-1}`, `{"signal":65}`, `{"x":1}`} {
		if r, err := UnmarshalReply([]byte(packet)); err == nil {
			t.Errorf("%s was taken as %+v", packet, r)
		}
	}
}

// FuzzRequest: what the helper accepts is valid, and is written back unchanged.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"client":"a","command":"true","limit_ms":1000}`))
	f.Add([]byte(`{"client":"\u00e9\n","command":"fping -q -- 'a'","limit_ms":604800000}`))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := UnmarshalRequest(packet)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("an invalid request came through: %v", err)
		}
		again, err := MarshalRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := UnmarshalRequest(again); err != nil || back != r {
			t.Fatalf("%+v came back as %+v, %v", r, back, err)
		}
	})
}

// FuzzReply: what the daemon accepts is in range and can't control a terminal.
func FuzzReply(f *testing.F) {
	f.Add(MarshalReply(1, 9, true, []byte("x\n"), nil))
	f.Add(MarshalReply(0, 0, false, nil, errors.New("no")))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := UnmarshalReply(packet)
		if err == nil && (r.ExitStatus < 0 || r.ExitStatus > 255 || r.Signal < 0 || strings.ContainsAny(r.Output, "\x1b\r\x00\u202e")) {
			t.Fatalf("came through: %+v", r)
		}
	})
}

func TestLocal(t *testing.T) {
	t.Setenv("MANDOS_TEST_LEAK", "leaked")
	for name, tt := range map[string]struct {
		command string
		want    client.CheckResult
	}{
		"alive":          {"exit 0", client.CheckResult{}},
		"not alive":      {"exit 3", client.CheckResult{ExitStatus: 3}},
		"no such thing":  {"/nonexistent 2>/dev/null", client.CheckResult{ExitStatus: 127}},
		"by a signal":    {"kill -9 $$", client.CheckResult{Signal: 9}},
		"output of both": {"echo one; echo two >&2", client.CheckResult{Output: "one\ntwo"}},
		"output escaped": {`printf 'a\033[1m\r'`, client.CheckResult{Output: `a\u001b[1m\u000d`}},
		"environment":    {"env | cut -d= -f1 | grep -vx -e PWD -e _ -e SHLVL -e OLDPWD | sort | tr '\n' ' '; echo $MANDOS_CLIENT", client.CheckResult{Output: "LANG MANDOS_CLIENT PATH a"}},
		"folder, stdin":  {"pwd; cat", client.CheckResult{Output: "/"}},
		"own group":      {`test "$(ps -o pgid= -p $$ | tr -d ' ')" = $$`, client.CheckResult{}},
		"leaves a child": {"sleep 1000 & echo ok", client.CheckResult{Output: "ok"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := valid
			r.Command, r.Limit = tt.command, time.Minute
			got, err := Local{}.Run(t.Context(), r)
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestLocalKeepsLittleOutput(t *testing.T) {
	got, err := Local{}.Run(t.Context(), Request{"a", "head -c 1000000 /dev/zero | tr '\\0' x; exit 5", time.Minute})
	if err != nil || got.ExitStatus != 5 || got.Output != strings.Repeat("x", MaxOutput) {
		t.Errorf("got status %d, %d bytes, %v", got.ExitStatus, len(got.Output), err)
	}
}

// TestLocalKills checks that a command that ignores SIGTERM is gone with its
// children, at the limit and when the check is abandoned.
func TestLocalKills(t *testing.T) {
	// run runs the command until the limit, or abandons it once it has begun,
	// and returns how many processes it had.
	run := func(t *testing.T, limit time.Duration, giveUp bool) int {
		pidFile := filepath.Join(t.TempDir(), "pids")
		if err := syscall.Mkfifo(pidFile, 0o600); err != nil {
			t.Fatal(err)
		}
		pipe, err := os.OpenFile(pidFile, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		reason := errors.New("the client was disabled")
		pids := make(chan []string, 1)
		go func() {
			text, _ := bufio.NewReader(pipe).ReadString('\n')
			pids <- strings.Fields(text)
			if giveUp {
				cancel(reason)
			}
		}()
		got, err := Local{}.Run(ctx, Request{"a", "trap '' TERM; sleep 1000 & echo $$ $! >" + pidFile + "; wait; wait", limit})
		switch {
		case giveUp && !errors.Is(err, reason):
			t.Errorf("error %v, want %v", err, reason)
		case !giveUp && (err != nil || !got.TimedOut || got.Signal != 9):
			t.Errorf("got %+v, %v; want a time-out and signal 9", got, err)
		}
		if err := pipe.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		all := <-pids
		for _, pid := range all {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := waitGone(n); err != nil {
				t.Error(err)
			}
		}
		return len(all)
	}
	t.Run("at the limit", func(t *testing.T) {
		for limit := 300 * time.Millisecond; run(t, limit, false) == 0; limit *= 2 {
			t.Logf("within %v it didn't even begin", limit)
		}
	})
	t.Run("given up", func(t *testing.T) {
		if n := run(t, time.Hour, true); n != 2 {
			t.Errorf("there were %d processes", n)
		}
	})
}

// waitGone waits until pid is gone, or is a zombie that init hasn't reaped.
func waitGone(pid int) error {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.New("process " + strconv.Itoa(pid) + " is still there")
}
