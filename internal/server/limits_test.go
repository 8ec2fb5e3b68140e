package server

import (
	"net/netip"
	"testing"
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

func TestTable(t *testing.T) {
	tab := &table{max: 4, maxPerSource: 2}
	from := func(addr string) *session { return &session{source: sourceOf(netip.MustParseAddr(addr))} }
	add := func(s *session, wantEvicted *session, wantOK bool) {
		t.Helper()
		evicted, ok := tab.add(s)
		if evicted != wantEvicted || ok != wantOK {
			t.Fatalf("evicted %p, %v; want %p, %v", evicted, ok, wantEvicted, wantOK)
		}
	}
	a1, a2, a3 := from("192.0.2.1"), from("192.0.2.1"), from("192.0.2.1")
	b1, c1, d1, e1 := from("192.0.2.2"), from("192.0.2.3"), from("192.0.2.4"), from("192.0.2.5")

	add(a1, nil, true)
	add(b1, nil, true)
	add(a2, nil, true)
	add(a3, a1, true) // the source is full: its own oldest goes, not the oldest of all
	tab.remove(a1)    // what its goroutine does in the end: nothing more
	add(c1, nil, true)
	if tab.open != 4 {
		t.Fatalf("%d sessions are open, want 4", tab.open)
	}
	tab.proved(b1)
	add(d1, a2, true) // full: the oldest goes that hasn't proved who it is
	tab.proved(a3)
	tab.proved(c1)
	tab.proved(d1)
	add(e1, nil, false) // full of proved sessions
	tab.remove(b1)
	add(e1, nil, true)
	for _, s := range []*session{a2, a3, c1, d1, e1} {
		tab.remove(s)
	}
	if tab.open != 0 || tab.unproved.Len() != 0 || len(tab.sources) != 0 || len(tab.places) != 0 {
		t.Errorf("something is left: %+v", tab)
	}
}

// TestTableProvedPerSource: who has proved itself doesn't count against its
// source.
func TestTableProvedPerSource(t *testing.T) {
	tab := &table{max: 100, maxPerSource: 2}
	for range 50 {
		s := &session{source: source{zone: "eth0"}}
		if evicted, ok := tab.add(s); evicted != nil || !ok {
			t.Fatal("no room")
		}
		tab.proved(s)
	}
}
