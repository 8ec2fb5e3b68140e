package server

import (
	"container/list"
	"net/netip"
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

// A table holds the sessions that are open, and decides who has to go when
// there are too many: the oldest that hasn't proved who it is. So an attacker
// who holds all sessions open keeps nobody out: whoever comes next gets in,
// and has time enough to prove itself.
//
// What a source has is counted until it has proved who it is: after a site's
// power cut, many honest clients of one network wait for approval.
type table struct {
	max, maxPerSource int

	open     int                   // all sessions
	unproved list.List             // of *session, the oldest first
	sources  map[source]*list.List // the same, by source
	places   map[*session]places   // of those in unproved
}

// places are the elements of a session in the lists of a table.
type places struct{ all, bySource *list.Element }

// add takes s in. It returns the session that must be cut off for it, if
// any, or false if there is no room and nobody to cut off.
func (t *table) add(s *session) (evicted *session, ok bool) {
	if own := t.sources[s.source]; own != nil && own.Len() >= t.maxPerSource {
		evicted = own.Front().Value.(*session)
	} else if t.open >= t.max {
		if t.unproved.Len() == 0 {
			return nil, false
		}
		evicted = t.unproved.Front().Value.(*session)
	}
	if evicted != nil {
		t.remove(evicted)
	}
	if t.sources == nil {
		t.sources, t.places = make(map[source]*list.List), make(map[*session]places)
	}
	if t.sources[s.source] == nil {
		t.sources[s.source] = list.New()
	}
	t.open++
	s.counted = true
	t.places[s] = places{t.unproved.PushBack(s), t.sources[s.source].PushBack(s)}
	return evicted, true
}

// proved notes that s has proved who it is: it can't be evicted any more.
func (t *table) proved(s *session) {
	p, ok := t.places[s]
	if !ok {
		return
	}
	delete(t.places, s)
	t.unproved.Remove(p.all)
	own := t.sources[s.source]
	own.Remove(p.bySource)
	if own.Len() == 0 {
		delete(t.sources, s.source)
	}
}

// remove forgets s. An evicted session is removed twice.
func (t *table) remove(s *session) {
	t.proved(s)
	if s.counted {
		s.counted = false
		t.open--
	}
}
