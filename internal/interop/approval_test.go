package interop

import (
	"bytes"
	"testing"

	"github.com/godbus/dbus/v5"
)

// TestApproval: a client waits, and an operator decides, by either mandos-ctl
// and by either mandos-monitor.
func TestApproval(t *testing.T) {
	all := programs(t)
	keys := all["ours"].Keygen(t, "ed25519")
	password := []byte("the disk's password")
	asking := all["ours"].Section(t, keys, "asking", password) + "approval_delay = PT1H\napproved_by_default = no\n"

	for serverName, server := range all {
		for toolName, tool := range all {
			t.Run("server="+serverName+"/ctl="+toolName, func(t *testing.T) {
				t.Parallel()
				o := server.operate(t, asking)
				o.approval(t, all["debian"], keys, password, serverName == "debian", func() {}, func(approve bool) {
					option := map[bool]string{true: "--approve", false: "--deny"}[approve]
					if stdout, stderr, exit := o.run(t, tool.ctl, option, "asking"); exit != 0 {
						t.Fatalf("mandos-ctl %s: exit status %d; printed\n%s%s", option, exit, stdout, stderr)
					}
				})
			})
			t.Run("server="+serverName+"/monitor="+toolName, func(t *testing.T) {
				t.Parallel()
				o := server.operate(t, asking)
				s := o.screen(t, tool.monitor)
				s.shows(`asking: `)
				nobodyWaits := func() {
					if serverName == "ours" { // Debian's may never tell that one who hung up waits no more
						s.showsNot(`asking: Denial in`)
					}
				}
				o.approval(t, all["ours"], keys, password, serverName == "debian", nobodyWaits, func(approve bool) {
					s.shows(`asking: Denial in .*\(a\)pprove\?`)
					s.press(map[bool]string{true: "a", false: "d"}[approve])
				})
				s.shows(`received its secret`)
			})
		}
	}
}

// approval has a client of p ask, which is denied and gets nothing, and ask
// again, which is approved. Each word comes when the server waits for it, if
// that has to be so. denied is called between the two.
func (o *operated) approval(t *testing.T, p Programs, keys Keys, password []byte, whenIdle bool, denied func(), decide func(approve bool)) {
	t.Helper()
	ask := func(approve bool, outcome string, options ...string) (*Client, *dbus.Signal) {
		t.Helper()
		client := p.ask(t, keys, o.addr, options...)
		o.hear(t, "NeedApproval", 1)
		if whenIdle {
			o.idle(t)
		}
		decide(approve)
		return client, o.hear(t, outcome, 1)
	}
	client, s := ask(false, "Rejected", "--retry=3600") // else it might ask again before it is killed
	if len(s.Body) != 1 || s.Body[0] != "Denied" {
		t.Errorf("rejected with %v", s.Body)
	}
	if got := client.Kill(t); len(got) != 0 {
		t.Errorf("a denied client printed %q", abbreviate(got))
	}
	denied()

	client, _ = ask(true, "GotSecret")
	if got := client.Password(t); !bytes.Equal(got, password) {
		t.Errorf("got %q", abbreviate(got))
	}
}
