package server

import (
	"container/list"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// A source is what a single peer can be expected to have one of: an IPv4
// address, an IPv6 /64 network or, for link-local addresses, which anybody on
// the link may choose at will, the interface.
type source struct {
	prefix netip.Prefix
	zone   string
}

func sourceOf(addr netip.Addr) source {
	addr = addr.Unmap()
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		return source{zone: addr.Zone()}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.WithZone("").Prefix(bits) // fails only for the zero address, which is a source too
	return source{prefix: prefix}
}

// A stage has a limited number of places for the sessions that are at one stage
// of their lives, in groups. A group may take up to greed times as many places
// as are left free: with a greed of 1, a single group gets half of all places
// and ten groups get an eleventh each. There is always room for a group that
// has none, unless there are as many groups as places.
type stage[K comparable] struct {
	max    int
	greed  int
	len    int
	lent   int              // places taken by sessions of the next stage
	groups map[K]*list.List // of *session, the oldest first
}

// count returns how many sessions group k has.
func (st *stage[K]) count(k K) int {
	if group := st.groups[k]; group != nil {
		return group.Len()
	}
	return 0
}

// free returns how many places are free.
func (st *stage[K]) free() int { return st.max - st.len - st.lent }

// admits reports whether group k may have one more.
func (st *stage[K]) admits(k K) bool { return st.count(k) < st.greed*st.free() }

func (st *stage[K]) add(k K, s *session) {
	if st.groups == nil {
		st.groups = make(map[K]*list.List)
	}
	if st.groups[k] == nil {
		st.groups[k] = list.New()
	}
	s.place = st.groups[k].PushBack(s)
	st.len++
}

func (st *stage[K]) remove(k K, s *session) {
	group := st.groups[k]
	group.Remove(s.place)
	s.place = nil
	st.len--
	if group.Len() == 0 {
		delete(st.groups, k)
	}
}

// oldest returns up to n sessions of group k for which fit is true, the oldest
// first.
func (st *stage[K]) oldest(k K, n int, fit func(*session) bool) (found []*session) {
	group := st.groups[k]
	if group == nil {
		return nil
	}
	for e := group.Front(); e != nil && len(found) < n; e = e.Next() {
		if s := e.Value.(*session); fit(s) {
			found = append(found, s)
		}
	}
	return found
}

// all yields the sessions.
func (st *stage[K]) all(yield func(*session) bool) {
	for _, group := range st.groups {
		for e := group.Front(); e != nil; e = e.Next() {
			if !yield(e.Value.(*session)) {
				return
			}
		}
	}
}

// A table holds all sessions, and decides who is served when there are too
// many.
//
// Until a peer has proved who it is, its session counts against its source. If
// the source already has its share, the session waits in line, where it costs a
// socket and little else. If a source has sessions in line and none of its
// sessions has proved to be a client's for as long as patience, those that have
// kept the server waiting for that long are cut off. So a source that holds its
// connections open keeps nobody else out, and its own peers not for long; a
// source whose hosts all boot at once has them served one after the other, as
// fast as server and hosts can; and neither gets in the way of other sources.
//
// From then on the session counts against its client. A client with more than
// maxPerClient sessions loses the oldest of those that are older than patience.
// While it is the server's turn, not the peer's or an operator's, the session
// still takes up a place among the unproved: if hand-outs are slow, perhaps
// because the journal is, handshakes begin no faster than hand-outs end.
type table struct {
	waiting      stage[source]
	unproved     stage[source]
	proved       stage[string]
	maxPerClient int
	patience     time.Duration

	lines     list.List            // the sources of waiting, whose turn is next first
	lastProof map[source]time.Time // when a session of a source last proved to be a client's, if others of it haven't yet
	anyProof  time.Time            // when any session last did, or the first line began
}

// arrive adds s if there is room for it (ok), and reports whether it is to be
// served at once; if not, it has a place in line.
func (t *table) arrive(s *session) (served, ok bool) {
	first := t.waiting.count(s.source) == 0
	switch {
	case first && t.unproved.admits(s.source):
		s.in = inUnproved
		t.unproved.add(s.source, s)
		return true, true
	case !t.waiting.admits(s.source):
		return false, false
	}
	if first {
		if t.lines.Len() == 0 {
			t.anyProof = time.Now() // nobody has had time to prove anything yet
		}
		t.lines.PushBack(s.source)
	}
	s.in = inWaiting
	t.waiting.add(s.source, s)
	return false, true
}

// next returns a session from a line that can be served now, or nil. It must be
// called again whenever a session has been removed.
func (t *table) next() *session {
	if t.unproved.free() <= 0 {
		return nil // a shortcut: there may be thousands of lines
	}
	for range t.lines.Len() {
		line := t.lines.Front()
		from := line.Value.(source)
		t.lines.MoveToBack(line)
		if !t.unproved.admits(from) {
			continue
		}
		s := t.waiting.groups[from].Front().Value.(*session)
		t.waiting.remove(from, s)
		t.endLine(line)
		s.in = inUnproved
		t.unproved.add(from, s)
		return s
	}
	return nil
}

// endLine removes line if nobody waits in it any more.
func (t *table) endLine(line *list.Element) {
	if from := line.Value.(source); t.waiting.count(from) == 0 {
		t.lines.Remove(line)
		t.forget(from)
	}
}

// forget drops the lastProof of a source that has no unproved sessions left.
func (t *table) forget(from source) {
	if t.waiting.count(from) == 0 && t.unproved.count(from) == 0 {
		delete(t.lastProof, from)
	}
}

// overdue returns the sessions that are to be cut off to make room for those in
// line.
func (t *table) overdue() (late []*session) {
	isLate := func(s *session) bool { return s.waited() >= t.patience }
	for line := t.lines.Front(); line != nil; line = line.Next() {
		from := line.Value.(source)
		if time.Since(t.lastProof[from]) >= t.patience {
			late = append(late, t.unproved.oldest(from, t.waiting.count(from), isLate)...)
		}
	}
	if len(late) > 0 || t.lines.Len() == 0 || t.unproved.free() > 0 || time.Since(t.anyProof) < t.patience {
		return late
	}
	// No place is free, not even for a source that has none: take places from
	// the sources that have most.
	var all []source
	for from := range t.unproved.groups {
		all = append(all, from)
	}
	slices.SortFunc(all, func(a, b source) int { return t.unproved.count(b) - t.unproved.count(a) })
	for _, from := range all {
		late = append(late, t.unproved.oldest(from, t.lines.Len()-len(late), isLate)...)
	}
	return late
}

// prove notes that s has proved to be the client called name. It returns the
// sessions that are to be cut off to make room for it, or false if there is no
// room.
func (t *table) prove(s *session, name string) (late []*session, ok bool) {
	if !t.proved.admits(name) {
		return nil, false
	}
	t.remove(s)
	s.in, s.client, s.since = inProved, name, time.Now()
	s.borrows = true
	t.unproved.lent++
	t.anyProof = s.since
	if t.waiting.count(s.source) > 0 || t.unproved.count(s.source) > 0 {
		if t.lastProof == nil {
			t.lastProof = make(map[source]time.Time)
		}
		t.lastProof[s.source] = s.since
	}
	t.proved.add(name, s)
	return t.proved.oldest(name, t.proved.count(name)-t.maxPerClient, func(s *session) bool {
		return time.Since(s.since) >= t.patience
	}), true
}

// giveBack notes that s no longer needs a place among the unproved.
func (t *table) giveBack(s *session) {
	if s.borrows {
		s.borrows = false
		t.unproved.lent--
	}
}

// remove removes s, which must not be in line.
func (t *table) remove(s *session) {
	switch s.in {
	case inUnproved:
		t.unproved.remove(s.source, s)
		t.forget(s.source)
	case inProved:
		t.giveBack(s)
		t.proved.remove(s.client, s)
	}
	s.in = nowhere
}

// spare returns the session that can best be spared, or nil: the last one in a
// line, which the caller must close, or else the oldest unproved one of the
// source that has most.
func (t *table) spare() *session {
	if line := t.lines.Front(); line != nil {
		from := line.Value.(source)
		s := t.waiting.groups[from].Back().Value.(*session)
		t.waiting.remove(from, s)
		t.endLine(line)
		s.in = nowhere
		return s
	}
	var most source
	for from := range t.unproved.groups {
		if t.unproved.count(from) > t.unproved.count(most) {
			most = from
		}
	}
	if all := t.unproved.oldest(most, 1, func(*session) bool { return true }); len(all) > 0 {
		return all[0]
	}
	return nil
}

// served yields the sessions that aren't in line.
func (t *table) served() iter.Seq[*session] {
	return func(yield func(*session) bool) {
		for s := range t.unproved.all {
			if !yield(s) {
				return
			}
		}
		for s := range t.proved.all {
			if !yield(s) {
				return
			}
		}
	}
}
