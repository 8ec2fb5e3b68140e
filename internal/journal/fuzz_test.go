package journal

import (
	"encoding/binary"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// FuzzEntry: whatever is logged, journald reads the intended fields, and a
// terminal gets one line that can't control it.
func FuzzEntry(f *testing.F) {
	f.Add("text", "client", "x\nPRIORITY=7\nMESSAGE=y", "server")
	f.Add("a\nb", "_PID", "", "")
	f.Add("\x1b[2J", "MESSAGE_ID", "\x00\x80\u2028", "avahi")
	name := regexp.MustCompile(`^MANDOS_[A-Z0-9_]*$`)
	f.Fuzz(func(t *testing.T, text, key, value, component string) {
		e := entry{time: time.Unix(0, 0), level: slog.LevelInfo, component: component, text: text, fields: []field{{key, value}}}
		line := e.line()
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 || r == 0x2028 }) {
			t.Errorf("the line is %q", line)
		}
		var got [][2]string
		for b := (&native{identifier: "mandos"}).encode(nil, e); len(b) > 0; {
			head, rest, ok := strings.Cut(string(b), "\n")
			if !ok {
				t.Fatalf("no end of line in %q", b)
			}
			if key, value, ok := strings.Cut(head, "="); ok {
				got, b = append(got, [2]string{key, value}), []byte(rest)
				continue
			}
			n := binary.LittleEndian.Uint64([]byte(rest))
			got, b = append(got, [2]string{head, rest[8:][:n]}), []byte(rest[8+n+1:])
		}
		want := [][2]string{{"MESSAGE", line}, {"PRIORITY", "6"}, {"SYSLOG_FACILITY", "3"}, {"SYSLOG_IDENTIFIER", "mandos"}}
		if component != "" {
			want = append(want, [2]string{"MANDOS_COMPONENT", component})
		}
		if len(got) != len(want)+1 {
			t.Fatalf("fields %q, want %q and one more", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("field %q, want %q", got[i], want[i])
			}
		}
		last := got[len(want)]
		if last[1] != value || last[0] != "MESSAGE_ID" && !name.MatchString(last[0]) || len(last[0]) > maxFieldName {
			t.Errorf("%q=%q became %q", key, value, last)
		}
	})
}

// FuzzLevels: what is accepted is printed in a form that means the same.
func FuzzLevels(f *testing.F) {
	for _, s := range []string{"", "info", "server=debug,registry=info", "warning, avahi = ERROR", "a=b=c", ",", "debug,debug"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLevels(s)
		if err != nil {
			return
		}
		again, err := ParseLevels(l.String())
		if err != nil || again.String() != l.String() {
			t.Errorf("%q is %q, which is %q, %v", s, l, again, err)
		}
	})
}

// FuzzStream: $JOURNAL_STREAM identifies a stream only by its device and inode.
func FuzzStream(f *testing.F) {
	for _, s := range []string{"", "1:2", "8:12345678901234567890123", "-1:-1", ":", "0x1:2"} {
		f.Add(s)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if isJournal(null, s) && !strings.Contains(s, ":") {
			t.Errorf("%s is the journal's stream %q", os.DevNull, s)
		}
	})
}
