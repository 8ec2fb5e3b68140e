package monitor

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// symbols are what lines and bars are made of.
type symbols struct {
	full, empty, rule, more string
}

var (
	unicodeSymbols = symbols{"█", "░", "─", "…"}
	asciiSymbols   = symbols{"#", "-", "-", "~"}
)

// The attributes of text. Where there is no colour the terminal's side drops
// them; nothing is told by colour alone.
const (
	bold    = "\x1b[1m"
	dim     = "\x1b[2m"
	reverse = "\x1b[7m"
	red     = "\x1b[31m"
	green   = "\x1b[32m"
	yellow  = "\x1b[33m"
	urgent  = "\x1b[1;35m"
	reset   = "\x1b[m"
)

func paint(attributes, text string) string {
	if attributes == "" || text == "" {
		return text
	}
	return attributes + text + reset
}

// A layout says how many lines each part of the screen has. Beside them are
// the title, the columns' heads and the last line.
type layout struct{ list, rule, log int }

func (m *model) layout() layout {
	free := max(m.height-3, 1)
	if !m.logShown || free < 6 {
		return layout{list: free}
	}
	logged := (free - 1) * 2 / 5
	return layout{list: free - 1 - logged, rule: 1, log: logged}
}

// view is the screen: height lines, each at most width cells wide.
func (m *model) view() string {
	var lines []string
	if m.help {
		help := m.helpLines()
		lines = append(lines, m.titleLine())
		lines = append(lines, help[min(m.helpTop, len(help)):]...)
		lines = fill(lines, m.height-1)
	} else {
		l := m.layout()
		lines = append(lines, m.titleLine(), paint(dim, m.heads()))
		lines = fill(append(lines, m.list(l.list)...), 2+l.list)
		if l.rule > 0 {
			lines = append(lines, m.rule())
			shown, _ := m.logLines(l.log, m.width)
			lines = fill(append(lines, shown...), 2+l.list+l.rule+l.log)
		}
	}
	lines = append(lines, m.lastLine())
	if len(lines) > m.height {
		lines = lines[:max(m.height, 0)]
	}
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "")
	}
	return strings.Join(lines, "\n")
}

// fill makes lines n, with empty ones.
func fill(lines []string, n int) []string {
	for len(lines) < n {
		lines = append(lines, "")
	}
	return lines[:max(n, 0)]
}

func (m *model) titleLine() string {
	left := "Mandos Monitor " + m.version
	var enabled, failed, pending int
	for _, r := range m.clients {
		switch {
		case r.waiting():
			pending++
			enabled++
		case r.enabled:
			enabled++
		}
		if r.enabled && r.failed {
			failed++
		}
	}
	var right string
	switch m.link {
	case connecting:
		right = "no bus "
	case waiting:
		right = "no server "
	default:
		right = fmt.Sprintf("%s, %d enabled, %d failing, %d waiting ", count(len(m.clients)), enabled, failed, pending)
		if m.filter != "" {
			right = fmt.Sprintf("%d shown of ", len(m.rows)) + right
		}
	}
	if ansi.StringWidth(left)+ansi.StringWidth(right)+1 > m.width {
		left = "Mandos Monitor"
	}
	return paint(reverse+bold, ansi.Truncate(spread(left, right, m.width), m.width, m.symbols.more))
}

// spread puts left and right at the two ends of a line.
func spread(left, right string, width int) string {
	gap := width - ansi.StringWidth(left) - ansi.StringWidth(right)
	return left + strings.Repeat(" ", max(gap, 1)) + right
}

// Widths of the columns beside a client's name and state.
const (
	barWidth   = 10
	leftWidth  = 9
	lastWidth  = 7
	sideWidth  = 1 + barWidth + leftWidth + 1 + lastWidth
	leastWidth = sideWidth + 33 // of a screen that has them
)

func (m *model) heads() string {
	left := fmt.Sprintf("  CLIENT (by %v)", m.order)
	if m.width < leastWidth {
		return left
	}
	return spread(left, fmt.Sprintf("%*s %*s", barWidth+leftWidth, "TIME LEFT", lastWidth, "LAST OK"), m.width)
}

func (m *model) list(height int) []string {
	var lines []string
	if len(m.rows) == 0 {
		text := "There are no clients."
		switch {
		case m.link == connecting:
			text = "There is no system bus; it is tried again every few seconds."
		case m.link == waiting:
			text = "No Mandos server is on the system bus (systemctl status mandos)."
		case m.filter != "":
			text = "No client has such a name or host. Esc shows all."
		}
		return strings.Split("\n"+ansi.Wordwrap("  "+text, max(m.width, 10), ""), "\n")
	}
	for i := m.top; i < min(m.top+height, len(m.rows)); i++ {
		r := m.rows[i]
		lines = append(lines, m.line(r, string(r.client.Path) == m.chosen))
	}
	return lines
}

// line is a client's line.
func (m *model) line(r *row, chosen bool) string {
	mark, attributes := "  ", r.attributes()
	if chosen {
		mark = "> "
		if !m.inLog {
			attributes += reverse
		}
	}
	width := m.width
	if m.width >= leastWidth {
		width -= sideWidth
	}
	forms := r.state(m.now)
	state := forms[len(forms)-1]
	for _, form := range forms {
		if ansi.StringWidth(mark+r.name)+2+ansi.StringWidth(form) <= width {
			state = form
			break
		}
	}
	// The name gives way first: what can be done must be read.
	name := ansi.Truncate(r.name, max(width-ansi.StringWidth(mark)-2-ansi.StringWidth(state), 8), m.symbols.more)
	left := ansi.Truncate(mark+name+": "+state, width, m.symbols.more)
	left += strings.Repeat(" ", max(width-ansi.StringWidth(left), 0))
	if width == m.width {
		return paint(attributes, left)
	}
	return paint(attributes, left) + " " + m.side(r)
}

func (r *row) attributes() string {
	switch {
	case !r.enabled:
		return red
	case r.pending:
		return urgent
	case r.failed:
		return yellow
	}
	return ""
}

// side is what stands right of a client's state: the bar of the time left,
// that time, and when a check last went well.
func (m *model) side(r *row) string {
	bar, left := strings.Repeat(" ", barWidth), ""
	if r.enabled {
		d, part := r.left(m.now)
		left = clock(d)
		full := min(int(part*barWidth+0.5), barWidth)
		colour := green
		switch {
		case part < 0.2:
			colour = red
		case part < 0.4:
			colour = yellow
		}
		bar = paint(colour, strings.Repeat(m.symbols.full, full)) + paint(dim, strings.Repeat(m.symbols.empty, barWidth-full))
	}
	last := "never"
	if !r.lastOK.IsZero() {
		last = ago(m.now.Sub(r.lastOK))
	}
	return fmt.Sprintf("%s%*s %*s", bar, leftWidth, left, lastWidth, last)
}

// rule parts list and log, and says where the two are.
func (m *model) rule() string {
	name := " Log "
	if m.log.up > 0 {
		name = fmt.Sprintf(" Log, %d lines back ", m.log.up)
	}
	if m.inLog {
		name = paint(reverse, name)
	}
	left := m.symbols.rule + m.symbols.rule + name
	right := m.symbols.rule
	if n := len(m.rows) - m.top - m.layout().list; n > 0 {
		right = fmt.Sprintf(" %d more below ", n) + right
	}
	gap := max(m.width-ansi.StringWidth(left)-ansi.StringWidth(right), 0)
	return left + strings.Repeat(m.symbols.rule, gap) + right
}

func (m *model) lastLine() string {
	switch {
	case m.confirm != "":
		name := ""
		if r := m.clients[m.confirm]; r != nil {
			name = r.name
		}
		question := " from the server? (y/N)"
		name = ansi.Truncate(name, max(m.width-len("Remove ")-len(question), 8), m.symbols.more)
		return paint(bold, "Remove "+name+question)
	case m.filtering:
		return "/" + m.filter + paint(reverse, " ")
	case m.help:
		return paint(dim, "Any other key leaves this help.")
	case m.notice != "":
		return m.notice
	case m.filter != "":
		return paint(dim, fmt.Sprintf("Only clients with %q in name or host; Esc shows all", m.filter))
	}
	return paint(dim, "? help  q quit  / filter  o order  + enable  - disable  a approve  d deny")
}
