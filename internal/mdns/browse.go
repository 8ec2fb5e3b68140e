// Package mdns finds the Mandos servers on the local links by DNS-based
// service discovery (RFC 6763) over multicast DNS (RFC 6762). It needs no
// daemon and no privileges.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// firstInterval and lastInterval bound the time between two queries on
	// a link; it doubles each time (RFC 6762, section 5.2).
	firstInterval = time.Second
	lastInterval  = time.Hour

	// pollInterval is how often the interfaces are looked at: some come late.
	pollInterval = time.Second

	// notReadyInterval is the time to the next try on a link that can't send
	// yet, as its address is still tentative (RFC 4862, section 5.4).
	notReadyInterval = 250 * time.Millisecond
)

// A Sighting is a server that is there, or that has said goodbye.
type Sighting struct {
	Instance  string           // the name of the service, in DNS presentation form
	Interface string           // on whose link it is
	Addrs     []netip.AddrPort // in the order to try them, with zone where link-local; none: it is gone
}

// A Browser says where to look for servers, and whom to tell.
type Browser struct {
	Use   func(net.Interface) bool         // whether to use an interface that is up
	Found func(Sighting)                   // called from one goroutine
	Log   func(format string, args ...any) // may be nil
}

// A link is one interface in one address family.
type link struct {
	ifi      net.Interface
	sock     socket
	next     time.Time // of the next query
	interval time.Duration
	failed   string // the last error, to log it once
}

// A browsing is the state of one call of Run.
type browsing struct {
	Browser
	sockets []socket
	links   []*link
	caches  map[int]*cache // by index of the interface
	names   map[int]string // of the interfaces
}

// A packet is what came in on a link.
type packet struct {
	data    []byte
	ifIndex int
}

// Run browses until ctx ends, and returns nil then. An error means that it
// can't browse at all.
func (b Browser) Run(ctx context.Context) error {
	if b.Log == nil {
		b.Log = func(string, ...any) {}
	}
	r := &browsing{Browser: b, caches: map[int]*cache{}, names: map[int]string{}}
	var errs []error
	for _, open := range []func(context.Context) (socket, error){openIPv6, openIPv4} {
		s, err := open(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer s.close()
		r.sockets = append(r.sockets, s)
	}
	if len(r.sockets) == 0 {
		return fmt.Errorf("looking for servers by multicast DNS: %w", errors.Join(errs...))
	}
	for _, err := range errs {
		b.Log("multicast DNS: %v", err)
	}
	packets := make(chan packet)
	for _, s := range r.sockets {
		go receive(ctx, s, packets, b.Log)
	}
	var poll time.Time
	for {
		now := time.Now()
		if !now.Before(poll) {
			if err := r.refresh(now); err != nil {
				b.Log("multicast DNS: listing the interfaces: %v", err)
			}
			poll = now.Add(pollInterval)
		}
		wake := poll
		for _, l := range r.links {
			if !now.Before(l.next) {
				r.ask(l, now)
			}
			wake = earlier(wake, l.next)
		}
		for index, c := range r.caches {
			r.report(index, c, now)
			if t, ok := c.deadline(); ok {
				wake = earlier(wake, t)
			}
		}
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case p := <-packets:
			timer.Stop()
			r.take(p, time.Now())
		}
	}
}

// refresh takes note of interfaces that have come or gone.
func (r *browsing) refresh(now time.Time) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	usable := slices.DeleteFunc(all, func(i net.Interface) bool {
		return i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 || !r.Use(i)
	})
	there := func(ifi net.Interface) bool {
		return slices.ContainsFunc(usable, func(u net.Interface) bool { return u.Index == ifi.Index && u.Name == ifi.Name })
	}
	r.links = slices.DeleteFunc(r.links, func(l *link) bool { return !there(l.ifi) })
	for index := range r.caches {
		if !slices.ContainsFunc(usable, func(u net.Interface) bool { return u.Index == index }) {
			delete(r.caches, index)
		}
	}
	for _, ifi := range usable {
		if slices.ContainsFunc(r.links, func(l *link) bool { return l.ifi.Index == ifi.Index }) {
			continue
		}
		r.caches[ifi.Index], r.names[ifi.Index] = &cache{}, ifi.Name
		for _, s := range r.sockets {
			l := &link{ifi: ifi, sock: s, interval: firstInterval}
			// RFC 6762, section 5.2: hosts that boot together don't ask together.
			l.next = now.Add(20*time.Millisecond + rand.N(100*time.Millisecond))
			r.links = append(r.links, l)
		}
		r.Log("looking for servers on interface %s", ifi.Name)
	}
	return nil
}

// ask sends the next query on a link.
func (r *browsing) ask(l *link, now time.Time) {
	c := r.caches[l.ifi.Index]
	more := c.missing(now)
	query, err := c.query(more, now)
	if err == nil {
		err = l.sock.join(l.ifi)
	}
	if err == nil {
		err = l.sock.send(query, l.ifi)
	}
	if err != nil {
		if text := err.Error(); text != l.failed {
			l.failed = text
			r.Log("multicast DNS on interface %s: %v", l.ifi.Name, err)
		}
		l.next = now.Add(notReadyInterval)
		c.unasked(more) // the other address family may be ready
		return
	}
	l.failed = ""
	l.next = now.Add(l.interval)
	l.interval = min(2*l.interval, lastInterval)
}

// take reads a packet, and asks at once for what it leaves open.
func (r *browsing) take(p packet, now time.Time) {
	c := r.caches[p.ifIndex]
	if c == nil { // an interface that isn't used
		return
	}
	m, err := parse(p.data)
	if err != nil {
		return // queries of others, mostly
	}
	c.add(m, now)
	more := c.missing(now)
	if len(more) == 0 {
		return
	}
	query, err := c.query(more, now)
	if err != nil {
		r.Log("multicast DNS: %v", err)
		return
	}
	for _, l := range r.links {
		if l.ifi.Index == p.ifIndex {
			_ = l.sock.send(query, l.ifi) // the next query asks again
		}
	}
}

func (r *browsing) report(index int, c *cache, now time.Time) {
	name := r.names[index]
	for _, change := range c.changes(now) {
		s := Sighting{Instance: change.instance, Interface: name, Addrs: change.addrs}
		for i, a := range s.Addrs {
			if a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() {
				s.Addrs[i] = netip.AddrPortFrom(a.Addr().WithZone(name), a.Port())
			}
		}
		if len(s.Addrs) == 0 {
			// It may be a lie, or the server restarts: look again soon.
			for _, l := range r.links {
				if l.ifi.Index == index {
					l.next, l.interval = now.Add(grace), firstInterval
				}
			}
		}
		r.Found(s)
	}
}
