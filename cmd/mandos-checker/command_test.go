package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mandos/internal/cmdline"
)

// TestUsage: a wrong command line is told so, and where help is; "test" says by
// its exit status that nothing was run.
func TestUsage(t *testing.T) {
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "clients.conf"), []byte("[a]\ntimeout = soon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   string
		status int
		want   string
	}{
		{"--bogus", cmdline.ExitUsage, "mandos-checker: unknown option --bogus (see --help)\n"},
		{"--configdir", cmdline.ExitUsage, "mandos-checker: --configdir needs a value (see --help)\n"},
		{"-x", cmdline.ExitUsage, "mandos-checker: unknown option -x (see --help)\n"},
		{"--version=x", cmdline.ExitUsage, "mandos-checker: --version: it takes no value (see --help)\n"},
		{"test", cmdline.ExitUsage, `expected nothing, or "test" and the name of one client (see --help)`},
		{"test a b", cmdline.ExitUsage, "(see --help)\n"},
		{"try a", cmdline.ExitUsage, "(see --help)\n"},
		{"--configdir /nonexistent test a", exitNotRun, `there is no client "a" in /nonexistent/clients.conf`},
		{"--configdir " + broken + " test a", exitNotRun, "3 errors in the configuration:\n" + broken + "/clients.conf:1: "},
	} {
		var out, errs strings.Builder
		if got := run(strings.Fields(tt.args), &out, &errs); got != tt.status || !strings.Contains(errs.String(), tt.want) || out.Len() > 0 {
			t.Errorf("%s: status %d, want %d; it said %q and should say %q; and printed %q", tt.args, got, tt.status, errs.String(), tt.want, out.String())
		}
	}
	var out, errs strings.Builder
	if got := run([]string{"--help"}, &out, &errs); got != cmdline.ExitOK || errs.Len() > 0 {
		t.Errorf("--help: status %d, %q", got, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		if line = strings.TrimSuffix(line, "\n"); strings.TrimRight(line, " ") != line {
			t.Errorf("the help has the line %q", line)
		}
	}
}
