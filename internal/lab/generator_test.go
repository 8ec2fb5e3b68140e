package lab_test

import (
	"strings"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// mandos.conf rules the socket, too: where it listens, and what is announced.
func TestSocketGenerator(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := install(t, link, s, "server")
		server.CopyIn(clientsConf, section("one"), 0o600)
		server.CopyIn("/etc/mandos/mandos.conf", "[DEFAULT]\nport = 1234\ninterface = host0\n", 0o644)
		server.Run("systemctl", "daemon-reload")
		server.Run("systemctl", "enable", "--now", "mandos.socket")
		server.Await("", event(journal.Announced))
		if got := server.Run("ss", "-Hltn"); !strings.Contains(got, "%host0:1234") || strings.Contains(got, ":6637") {
			t.Errorf("listening:\n%s", got)
		}
		if got := server.Journal("-u", "mandos", event(journal.OptionOverruled)); len(got) != 0 {
			t.Errorf("options are said to be overruled: %v", got)
		}
		client := link.Boot(t, s, "client")
		expectFound(t, client, "IPv6 Mandos 1234")

		// Without the keys, all is as shipped.
		server.CopyIn("/etc/mandos/mandos.conf", "[DEFAULT]\n", 0o644)
		server.Run("systemctl", "daemon-reload")
		server.Run("systemctl", "restart", "mandos.socket", "mandos.service")
		if got := server.Run("ss", "-Hltn"); !strings.Contains(got, ":6637") || strings.Contains(got, ":1234") {
			t.Errorf("listening:\n%s", got)
		}
	})
}
