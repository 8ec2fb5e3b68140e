package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/pflag"

	"mandos/internal/cmdline"
	"mandos/internal/operator"
)

// fakeServer records what it is asked to do.
type fakeServer struct {
	clients []operator.Client
	did     []string
	fail    map[string]error // by client
	heard   chan operator.Occurrence
	listing error
}

func (f *fakeServer) Clients(context.Context) ([]operator.Client, error) {
	return slices.Clone(f.clients), f.listing
}

func (f *fakeServer) Set(_ context.Context, c operator.Client, property string, value any) error {
	f.did = append(f.did, fmt.Sprintf("%s: %s = %v (%T)", c.Name(), property, value, value))
	return f.fail[c.Name()]
}

func (f *fakeServer) Approve(_ context.Context, c operator.Client, approve bool) error {
	f.did = append(f.did, fmt.Sprintf("%s: approve %v", c.Name(), approve))
	return f.fail[c.Name()]
}

func (f *fakeServer) Remove(_ context.Context, c operator.Client) error {
	f.did = append(f.did, c.Name()+": remove")
	return f.fail[c.Name()]
}

func (f *fakeServer) Watch(context.Context) (<-chan operator.Occurrence, error) { return f.heard, nil }

// client makes a Client of alternating property names and values.
func client(name string, props ...any) operator.Client {
	c := operator.Client{Path: dbus.ObjectPath("/clients/" + name), Props: map[string]dbus.Variant{
		"Name": dbus.MakeVariant(name), "Enabled": dbus.MakeVariant(true), "Timeout": dbus.MakeVariant(uint64(300000)),
		"LastCheckedOK": dbus.MakeVariant(""),
	}}
	for i := 0; i < len(props); i += 2 {
		c.Props[props[i].(string)] = dbus.MakeVariant(props[i+1])
	}
	return c
}

func run(t *testing.T, s *fakeServer, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	c := Command{
		Args: args, Stdin: strings.NewReader("stdin"), Stdout: &out, Stderr: &errs, Version: "test",
		Connect: func(context.Context, func(string)) (Server, error) { return s, nil },
		Now:     func() time.Time { return noon },
	}
	status = c.Run(t.Context())
	return status, out.String(), errs.String()
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func two() *fakeServer {
	return &fakeServer{clients: []operator.Client{client("b"), client("a", "Enabled", false)}}
}

func TestActions(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x\x00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"-e a", []string{"a: Enabled = true (bool)"}},
		{"--enab a b", []string{"a: Enabled = true (bool)", "b: Enabled = true (bool)"}},
		{"b a --disable", []string{"b: Enabled = false (bool)", "a: Enabled = false (bool)"}},
		{"-d --all", []string{"a: Enabled = false (bool)", "b: Enabled = false (bool)"}},
		{"-b a", []string{"a: LastCheckedOK =  (string)"}},
		{"--start-checker a", []string{"a: CheckerRunning = true (bool)"}},
		{"--stop-checker a", []string{"a: CheckerRunning = false (bool)"}},
		{"-c true a", []string{"a: Checker = true (string)"}},
		{"-H ::1 a", []string{"a: Host = ::1 (string)"}},
		{"-t PT5M a", []string{"a: Timeout = 300000 (uint64)"}},
		{"-t5m a", []string{"a: Timeout = 300000 (uint64)"}},
		{"-t1w2d3h4m5s a", []string{"a: Timeout = 788645000 (uint64)"}},
		{"--timeout=1500 a", []string{"a: Timeout = 1500 (uint64)"}},
		{"--extended-timeout P1D a", []string{"a: ExtendedTimeout = 86400000 (uint64)"}},
		{"-i PT1S a", []string{"a: Interval = 1000 (uint64)"}},
		{"--approval-delay PT0S a", []string{"a: ApprovalDelay = 0 (uint64)"}},
		{"--approval-duration PT1S a", []string{"a: ApprovalDuration = 1000 (uint64)"}},
		{"--approve-by-default a", []string{"a: ApprovedByDefault = true (bool)"}},
		{"--deny-by-default a", []string{"a: ApprovedByDefault = false (bool)"}},
		{"-s " + secret + " a", []string{"a: Secret = [120 0 10] ([]uint8)"}},
		{"-A a", []string{"a: approve true"}},
		{"-r a", []string{"a: remove"}},
		// In the order of the command line, each for all clients …
		{"-i PT1S -e a b", []string{"a: Interval = 1000 (uint64)", "b: Interval = 1000 (uint64)", "a: Enabled = true (bool)", "b: Enabled = true (bool)"}},
		// … but who is removed is denied first.
		{"-r -D a", []string{"a: approve false", "a: remove"}},
		{"-r a b a", []string{"a: remove", "b: remove"}}, // each once
		{"-s - a", []string{"a: Secret = [115 116 100 105 110] ([]uint8)"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			s := two()
			status, stdout, stderr := run(t, s, strings.Fields(tt.args)...)
			if status != 0 || stdout != "" || stderr != "" {
				t.Errorf("exit status %d, printed %q and %q", status, stdout, stderr)
			}
			if !slices.Equal(s.did, tt.want) {
				t.Errorf("did  %q\nwant %q", s.did, tt.want)
			}
		})
	}
}

// TestDeny: an operator is told of clients that a denial doesn't keep from
// their secret.
func TestDeny(t *testing.T) {
	s := &fakeServer{clients: []operator.Client{client("a", "ApprovalDelay", uint64(1)), client("b", "ApprovalDelay", uint64(0))}}
	status, stdout, stderr := run(t, s, "-D", "a", "b")
	want := "mandos-ctl: b needs no approval, so --deny has no effect; --disable refuses it\n"
	if status != 0 || stdout != "" || stderr != want {
		t.Errorf("exit status %d, printed %q and %q; want %q", status, stdout, stderr, want)
	}
	if did := []string{"a: approve false", "b: approve false"}; !slices.Equal(s.did, did) {
		t.Errorf("did %q, want %q", s.did, did)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		args, want string
		status     int
	}{
		{"-e", "--enable needs the names of clients, or --all", 2},
		{"-a", "--all needs something to do", 2},
		{"-e -a a", "--all can't go with the names", 2},
		{"-e -d a", "--enable and --disable exclude", 2},
		{"--start-checker --stop-checker a", "exclude", 2},
		{"-A -D a", "exclude", 2},
		{"--approve-by-default --deny-by-default a", "exclude", 2},
		{"-v -j", "exclude", 2},
		{"-v -e a", "--verbose can't go with --enable", 2},
		{"-V", "--is-enabled needs the name of one client", 2},
		{"-V a b", "--is-enabled needs the name of one client", 2},
		{"--why", "--why needs the name of one client", 2},
		{"-r -e a", "--remove can't go with --enable", 2},
		{"-t soon a", "soon", 2},
		{"-t -5m a", "negative", 2},
		{"-t 5m30 a", "no duration", 2},
		{"-t 5m30x a", "no duration", 2},
		{"--timeout= a", "it is empty", 2},
		{"-s /dev/zero a", "/dev/zero has more than 16777216 bytes", 2},
		{"-t 99999999999999999999 a", "out of range", 2},
		{"--enable=false a", "takes no value", 2},
		{"-s /nonexistent a", "/nonexistent", 2},
		{"--approval a", "ambiguous", 2},
		{"--nonsense", "unknown option --nonsense", 2},
		{"--completion tcsh", `there is none for "tcsh"`, 2},
		{"-e nosuch", `the server has no client "nosuch"`, 1},
		{"nosuch", `the server has no client "nosuch"`, 1},
	} {
		t.Run(tt.args, func(t *testing.T) {
			s := two()
			status, stdout, stderr := run(t, s, strings.Fields(tt.args)...)
			if status != tt.status || !strings.Contains(stderr, tt.want) || stdout != "" {
				t.Errorf("exit status %d, printed %q and %q; want %d and %q", status, stdout, stderr, tt.status, tt.want)
			}
			if len(s.did) > 0 {
				t.Errorf("did %q", s.did)
			}
		})
	}
}

func TestOneFailureOfMany(t *testing.T) {
	s := two()
	s.fail = map[string]error{"a": errors.New("no")}
	status, _, stderr := run(t, s, "-e", "a", "b")
	if status != 1 || !strings.Contains(stderr, "--enable: no") || len(s.did) != 2 {
		t.Errorf("exit status %d, printed %q, did %q", status, stderr, s.did)
	}
}

func TestIsEnabled(t *testing.T) {
	for name, want := range map[string]int{"a": 1, "b": 0} {
		if status, stdout, stderr := run(t, two(), "-V", name); status != want || stdout+stderr != "" {
			t.Errorf("%s: exit status %d, printed %q", name, status, stdout+stderr)
		}
	}
}

func TestTable(t *testing.T) {
	s := &fakeServer{clients: []operator.Client{
		client("日本", "LastCheckedOK", "2026-11-22T00:53:03.710610"),
		client("a\nb", "Timeout", uint64(93784000), "Enabled", false),
	}}
	_, got, _ := run(t, s)
	want := "" +
		"Name Enabled Timeout    Last Successful Check     \n" +
		"a\\nb No      1T02:03:04                           \n" +
		"日本 Yes     00:05:00   2026-11-22T00:53:03.710610\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestColour(t *testing.T) {
	var out bytes.Buffer
	c := Command{Stdout: &out, Colour: true, Width: 80, Now: time.Now,
		Connect: func(context.Context, func(string)) (Server, error) { return two(), nil }}
	c.Run(t.Context())
	if lines := strings.Split(out.String(), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[1], red) || !strings.HasPrefix(lines[2], green) {
		t.Errorf("got %q", out.String())
	}
}

// TestHostileTexts: what a server says steers no terminal.
func TestHostileTexts(t *testing.T) {
	s := &fakeServer{clients: []operator.Client{client("\x1b[2Jx")}, fail: map[string]error{"\x1b[2Jx": errors.New("first \x1b]0;y\x07\nsecond \u009b")}}
	if _, _, stderr := run(t, s, "-e", "-a"); stderr != "mandos-ctl: --enable: first \\x1b]0;y\\a\nsecond \\u009b\n" {
		t.Errorf("an error is %q", stderr)
	}
	for terminal, want := range map[bool]string{true: "\\x1b[2Jx\n", false: "\x1b[2Jx\n"} {
		var out bytes.Buffer
		c := Command{Args: []string{"--names"}, Stdout: &out, Terminal: terminal,
			Connect: func(context.Context, func(string)) (Server, error) { return s, nil }}
		if status := c.Run(t.Context()); status != 0 || out.String() != want {
			t.Errorf("terminal: %v: exit status %d, printed %q", terminal, status, out.String())
		}
	}
}

func TestJSON(t *testing.T) {
	if _, got, _ := run(t, two(), "-j", "b", "b"); strings.Count(got, `"b": {`) != 1 {
		t.Errorf("a client named twice:\n%s", got)
	}
	if _, got, _ := run(t, &fakeServer{}, "-j"); got != "{}\n" {
		t.Errorf("no clients: %q", got)
	}
	// Python's json.dumps wrote the names below.
	for name, want := range map[string]string{
		"plain":          `"plain"`,
		"q\"b\\s/":       `"q\"b\\s/"`,
		"\n\r\t\b\f":     `"\n\r\t\b\f"`,
		"\x01\x1f\x7f":   `"\u0001\u001f\u007f"`,
		"é€😀":            `"\u00e9\u20ac\ud83d\ude00"`,
		"\u2028<script>": `"\u2028<script>"`,
	} {
		if got := quote(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

func TestWhy(t *testing.T) {
	const format = operator.TimeFormat
	for name, tt := range map[string]struct {
		client operator.Client
		want   string
	}{
		"enabled": {
			client("a", "Expires", noon.Add(4*time.Minute).Format(format), "LastCheckedOK", noon.Add(-time.Minute).Format(format),
				"NextCheck", noon.Add(time.Minute+time.Second).Format(format)),
			"a is enabled and would get its secret now. It was last known to be well at 11:59:00 (1 minute ago). " +
				"The next check is at 12:01:01 (in 1 minute 1 second). " +
				"Unless a check succeeds before, it will be disabled at 12:04:00 (in 4 minutes). To refuse it from now on: mandos-ctl --disable a\n",
		},
		"failing": {
			client("a", "Expires", noon.Add(time.Minute).Format(format), "LastCheckerStatus", int16(1), "CannotCheck", "no helper", "Protocol", "TLS 1.2 with an OpenPGP key"),
			"a is enabled and would get its secret now. No check has succeeded yet. The last check failed with exit status 1. " +
				"The last check could not be run, which says nothing of the client: no helper. " +
				"It last proved its key by TLS 1.2 with an OpenPGP key. " +
				"Unless a check succeeds before, it will be disabled at 12:01:00 (in 1 minute). To refuse it from now on: mandos-ctl --disable a\n",
		},
		"approval": {
			client("a", "ApprovalDelay", uint64(30000), "ApprovedByDefault", false),
			"a is enabled, and would get its secret only if an operator approved within 30 seconds of its asking. " +
				"No check has succeeded yet. To refuse it from now on: mandos-ctl --disable a\n",
		},
		"approved": {
			client("a", "ApprovalDelay", uint64(30000), "Decision", "approved", "DecisionUntil", noon.Add(time.Second).Format(format)),
			"a is enabled and would get its secret now: an operator has approved it; that ends at 12:00:01 (in 1 second). " +
				"No check has succeeded yet. To refuse it from now on: mandos-ctl --disable a\n",
		},
		"denied": {
			client("a", "ApprovalDelay", uint64(30000), "ApprovedByDefault", true, "Decision", "denied", "DecisionUntil", noon.Add(time.Hour).Format(format)),
			"a is enabled, but an operator has denied it its secret; that ends at 13:00:00 (in 1 hour). " +
				"No check has succeeded yet. To refuse it from now on: mandos-ctl --disable a\n",
		},
		"a denial that is over": {
			client("a", "ApprovalDelay", uint64(30000), "ApprovedByDefault", true, "Decision", "denied", "DecisionUntil", noon.Format(format)),
			"a is enabled; its secret would be held back 30 seconds for an operator to deny, and then be handed out. " +
				"No check has succeeded yet. To refuse it from now on: mandos-ctl --disable a\n",
		},
		"a denial without effect": {
			client("a", "Decision", "denied", "DecisionUntil", noon.Add(time.Hour).Format(format)),
			"a is enabled and would get its secret now. No check has succeeded yet. To refuse it from now on: mandos-ctl --disable a\n",
		},
		"pending": {
			client("a", "ApprovalPending", true, "ApprovalDelay", uint64(30000), "ApprovedByDefault", true, "LastApprovalRequest", noon.Add(-5*time.Second).Format(format)),
			"a is enabled and waits for approval, since at 11:59:55 (5 seconds ago). If nobody decides within 30 seconds of its asking, " +
				"it gets its secret. To refuse: mandos-ctl --deny a\n",
		},
		"disabled": {
			client("my host's", "Enabled", false, "Status", "disabled at 2026-11-20 01:02:03 UTC by uid 0 over D-Bus", "LastCheckedOK", noon.Add(-50*time.Hour).Format(format)),
			"'my host'\\''s' is disabled and gets no secret. It was disabled at 2026-11-20 01:02:03 UTC by uid 0 over D-Bus. " +
				"It was last known to be well at 2026-11-20 10:00:00 (2 days 2 hours ago). " +
				"It stays so until an operator enables it: mandos-ctl --enable 'my host'\\''s'\n",
		},
		"like an option": {
			client("--all", "Enabled", false),
			"--all is disabled and gets no secret. No check has succeeded yet. It stays so until an operator enables it: mandos-ctl --enable -- --all\n",
		},
		"a name with a dash": {
			client("-x y", "Enabled", false),
			"'-x y' is disabled and gets no secret. No check has succeeded yet. It stays so until an operator enables it: mandos-ctl --enable -- '-x y'\n",
		},
		"expired": {
			client("a", "Expires", noon.Format(format)),
			"a gets no secret: its time was up at 12:00:00 (less than a second ago), and the server is about to disable it. " +
				"No check has succeeded yet. Only an operator enables it again: mandos-ctl --enable a\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := why(tt.client, noon, time.UTC)
			if strings.ReplaceAll(strings.TrimSpace(got), "\n", " ") != strings.TrimSpace(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if _, command, _ := strings.Cut(tt.want, "mandos-ctl"); !strings.HasSuffix(got, "mandos-ctl"+command) {
				t.Errorf("the command isn't in one line, to be pasted:\n%s", got)
			}
			for line := range strings.Lines(got) {
				if len(line) > whyWidth+1 {
					t.Errorf("a line has %d bytes: %s", len(line), line)
				}
			}
		})
	}
}

// TestWhyCommand: wherever lines are broken, it isn't within the command, whose
// last word a shell would take for another.
func TestWhyCommand(t *testing.T) {
	for n := range whyWidth {
		name := strings.Repeat("x", n+1)
		if got := why(client(name), noon, time.UTC); !strings.HasSuffix(got, "mandos-ctl --disable "+name+"\n") {
			t.Errorf("the command is broken:\n%s", got)
		}
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := two()
		s.heard = make(chan operator.Occurrence)
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan int)
		go func() {
			done <- Command{Args: []string{"--watch"}, Stdout: &out, Now: time.Now, Interrupted: context.WithCancel,
				Connect: func(context.Context, func(string)) (Server, error) { return s, nil }}.Run(ctx)
		}()
		for range 5 { // heard at once, drawn once
			s.heard <- operator.Occurrence{}
		}
		time.Sleep(2 * settle)
		cancel()
		if status := <-done; status != 0 {
			t.Errorf("exit status %d", status)
		}
		if n := strings.Count(out.String(), "Name "); n != 2 {
			t.Errorf("the table was drawn %d times, not twice:\n%s", n, out.String())
		}
	})
}

// TestWatchOverRestart: a server that stops while it is asked doesn't end the
// watch, and one that can't be asked to begin with does.
func TestWatchOverRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := two()
		s.heard = make(chan operator.Occurrence)
		var out, errs bytes.Buffer
		watch := func() int {
			return Command{Args: []string{"--watch", "a"}, Stdout: &out, Stderr: &errs, Now: time.Now, Interrupted: context.WithCancel,
				Connect: func(context.Context, func(string)) (Server, error) { return s, nil }}.Run(t.Context())
		}
		done := make(chan int)
		go func() { done <- watch() }()
		synctest.Wait() // it was drawn
		s.listing = errors.New("no \x1breply")
		s.heard <- operator.Occurrence{}
		time.Sleep(2 * settle)
		synctest.Wait() // sleeping alone orders nothing, says the race detector
		s.listing = nil
		s.heard <- operator.Occurrence{}
		time.Sleep(2 * settle)
		close(s.heard)
		if status := <-done; status != 1 || !strings.Contains(errs.String(), "connection to the system bus was lost") {
			t.Errorf("exit status %d, printed %q", status, &errs)
		}
		if got := out.String(); strings.Count(got, "Name ") != 2 || !strings.Contains(got, "no \\x1breply\n") {
			t.Errorf("drew\n%s", got)
		}
		s.listing = errors.New("no reply")
		if status := watch(); status != 1 {
			t.Errorf("exit status %d", status)
		}
	})
}

// TestCompletions: each script knows every option. interop.TestCompletions
// has the shells use them.
func TestCompletions(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		status, script, _ := runCompletion(t, shell)
		if status != 0 {
			t.Fatalf("%s: exit status %d", shell, status)
		}
		Options().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(script, f.Name) {
				t.Errorf("%s: no completion for --%s", shell, f.Name)
			}
		})
	}
	for _, shell := range []string{"tcsh", ""} {
		if status, script, _ := runCompletion(t, shell); status != cmdline.ExitUsage || script != "" {
			t.Errorf("%q: exit status %d, printed %q", shell, status, script)
		}
	}
}

func runCompletion(t *testing.T, shell string) (int, string, string) {
	t.Helper()
	return run(t, two(), "--completion", shell)
}
