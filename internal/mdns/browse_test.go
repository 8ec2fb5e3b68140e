package mdns

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fakeSocket keeps what is sent, or fails.
type fakeSocket struct {
	socket
	err  error
	sent []*dns.Msg
}

func (s *fakeSocket) join(net.Interface) error { return nil }

func (s *fakeSocket) send(b []byte, _ net.Interface) error {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return err
	}
	s.sent = append(s.sent, m)
	return s.err
}

// TestAskWithoutIPv6: on a link that has only one of the address families, the
// other's vain tries don't keep questions from being asked.
func TestAskWithoutIPv6(t *testing.T) {
	for name, records := range map[string][]string{"SRV": {ptrA}, "A": {ptrA, srvA}} {
		none, some := &fakeSocket{err: errors.New("no such device")}, &fakeSocket{}
		c := &cache{}
		c.add(through(t, answer(rr(t, records...))), t0)
		ifi := net.Interface{Index: 1, Name: "x"}
		r := &browsing{Browser: Browser{Log: t.Logf}, caches: map[int]*cache{1: c}}
		r.ask(&link{ifi: ifi, sock: none}, t0)
		r.ask(&link{ifi: ifi, sock: some}, t0)
		if questions := some.sent[0].Question; len(questions) < 2 || dns.TypeToString[questions[len(questions)-1].Qtype] != name {
			t.Errorf("asked only %v, and not for %s", questions, name)
		}
		// What was asked isn't asked again at once.
		r.ask(&link{ifi: ifi, sock: some}, t0.Add(time.Second/2))
		if questions := some.sent[1].Question; len(questions) != 1 {
			t.Errorf("asked again %v", questions)
		}
	}
}
