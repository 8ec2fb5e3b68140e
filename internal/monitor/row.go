package monitor

import (
	"cmp"
	"fmt"
	"maps"
	"strings"
	"time"

	"mandos/internal/operator"
)

// A row is one client as the list shows it: its properties, read once when
// they change rather than each time the screen is drawn.
type row struct {
	client                               operator.Client
	name                                 string // printable
	host                                 string // printable
	enabled, pending, byDefault, running bool
	failed                               bool // the last checker ran, and failed
	expires, lastOK, asked               time.Time
	timeout, extended, delay             time.Duration
}

func newRow(c operator.Client) *row {
	status := c.Int("LastCheckerStatus")
	return &row{
		client:    c,
		name:      operator.Printable(c.Name()),
		host:      operator.Printable(c.String("Host")),
		enabled:   c.Bool("Enabled"),
		pending:   c.Bool("ApprovalPending"),
		byDefault: c.Bool("ApprovedByDefault"),
		running:   c.Bool("CheckerRunning"),
		failed:    status != 0 && status != -2, // -2: none has ended yet
		expires:   c.Time("Expires"),
		lastOK:    c.Time("LastCheckedOK"),
		asked:     c.Time("LastApprovalRequest"),
		timeout:   c.Duration("Timeout"),
		extended:  c.Duration("ExtendedTimeout"),
		delay:     c.Duration("ApprovalDelay"),
	}
}

// with returns the row after some of the client's properties have changed.
func (r *row) with(changed operator.Client) *row {
	c := r.client
	c.Props = maps.Clone(c.Props)
	maps.Copy(c.Props, changed.Props)
	return newRow(c)
}

// state is what is said of the client after its name. The last of the forms
// is the shortest.
func (r *row) state(now time.Time) (forms []string) {
	switch {
	case !r.enabled:
		return []string{"DISABLED"}
	case r.pending:
		left := clock(r.decision().Sub(now))
		if r.byDefault {
			return []string{"Approval in " + left + ". (d)eny?"}
		}
		return []string{"Denial in " + left + ". (a)pprove?"}
	case r.failed:
		return []string{"A checker has failed! Time until client gets disabled: " + clock(r.expires.Sub(now)), "A checker has failed!"}
	}
	return []string{"enabled"}
}

// decision is when the client's waiting for approval ends.
func (r *row) decision() time.Time { return r.asked.Add(r.delay) }

// left returns how long the client stays enabled without a check, and which
// part that is of the time that it was given.
func (r *row) left(now time.Time) (d time.Duration, part float64) {
	d = max(r.expires.Sub(now), 0)
	whole := r.timeout
	if d > whole+time.Second { // this clock and the server's needn't agree to the second
		whole = max(d, r.extended) // it got its secret, and has longer to boot
	}
	if whole <= 0 {
		return d, 0
	}
	return d, min(float64(d)/float64(whole), 1)
}

// An order is how the list is sorted. Clients that wait for approval come
// first in each.
type order uint8

const (
	byName order = iota
	byTimeLeft
	byState
	orders
)

func (o order) String() string { return [...]string{"name", "time left", "state"}[o] }

func (o order) compare(a, b *row) int {
	if a.waiting() != b.waiting() {
		if a.waiting() {
			return -1
		}
		return 1
	}
	if a.waiting() {
		return cmp.Or(a.decision().Compare(b.decision()), strings.Compare(a.name, b.name))
	}
	c := 0
	switch o {
	case byTimeLeft: // the disabled last
		c = cmp.Or(cmp.Compare(a.rank()/rankDisabled, b.rank()/rankDisabled), a.expires.Compare(b.expires))
	case byState:
		c = cmp.Compare(a.rank(), b.rank())
	}
	return cmp.Or(c, strings.Compare(a.name, b.name))
}

func (r *row) waiting() bool { return r.enabled && r.pending }

const (
	rankFailed = iota
	rankWell
	rankDisabled
)

// rank orders states by how much they want to be looked at while something
// can still be done.
func (r *row) rank() int {
	switch {
	case !r.enabled:
		return rankDisabled
	case r.failed:
		return rankFailed
	}
	return rankWell
}

// clock writes a time left: 0:04:59.
func clock(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	h, m, s := d/time.Hour, d/time.Minute%60, d/time.Second%60
	if h >= 100 {
		return fmt.Sprintf("%dd%02dh", h/24, h%24)
	}
	return fmt.Sprintf("%d:%02d:%02d", h, m, s)
}

// ago writes how long ago something was, in at most six cells.
func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d/time.Second%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d/time.Minute%60)
	case d < 100*24*time.Hour:
		return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d/time.Hour%24)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
