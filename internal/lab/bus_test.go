package lab_test

import (
	"strings"
	"testing"

	"mandos/internal/lab"
)

// The policy of the system bus: root may do everything, an ordinary user may
// not even look.
func TestBusPolicy(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		h := serve(t, link, s, section("alpha"))
		const (
			name   = "se.recompile.Mandos"
			client = "/clients/alpha"
		)
		h.AwaitUntil("root sees the client", func() bool {
			return strings.Contains(h.Try("mandos-ctl").Stdout, "alpha")
		})
		nobody := []string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"}
		for what, call := range map[string][]string{
			"list":       {"/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"},
			"introspect": {"/", "org.freedesktop.DBus.Introspectable", "Introspect"},
			"ping":       {"/", "org.freedesktop.DBus.Peer", "Ping"},
			"read":       {client, "org.freedesktop.DBus.Properties", "GetAll", "s", name + ".Client"},
			"enable":     {client, "org.freedesktop.DBus.Properties", "Set", "ssv", name + ".Client", "Enabled", "b", "true"},
			"approve":    {client, name + ".Client", "Approve", "b", "true"},
			"remove":     {"/", name, "RemoveClient", "o", client},
		} {
			for _, busName := range []string{name, "se.bsnet.fukt.Mandos"} {
				args := append([]string{"busctl", "--system", "call", busName}, call...)
				if r := h.Try(append(nobody, args...)...); r.Status == 0 || !strings.Contains(strings.ToLower(r.Stderr), "access denied") {
					t.Errorf("%s by %s: an ordinary user got status %d, %s%s", what, busName, r.Status, r.Stdout, r.Stderr)
				}
			}
		}
		if r := h.Try(append(nobody, "mandos-ctl")...); r.Status != 1 || !strings.Contains(r.Stderr, "only root") {
			t.Errorf("mandos-ctl of an ordinary user: status %d, %s%s", r.Status, r.Stdout, r.Stderr)
		}
		// Nor may one pose as the server.
		const own = "org.freedesktop.DBus"
		r := h.Try(append(nobody, "busctl", "--system", "call", own, "/org/freedesktop/DBus", own, "RequestName", "su", name, "4")...)
		if r.Status == 0 {
			t.Errorf("an ordinary user has the server's name: %s", r.Stdout)
		}
		// What was refused has changed nothing.
		if got := ctl(h, "--is-enabled", "alpha"); got != "" {
			t.Errorf("mandos-ctl --is-enabled printed %q", got)
		}
		// The API is sane to whoever looks around.
		if got := h.Run("busctl", "--system", "tree", "--list", name); !strings.Contains(got, client) {
			t.Errorf("busctl tree shows\n%s", got)
		}
		got := h.Run("busctl", "--system", "introspect", name, client)
		for _, want := range []string{".Enabled", ".Approve", ".GotSecret", "mandos.go.Client1", ".Status"} {
			if !strings.Contains(got, want) {
				t.Errorf("busctl introspect doesn't show %s:\n%s", want, got)
			}
		}
	})
}
