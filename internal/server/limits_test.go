package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestSourceOf(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::2%eth0", true},
		{"fe80::1%eth0", "fe80::1%eth1", false},
		{"fe80::1%eth0", "2001:db8::1", false},
		{"169.254.0.1", "169.254.0.2", false},
	} {
		a, b := sourceOf(netip.MustParseAddr(tt.a)), sourceOf(netip.MustParseAddr(tt.b))
		if (a == b) != tt.same {
			t.Errorf("%s and %s: one source is %v, want %v", tt.a, tt.b, a == b, tt.same)
		}
	}
}

// newTable returns a table with these limits.
func newTable(waiting, unproved, proved int) *table {
	t := &table{maxPerClient: 2, patience: patience}
	t.waiting.max, t.unproved.max, t.proved.max = waiting, unproved, proved
	t.waiting.greed, t.unproved.greed, t.proved.greed = 1, 1, 1
	return t
}

// A turnstile drives a table as a server does.
type turnstile struct {
	*testing.T
	*table
	served map[*session]bool
}

func (t turnstile) arrive(addr string) *session {
	s := &session{source: sourceOf(netip.MustParseAddr(addr))}
	if served, _ := t.table.arrive(s); served {
		t.begin(s)
	}
	return s
}

func (t turnstile) begin(s *session) {
	s.begun = time.Now()
	s.waits.start(0)
	t.served[s] = true
}

func (t turnstile) leave(s *session) {
	t.remove(s)
	delete(t.served, s)
	for s := t.next(); s != nil; s = t.next() {
		t.begin(s)
	}
}

// sweep ends the sessions that are overdue, and returns how many.
func (t turnstile) sweep() int {
	late := t.overdue()
	for _, s := range late {
		t.leave(s)
	}
	return len(late)
}

func (t turnstile) counts(unproved, waiting int) {
	t.Helper()
	if t.unproved.len != unproved || t.waiting.len != waiting || len(t.served) != unproved {
		t.Fatalf("%d are served (%d) and %d wait, want %d and %d", t.unproved.len, len(t.served), t.waiting.len, unproved, waiting)
	}
}

// inBubble runs f with a table of these limits and a clock of its own.
func inBubble(t *testing.T, waiting, unproved, proved int, f func(turnstile)) {
	synctest.Test(t, func(t *testing.T) {
		f(turnstile{t, newTable(waiting, unproved, proved), map[*session]bool{}})
	})
}

// TestShares: a source gets its share of what is free, and peers from elsewhere
// are still served.
func TestShares(t *testing.T) {
	inBubble(t, 100, 16, 16, func(t turnstile) {
		for range 50 {
			t.arrive("192.0.2.1")
		}
		t.counts(8, 42)
		for range 50 {
			t.arrive("192.0.2.2")
		}
		t.counts(12, 42+29) // half of what was left of either
		for range 50 {
			t.arrive("192.0.2.3")
		}
		t.counts(14, 42+29+15)
		if s := t.arrive("2001:db8::1"); !t.served[s] {
			t.Error("who comes from elsewhere isn't served")
		}
		if _, ok := t.table.arrive(&session{source: sourceOf(netip.MustParseAddr("192.0.2.1"))}); ok {
			t.Error("the line of one source takes more than its share")
		}
	})
}

// TestGreed: how much of what is free a source may have.
func TestGreed(t *testing.T) {
	inBubble(t, 100, 2, 2, func(t turnstile) {
		t.waiting.greed = 4
		for range 200 {
			t.arrive("192.0.2.1")
		}
		t.counts(1, 80)
		for range 200 {
			t.arrive("192.0.2.2")
		}
		t.counts(2, 96)
	})
}

// TestLines: sessions in line are served in turn, source by source, and none is
// cut off that hasn't kept the server waiting.
func TestLines(t *testing.T) {
	inBubble(t, 100, 4, 4, func(t turnstile) {
		var a, b []*session
		for range 4 {
			a = append(a, t.arrive("192.0.2.1"))
		}
		for range 4 {
			b = append(b, t.arrive("192.0.2.2"))
		}
		if !t.served[a[0]] || !t.served[a[1]] || !t.served[b[0]] {
			t.Fatal("not the first are served")
		}
		t.counts(3, 5)
		for _, s := range a[:2] {
			s.waits.stop(0) // it is us who take long
		}
		time.Sleep(patience - 1)
		if n := t.sweep(); n > 0 {
			t.Errorf("%d are cut off that were patient", n)
		}
		time.Sleep(time.Nanosecond)
		if t.sweep(); !t.served[a[0]] || !t.served[a[1]] {
			t.Error("who has to wait for us is cut off")
		}
		if t.served[b[0]] || !t.served[b[1]] {
			t.Error("who keeps us waiting isn't cut off for the next")
		}
		t.leave(a[0])
		t.leave(a[1])
		if !t.served[a[2]] || t.served[a[3]] && t.served[b[3]] {
			t.Error("the lines aren't served in turn")
		}
	})
}

// TestSlowHosts: hosts that all boot at once and are slow, but get through,
// aren't cut off.
func TestSlowHosts(t *testing.T) {
	for name, addr := range map[string]string{"one source": "192.0.2.1", "many": ""} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1000, 64, 64, func(t turnstile) {
				for i := range 500 {
					t.arrive(cmp.Or(addr, fmt.Sprintf("192.0.%d.%d", i/250, i%250)))
				}
				served := 0
				for len(t.served) > 0 {
					time.Sleep(patience / 2)
					if n := t.sweep(); n > 0 {
						t.Fatalf("%d are cut off when %d have come through", n, served)
					}
					for range 5 { // come through
						for _, s := range t.unproved.oldest(t.first(), 1, func(*session) bool { return true }) {
							if _, ok := t.prove(s, fmt.Sprint(served)); !ok {
								t.Fatal("no room for a client")
							}
							t.leave(s)
							served++
						}
					}
				}
				if served != 500 || len(t.lastProof) > 0 {
					t.Errorf("%d are served; %d sources are remembered", served, len(t.lastProof))
				}
			})
		})
	}
	// Those that don't get through are cut off once no others do.
	inBubble(t, 100, 4, 4, func(t turnstile) {
		for range 2 {
			t.arrive("192.0.2.1")
		}
		honest := t.arrive("192.0.2.1")
		time.Sleep(patience)
		if n := t.sweep(); n != 1 || !t.served[honest] {
			t.Fatalf("%d are cut off", n)
		}
		t.arrive("192.0.2.1")
		t.prove(honest, "foo")
		if n := t.sweep(); n != 0 {
			t.Errorf("%d are cut off though one has come through", n)
		}
		time.Sleep(patience)
		t.arrive("192.0.2.1")
		t.arrive("192.0.2.1")
		t.sweep()
		time.Sleep(patience)
		if n := t.sweep(); n == 0 {
			t.Error("nobody is cut off though none comes through")
		}
	})
}

// first returns the source of one of the oldest that are served.
func (t turnstile) first() (from source) {
	var oldest time.Duration = -1
	for s := range t.served {
		if s.in == inUnproved && time.Since(s.begun) > oldest {
			from, oldest = s.source, time.Since(s.begun)
		}
	}
	return from
}

// TestShortLine: hosts of one source that get through one after the other
// aren't cut off, however slow each is, if some of them have to wait in line
// for a moment.
func TestShortLine(t *testing.T) {
	inBubble(t, 100, 8, 8, func(t turnstile) {
		slow := []*session{t.arrive("192.0.2.1"), t.arrive("192.0.2.1"), t.arrive("192.0.2.1")}
		fast := t.arrive("192.0.2.1")
		time.Sleep(patience)
		t.prove(fast, "fast")
		t.leave(fast)
		t.arrive("192.0.2.1")
		t.arrive("192.0.2.1")
		t.counts(4, 1)
		if n := t.sweep(); n != 0 {
			t.Errorf("%d are cut off though one has just come through", n)
		}
		for i, s := range slow {
			t.prove(s, fmt.Sprint(i))
			t.leave(s)
		}
		time.Sleep(patience)
		for range 4 {
			t.arrive("192.0.2.1")
		}
		if n := t.sweep(); n != 2 {
			t.Errorf("%d are cut off, want those two that have been slow since", n)
		}
	})
}

// TestSlowLoris: a source that holds its connections open, and comes again
// when it is cut off, doesn't even keep those out that share it.
func TestSlowLoris(t *testing.T) {
	inBubble(t, 1000, 20, 20, func(t turnstile) {
		for range 200 {
			t.arrive("fe80::1%eth0")
		}
		honest := t.arrive("fe80::2%eth0")
		start := time.Now()
		for !t.served[honest] {
			time.Sleep(sweepPeriod)
			for range t.sweep() {
				t.arrive("fe80::1%eth0")
			}
			if time.Since(start) > time.Minute {
				t.Fatal("is never served")
			}
		}
		// Twenty times half of the places.
		if took := time.Since(start); took > 21*(patience+sweepPeriod) {
			t.Errorf("is served after %v", took)
		}
	})
}

// TestManySources: attackers that hold all places, each from a source of its
// own, are cut off to make room for peers from elsewhere.
func TestManySources(t *testing.T) {
	inBubble(t, 100, 8, 8, func(t turnstile) {
		for i := range 8 {
			t.arrive(fmt.Sprintf("192.0.2.%d", i))
		}
		honest := t.arrive("2001:db8::1")
		t.counts(8, 1)
		time.Sleep(patience)
		if n := t.sweep(); n != 1 || !t.served[honest] {
			t.Errorf("%d are cut off for one who waits; it is served: %v", n, t.served[honest])
		}
	})
}

// TestSlowStart: hosts that have been slow while there was no hurry get the
// time to prove themselves when there is.
func TestSlowStart(t *testing.T) {
	inBubble(t, 100, 8, 8, func(t turnstile) {
		for i := range 8 {
			t.arrive(fmt.Sprintf("192.0.2.%d", i))
		}
		time.Sleep(patience)
		t.arrive("2001:db8::1")
		time.Sleep(patience - time.Millisecond)
		if n := t.sweep(); n != 0 {
			t.Errorf("%d are cut off, when nobody has had the time", n)
		}
		time.Sleep(time.Millisecond)
		if n := t.sweep(); n != 1 {
			t.Errorf("%d are cut off for one who waits", n)
		}
	})
}

// TestNothingIsLeft: a table keeps nothing of sessions that are gone.
func TestNothingIsLeft(t *testing.T) {
	inBubble(t, 10, 4, 4, func(t turnstile) {
		for i := range 20 {
			t.arrive(fmt.Sprintf("192.0.2.%d", i%3))
		}
		if s := t.spare(); s == nil || t.served[s] {
			t.Error("not one in line is spared first")
		}
		for len(t.served) > 0 {
			for s := range t.served {
				if _, ok := t.prove(s, "foo"); !ok {
					t.Error("no room for a client")
				}
				t.leave(s)
				break
			}
		}
		if t.spare() != nil {
			t.Error("there is somebody to be spared")
		}
		t.counts(0, 0)
		if len(t.waiting.groups)+len(t.unproved.groups)+len(t.proved.groups)+t.proved.len+t.unproved.lent+len(t.lastProof)+t.lines.Len() > 0 {
			t.Errorf("something is left: %+v", t.table)
		}
	})
}

// TestSessionsOfOneClient: a peer with a client's key displaces old sessions of
// that client, not those of others, and can't take all places.
func TestSessionsOfOneClient(t *testing.T) {
	inBubble(t, 10, 100, 24, func(t turnstile) {
		prove := func(name string) (late []*session, ok bool) {
			t.Helper()
			s := t.arrive("192.0.2.1")
			return t.prove(s, name)
		}
		for range 12 {
			if late, ok := prove("foo"); !ok || len(late) > 0 {
				t.Fatalf("%d are cut off that are young; there is room: %v", len(late), ok)
			}
		}
		if _, ok := prove("foo"); ok {
			t.Error("one client has more than half of all places")
		}
		if _, ok := prove("bar"); !ok {
			t.Error("there is no room for another client")
		}
		time.Sleep(patience)
		late, ok := prove("bar")
		if !ok || len(late) > 0 {
			t.Errorf("%d sessions are cut off for one of another client; there is room: %v", len(late), ok)
		}
		first := t.proved.groups["foo"].Front().Value.(*session)
		for range 3 {
			t.leave(t.proved.groups["foo"].Back().Value.(*session))
		}
		late, ok = prove("foo")
		if !ok || len(late) != 8 || late[0] != first { // all but two
			t.Errorf("%d old sessions are cut off for a new one; there is room: %v", len(late), ok)
		}
	})
}
