package busapi

import (
	"sync"
	"time"

	"mandos/internal/client"
	"mandos/internal/registry"
)

// remembered is how many hand-outs and how many refusals are kept of each
// client, since the daemon was started.
const remembered = 10

// A history remembers who got and who was refused a secret.
type history struct {
	mu      sync.Mutex
	clients map[string]*clientHistory
	total   totals
}

type totals struct{ handouts, refusals, unknownKeys uint64 }

type clientHistory struct {
	handouts []handout
	refusals []refusal
	protocol string // of the last that proved its key, whatever came of it
}

// A handout is a hand-out as D-Bus has it: a(ss).
type handout struct{ Time, Peer string }

// A refusal is a refusal as D-Bus has it: a(sss).
type refusal struct{ Time, Peer, Reason string }

// note remembers n, which happened at now.
func (h *history) note(n registry.Notice, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name, peer := n.Client.Settings.Name, n.Caller.Addr.String()
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
			c.handouts = newest(c.handouts, handout{stamp(now), peer})
		case client.RejectedNotice:
			h.total.refusals++
			c := h.of(name)
			c.protocol = n.Caller.Identity.Protocol()
			c.refusals = newest(c.refusals, refusal{stamp(now), peer, string(change.Reason)})
		}
	}
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

// newest puts x first and drops the oldest.
func newest[T any](list []T, x T) []T {
	return append([]T{x}, list[:min(len(list), remembered-1)]...)
}

func (h *history) handouts(name string) []handout {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[name]; c != nil && c.handouts != nil {
		return c.handouts // never changed in place
	}
	return []handout{}
}

func (h *history) refusals(name string) []refusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[name]; c != nil && c.refusals != nil {
		return c.refusals
	}
	return []refusal{}
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
