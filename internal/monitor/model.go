package monitor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mandos/internal/operator"
)

// A model is all that the screen shows. It changes by update only, which
// neither waits nor reads a clock.
type model struct {
	version string
	symbols symbols
	now     time.Time
	zone    *time.Location
	width   int
	height  int

	link    link
	clients map[string]*row // by path
	rows    []*row          // those shown, in order
	order   order
	chosen  string // path of the selected client, kept while it is away
	top     int    // of rows: the first on the screen

	filter    string
	filtering bool   // the filter is being typed
	confirm   string // path of the client that is to be removed
	notice    string // an answer to the last key

	log      log
	logShown bool
	inLog    bool // keys move the log rather than the list
	help     bool
	helpTop  int
}

// A link is how far the monitor is connected.
type link uint8

const (
	connecting link = iota // no bus
	waiting                // a bus without a server
	connected
)

func newModel(version string, symbols symbols, zone *time.Location, now time.Time) *model {
	return &model{
		version: version, symbols: symbols, zone: zone, now: now,
		width: 80, height: 24, logShown: true, clients: map[string]*row{},
	}
}

// What update is told.
type (
	// A tick comes each second.
	tick time.Time
	// A size is the terminal's, in cells.
	size struct{ width, height int }
	// A key was pressed. Text is what it types, if anything.
	key struct{ name, text string }
	// A loaded has all clients.
	loaded []operator.Client
	// Heard are signals, in order.
	heard []operator.Occurrence
	// A lost says why there is no bus or no server.
	lost struct{ err error }
	// A failure is that of something that the operator asked for.
	failure struct{ err error }
)

// What update asks for.
type (
	quit    struct{}
	redraw  struct{}
	suspend struct{}
	// A request is something to be done with a client.
	request struct {
		client   operator.Client
		property string // to be set to value; or:
		value    any
		approve  *bool
		remove   bool
	}
)

// update takes in what has happened and returns what is to be done, or nil.
func (m *model) update(msg any) any {
	switch msg := msg.(type) {
	case tick:
		m.now = time.Time(msg)
	case size:
		m.width, m.height = msg.width, msg.height
	case key:
		return m.press(msg)
	case loaded:
		m.load(msg)
	case heard:
		m.hear(msg)
	case lost:
		m.lose(msg.err)
	case failure:
		m.notice = sentence(msg.err)
		m.say("%s", m.notice)
	}
	return nil
}

func (m *model) load(clients []operator.Client) {
	if m.link != connected {
		m.say("The server is there: %s.", count(len(clients)))
	}
	m.link = connected
	clear(m.clients)
	for _, c := range clients {
		m.clients[string(c.Path)] = newRow(c)
	}
	m.arrange()
}

func (m *model) lose(err error) {
	was := m.link
	m.link = connecting
	if err == operator.ErrNoServer {
		m.link = waiting
	}
	// What was last known may be wrong by now.
	clear(m.clients)
	m.confirm = ""
	m.arrange()
	if m.link != was || len(m.log.entries) == 0 {
		m.say("%s", sentence(err))
	}
}

// hear takes in signals.
func (m *model) hear(heard []operator.Occurrence) {
	var added, removed []string
	for _, o := range heard {
		path := string(o.Path)
		switch o.Kind {
		case operator.Added:
			r := newRow(operator.Client{Path: o.Path, Props: o.Changed})
			if m.clients[path] == nil {
				added = append(added, r.name)
			}
			m.clients[path] = r
		case operator.Removed:
			if r := m.clients[path]; r != nil {
				removed = append(removed, r.name)
				delete(m.clients, path)
			}
		case operator.Changed:
			if r := m.clients[path]; r != nil {
				m.change(path, r, r.with(operator.Client{Props: o.Changed}))
			}
		case operator.Signal:
			m.tell(o)
		}
	}
	m.sayAll(added, "added")
	m.sayAll(removed, "removed")
	m.arrange()
}

func (m *model) change(path string, before, after *row) {
	m.clients[path] = after
	if before.enabled != after.enabled {
		m.say("%s: %s", after.name, map[bool]string{true: "enabled", false: "DISABLED"}[after.enabled])
	}
}

// sayAll logs what has become of several clients at once; a server that
// stops or starts has many.
func (m *model) sayAll(names []string, became string) {
	if len(names) > 3 {
		m.say("%s %s", count(len(names)), became)
		return
	}
	for _, name := range names {
		m.say("%s: %s", name, became)
	}
}

func count(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

// arrange sorts and filters the list anew, and keeps the selection in it.
func (m *model) arrange() {
	before := m.index()
	m.rows = m.rows[:0]
	want := strings.ToLower(m.filter)
	for _, r := range m.clients {
		if want == "" || strings.Contains(strings.ToLower(r.name), want) || strings.Contains(strings.ToLower(r.host), want) {
			m.rows = append(m.rows, r)
		}
	}
	slices.SortFunc(m.rows, m.order.compare)
	// While the server is away, the selection waits for its client.
	if m.index() < 0 && len(m.rows) > 0 {
		m.choose(max(before, 0))
	}
	m.follow()
}

// index is that of the selected client in the list, or -1.
func (m *model) index() int {
	return slices.IndexFunc(m.rows, func(r *row) bool { return string(r.client.Path) == m.chosen })
}

// selected returns the selected client, or nil.
func (m *model) selected() *row {
	if i := m.index(); i >= 0 {
		return m.rows[i]
	}
	return nil
}

// choose selects the client at index i, or the nearest.
func (m *model) choose(i int) {
	if len(m.rows) == 0 {
		return
	}
	i = min(max(i, 0), len(m.rows)-1)
	m.chosen = string(m.rows[i].client.Path)
	m.follow()
}

// follow moves the list so that the selected client is on the screen.
func (m *model) follow() {
	height := m.layout().list
	i := m.index()
	if i >= 0 {
		m.top = min(m.top, i)
		m.top = max(m.top, i-height+1)
	}
	m.top = max(min(m.top, len(m.rows)-height), 0)
}

// sentence writes an error as one, printable.
func sentence(err error) string {
	s := operator.Printable(strings.TrimSpace(err.Error()))
	if s == "" {
		return "Something failed."
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
