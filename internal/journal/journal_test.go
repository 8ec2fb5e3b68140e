package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// recorder is a sink that keeps what it gets.
type recorder struct {
	mu      sync.Mutex
	entries []entry
}

func (r *recorder) write(e entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
	return nil
}

func (r *recorder) all() []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entries
}

func TestHandler(t *testing.T) {
	var rec *recorder
	slogtest.Run(t,
		func(*testing.T) slog.Handler {
			rec = new(recorder)
			return &handler{sink: rec, levels: Debug()}
		},
		func(t *testing.T) map[string]any {
			e := rec.all()[0]
			m := map[string]any{slog.LevelKey: e.level, slog.MessageKey: e.text}
			if !e.time.IsZero() {
				m[slog.TimeKey] = e.time
			}
			for _, f := range e.fields {
				at := m
				path := strings.Split(f.key, ".")
				for _, group := range path[:len(path)-1] {
					if at[group] == nil {
						at[group] = map[string]any{}
					}
					at = at[group].(map[string]any)
				}
				at[path[len(path)-1]] = f.value
			}
			return m
		})
}

func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		in        string
		component string
		want      slog.Level
		wantErr   string
	}{
		{in: "", component: "server", want: LevelNotice},
		{in: "DEBUG", component: "server", want: slog.LevelDebug},
		{in: "Warning", component: "", want: slog.LevelWarn},
		{in: "warning,server=debug", component: "server", want: slog.LevelDebug},
		{in: "warning, Server = debug", component: "server", want: slog.LevelDebug},
		{in: "warning,server=debug", component: "registry", want: slog.LevelWarn},
		{in: "server=debug", component: "registry", want: LevelNotice},
		{in: "critical", component: "registry", want: LevelCritical},
		{in: "verbose", wantErr: `"verbose" is no level: use debug, info, notice, warning, error or critical`},
		{in: "debug,", wantErr: `"" is no level`},
		{in: "sever=debug", wantErr: `"sever" is no component: use avahi,`},
		{in: "info,debug", wantErr: "two levels for all"},
		{in: "sd=info,sd=debug", wantErr: "two levels for sd"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			l, err := ParseLevels(tt.in)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := l.of(tt.component); got != tt.want {
				t.Errorf("%s is logged from %v on, want %v", tt.component, got, tt.want)
			}
			again, err := ParseLevels(l.String())
			if err != nil || again.of(tt.component) != tt.want || again.String() != l.String() {
				t.Errorf("printed as %q, which says %v (%v)", l.String(), again.of(tt.component), err)
			}
		})
	}
}

// TestFilter sends entries through a filter that passes those of only one
// component; an audit entry always passes.
func TestFilter(t *testing.T) {
	levels, err := ParseLevels("critical,server=debug")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log := slog.New(NewPlain(&out, levels))
	log.Error("dropped")
	log.With(Component("registry")).Error("dropped")
	log.With(Component("server")).Debug("kept")
	Refused.Log(t.Context(), log, Client("a"))
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != 2 || !strings.HasSuffix(got[0], "DEBUG server: kept") ||
		!strings.HasSuffix(got[1], "NOTICE: refused a client its secret: client=a") {
		t.Errorf("got %q", got)
	}
}

func TestPlainLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"words", func(l *slog.Logger) { l.Info("text", "a", 1, "b", "two words", "c", "") }, `INFO: text: a=1 b="two words" c=""`},
		{"ours are short", func(l *slog.Logger) { l.Warn("text", Client("x"), Err(errors.New("no\nway"))) }, `WARNING: text: client=x error="no\nway"`},
		{"control characters", func(l *slog.Logger) { l.Info("text", "a", "\x1b[31m\r\x00\u202e") }, `INFO: text: a="\x1b[31m\r\x00\u202e"`},
		{"no UTF-8", func(l *slog.Logger) { l.Info("text", "a", "\xff") }, `INFO: text: a="\xff"`},
		{"a forged attribute", func(l *slog.Logger) { l.Info("text", "a", "x client=y") }, `INFO: text: a="x client=y"`},
		{"a forged line", func(l *slog.Logger) { l.Info("te\nxt", "a\nb", "c") }, `INFO: te\nxt: "a\nb"=c`},
		{"groups", func(l *slog.Logger) { l.WithGroup("g").Info("text", slog.Group("h", "a", 1)) }, `INFO: text: g.h.a=1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.log(slog.New(NewPlain(&out, Debug())))
			stamp, got, _ := strings.Cut(out.String(), " ")
			if got != tt.want+"\n" {
				t.Errorf("got  %q\nwant %q", got, tt.want+"\n")
			}
			if _, err := time.Parse(time.RFC3339, stamp); err != nil {
				t.Errorf("time stamp: %v", err)
			}
		})
	}
}

// journald stands in for systemd-journald: it reads entries from its socket by
// the native protocol.
type journald struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newJournald(t *testing.T) *journald {
	j := &journald{t: t, path: filepath.Join(t.TempDir(), "socket")}
	j.listen()
	t.Cleanup(func() { j.conn.Close() })
	return j
}

func (j *journald) listen() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"})
	if err != nil {
		j.t.Fatal(err)
	}
	j.conn = conn
}

// next returns the fields of the next entry, in their order.
func (j *journald) next() [][2]string {
	j.t.Helper()
	b, oob := make([]byte, 4<<20), make([]byte, 1024) // net.core.wmem_default may be large
	if err := j.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		j.t.Fatal(err)
	}
	n, oobn, _, _, err := j.conn.ReadMsgUnix(b, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	b = b[:n]
	if oobn > 0 {
		b = readMemfd(j.t, oob[:oobn])
	}
	var fields [][2]string
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			j.t.Fatalf("a field without its end: %q", b)
		}
		name, value, short := strings.Cut(string(line), "=")
		if !short {
			size := binary.LittleEndian.Uint64(rest)
			value, rest = string(rest[8:8+size]), rest[8+size:]
			if rest[0] != '\n' {
				j.t.Fatalf("field %s has no line feed at its end", name)
			}
			rest = rest[1:]
		}
		fields = append(fields, [2]string{name, value})
		b = rest
	}
	return fields
}

func readMemfd(t *testing.T, oob []byte) []byte {
	t.Helper()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "memfd")
	defer f.Close()
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("the memory isn't sealed (%#x, %v), journald would not take it", seals, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// patient returns a logger that waits for longer for a journald that doesn't
// read: in a test that is the test itself, on a machine that may be busy.
func patient(h slog.Handler) *slog.Logger {
	h.(*handler).sink.(*native).patience = time.Minute
	return slog.New(h)
}

func TestNative(t *testing.T) {
	j := newJournald(t)
	var fallback bytes.Buffer
	log := patient(NewNative(j.path, "mandos", Debug(), &fallback)).With(Component("server"))

	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for _, tt := range []struct {
		name string
		log  func()
		want [][2]string
	}{
		{"an event", func() { Refused.Log(t.Context(), log, Client("foo"), Reason("Disabled")) }, [][2]string{
			{"MESSAGE", "refused a client its secret: client=foo reason=Disabled"},
			{"PRIORITY", "5"}, {"SYSLOG_FACILITY", "3"}, {"SYSLOG_IDENTIFIER", "mandos"}, {"MANDOS_COMPONENT", "server"},
			{"MANDOS_CLIENT", "foo"}, {"MANDOS_REASON", "Disabled"}, {"MESSAGE_ID", Refused.ID},
		}},
		{"a forging value", func() { log.Error("text", Client("x\nPRIORITY=7\nMESSAGE=y"), "output", "a\nb\n") }, [][2]string{
			{"MESSAGE", `text: client="x\nPRIORITY=7\nMESSAGE=y" output="a\nb\n"`},
			{"PRIORITY", "3"}, {"SYSLOG_FACILITY", "3"}, {"SYSLOG_IDENTIFIER", "mandos"}, {"MANDOS_COMPONENT", "server"},
			{"MANDOS_CLIENT", "x\nPRIORITY=7\nMESSAGE=y"}, {"MANDOS_OUTPUT", "a\nb\n"},
		}},
		{"forging keys", func() {
			log.Debug("text", "MESSAGE", 1, "_PID", 2, "A\nB=C", 3, strings.Repeat("k", 100), 4)
		}, [][2]string{
			{"MESSAGE", `text: MESSAGE=1 _PID=2 "A\nB=C"=3 ` + strings.Repeat("k", 100) + "=4"},
			{"PRIORITY", "7"}, {"SYSLOG_FACILITY", "3"}, {"SYSLOG_IDENTIFIER", "mandos"}, {"MANDOS_COMPONENT", "server"},
			{"MANDOS_MESSAGE", "1"}, {"MANDOS__PID", "2"}, {"MANDOS_A_B_C", "3"}, {"MANDOS_" + strings.Repeat("K", 57), "4"},
		}},
		{"too big for a datagram", func() { log.Info("text", "big", big, Client("foo")) }, [][2]string{
			{"MESSAGE", "text: big=" + big + " client=foo"},
			{"PRIORITY", "6"}, {"SYSLOG_FACILITY", "3"}, {"SYSLOG_IDENTIFIER", "mandos"}, {"MANDOS_COMPONENT", "server"},
			{"MANDOS_BIG", big}, {"MANDOS_CLIENT", "foo"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.log()
			got := j.next()
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got  %.2000q\nwant %.2000q", got, tt.want)
			}
		})
	}

	t.Run("journald restarted", func(t *testing.T) {
		j.conn.Close()
		os.Remove(j.path)
		j.listen()
		log.Info("back again")
		if got := j.next()[0][1]; got != "back again" {
			t.Errorf("got %q", got)
		}
	})
	if fallback.Len() > 0 {
		t.Errorf("went to the fallback: %q", fallback.String())
	}
	t.Run("journald is gone", func(t *testing.T) {
		j.conn.Close()
		os.Remove(j.path)
		log.Warn("alone", Client("a\nb"))
		if got, want := fallback.String(), "<4>alone: client=\"a\\nb\"\n"; got != want {
			t.Errorf("fallback got %q, want %q", got, want)
		}
	})
}

func TestIsJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
		fmt.Sprintf("%d:%d", st.Dev+1, st.Ino): false,
		"":                                     false,
		"nonsense":                             false,
	} {
		if got := isJournal(f, stream); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v, want %v", stream, got, want)
		}
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := new(recorder)
		throttle := NewThrottle(slog.New(&handler{sink: rec}), 2)
		ctx := context.Background()
		for range 5 {
			throttle.Log(ctx, BadGreeting)
		}
		throttle.Log(ctx, HandshakeFailed)
		throttle.Log(ctx, Connected) // below the level: neither logged nor counted
		if got := len(rec.all()); got != 3 {
			t.Fatalf("%d entries passed, want 2 of one kind and 1 of another", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := rec.all()[3:]; len(got) != 1 || got[0].line() != `suppressed entries of one kind in the last minute: count=3 of="a peer sent no proper greeting"` {
			t.Fatalf("reported %+v", got)
		}
		// A new window: entries pass again, and a quiet one reports nothing.
		throttle.Log(ctx, BadGreeting)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := len(rec.all()); got != 5 {
			t.Errorf("%d entries, want 5", got)
		}
		// What is still counted at the end is reported by Flush.
		for range 3 {
			throttle.Log(ctx, BadGreeting)
		}
		throttle.Flush()
		if got := rec.all()[len(rec.all())-1].line(); !strings.Contains(got, "count=1") {
			t.Errorf("the last report is %q", got)
		}
	})
}

// TestEvents looks for slips in the table of events.
func TestEvents(t *testing.T) {
	src, err := os.ReadFile("events.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(string(src)) {
		_, rest, ok := strings.Cut(line, `Event{"`)
		if !ok {
			continue
		}
		id, _, _ := strings.Cut(rest, `"`)
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
			t.Errorf("%q is no MESSAGE_ID", id)
		}
		if seen[id] {
			t.Errorf("MESSAGE_ID %s is used twice", id)
		}
		seen[id] = true
	}
	if len(seen) == 0 {
		t.Error("no events found")
	}
}
