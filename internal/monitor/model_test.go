package monitor

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/godbus/dbus/v5"

	"mandos/internal/operator"
)

var update = flag.Bool("update", false, "write the golden screens; read them before they are committed")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// in writes an instant so far from noon as the server does.
func in(d time.Duration) string { return noon.Add(d).Format(operator.TimeFormat) }

// client makes one of alternating property names and values.
func client(name string, props ...any) operator.Client {
	c := operator.Client{Path: dbus.ObjectPath("/clients/" + name), Props: map[string]dbus.Variant{}}
	set := func(props ...any) {
		for i := 0; i < len(props); i += 2 {
			c.Props[props[i].(string)] = dbus.MakeVariant(props[i+1])
		}
	}
	set("Name", name, "Host", name+".example", "Enabled", true, "Timeout", uint64(300_000), "ExtendedTimeout", uint64(900_000),
		"LastCheckedOK", in(-42*time.Second), "LastCheckerStatus", int16(0), "Expires", in(4*time.Minute+18*time.Second), "ApprovalDelay", uint64(30_000))
	set(props...)
	return c
}

func fleet() []operator.Client {
	return []operator.Client{
		client("web1"),
		client("web2", "LastCheckerStatus", int16(1), "LastCheckedOK", in(-4*time.Minute-50*time.Second), "Expires", in(10*time.Second)),
		client("new", "LastCheckerStatus", int16(-2), "LastCheckedOK", "", "Expires", in(5*time.Minute)),
		client("booting", "Expires", in(14*time.Minute), "LastCheckedOK", in(-26*time.Hour)),
		client("stolen", "Enabled", false, "Expires", "", "LastCheckedOK", in(-8*24*time.Hour)),
		client("vault", "ApprovalPending", true, "ApprovedByDefault", false, "LastApprovalRequest", in(-8*time.Second)),
		client("kiosk", "ApprovalPending", true, "ApprovedByDefault", true, "LastApprovalRequest", in(-21*time.Second)),
	}
}

func at(path string) dbus.ObjectPath { return dbus.ObjectPath("/clients/" + path) }

func signal(name, member string, args ...any) operator.Occurrence {
	return operator.Occurrence{Kind: operator.Signal, Path: at(name), Member: member, Args: args}
}

func changed(name string, props ...any) operator.Occurrence {
	return operator.Occurrence{Kind: operator.Changed, Path: at(name), Changed: client(name, props...).Props}
}

// start returns a model that has seen msgs.
func start(msgs ...any) *model {
	m := newModel("1.0", unicodeSymbols, time.UTC, noon)
	for _, msg := range msgs {
		m.update(msg)
	}
	return m
}

// press presses keys: names, or what they type.
func press(m *model, keys ...string) (todo any) {
	for _, k := range keys {
		text := k
		if len([]rune(k)) > 1 {
			text = ""
		}
		todo = m.update(key{k, text})
	}
	return todo
}

var events = heard{
	signal("vault", "NeedApproval", uint64(30_000), false),
	signal("kiosk", "NeedApproval", uint64(30_000), true),
	signal("booting", "GotSecret"),
	signal("stolen", "Rejected", "Disabled"),
	signal("web1", "CheckerStarted", "fping -q -- web1.example"),
	signal("web1", "CheckerCompleted", int16(0), int64(0), "fping -q -- web1.example"),
	signal("web2", "CheckerCompleted", int16(1), int64(256), "fping -q -- web2.example"),
	signal("web2", "CheckerCompleted", int16(-1), int64(-247), "fping -q -- web2.example"),
	{Kind: operator.Signal, Path: "/", Member: "ClientNotFound", Args: []any{strings.Repeat("AB12", 16), "fe80::1"}},
}

// TestScreens compares whole screens with those that a person has read.
func TestScreens(t *testing.T) {
	many := func(n int) (clients loaded) {
		for i := range n {
			clients = append(clients, client(fmt.Sprintf("host%04d", i)))
		}
		return clients
	}
	for name, m := range map[string]*model{
		"fleet":   start(loaded(fleet()), events),
		"wide":    start(size{120, 30}, loaded(fleet()), events),
		"narrow":  start(size{50, 16}, loaded(fleet()), events),
		"tiny":    start(size{20, 5}, loaded(fleet()), events),
		"empty":   start(loaded{}),
		"nobus":   start(lost{errors.New("connecting to the system bus: dial unix /run/bus: connect: no such file or directory")}),
		"gone":    start(loaded(fleet()), lost{operator.ErrNoServer}),
		"back":    start(loaded(fleet()), lost{operator.ErrNoServer}, loaded(fleet())),
		"many":    start(many(1000)),
		"failure": start(loaded(fleet()), failure{errors.New("denying client \"vault\": no\n")}),
		"ascii": func() *model {
			m := newModel("1.0", asciiSymbols, time.UTC, noon)
			m.update(loaded(fleet()))
			m.update(events)
			return m
		}(),
		"hostile": start(loaded{
			client("a", "Name", "evil\x1b[2J\x07\u202egnp.exe\r\n", "Host", "\x1b]0;x\x07"),
			client("b", "Name", "日本のサーバー"),
			client("c", "Name", strings.Repeat("long", 50)),
			client("d", "Name", "e\u0301tude\u200d"),
		}, heard{
			signal("a", "Rejected", "\x1b[31mred"),
			signal("b", "CheckerCompleted", int16(2), int64(512), "echo \x9b2J"),
			{Kind: operator.Signal, Path: "/", Member: "ClientNotFound", Args: []any{"\x1bkey", "\x1baddr"}},
		}),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, m) })
	}

	for name, keys := range map[string][]string{
		"help":     {"?"},
		"verbose":  {"v"},
		"wrap":     {"w"},
		"nolog":    {"l"},
		"inlog":    {"tab", "up", "up"},
		"byState":  {"o", "o"},
		"byTime":   {"o"},
		"filter":   {"/", "w", "E", "b"},
		"filtered": {"/", "w", "e", "b", "enter", "j"},
		"nomatch":  {"/", "z", "enter"},
		"remove":   {"R"},
		"unknown":  {"x"},
	} {
		t.Run(name, func(t *testing.T) {
			m := start(loaded(fleet()), events)
			press(m, keys...)
			golden(t, name, m)
		})
	}
}

func golden(t *testing.T, name string, m *model) {
	t.Helper()
	screen := m.view()
	checkScreen(t, m, screen)
	var lines []string
	for line := range strings.SplitSeq(ansi.Strip(screen), "\n") {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	got := strings.Join(lines, "\n") + "\n"
	file := filepath.Join("testdata", "screens", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// checkScreen holds what is true of every screen: its size, and that nothing
// but our own attributes of text steers the terminal.
func checkScreen(t *testing.T, m *model, screen string) {
	t.Helper()
	lines := strings.Split(screen, "\n")
	if len(lines) != m.height {
		t.Errorf("%d lines on a screen of %d", len(lines), m.height)
	}
	for _, line := range lines {
		if w := ansi.StringWidth(line); w > m.width {
			t.Errorf("a line of %d cells on a screen of %d: %q", w, m.width, line)
		}
		for _, attribute := range []string{bold, dim, reverse, red, green, yellow, urgent, reset} {
			line = strings.ReplaceAll(line, attribute, "")
		}
		if operator.Printable(line) != line {
			t.Errorf("control characters reach the terminal: %q", line)
		}
	}
}

func TestRequests(t *testing.T) {
	web1 := fleet()[0]
	for k, want := range map[string]request{
		"+": {property: "Enabled", value: true},
		"-": {property: "Enabled", value: false},
		"a": {approve: new(true)},
		"d": {approve: new(false)},
		"s": {property: "CheckerRunning", value: true},
		"S": {property: "CheckerRunning", value: false},
		"C": {property: "LastCheckedOK", value: ""},
	} {
		m := start(loaded{web1})
		want.client = web1
		if got := press(m, k); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: asks for %+v, want %+v", k, got, want)
		}
		// In the log, in a question, in the filter and in the help they are no such keys.
		for _, before := range []string{"tab", "R", "/", "?"} {
			m := start(loaded{web1})
			press(m, before)
			if got := press(m, k); got != nil {
				t.Errorf("%s after %s: asks for %+v", k, before, got)
			}
		}
		if got := press(start(loaded{}), k); got != nil {
			t.Errorf("%s without clients: asks for %+v", k, got)
		}
	}
	for _, k := range []string{"R", "_", "ctrl+k"} {
		m := start(loaded{web1})
		if got := press(m, k); got != nil {
			t.Errorf("%s: asks for %+v without a question", k, got)
		}
		if got := press(m, "y"); !reflect.DeepEqual(got, request{client: web1, remove: true}) {
			t.Errorf("%s y: asks for %+v", k, got)
		}
		for _, no := range []string{"n", "enter", "esc", "R"} {
			m := start(loaded{web1})
			if got := press(m, k, no); got != nil {
				t.Errorf("%s %s: asks for %+v", k, no, got)
			}
		}
	}
	for _, k := range []string{"q", "Q", "ctrl+c"} {
		if got := press(start(), k); got != (quit{}) {
			t.Errorf("%s: asks for %+v", k, got)
		}
	}
	if got := press(start(), "ctrl+l"); got != (redraw{}) {
		t.Errorf("ctrl+l: asks for %+v", got)
	}
}

// TestQuestionHoldsItsClient: the list may move between a key and its answer.
func TestQuestionHoldsItsClient(t *testing.T) {
	m := start(loaded{client("b"), client("c")})
	press(m, "R")
	m.update(heard{{Kind: operator.Added, Path: at("a"), Changed: client("a").Props}})
	if got := press(m, "y").(request); got.client.Path != at("b") {
		t.Errorf("asks to remove %s", got.client.Path)
	}
	press(m, "R")
	m.update(heard{{Kind: operator.Removed, Path: at("b")}})
	if got := press(m, "y"); got != nil {
		t.Errorf("asks for %+v, though the client is gone", got)
	}
}

func TestSelection(t *testing.T) {
	m := start(loaded{client("a"), client("b"), client("c")})
	chosen := func(want string) {
		t.Helper()
		if r := m.selected(); r == nil || r.name != want {
			t.Errorf("%v is selected, want %s", r, want)
		}
	}
	chosen("a")
	press(m, "down")
	chosen("b")
	// Who waits for approval goes to the top, and the selection stays.
	m.update(heard{changed("c", "ApprovalPending", true, "LastApprovalRequest", in(0))})
	if m.rows[0].name != "c" {
		t.Errorf("%s is on top", m.rows[0].name)
	}
	chosen("b")
	press(m, "up")
	chosen("a")
	press(m, "down")
	// It waits for its client while the server is away.
	m.update(lost{operator.ErrNoServer})
	m.update(loaded{client("a"), client("b"), client("c")})
	chosen("b")
	// The next takes the place of one that is removed.
	m.update(heard{{Kind: operator.Removed, Path: at("b")}})
	chosen("c")
	press(m, "j", "j", "j")
	chosen("c")
	m.update(heard{{Kind: operator.Removed, Path: at("c")}, {Kind: operator.Removed, Path: at("a")}})
	if m.selected() != nil {
		t.Error("somebody is selected of nobody")
	}
}

func TestPages(t *testing.T) {
	var clients loaded
	for i := range 100 {
		clients = append(clients, client(fmt.Sprintf("%02d", i)))
	}
	for keys, want := range map[string]string{
		"space": "11", "pgdown space": "22", "f b": "00", "end": "99", "G pgup": "88", "end home": "00",
		"ctrl+v alt+v": "00", "down ctrl+n j": "03", "end up ctrl+p k": "96", "space l space": "31",
	} {
		m := start(clients)
		press(m, strings.Fields(keys)...)
		if got := m.selected().name; got != want {
			t.Errorf("%s: %s is selected, want %s", keys, got, want)
		}
		if shown := ansi.Strip(m.view()); !strings.Contains(shown, "> "+want+":") {
			t.Errorf("%s: the selected client is not on the screen:\n%s", keys, shown)
		}
	}
}

func TestLog(t *testing.T) {
	m := start(loaded{client("a")})
	for i := range 2 * logSize {
		m.update(heard{signal("a", "Rejected", fmt.Sprint(i))})
	}
	if n := len(m.log.entries); n != logSize {
		t.Errorf("%d entries are kept", n)
	}
	last := func() string {
		lines, _ := m.logLines(1, 80)
		return lines[0]
	}
	if !strings.HasSuffix(last(), ": 1999") {
		t.Errorf("the last line is %q", last())
	}
	// Scrolled back, it stands still.
	press(m, "tab", "up")
	m.update(heard{signal("a", "Rejected", "2000"), signal("a", "CheckerStarted", "true")})
	if !strings.HasSuffix(last(), ": 1998") {
		t.Errorf("the last line is %q", last())
	}
	press(m, "end")
	if !strings.HasSuffix(last(), ": 2000") {
		t.Errorf("the last line is %q", last())
	}
	press(m, "home")
	if lines, _ := m.logLines(m.layout().log, 80); !strings.HasSuffix(lines[0], fmt.Sprintf(": %d", 2001-logSize+1)) {
		t.Errorf("the first line is %q", lines[0])
	}
}

// TestBadSignals: what a server sends in other types is left out.
func TestBadSignals(t *testing.T) {
	m := start(loaded{client("a")})
	before := len(m.log.entries)
	for _, member := range []string{"NeedApproval", "Rejected", "CheckerStarted", "CheckerCompleted", "ClientNotFound", "Nonsense"} {
		for _, args := range [][]any{nil, {1}, {"x", 1}, {1, 2, 3}, {int16(1), "x", "y"}} {
			if member == "Rejected" && len(args) == 1 || member == "CheckerStarted" && len(args) == 1 {
				continue
			}
			m.update(heard{signal("a", member, args...)})
		}
	}
	m.update(heard{signal("b", "GotSecret"), changed("b"), {Kind: operator.Removed, Path: at("b")}})
	if n := len(m.log.entries) - before; n != 0 {
		t.Errorf("%d entries: %+v", n, m.log.entries[before:])
	}
	m.update(heard{{Kind: operator.Changed, Path: at("a"), Changed: map[string]dbus.Variant{"Expires": dbus.MakeVariant(5), "Enabled": dbus.MakeVariant("x")}}})
	checkScreen(t, m, m.view())
}

func TestEverySize(t *testing.T) {
	for _, keys := range [][]string{nil, {"?"}, {"l"}, {"/", "w"}, {"R"}, {"w", "v"}} {
		m := start(loaded(fleet()), events)
		press(m, keys...)
		for width := 1; width < 130; width += 7 {
			for height := 1; height < 40; height += 3 {
				m.update(size{width, height})
				checkScreen(t, m, m.view())
			}
		}
	}
}

func BenchmarkThousandClients(b *testing.B) {
	var clients loaded
	var signals heard
	for i := range 1000 {
		name := fmt.Sprintf("host%04d", i)
		clients = append(clients, client(name))
		signals = append(signals, changed(name, "LastCheckedOK", in(0)), signal(name, "CheckerCompleted", int16(0), int64(0), "true"))
	}
	m := start(clients)
	for b.Loop() {
		m.update(signals)
		m.view()
	}
}

// TestLeft: the part of its time that a client has left, also when the
// server's clock is a little ahead and when it got time to boot.
func TestLeft(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		left time.Duration
		want float64
	}{
		{5 * time.Minute, 1},
		{5*time.Minute + 10*time.Millisecond, 1},
		{150 * time.Second, 0.5},
		{0, 0},
		{-time.Second, 0},
		{15 * time.Minute, 1},
		{450 * time.Second, 0.5},
	} {
		r := row{timeout: 5 * time.Minute, extended: 15 * time.Minute, expires: now.Add(tt.left)}
		if _, part := r.left(now); part != tt.want {
			t.Errorf("%v left: part %v, want %v", tt.left, part, tt.want)
		}
	}
}
