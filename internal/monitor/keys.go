package monitor

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"mandos/internal/operator"
)

// A binding is what some keys do. The help lists them in this order.
type binding struct {
	keys   []string // as bubbletea names them
	shown  string
	does   string
	action func(m *model) any
	client bool // acts on the selected client
}

var bindings []binding

func init() { // the help is one of them, and lists them
	bindings = []binding{
		{keys: []string{"up", "ctrl+p", "k"}, shown: "Up ^P k", does: "one line up", action: func(m *model) any { return m.move(-1) }},
		{keys: []string{"down", "ctrl+n", "j"}, shown: "Down ^N j", does: "one line down", action: func(m *model) any { return m.move(1) }},
		{keys: []string{"pgup", "alt+v", "b"}, shown: "PgUp M-v b", does: "one page up", action: func(m *model) any { return m.move(-m.page()) }},
		{keys: []string{"pgdown", "ctrl+v", "space", "f"}, shown: "PgDn ^V SPACE f", does: "one page down", action: func(m *model) any { return m.move(m.page()) }},
		{keys: []string{"home", "g"}, shown: "Home g", does: "to the first line", action: func(m *model) any { return m.move(-1 << 20) }},
		{keys: []string{"end", "G"}, shown: "End G", does: "to the last line", action: func(m *model) any { return m.move(1 << 20) }},
		{keys: []string{"tab"}, shown: "TAB", does: "between clients and log", action: (*model).switchWindow},
		{keys: []string{"/"}, shown: "/", does: "filter by name or host", action: func(m *model) any { m.filtering = true; return nil }},
		{keys: []string{"o"}, shown: "o", does: "order: name, time, state", action: (*model).nextOrder},
		{keys: []string{"l", "D"}, shown: "l D", does: "show or hide the log", action: (*model).toggleLog},
		{keys: []string{"w", "i"}, shown: "w i", does: "wrap or cut log lines", action: func(m *model) any {
			m.log.wrap, m.log.up = !m.log.wrap, 0
			return m.answer("Long lines of the log are " + choice(m.log.wrap, "wrapped", "cut") + ".")
		}},
		{keys: []string{"v"}, shown: "v", does: "log good checks, too", action: func(m *model) any {
			m.log.verbose, m.log.up = !m.log.verbose, 0
			return m.answer("Checks that went well are " + choice(m.log.verbose, "", "not ") + "in the log.")
		}},
		{keys: []string{"ctrl+l"}, shown: "^L", does: "draw the screen anew", action: func(*model) any { return redraw{} }},
		{keys: []string{"?", "f1"}, shown: "? F1 Esc", does: "this help", action: func(m *model) any { m.help, m.helpTop = true, 0; return nil }},
		{keys: []string{"q", "Q", "ctrl+c"}, shown: "q Q ^C", does: "quit", action: func(*model) any { return quit{} }},

		{keys: []string{"+"}, shown: "+", does: "enable", client: true, action: setting("Enabled", true)},
		{keys: []string{"-"}, shown: "-", does: "disable", client: true, action: setting("Enabled", false)},
		{keys: []string{"a"}, shown: "a", does: "approve", client: true, action: approving(true)},
		{keys: []string{"d"}, shown: "d", does: "deny", client: true, action: approving(false)},
		{keys: []string{"R", "_", "ctrl+k"}, shown: "R _ ^K", does: "remove (it asks first)", client: true, action: func(m *model) any {
			m.confirm = string(m.selected().client.Path)
			return nil
		}},
		{keys: []string{"s"}, shown: "s", does: "start the checker", client: true, action: setting("CheckerRunning", true)},
		{keys: []string{"S"}, shown: "S", does: "stop the checker", client: true, action: setting("CheckerRunning", false)},
		{keys: []string{"C"}, shown: "C", does: "count as checked OK", client: true, action: setting("LastCheckedOK", "")},
	}
}

func setting(property string, value any) func(*model) any {
	return func(m *model) any {
		return request{client: m.selected().client, property: property, value: value}
	}
}

func approving(yes bool) func(*model) any {
	return func(m *model) any { return request{client: m.selected().client, approve: new(yes)} }
}

func choice(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// press does what a key asks for.
func (m *model) press(k key) any {
	m.notice = ""
	switch {
	case k.name == "ctrl+c":
		return quit{}
	case k.name == "ctrl+z":
		return suspend{}
	case m.confirm != "":
		return m.pressConfirm(k)
	case m.filtering:
		m.pressFilter(k)
		return nil
	case m.help:
		m.pressHelp(k)
		return nil
	case k.name == "esc" && m.filter != "":
		m.filter = ""
		m.arrange()
		return nil
	case k.name == "esc":
		k.name = "?"
	}
	for _, b := range bindings {
		for _, name := range b.keys {
			if name != k.name {
				continue
			}
			if b.client && m.inLog {
				return m.answer("This key is for a client: press TAB to leave the log.")
			}
			if b.client && m.selected() == nil {
				return m.answer("No client is selected.")
			}
			return b.action(m)
		}
	}
	return m.answer("This key does nothing; press ? for those that do.")
}

func (m *model) answer(text string) any {
	m.notice = text
	return nil
}

// pressConfirm takes the answer to whether a client shall be removed.
func (m *model) pressConfirm(k key) any {
	r := m.clients[m.confirm]
	m.confirm = ""
	if r == nil {
		return m.answer("That client is gone already.")
	}
	if k.text != "y" && k.text != "Y" {
		return m.answer(r.name + " is not removed.")
	}
	return request{client: r.client, remove: true}
}

func (m *model) pressFilter(k key) {
	switch k.name {
	case "enter":
		m.filtering = false
	case "esc":
		m.filtering, m.filter = false, ""
	case "backspace", "ctrl+h":
		if m.filter == "" {
			m.filtering = false
		}
		_, n := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-n]
	case "ctrl+u":
		m.filter = ""
	default:
		if len(m.filter) < 256 {
			m.filter += operator.Printable(k.text)
		}
	}
	m.arrange()
}

func (m *model) pressHelp(k key) {
	switch k.name {
	case "up", "ctrl+p", "k", "pgup", "alt+v", "b":
		m.helpTop--
	case "down", "ctrl+n", "j", "pgdown", "ctrl+v", "space", "f":
		m.helpTop++
	default:
		m.help = false
	}
	m.helpTop = max(min(m.helpTop, len(m.helpLines())-m.height+2), 0)
}

// page is how many lines a page is moved by: the last line stays in view.
func (m *model) page() int {
	if m.inLog {
		return max(m.layout().log-1, 1)
	}
	return max(m.layout().list-1, 1)
}

// move goes by n lines, in the log or from client to client.
func (m *model) move(n int) any {
	if m.inLog {
		m.log.up = max(m.log.up-n, 0)
		_, m.log.up = m.logLines(m.layout().log, m.width)
		return nil
	}
	m.choose(m.index() + n)
	return nil
}

func (m *model) switchWindow() any {
	if !m.logShown {
		return m.answer("The log is hidden; l shows it.")
	}
	m.inLog = !m.inLog
	return nil
}

func (m *model) nextOrder() any {
	m.order = (m.order + 1) % orders
	m.arrange()
	return m.answer(fmt.Sprintf("Ordered by %v.", m.order))
}

func (m *model) toggleLog() any {
	m.logShown = !m.logShown
	m.inLog = false
	m.follow()
	return nil
}

// helpLines are the text of the help: in two columns where they fit.
func (m *model) helpLines() []string {
	all, client := []string{"Keys"}, []string{"For the selected client"}
	for _, b := range bindings {
		if b.client {
			client = append(client, fmt.Sprintf("  %-6s  %s", b.shown, b.does))
		} else {
			all = append(all, fmt.Sprintf("  %-15s  %s", b.shown, b.does))
		}
	}
	const column = 46
	if m.width < column+32 {
		return slices.Concat(all, client)
	}
	for i, line := range client {
		all[i] = fmt.Sprintf("%-*s%s", column, all[i], line)
	}
	return all
}
