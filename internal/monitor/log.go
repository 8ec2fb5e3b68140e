package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"mandos/internal/operator"
)

// logSize is how many entries are kept.
const logSize = 1000

// A log is what has happened, the newest last.
type log struct {
	entries []entry
	verbose bool // show the entries of routine, too
	wrap    bool
	up      int // by how many lines it is scrolled back
}

type entry struct {
	at      time.Time
	text    string // printable
	routine bool   // a checker that went well
}

// say adds to the log. What others have made must be printable already.
func (m *model) say(format string, args ...any) {
	m.add(entry{m.now, fmt.Sprintf(format, args...), false})
}

func (m *model) sayRoutine(format string, args ...any) {
	m.add(entry{m.now, fmt.Sprintf(format, args...), true})
}

func (m *model) add(e entry) {
	l := &m.log
	if len(l.entries) >= logSize {
		l.entries = append(l.entries[:0], l.entries[len(l.entries)-logSize+1:]...)
	}
	l.entries = append(l.entries, e)
	// Who has scrolled back goes on to see the same lines.
	if l.up > 0 && (!e.routine || l.verbose) {
		l.up++
	}
}

// tell logs a signal.
func (m *model) tell(o operator.Occurrence) {
	if o.Member == "ClientNotFound" {
		if key, address, ok := two[string, string](o.Args); ok {
			m.say("A client that nobody knows asked from %s: key %s", operator.Printable(address), operator.Printable(key))
		}
		return
	}
	r := m.clients[string(o.Path)]
	if r == nil {
		return
	}
	switch o.Member {
	case "NeedApproval":
		ms, byDefault, ok := two[uint64, bool](o.Args)
		if !ok {
			return
		}
		delay := clock(time.Duration(min(ms, 1<<40)) * time.Millisecond)
		if byDefault {
			m.say("%s: asks for its secret, and gets it in %s unless you (d)eny", r.name, delay)
		} else {
			m.say("%s: asks for its secret, and gets nothing unless you (a)pprove within %s", r.name, delay)
		}
	case "GotSecret":
		m.say("%s: received its secret", r.name)
	case "Rejected":
		if len(o.Args) == 1 {
			reason, _ := o.Args[0].(string)
			m.say("%s: was refused its secret: %s", r.name, operator.Printable(reason))
		}
	case "CheckerStarted":
		if len(o.Args) == 1 {
			command, _ := o.Args[0].(string)
			m.sayRoutine("%s: checker started: %s", r.name, operator.Printable(command))
		}
	case "CheckerCompleted":
		m.completed(r, o.Args)
	}
}

func (m *model) completed(r *row, args []any) {
	if len(args) != 3 {
		return
	}
	exit, ok1 := args[0].(int16)
	wait, ok2 := args[1].(int64)
	command, ok3 := args[2].(string)
	if !ok1 || !ok2 || !ok3 {
		return
	}
	command = operator.Printable(command)
	switch {
	case exit == 0:
		m.sayRoutine("%s: checker succeeded: %s", r.name, command)
	case exit > 0:
		m.say("%s: checker failed with exit status %d: %s", r.name, exit, command)
	default: // the low byte of wait is the signal's number
		m.say("%s: checker was ended by signal %d: %s", r.name, wait&0x7f, command)
	}
}

func two[A, B any](args []any) (a A, b B, ok bool) {
	if len(args) != 2 {
		return a, b, false
	}
	a, ok1 := args[0].(A)
	b, ok2 := args[1].(B)
	return a, b, ok1 && ok2
}

// logLines returns the last n lines of the log as it is scrolled, each at
// most width cells wide, and by how many lines it is scrolled: it goes no
// further than to the oldest.
func (m *model) logLines(n, width int) (shown []string, up int) {
	want := n + m.log.up
	var lines []string // the newest first
	for i := len(m.log.entries) - 1; i >= 0 && len(lines) < want; i-- {
		e := m.log.entries[i]
		if e.routine && !m.log.verbose {
			continue
		}
		text := e.at.In(m.zone).Format(time.TimeOnly) + " " + e.text
		if !m.log.wrap {
			lines = append(lines, ansi.Truncate(text, width, m.symbols.more))
			continue
		}
		wrapped := strings.Split(ansi.Hardwrap(text, width, true), "\n")
		for j := len(wrapped) - 1; j >= 0; j-- {
			lines = append(lines, wrapped[j])
		}
	}
	up = max(min(m.log.up, len(lines)-n), 0)
	shown = lines[up:min(up+n, len(lines))]
	slices.Reverse(shown)
	return shown, up
}
