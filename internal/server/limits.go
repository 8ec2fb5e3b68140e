package server

import (
	"container/list"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// A source is what one peer can be expected to have one of: an IPv4 address,
// an IPv6 network of 64 bits, or, where anybody may take any address, the
// interface of a link-local one.
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
	prefix, _ := addr.WithZone("").Prefix(bits) // fails for the zero address only: a source too
	return source{prefix: prefix}
}

// A stage of their lives holds a limited number of sessions, in groups. A
// group may have greed times as many of them as are left free: with a greed of
// 1, one alone gets half of all and ten get an eleventh each; and there is
// always room for a group that has none, unless there are as many groups as
// sessions.
type stage[K comparable] struct {
	max    int
	greed  int
	len    int
	lent   int              // places that are taken by sessions of the next stage
	groups map[K]*list.List // of *session, the oldest first
}

// count returns how many sessions group k has.
func (st *stage[K]) count(k K) int {
	if group := st.groups[k]; group != nil {
		return group.Len()
	}
	return 0
}

// free returns how many places nobody has.
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

// oldest returns the sessions of group k that fit, the oldest first, at most
// n.
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

// A table holds all sessions, and decides who is served when they are too
// many.
//
// A connection is first served until it has proved who it is, grouped by
// source. If its source has its share, it waits in line, and costs a socket
// and little else. While a source has somebody in line, and for as long as
// patience nobody of it has proved to be a client, those of it that have kept
// the server waiting for longer than that are cut off. So a source that holds
// its connections open keeps nobody out, not even of itself for long; one whose
// hosts all boot at once gets them served one after the other, at the pace of
// the server and of the hosts; and neither is in another's way.
//
// Who has proved who it is is grouped by client. A client that has more than
// maxPerClient loses the oldest of those that are older than patience. While it
// isn't the peer's or an operator's turn, but ours, the session takes up a
// place among the unproved still: where hand-outs are slow, as when the journal
// is, no more handshakes are begun than there are hand-outs.
type table struct {
	waiting      stage[source]
	unproved     stage[source]
	proved       stage[string]
	maxPerClient int
	patience     time.Duration

	lines     list.List            // the sources of waiting, in turn
	lastProof map[source]time.Time // when one of a source proved to be a client, if others of it haven't yet
	anyProof  time.Time            // when any session did, or the first line began
}

// arrive takes s in, and reports whether it is to be served at once; if not,
// whether it has got a place in line.
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
			t.anyProof = time.Now() // nobody has had the time yet
		}
		t.lines.PushBack(s.source)
	}
	s.in = inWaiting
	t.waiting.add(s.source, s)
	return false, true
}

// next returns a session from a line that can be served now, or nil. It is to
// be asked again whenever a session has been removed.
func (t *table) next() *session {
	if t.unproved.free() <= 0 {
		return nil // at once: there may be thousands of lines
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

// endLine forgets a line in which nobody waits any more.
func (t *table) endLine(line *list.Element) {
	if from := line.Value.(source); t.waiting.count(from) == 0 {
		t.lines.Remove(line)
		t.forget(from)
	}
}

// forget forgets when somebody of a source proved to be a client, once there
// is nobody left of it who hasn't.
func (t *table) forget(from source) {
	if t.waiting.count(from) == 0 && t.unproved.count(from) == 0 {
		delete(t.lastProof, from)
	}
}

// impatience returns the sessions that are to be cut off for those in line.
func (t *table) impatience() (late []*session) {
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
	// Nothing is free, even for a source that has nothing: it is taken from
	// those that have most.
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
// sessions that are to be cut off for it, or false if there is no room.
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

// giveBack notes that s needs its place among the unproved no longer.
func (t *table) giveBack(s *session) {
	if s.borrows {
		s.borrows = false
		t.unproved.lent--
	}
}

// remove forgets s, which is served or was never taken in.
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

// spare returns the session that is to be missed least: the last in a line,
// which must be closed, or else the oldest that is served and unproved.
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
