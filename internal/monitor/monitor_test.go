package monitor

import (
	"bytes"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"--version", 0, "mandos-monitor 1.0\n", ""},
		{"--help", 0, "Usage: mandos-monitor", ""},
		{"-h", 0, "Usage: mandos-monitor", ""},
		{"--nonsense", 2, "", "--nonsense"},
		{"client", 2, "", `"client"`},
		{"", 1, "", "no terminal"},
	} {
		var stdout, stderr bytes.Buffer
		c := Command{Args: strings.Fields(tt.args), Stdout: &stdout, Stderr: &stderr, Version: "1.0"}
		status := c.Run(t.Context())
		if status != tt.status || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%q: exit status %d, printed %q and %q", tt.args, status, stdout.String(), stderr.String())
		}
	}
}

func TestSymbols(t *testing.T) {
	for env, want := range map[string]symbols{
		"":                                       asciiSymbols,
		"LANG=C.UTF-8":                           unicodeSymbols,
		"LANG=sv_SE.utf8":                        unicodeSymbols,
		"LC_ALL=C LANG=C.UTF-8":                  asciiSymbols,
		"LC_ALL= LC_CTYPE=C.UTF-8 LANG=C":        unicodeSymbols,
		"LC_CTYPE=en_US.ISO-8859-1 LANG=C.UTF-8": asciiSymbols,
	} {
		if got := symbolsFor(strings.Fields(env)); got != want {
			t.Errorf("%s: got %v", env, got)
		}
	}
}
