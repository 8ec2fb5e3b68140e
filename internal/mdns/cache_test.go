package mdns

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rr reads records in the form of a zone file. "flush" after the TTL sets
// the cache-flush bit.
func rr(t testing.TB, lines ...string) []dns.RR {
	t.Helper()
	var all []dns.RR
	for _, line := range lines {
		plain := strings.Replace(line, " flush ", " ", 1)
		r, err := dns.NewRR(plain)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if plain != line {
			r.Header().Class |= flushBit
		}
		all = append(all, r)
	}
	return all
}

func answer(records []dns.RR, more ...dns.RR) *dns.Msg {
	return &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Answer: records, Extra: more}
}

// through packs and parses m, as if it had come from the link.
func through(t testing.TB, m *dns.Msg) *dns.Msg {
	t.Helper()
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func addrs(s ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range s {
		all = append(all, netip.MustParseAddrPort(a))
	}
	return all
}

const (
	ptrA  = `_mandos._tcp.local. 4500 IN PTR Mandos._mandos._tcp.local.`
	srvA  = `Mandos._mandos._tcp.local. 120 flush IN SRV 0 0 6637 host.local.`
	addr6 = `host.local. 120 flush IN AAAA fe80::1`
	addr4 = `host.local. 120 flush IN A 192.0.2.1`
)

// A step is an answer that comes in, and what follows from it.
type step struct {
	after   time.Duration // since the step before
	records []string
	want    []change
	ask     string // the follow-up questions
}

func TestCache(t *testing.T) {
	name := "mandos._mandos._tcp.local."
	here := func(a ...string) []change { return []change{{name, addrs(a...)}} }
	gone := []change{{instance: name}}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"all in one answer", []step{
			{0, []string{ptrA, srvA, addr4, addr6}, here("[fe80::1]:6637", "192.0.2.1:6637"), ""},
			{time.Second, []string{ptrA, srvA, addr4, addr6}, nil, ""},
		}},
		{"in the worst order", []step{
			{0, []string{addr6, srvA, ptrA}, here("[fe80::1]:6637"), ""},
		}},
		{"one by one", []step{
			{0, []string{ptrA}, nil, "SRV mandos._mandos._tcp.local."},
			{0, []string{ptrA}, nil, ""}, // not twice within a second
			{time.Second, nil, nil, "SRV mandos._mandos._tcp.local."},
			{0, []string{srvA}, nil, "AAAA host.local. A host.local."},
			{0, []string{addr6}, here("[fe80::1]:6637"), ""},
			{0, []string{addr4}, here("[fe80::1]:6637", "192.0.2.1:6637"), ""},
		}},
		{"capitals don't matter", []step{
			{0, []string{`_MANDOS._TCP.Local. 9 IN PTR MANDOS._mandos._tcp.LOCAL.`, `mandos._mandos._tcp.local. 9 IN SRV 0 0 6637 HOST.local.`, addr6}, here("[fe80::1]:6637"), ""},
		}},
		{"order of addresses", []step{
			{0, []string{ptrA, srvA, `host.local. 9 IN A 192.0.2.1`, `host.local. 9 IN AAAA 2001:db8::1`, `host.local. 9 IN AAAA fe80::9`, `host.local. 9 IN AAAA fe80::1`},
				here("[fe80::1]:6637", "[fe80::9]:6637", "[2001:db8::1]:6637", "192.0.2.1:6637"), ""},
		}},
		{"goodbye", []step{
			{0, []string{ptrA, srvA, addr6}, here("[fe80::1]:6637"), ""},
			{time.Minute, []string{`_mandos._tcp.local. 0 IN PTR Mandos._mandos._tcp.local.`}, nil, ""},
			{time.Second, nil, gone, ""},
			{time.Second, []string{ptrA, srvA, addr6}, here("[fe80::1]:6637"), ""},
		}},
		{"goodbye that is contradicted", []step{
			{0, []string{ptrA, srvA, addr6}, here("[fe80::1]:6637"), ""},
			{time.Minute, []string{`_mandos._tcp.local. 0 IN PTR Mandos._mandos._tcp.local.`}, nil, ""},
			{time.Second / 2, []string{ptrA}, nil, ""},
			{time.Second, nil, nil, ""},
		}},
		{"goodbye of nobody", []step{
			{0, []string{`_mandos._tcp.local. 0 IN PTR Mandos._mandos._tcp.local.`}, nil, ""},
			{time.Second, nil, nil, ""},
		}},
		{"another port and host", []step{
			{0, []string{ptrA, srvA, addr6}, here("[fe80::1]:6637"), ""},
			{time.Minute, []string{`Mandos._mandos._tcp.local. 120 flush IN SRV 0 0 7000 host.local.`}, here("[fe80::1]:7000"), ""},
			{time.Minute, []string{`Mandos._mandos._tcp.local. 120 flush IN SRV 0 0 7000 other.local.`, `other.local. 120 IN AAAA fe80::2`}, here("[fe80::2]:7000"), ""},
		}},
		{"a new address replaces the old one", []step{
			{0, []string{ptrA, srvA, addr6, addr4}, here("[fe80::1]:6637", "192.0.2.1:6637"), ""},
			{time.Minute, []string{`host.local. 120 flush IN AAAA fe80::2`}, here("[fe80::1]:6637", "[fe80::2]:6637", "192.0.2.1:6637"), ""},
			{time.Second, nil, here("[fe80::2]:6637", "192.0.2.1:6637"), ""},
		}},
		{"two addresses with the flush bit stay", []step{
			{0, []string{ptrA, srvA, `host.local. 120 flush IN AAAA fe80::1`, `host.local. 120 flush IN AAAA fe80::2`}, here("[fe80::1]:6637", "[fe80::2]:6637"), ""},
			{time.Minute, []string{`host.local. 120 flush IN AAAA fe80::1`, `host.local. 120 flush IN AAAA fe80::2`}, nil, ""},
			{2 * time.Second, nil, nil, ""},
		}},
		{"time that runs out is no goodbye", []step{
			{0, []string{ptrA, srvA, addr6}, here("[fe80::1]:6637"), ""},
			{10 * time.Hour, nil, nil, "AAAA host.local. A host.local."},
			{0, []string{addr6}, nil, ""},
		}},

		{"wrong names", []step{
			{0, []string{
				`_http._tcp.local. 9 IN PTR Mandos._mandos._tcp.local.`,     // another service's
				`_mandos._tcp.local. 9 IN PTR Mandos._http._tcp.local.`,     // of another service
				`_mandos._tcp.local. 9 IN PTR _mandos._tcp.local.`,          // no instance
				`_mandos._tcp.local. 9 IN PTR a.b._mandos._tcp.local.`,      // a label too many
				`_mandos._tcp.local. 9 IN PTR x\._mandos._tcp.local.`,       // a dot that isn't one
				`_mandos._tcp.local. 9 IN PTR Mandos._mandos._tcp.example.`, // not of this link
				`_mandos._tcp.example. 9 IN PTR M._mandos._tcp.example.`,
				`_mandos._tcp.local. 9 CH PTR Mandos._mandos._tcp.local.`, // another class
			}, nil, ""},
			{0, []string{srvA, addr6}, nil, ""}, // nobody asked for these
		}},
		{"addresses that are none", []step{
			{0, []string{ptrA, srvA, `host.local. 9 IN AAAA ::1`, `host.local. 9 IN AAAA ::`, `host.local. 9 IN AAAA ff02::1`, `host.local. 9 IN AAAA ::ffff:192.0.2.1`,
				`host.local. 9 IN A 127.0.0.1`, `host.local. 9 IN A 0.0.0.0`, `host.local. 9 IN A 224.0.0.251`, `other.local. 9 IN A 192.0.2.1`}, nil, "AAAA host.local. A host.local."},
		}},
		{"no port, no host", []step{
			{0, []string{ptrA, `Mandos._mandos._tcp.local. 9 IN SRV 0 0 0 host.local.`, addr6}, nil, "SRV mandos._mandos._tcp.local."},
			{0, []string{`Mandos._mandos._tcp.local. 9 IN SRV 0 0 80 .`}, nil, ""},
		}},
		{"a host that multicast DNS can't find", []step{
			{0, []string{ptrA, `Mandos._mandos._tcp.local. 9 IN SRV 0 0 80 host.example.org.`}, nil, ""},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c cache
			now := t0
			for i, s := range tt.steps {
				now = now.Add(s.after)
				if s.records != nil {
					c.add(through(t, answer(rr(t, s.records...))), now)
				}
				if got := c.changes(now); !reflect.DeepEqual(got, s.want) {
					t.Errorf("step %d: changes %v, want %v", i, got, s.want)
				}
				var ask []string
				for _, q := range c.missing(now) {
					ask = append(ask, dns.TypeToString[q.Qtype]+" "+q.Name)
				}
				if got := strings.Join(ask, " "); got != s.ask {
					t.Errorf("step %d: asks %q, want %q", i, got, s.ask)
				}
			}
		})
	}
}

// A service's name may hold anything, dots too (RFC 6763, section 4.1.1).
func TestAnyInstanceName(t *testing.T) {
	for _, label := range []string{`Mandos\.example\.org`, `Mandos #2`, `M\195\164ndos`, `a\\b`, `\000\001`, strings.Repeat("x", 63)} {
		instance := strings.ReplaceAll(label, " ", `\032`) + "._mandos._tcp.local."
		var c cache
		c.add(through(t, answer(rr(t, `_mandos._tcp.local. 9 IN PTR `+instance, instance+` 9 IN SRV 0 0 6637 host.local.`, addr6))), t0)
		if got := c.changes(t0); len(got) != 1 || len(got[0].addrs) != 1 {
			t.Errorf("%s: changes %v", label, got)
		}
		// What is known is said in the next query, so that it isn't answered.
		b, err := c.query(nil, t0)
		if err != nil {
			t.Errorf("%s: %v", label, err)
		}
		var m dns.Msg
		if err := m.Unpack(b); err != nil || len(m.Answer) != 1 || dns.CanonicalName(m.Answer[0].(*dns.PTR).Ptr) != c.changesName() {
			t.Errorf("%s: known answers %v, %v", label, m.Answer, err)
		}
	}
}

func (c *cache) changesName() string {
	for name := range c.instances {
		return name
	}
	return ""
}

func TestQuery(t *testing.T) {
	var c cache
	c.add(answer(rr(t, ptrA, srvA, addr6, `_mandos._tcp.local. 4500 IN PTR incomplete._mandos._tcp.local.`)), t0)
	for after, known := range map[time.Duration]int{0: 1, 2249 * time.Second: 1, 2251 * time.Second: 0} { // half of 4500 s: RFC 6762, section 7.1
		b, err := c.query([]dns.Question{{Name: "host.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}, t0.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(b); err != nil {
			t.Fatal(err)
		}
		if m.Response || m.Id != 0 || m.RecursionDesired || m.Opcode != dns.OpcodeQuery {
			t.Errorf("header %+v", m.MsgHdr)
		}
		if len(m.Question) != 2 || m.Question[0] != (dns.Question{Name: service, Qtype: dns.TypePTR, Qclass: dns.ClassINET}) {
			t.Errorf("questions %v", m.Question)
		}
		if len(m.Answer) != known {
			t.Errorf("after %v: known answers %v, want %d", after, m.Answer, known)
		}
	}
}

// However much a link's hosts announce, little is kept, and what is asked
// fits in a packet.
func TestCacheIsBounded(t *testing.T) {
	var c cache
	for n := range 10 * maxInstances {
		i := fmt.Sprintf("%s%d._mandos._tcp.local.", strings.Repeat("x", 50), n)
		h := fmt.Sprintf("%s%d.local.", strings.Repeat("y", 50), n)
		c.add(through(t, answer(rr(t, "_mandos._tcp.local. 4294967295 IN PTR "+i, i+" 9 IN SRV 0 0 80 "+h))), t0)
	}
	if len(c.instances) > maxInstances {
		t.Errorf("%d instances are kept", len(c.instances))
	}
	for name, i := range c.instances {
		if i.expires.Sub(t0) > maxTTL {
			t.Fatalf("%s is believed for %v", name, i.expires.Sub(t0))
		}
		for n := range 10 * maxAddrs {
			c.add(answer(rr(t, fmt.Sprintf("%s 9 IN AAAA fe80::%x", i.host, n+1))), t0)
		}
		if len(i.addrs) != maxAddrs {
			t.Errorf("%d addresses are kept", len(i.addrs))
		}
		break
	}
	query, err := c.query(c.missing(t0), t0)
	if err != nil || len(query) > maxPacket {
		t.Errorf("a query of %d bytes, %v", len(query), err)
	}
}

func TestParseRefuses(t *testing.T) {
	good, err := answer(rr(t, ptrA, srvA, addr6)).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(good); err != nil {
		t.Fatal(err)
	}
	change := func(f func(m *dns.Msg)) []byte {
		m := answer(rr(t, ptrA))
		f(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	header := func(counts ...byte) []byte { return append([]byte{0, 0, 0x84, 0}, counts...) }
	for name, packet := range map[string][]byte{
		"nothing":             nil,
		"a query":             change(func(m *dns.Msg) { m.Response = false }),
		"another opcode":      change(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }),
		"an error code":       change(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }),
		"too long":            append(good, make([]byte, maxPacket)...),
		"a name in itself":    append(header(0, 0, 0, 1, 0, 0, 0, 0), 0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12),
		"two names in a ring": append(header(0, 0, 0, 1, 0, 0, 0, 0), 0xc0, 14, 0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12),
		"a pointer ahead":     append(header(0, 0, 0, 1, 0, 0, 0, 0), 0xc0, 0xff, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12),
		"a long label":        append(header(0, 0, 0, 1, 0, 0, 0, 0), 0x40, 'x', 0, 0, 12, 0, 1, 0, 0, 0, 9, 0, 1, 0),
	} {
		if m, err := parse(packet); err == nil {
			t.Errorf("%s: not refused: %v", name, m)
		}
	}
	for i := range good {
		if m, err := parse(good[:i]); err == nil && len(m.Answer) == 3 {
			t.Errorf("%d of %d bytes: not refused", i, len(good))
		}
	}
}

func TestFromLink(t *testing.T) {
	link := func() []netip.Prefix {
		return []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	}
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		name string
		h    header
		want bool
	}{
		{"multicast, IPv6", header{1, netip.MustParseAddrPort("[fe80::2%1]:5353"), group6, 255}, true},
		{"multicast, IPv4", header{1, netip.MustParseAddrPort("198.51.100.1:5353"), group4, 255}, true},
		{"unicast from the link, IPv4", header{1, netip.MustParseAddrPort("192.0.2.9:5353"), addr("192.0.2.1"), 255}, true},
		{"unicast from the link, IPv6", header{1, netip.MustParseAddrPort("[2001:db8::9]:5353"), addr("2001:db8::1"), 255}, true},
		{"unicast, link-local", header{1, netip.MustParseAddrPort("[fe80::2%1]:5353"), addr("fe80::1"), 255}, true},
		{"unicast, IPv4 link-local", header{1, netip.MustParseAddrPort("169.254.1.1:5353"), addr("169.254.1.2"), 255}, true},

		{"unicast from elsewhere", header{1, netip.MustParseAddrPort("198.51.100.1:5353"), addr("192.0.2.1"), 255}, false},
		{"unicast from elsewhere, IPv6", header{1, netip.MustParseAddrPort("[2001:db8:1::9]:5353"), addr("2001:db8::1"), 255}, false},
		{"over a router", header{1, netip.MustParseAddrPort("192.0.2.9:5353"), addr("192.0.2.1"), 254}, false},
		{"another port", header{1, netip.MustParseAddrPort("192.0.2.9:5354"), addr("192.0.2.1"), 255}, false},
		{"another port, multicast", header{1, netip.MustParseAddrPort("[fe80::2%1]:53"), group6, 255}, false},
		{"another group", header{1, netip.MustParseAddrPort("[fe80::2%1]:5353"), addr("ff05::fb"), 255}, false},
		{"unknown destination", header{1, netip.MustParseAddrPort("[fe80::2%1]:5353"), netip.Addr{}, 255}, false},
		{"unknown interface", header{0, netip.MustParseAddrPort("[fe80::2]:5353"), group6, 255}, false},
	} {
		if got := fromLink(tt.h, link); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// FuzzParse: whatever comes by multicast, what is kept of it is bounded, and
// only addresses that a server can have come out.
func FuzzParse(f *testing.F) {
	for _, records := range [][]string{{ptrA, srvA, addr6, addr4}, {ptrA}, {`_mandos._tcp.local. 0 IN PTR Mandos._mandos._tcp.local.`}} {
		m := answer(rr(f, records...))
		m.Compress = true
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := parse(packet)
		if err != nil {
			return
		}
		var c cache
		now := t0
		for range 3 {
			c.add(m, now)
			for _, change := range c.changes(now) {
				if len(change.addrs) > maxAddrs {
					t.Errorf("%d addresses", len(change.addrs))
				}
				for _, a := range change.addrs {
					if a.Port() == 0 || a.Addr().IsLoopback() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Zone() != "" {
						t.Errorf("address %v", a)
					}
				}
			}
			if len(c.instances) > maxInstances {
				t.Errorf("%d instances", len(c.instances))
			}
			if b, err := c.query(c.missing(now), now); err != nil {
				t.Errorf("what was read can't be written: %v", err)
			} else if len(b) > 2*maxPacket {
				t.Errorf("a query of %d bytes", len(b))
			}
			now = now.Add(time.Second)
		}
	})
}
