package ctl

import (
	"strings"
	"testing"
)

// FuzzParse: a command line that is taken has either something to show or
// something to do, and for the latter names whom to.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "-a\x00--enable", "--disable\x00web1", "--enable\x00--disable\x00x", "--timeout=PT5M\x00x", "-V\x00x", "--remove\x00--deny\x00x", "--secret=/dev/null\x00x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "-s") {
			return // reads no file of this machine
		}
		o, err := parse(strings.Split(line, "\x00"))
		if err != nil || o.help || o.version || o.completion != "" {
			return
		}
		if len(o.actions) > 0 && o.all == (len(o.clients) > 0) {
			t.Errorf("%q: %d actions, all: %v, clients: %q", line, len(o.actions), o.all, o.clients)
		}
	})
}
