package ctl

import (
	"encoding/json"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"mandos/internal/operator"
)

// FuzzParse: a command line that is taken has either something to show or
// something to do, and for the latter names whom to.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "-a\x00--enable", "--disable\x00web1", "--enable\x00--disable\x00x", "--timeout=PT5M\x00x", "-V\x00x", "--remove\x00--deny\x00x", "--secret=/dev/null\x00x"} {
		f.Add(s)
	}
	readsFile := regexp.MustCompile(`(^|\x00)-[^-\x00]*s|--s`) // --secret, or -s, also as in -es
	f.Fuzz(func(t *testing.T, line string) {
		if readsFile.MatchString(line) {
			return // reads no file of this machine
		}
		o, err := parse(strings.Split(line, "\x00"), nil)
		if err != nil || o.help || o.version || o.completion != "" {
			return
		}
		if len(o.actions) > 0 && o.all == (len(o.clients) > 0) {
			t.Errorf("%q: %d actions, all: %v, clients: %q", line, len(o.actions), o.all, o.clients)
		}
	})
}

// FuzzShow: whatever a server says of its clients, the table has a line for
// each, and neither it nor what --why says can steer a terminal.
func FuzzShow(f *testing.F) {
	f.Add("web1", "web1.example.org", "disabled at 2026-11-20 01:02:03 UTC by uid 0 over D-Bus", "2026-11-22T11:59:00.000000", int64(300000), uint8(1))
	f.Add("a\x1b[2J", "\x9b31m", "\u202e\r\n", "", int64(-1), uint8(0))
	f.Add("--all", "it's", "\xff\xfe", "9999-12-31T23:59:59.999999", int64(math.MaxInt64), uint8(2))
	f.Add("", "", "", "0000-01-01T00:00:00.000000", int64(math.MinInt64), uint8(7))
	f.Fuzz(func(t *testing.T, name, host, status, instant string, n int64, flags uint8) {
		c := client(name, "Host", host, "Checker", host, "KeyID", host, "Status", status, "CannotCheck", status, "Protocol", status,
			"LastCheckedOK", instant, "Expires", instant, "NextCheck", instant, "LastApprovalRequest", instant,
			"Timeout", n, "ApprovalDelay", uint64(n), "LastCheckerStatus", int16(n),
			"Enabled", flags&1 != 0, "ApprovalPending", flags&2 != 0, "ApprovedByDefault", flags&4 != 0)
		o := options{verbose: true}
		table := o.tableOf([]operator.Client{c, c}).render(style{})
		if lines := strings.Count(table, "\n"); lines != 3 {
			t.Errorf("the table has %d lines: %q", lines, table)
		}
		why := why(c, noon, time.UTC)
		for line := range strings.Lines(table + why) {
			if line = strings.TrimSuffix(line, "\n"); operator.Printable(line) != line {
				t.Errorf("it shows %q", line)
			}
		}
		if !utf8.ValidString(name) || !utf8.ValidString(host) {
			return // there is no such text on D-Bus, and none in JSON
		}
		var all map[string]map[string]any
		if text := dump([]operator.Client{c}); json.Unmarshal([]byte(text), &all) != nil || all[name]["Host"] != host {
			t.Errorf("as JSON it shows %s", text)
		}
	})
}
