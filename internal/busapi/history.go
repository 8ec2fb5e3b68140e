package busapi

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"mandos/internal/client"
	"mandos/internal/registry"
)

// remembered is how many hand-outs and how many refusals are kept for each
// client; they are forgotten when the daemon ends.
const remembered = 10

// A history remembers who got a secret and who was refused one.
type history struct {
	mu      sync.Mutex
	clients map[string]*clientHistory
	total   totals
}

type totals struct{ handouts, refusals, unknownKeys uint64 }

type clientHistory struct {
	handouts []seen
	refusals []seen
	protocol string // of the last peer that proved its key, whatever the outcome
}

// A seen is one request for a secret.
type seen struct {
	at     time.Time
	peer   netip.AddrPort
	reason client.Reason // if it was refused
}

// A handout is a hand-out in its D-Bus form, an element of a(ss).
type handout struct{ Time, Peer string }

// A refusal is a refusal in its D-Bus form, an element of a(sss).
type refusal struct{ Time, Peer, Reason string }

// note remembers n, which happened at now.
func (h *history) note(n *registry.Notice, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := n.Client.Settings.Name
	switch n.Kind {
	case registry.ClientNotFound:
		h.total.unknownKeys++
	case registry.ClientRemoved:
		delete(h.clients, name)
	}
	for _, change := range n.Changes {
		switch change := change.(type) {
		case client.GotSecret:
			h.total.handouts++
			c := h.of(name)
			c.protocol = n.Caller.Identity.Protocol()
			c.handouts = newest(c.handouts, seen{at: now, peer: n.Caller.Addr})
		case client.RejectedNotice:
			h.total.refusals++
			c := h.of(name)
			c.protocol = n.Caller.Identity.Protocol()
			c.refusals = newest(c.refusals, seen{now, n.Caller.Addr, change.Reason})
		}
	}
}

// keep forgets all clients but those in names, which are sorted.
func (h *history) keep(names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.clients, func(name string, _ *clientHistory) bool { return !contains(names, name) })
}

func (h *history) of(name string) *clientHistory {
	if h.clients == nil {
		h.clients = map[string]*clientHistory{}
	}
	if h.clients[name] == nil {
		h.clients[name] = &clientHistory{}
	}
	return h.clients[name]
}

// newest puts x first in list and drops the oldest if there are too many.
func newest(list []seen, x seen) []seen {
	if len(list) < remembered {
		list = append(list, seen{})
	}
	copy(list[1:], list)
	list[0] = x
	return list
}

func (h *history) handouts(name string) []handout {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := []handout{}
	if c := h.clients[name]; c != nil {
		for _, s := range c.handouts {
			list = append(list, handout{stamp(s.at), s.peer.String()})
		}
	}
	return list
}

func (h *history) refusals(name string) []refusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := []refusal{}
	if c := h.clients[name]; c != nil {
		for _, s := range c.refusals {
			list = append(list, refusal{stamp(s.at), s.peer.String(), string(s.reason)})
		}
	}
	return list
}

func (h *history) protocol(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[name]; c != nil {
		return c.protocol
	}
	return ""
}

func (h *history) totals() totals {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}
