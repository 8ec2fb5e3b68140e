package mdns

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// service is what Mandos servers announce (RFC 6763, section 4.1).
	service = "_mandos._tcp.local."

	// maxPacket is the most that a message may have (RFC 6762, section 17).
	maxPacket = 9000

	// maxInstances and maxAddrs bound what one link's hosts can make this
	// program keep. When they are reached, an arbitrary old entry makes
	// room: nobody who fills the cache keeps another out for good.
	maxInstances = 128
	maxAddrs     = 16

	// maxTTL bounds the time to live that is believed: 75 minutes (RFC 6762,
	// section 10).
	maxTTL = 75 * time.Minute

	// grace is how long a record lives after a goodbye (RFC 6762, section
	// 10.1) or after a newer set replaced it (section 10.2).
	grace = time.Second

	// maxQuestions bounds the follow-up questions of a message.
	maxQuestions = 20
)

// parse reads a message, and refuses all that is no answer.
func parse(packet []byte) (*dns.Msg, error) {
	if len(packet) > maxPacket {
		return nil, fmt.Errorf("a message of %d bytes", len(packet))
	}
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		return nil, err
	}
	switch {
	case !m.Response:
		return nil, errors.New("no response")
	case m.Opcode != dns.OpcodeQuery: // RFC 6762, section 18.3
		return nil, fmt.Errorf("opcode %d", m.Opcode)
	case m.Rcode != dns.RcodeSuccess: // RFC 6762, section 18.11
		return nil, fmt.Errorf("response code %d", m.Rcode)
	}
	return m, nil
}

// A cache holds what one link has answered. It is a function of the messages
// and times it is given.
type cache struct {
	instances map[string]*instance // by canonical name
}

// An instance is a service instance (RFC 6763, section 4.1): a Mandos server.
type instance struct {
	name     string // as it was written, for known answers
	ttl      time.Duration
	expires  time.Time // of the PTR record
	leaving  bool      // it has said goodbye, and is gone when that expires
	host     string    // canonical; empty until there is an SRV record
	port     uint16
	addrs    []address
	asked    map[uint16]time.Time // follow-up questions, by type
	reported []netip.AddrPort     // as they were last seen by changes
}

type address struct {
	netip.Addr
	seen    time.Time
	expires time.Time
}

// add takes the records of an answer that concern Mandos servers. A record
// that names something nobody asked for is dropped: an SRV record counts only
// for a known instance, an address only for the host of one.
func (c *cache) add(m *dns.Msg, now time.Time) {
	records := slices.Concat(m.Answer, m.Extra) // the authority section holds no answers
	for _, r := range records {
		if ptr, ok := r.(*dns.PTR); ok && isClassIN(r) && dns.CanonicalName(r.Header().Name) == service {
			c.addPTR(ptr, now)
		}
	}
	for _, r := range records {
		if srv, ok := r.(*dns.SRV); ok && isClassIN(r) {
			c.addSRV(srv, now)
		}
	}
	flushed := map[string]bool{}
	for _, r := range records {
		if a, ok := addrOf(r); ok && isClassIN(r) {
			c.addAddr(r.Header(), a, now, flushed)
		}
	}
}

// flushBit is the top bit of a record's class: this record replaces older
// ones (RFC 6762, section 10.2).
const flushBit = 1 << 15

func isClassIN(r dns.RR) bool { return r.Header().Class&^flushBit == dns.ClassINET }

func addrOf(r dns.RR) (a netip.Addr, ok bool) {
	switch r := r.(type) {
	case *dns.A:
		a, ok = netip.AddrFromSlice(r.A)
		a = a.Unmap()
	case *dns.AAAA:
		a, ok = netip.AddrFromSlice(r.AAAA)
		ok = ok && !a.Is4In6()
	}
	ok = ok && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
	return a, ok
}

func ttlOf(h *dns.RR_Header) time.Duration {
	return min(time.Duration(h.Ttl)*time.Second, maxTTL)
}

func (c *cache) addPTR(r *dns.PTR, now time.Time) {
	name := dns.CanonicalName(r.Ptr)
	// INSTANCE._mandos._tcp.local: one label more than the service.
	if !dns.IsSubDomain(service, name) || dns.CountLabel(name) != dns.CountLabel(service)+1 {
		return
	}
	i := c.instances[name]
	if i == nil {
		if r.Hdr.Ttl == 0 {
			return
		}
		if len(c.instances) >= maxInstances {
			for victim := range c.instances { // in random order
				delete(c.instances, victim)
				break
			}
		}
		if c.instances == nil {
			c.instances = map[string]*instance{}
		}
		i = &instance{asked: map[uint16]time.Time{}}
		c.instances[name] = i
	}
	if r.Hdr.Ttl == 0 {
		if !i.leaving {
			i.leaving, i.expires = true, now.Add(grace)
		}
		return
	}
	i.name, i.ttl, i.leaving = r.Ptr, ttlOf(&r.Hdr), false
	i.expires = now.Add(i.ttl)
}

func (c *cache) addSRV(r *dns.SRV, now time.Time) {
	i := c.instances[dns.CanonicalName(r.Hdr.Name)]
	host := dns.CanonicalName(r.Target)
	switch {
	case i == nil || r.Port == 0 || host == ".": // "." is "no such service" (RFC 2782)
	case r.Hdr.Ttl == 0:
		if host == i.host && r.Port == i.port && !i.leaving {
			i.leaving, i.expires = true, now.Add(grace)
		}
	default:
		if host != i.host {
			i.addrs = nil
		}
		i.host, i.port = host, r.Port
	}
}

func (c *cache) addAddr(h *dns.RR_Header, a netip.Addr, now time.Time, flushed map[string]bool) {
	host := dns.CanonicalName(h.Name)
	set := fmt.Sprint(host, h.Rrtype)
	flush := h.Class&flushBit != 0 && !flushed[set]
	if flush {
		flushed[set] = true
	}
	for _, i := range c.instances {
		if i.host != host {
			continue
		}
		if flush {
			for n := range i.addrs {
				// Those of the last second come from the same answer, in
				// another message.
				if old := &i.addrs[n]; old.Is4() == a.Is4() && old.Addr != a && now.Sub(old.seen) > grace {
					old.expires = earlier(old.expires, now.Add(grace))
				}
			}
		}
		at := slices.IndexFunc(i.addrs, func(old address) bool { return old.Addr == a })
		switch {
		case h.Ttl == 0 && at >= 0:
			i.addrs[at].expires = earlier(i.addrs[at].expires, now.Add(grace))
		case h.Ttl == 0:
		case at >= 0:
			i.addrs[at].seen, i.addrs[at].expires = now, now.Add(ttlOf(h))
		default:
			if len(i.addrs) >= maxAddrs {
				i.addrs = slices.Delete(i.addrs, 0, 1)
			}
			i.addrs = append(i.addrs, address{a, now, now.Add(ttlOf(h))})
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// A change is a server that is there with these addresses, or no longer.
type change struct {
	instance string
	addrs    []netip.AddrPort // none: it said goodbye
}

// changes returns what is new since the last call: servers with other
// addresses than before, and servers that have said goodbye.
//
// A record whose time to live just runs out is not a goodbye: the server stays
// as it was last seen. Asking a server in vain costs little, and keeping
// records fresh would cost everybody on the link.
func (c *cache) changes(now time.Time) []change {
	var all []change
	for name, i := range c.instances {
		if !i.expires.After(now) && i.leaving {
			delete(c.instances, name)
			if i.reported != nil {
				all = append(all, change{instance: name})
			}
			continue
		}
		i.addrs = slices.DeleteFunc(i.addrs, func(a address) bool { return !a.expires.After(now) })
		if addrs := i.addrPorts(); len(addrs) > 0 && !slices.Equal(addrs, i.reported) {
			i.reported = addrs
			all = append(all, change{name, addrs})
		}
	}
	slices.SortFunc(all, func(a, b change) int { return strings.Compare(a.instance, b.instance) })
	return all
}

// addrPorts returns the addresses in the order in which to try them: first
// those that need no router and no address of one's own, link-local IPv6.
func (i *instance) addrPorts() []netip.AddrPort {
	rank := func(a netip.Addr) int {
		switch {
		case a.Is6() && a.IsLinkLocalUnicast():
			return 0
		case a.Is6():
			return 1
		}
		return 2
	}
	var all []netip.AddrPort
	for _, a := range i.addrs {
		all = append(all, netip.AddrPortFrom(a.Addr, i.port))
	}
	slices.SortFunc(all, func(a, b netip.AddrPort) int {
		return cmp.Or(cmp.Compare(rank(a.Addr()), rank(b.Addr())), a.Compare(b))
	})
	return all
}

// missing returns the questions that must be asked to know where the
// instances are, and that weren't asked in the last second (RFC 6762, section
// 5.2).
func (c *cache) missing(now time.Time) []dns.Question {
	var all []dns.Question
	ask := func(i *instance, name string, types ...uint16) {
		for _, t := range types {
			if now.Sub(i.asked[t]) >= time.Second && len(all) < maxQuestions {
				i.asked[t] = now
				all = append(all, dns.Question{Name: name, Qtype: t, Qclass: dns.ClassINET})
			}
		}
	}
	for name, i := range c.instances {
		switch {
		case i.leaving:
		case i.host == "":
			ask(i, name, dns.TypeSRV)
		case len(i.addrs) == 0 && dns.IsSubDomain("local.", i.host):
			ask(i, i.host, dns.TypeAAAA, dns.TypeA)
		}
	}
	return all
}

// unasked takes back that questions of missing were asked.
func (c *cache) unasked(questions []dns.Question) {
	for _, q := range questions {
		for name, i := range c.instances {
			if q.Name == name || q.Name == i.host {
				delete(i.asked, q.Qtype)
			}
		}
	}
}

// query returns a message that asks for servers and for more, with the
// instances that are known already (RFC 6762, section 7.1).
func (c *cache) query(more []dns.Question, now time.Time) ([]byte, error) {
	m := new(dns.Msg) // ID 0, no recursion (RFC 6762, section 18)
	m.Compress = true
	m.Question = append([]dns.Question{{Name: service, Qtype: dns.TypePTR, Qclass: dns.ClassINET}}, more...)
	for _, i := range c.instances {
		left := i.expires.Sub(now)
		// One that isn't complete is asked for again in full.
		if i.leaving || left < i.ttl/2 || len(i.addrs) == 0 || len(m.Answer) == maxQuestions {
			continue
		}
		m.Answer = append(m.Answer, &dns.PTR{
			Hdr: dns.RR_Header{Name: service, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: uint32(left / time.Second)},
			Ptr: i.name,
		})
	}
	return m.Pack()
}

// deadline returns when changes must be called again, if no message comes
// before: the next goodbye to come true.
func (c *cache) deadline() (t time.Time, ok bool) {
	for _, i := range c.instances {
		if i.leaving && (!ok || i.expires.Before(t)) {
			t, ok = i.expires, true
		}
	}
	return t, ok
}
