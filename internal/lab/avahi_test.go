package lab_test

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// escape is how avahi-browse prints a byte that isn't plain.
var escape = regexp.MustCompile(`\\[0-9]{3}`)

func unescape(name string) string {
	return escape.ReplaceAllStringFunc(name, func(e string) string {
		n, _ := strconv.Atoi(e[1:]) // three digits
		return string(byte(n))
	})
}

// browse returns the names and ports of the servers that a host finds, sorted.
func browse(h *lab.Host) []string {
	var found []string
	for line := range strings.Lines(h.Try("avahi-browse", "--parsable", "--resolve", "--terminate", "_mandos._tcp").Stdout) {
		if f := strings.Split(line, ";"); f[0] == "=" && f[1] == "host0" {
			found = append(found, f[2]+" "+unescape(f[3])+" "+f[8])
		}
	}
	slices.Sort(found)
	return found
}

func expectFound(t *testing.T, h *lab.Host, want ...string) {
	t.Helper()
	var got []string
	h.AwaitUntil("finding "+strings.Join(want, ", "), func() bool {
		got = browse(h)
		return slices.Equal(got, want)
	})
}

func TestAvahiRestartsAndStops(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("one"))
		client := link.Boot(t, s, "client")
		expectFound(t, client, "IPv6 Mandos 6637")

		since := server.Now()
		server.Run("systemctl", "restart", "avahi-daemon.service")
		server.Await(since, event(journal.Announced))
		expectFound(t, client, "IPv6 Mandos 6637")

		since = server.Now()
		server.Run("systemctl", "stop", "avahi-daemon.socket", "avahi-daemon.service")
		server.Await(since, event(journal.AvahiMissing))
		expectSecret(t, client, at(server), "one")
		server.Run("systemctl", "start", "avahi-daemon.service")
		server.Await(since, event(journal.Announced))
		expectFound(t, client, "IPv6 Mandos 6637")
		if got := server.Journal("-u", "mandos", "--since", since, event(journal.AvahiMissing)); len(got) != 1 {
			t.Errorf("avahi-daemon's absence was logged %d times, not once", len(got))
		}
	})
}

func TestAvahiAbsentAtStart(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := install(t, link, s, "server")
		server.Run("systemctl", "stop", "avahi-daemon.socket", "avahi-daemon.service")
		server.CopyIn(clientsConf, section("one"), 0o600)
		server.Run("systemctl", "enable", "--now", "mandos.socket")
		server.Await("", event(journal.AvahiMissing))
		expectSecret(t, server, at(server), "one")
		if r := server.Try("systemctl", "is-active", "avahi-daemon.service"); r.Status == 0 {
			t.Error("we started avahi-daemon, which the operator had stopped")
		}
		server.Run("systemctl", "start", "avahi-daemon.service")
		server.Await("", event(journal.Announced))
	})
}

// Two servers with one name: one is renamed, both are found.
func TestTwoServers(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		first := serve(t, link, s)
		first.Await("", event(journal.Announced))
		second := install(t, link, s, "second")
		second.Run("systemctl", "enable", "--now", "mandos.socket")
		second.Await("", event(journal.Announced))
		expectFound(t, link.Boot(t, s, "client"), "IPv6 Mandos #2 6637", "IPv6 Mandos 6637")
		// It is the second, if the first hears its probes in time (RFC 6762
		// section 8.1: less than a second); else one of them gives way later.
		first.AwaitUntil("each server has told its last name", func() bool {
			var names []string
			for _, h := range []*lab.Host{first, second} {
				told := h.Journal("-u", "mandos", event(journal.Announced))
				names = append(names, told[len(told)-1].Text("MANDOS_SERVICE"))
			}
			slices.Sort(names)
			return slices.Equal(names, []string{"Mandos", "Mandos #2"})
		})
	})
}

// A server for IPv4 only.
func TestIPv4(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := install(t, link, s, "server", lab.IPv4("192.0.2.1/24"))
		client := link.Boot(t, s, "client", lab.IPv4("192.0.2.2/24"))
		server.CopyIn(clientsConf, section("one"), 0o600)
		setUnit(server, "mandos.socket", "[Socket]\nListenStream=\nListenStream=0.0.0.0:6637\n")
		server.CopyIn("/etc/default/mandos", "DAEMON_ARGS=--no-ipv6\n", 0o644)
		server.Run("systemctl", "enable", "--now", "mandos.socket")
		expectSecret(t, client, "192.0.2.1:6637", "one")
		server.Await("", event(journal.Announced))
		expectFound(t, client, "IPv4 Mandos 6637")
	})
}
