// Package checker runs checker commands, which tell whether a client is still
// up. Under systemd the daemon may not start processes, so it asks a privileged
// helper over a private socket; a daemon started by hand runs them as plain
// child processes.
package checker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"mandos/internal/client"
)

// Limits of a Request and of its result.
const (
	MaxClient  = 4 << 10 // bytes in a client's name
	MaxCommand = 16 << 10
	MaxOutput  = 4 << 10 // bytes of output kept, from the beginning
	MinLimit   = time.Millisecond
	MaxLimit   = 7 * 24 * time.Hour
)

// A Request asks for one run of a client's checker.
type Request struct {
	Client  string        // its name
	Command string        // for /bin/sh -c, with its variables expanded and quoted
	Limit   time.Duration // after this the command is killed along with all its children
}

// Validate returns an error if r is not acceptable. The helper doesn't run such
// a request.
func (r Request) Validate() error {
	text := func(what, s string, limit int) error {
		switch {
		case s == "":
			return fmt.Errorf("the %s is empty", what)
		case len(s) > limit:
			return fmt.Errorf("the %s has %d bytes, more than %d", what, len(s), limit)
		case strings.IndexByte(s, 0) >= 0:
			return fmt.Errorf("the %s holds a NUL byte", what)
		case !utf8.ValidString(s):
			return fmt.Errorf("the %s isn't valid UTF-8", what)
		}
		return nil
	}
	var limit error
	if r.Limit < MinLimit || r.Limit > MaxLimit {
		limit = fmt.Errorf("the time limit %v isn't between %v and %v", r.Limit, MinLimit, MaxLimit)
	}
	return errors.Join(text("client's name", r.Client, MaxClient), text("command", r.Command, MaxCommand), limit)
}

// A Runner runs checkers. An error means that the command could not be run or
// was abandoned; it says nothing about the client. When ctx ends, the command
// is killed along with all its children.
type Runner interface {
	Run(ctx context.Context, r Request) (client.CheckResult, error)
}

// Checks runs the checkers of the registry's clients with a Runner.
type Checks struct{ Runner Runner }

// Validate returns an error if template can't be expanded and run.
func (Checks) Validate(template string) error { return Validate(template) }

// Expand replaces each %(name)s in template with its value, quoted.
func (Checks) Expand(template string, values map[string]string) (string, error) {
	return Expand(template, values)
}

// Run runs command for the client called name.
func (c Checks) Run(ctx context.Context, name, command string, limit time.Duration) (client.CheckResult, error) {
	return c.Runner.Run(ctx, Request{name, command, min(max(limit, MinLimit), MaxLimit)})
}

// printable escapes whatever could disturb a terminal or forge a line of a log.
func printable(output []byte) string {
	var b strings.Builder
	for len(output) > 0 {
		c, n := utf8.DecodeRune(output)
		switch {
		case c == '\n' || c == '\t':
			b.WriteRune(c)
		case c == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, output[0])
		case isControl(c):
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
		output = output[n:]
	}
	return strings.TrimRight(b.String(), "\n")
}

// isControl reports whether c is in C0 or C1, is DEL, or is one of the marks
// that change the direction of text or end a line without being control
// characters.
func isControl(c rune) bool {
	return c < 0x20 || 0x7f <= c && c < 0xa0 ||
		0x200e <= c && c <= 0x200f || 0x2028 <= c && c <= 0x202e || 0x2066 <= c && c <= 0x2069
}

// outputKeeper is an io.Writer that keeps the first MaxOutput bytes and
// discards the rest.
type outputKeeper struct{ kept []byte }

func (k *outputKeeper) Write(p []byte) (int, error) {
	k.kept = append(k.kept, p[:min(len(p), MaxOutput-len(k.kept))]...)
	return len(p), nil
}
