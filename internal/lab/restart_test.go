package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// 200 clients connect, each a single time, while the service is restarted
// five times: the socket stays open and connections wait in it.
func TestRestartsUnderLoad(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		const restarts, wave = 5, 40
		var clients []string
		for i := range restarts * wave {
			clients = append(clients, section(fmt.Sprintf("crowd-%d", i)))
		}
		link := lab.NewLink(t)
		server := serve(t, link, s, clients...)
		client := link.Boot(t, s, "client")

		crowd := client.Start(as("crowd", at(server), fmt.Sprint(wave))...)
		for range restarts {
			crowd.Tell("now")
			server.Run("systemctl", "restart", "mandos.service")
		}
		if got, want := crowd.Wait().Stdout, fmt.Sprintf("%d of %[1]d served", restarts*wave); got != want {
			t.Errorf("%s; want %s", got, want)
		}
		server.Run("journalctl", "--sync")
		const unitStarted = "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf" // systemd's own
		if got := len(server.Journal("_PID=1", "UNIT=mandos.service", unitStarted)); got != restarts+1 {
			t.Errorf("the service was started %d times, want %d", got, restarts+1)
		}
	})
}

func TestKilled(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("one"))
		client := link.Boot(t, s, "client")
		since := server.Now()
		server.Run("systemctl", "kill", "--signal=KILL", "mandos.service")
		expectSecret(t, client, at(server), "one") // connects while the service waits for its restart
		server.Await(since, event(journal.Ready))
		server.Await(since, event(journal.Announced))
	})
}

func TestHung(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("one"))
		client := link.Boot(t, s, "client")
		// As in the unit, only faster; but not so fast that it ends a server
		// which is only short of processor time.
		setUnit(server, "mandos.service", "[Service]\nWatchdogSec=6\n")
		server.Run("systemctl", "restart", "mandos.service")
		since := server.Now()
		server.Run("systemctl", "kill", "--signal=STOP", "mandos.service")
		expectSecret(t, client, at(server), "one")
		server.Await(since, "UNIT=mandos.service", "UNIT_RESULT=watchdog")
		server.Await(since, event(journal.Ready))
	})
}

// A stop with sessions open, of which one would stay for ten minutes: goodbye
// to Avahi, and exit status 0.
func TestStop(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("waits", "approval_delay = PT10M", "approved_by_default = no"))
		client := link.Boot(t, s, "client")
		server.Await("", event(journal.Announced))
		browse := client.Start("avahi-browse", "--parsable", "_mandos._tcp")
		browse.Line("+;host0;IPv6;Mandos;")

		hold := client.Start(as("hold", at(server), "20")...)
		hold.Line("holding")
		waits := client.Start(as("ask", at(server), "waits")...)
		server.AwaitUntil("the client waits for approval", func() bool {
			return strings.Contains(server.Run("systemctl", "show", "-P", "StatusText", "mandos.service"), "1 waiting")
		})

		setUnit(server, "mandos.service", "[Service]\nTimeoutStopSec=1min\n") // then it would be killed
		server.Run("systemctl", "stop", "mandos.socket")
		server.AwaitUntil("the service has stopped", func() bool {
			return server.Run("systemctl", "show", "-P", "SubState", "mandos.service") != "stop-sigterm"
		})
		if got := server.Run("systemctl", "show", "-p", "ActiveState,Result,ExecMainCode,ExecMainStatus", "mandos.service"); got !=
			"Result=success\nExecMainCode=1\nExecMainStatus=0\nActiveState=inactive" {
			t.Errorf("after the stop:\n%s", got)
		}
		browse.Line("-;host0;IPv6;Mandos;")
		if r := waits.Wait(); r.Status == 0 || r.Stdout != "" {
			t.Errorf("the waiting client got %q", r.Stdout)
		}
	})
}

// Stopping the socket stops the service; starting either starts both.
func TestSocketAndServiceGoTogether(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("one"))
		active := func(unit, state string) {
			t.Helper()
			server.AwaitUntil(unit+" is "+state, func() bool {
				return server.Run("systemctl", "show", "-P", "ActiveState", unit) == state
			})
		}
		for _, first := range []string{"mandos.service", "mandos.socket"} {
			server.Run("systemctl", "stop", "mandos.socket")
			active("mandos.socket", "inactive")
			active("mandos.service", "inactive")
			server.Run("systemctl", "start", first)
			active("mandos.socket", "active")
			active("mandos.service", "active")
			expectSecret(t, server, at(server), "one")
		}
		// Across a reboot, only by the socket's being enabled.
		server.Reboot()
		server.Await("", event(journal.Announced))
		expectSecret(t, server, at(server), "one")
		// And a power cut, after which the state must still open.
		server.PowerCut()
		server.PowerOn()
		server.Await("", event(journal.Ready))
		expectSecret(t, server, at(server), "one")
	})
}

// The socket can be restarted while the old one is still open somewhere, as it
// is for a moment in a process that systemd has forked to remove PrivateTmp=.
func TestSocketRestartsWhileOpen(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := serve(t, lab.NewLink(t), s, section("one"))
		old := server.Start(as("hoard", port)...)
		old.Line("holding")
		server.Run("systemctl", "restart", "mandos.socket")
		if r := old.Wait(); r.Status != 0 {
			t.Errorf("holding the old socket: %+v", r)
		}
		expectSecret(t, server, at(server), "one")
	})
}
