package lab_test

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// ourDeb is our package, as hosts see it.
func ourDeb(t *testing.T) string {
	t.Helper()
	return "/src/build/packages/" + filepath.Base(thePackage(t, "mandos_*.deb"))
}

// dpkg runs dpkg with nobody to ask.
func dpkg(h *lab.Host, args ...string) string {
	r := tryDpkg(h, args...)
	if r.Status != 0 {
		h.Run("sh", "-c", "echo 'dpkg: '"+fmt.Sprintf("%q", r.Stdout+r.Stderr)+"; exit 1") // fails the test
	}
	return r.Stdout + r.Stderr
}

func tryDpkg(h *lab.Host, args ...string) lab.Result {
	return h.Try(append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "dpkg"}, args...)...)
}

// clientsOf is what mandos-ctl tells.
func clientsOf(t *testing.T, h *lab.Host) (clients map[string]struct {
	Enabled bool
	Timeout int64
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(ctl(h, "--dump-json")), &clients); err != nil {
		t.Fatal(err)
	}
	return clients
}

// expectKept: the client "normal" is served, "disabled" is not, and the
// setting of "changed" is as it was made.
func expectKept(t *testing.T, server *lab.Host, address string) {
	t.Helper()
	expectSecret(t, server, address, "normal")
	expectSecret(t, server, address, "changed")
	expectRefusal(t, server, address, "disabled")
	clients := clientsOf(t, server)
	if !clients["normal"].Enabled || clients["disabled"].Enabled || !clients["changed"].Enabled {
		t.Errorf("the wrong ones are enabled: %+v", clients)
	}
	if clients["changed"].Timeout != 7*60*1000 || clients["normal"].Timeout != 5*60*1000 {
		t.Errorf("the settings are not as they were: %+v", clients)
	}
}

// Our package goes over Debian's: no client is enabled that an operator had
// disabled, no setting lost, no configuration changed. Debian's mandos-client
// is there all the time.
func TestPackageOverDebian(t *testing.T) {
	lab.Need(t)
	newer := ourDeb(t)
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := lab.NewLink(t).Boot(t, s, "server")

		// Debian's server, with a changed configuration and changed clients.
		dpkg(server, "--install", server.Sh("ls /opt/mandos_*_all.deb"))
		debians := server.Run("dpkg-query", "-W", "-f", "${Version}", "mandos")
		const needed = "fingerprint ="
		conf := "[DEFAULT]\nchecker = true\n\n" + section("normal", needed) + section("changed", needed) + section("disabled", needed)
		server.CopyIn(clientsConf, conf, 0o600)
		server.Sh("echo '# mine' >>/etc/mandos/mandos.conf")
		server.CopyIn("/etc/default/mandos", `DAEMON_ARGS="--port 7777 --servicename 'My Mandos' --debuglevel INFO"`+"\n", 0o644)
		configuration := func() string {
			return server.Sh("cd /etc; sha256sum mandos/mandos.conf mandos/clients.conf default/mandos mandos/plugin-runner.conf")
		}
		before := configuration()

		// It is killed before it can save its state: ours doesn't take its place.
		setUnit(server, "mandos.service", "[Service]\nKillSignal=SIGKILL\n")
		server.Run("systemctl", "restart", "mandos.service")
		if r := tryDpkg(server, "--install", newer); r.Status == 0 || !strings.Contains(r.Stdout+r.Stderr, "didn't stop in good order") {
			t.Errorf("over a server that is killed: exit status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
		}
		if got := server.Run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "mandos"); got != debians+" installed" {
			t.Errorf("after a failed installation the package is %s", got)
		}
		server.Run("rm", "/etc/systemd/system/mandos.service.d/test.conf")
		server.Run("systemctl", "daemon-reload")

		server.AwaitUntil("Debian's server runs again", func() bool { return server.Try("mandos-ctl", "--disable", "disabled").Status == 0 })
		ctl(server, "--timeout", "PT7M", "changed")

		// Ours over it.
		output := dpkg(server, "--install", newer)
		server.Await("", event(journal.OldStateTaken))
		server.Await("", event(journal.Ready))
		expectKept(t, server, net.JoinHostPort(server.LinkLocal(), "7777"))
		if got := server.Await("", event(journal.Announced)).Text("MANDOS_SERVICE"); got != "My Mandos" {
			t.Errorf("announced as %q", got)
		}
		if got := server.Journal("-u", "mandos", event(journal.OptionOverruled)); len(got) != 0 {
			t.Errorf("options are said to be overruled: %v", got)
		}
		if got := configuration(); got != before {
			t.Errorf("the configuration was\n%s\nand is\n%s", before, got)
		}
		if strings.Contains(output, "error") || strings.Contains(output, "warning: while") || strings.Contains(output, "Configuration file") {
			t.Errorf("dpkg said\n%s", output)
		}
		if got := server.Sh(`ls -d /etc/init.d/mandos* /etc/rc?.d/*mandos /etc/dbus-1/system.d/mandos* /etc/mandos/*.dpkg* /etc/default/*.dpkg* 2>&1 | grep -v 'cannot access' || true`); got != "" {
			t.Errorf("left of Debian's package:\n%s", got)
		}
		if got := server.Sh("systemctl is-enabled mandos.service mandos.socket; systemctl is-system-running --wait"); got != "enabled\nenabled\nrunning" {
			t.Errorf("units and system are\n%s\n%s", got, server.Run("systemctl", "--failed"))
		}
		if got := server.Run("stat", "-c", "%U:%G %a", "/var/lib/mandos/clients.pickle.imported"); got != "mandos:mandos 600" {
			t.Errorf("the old state is %s", got)
		}
		if got := server.Run("stat", "-c", "%U:%G %a", clientsConf, "/etc/mandos/plugin-runner.conf"); got != "root:mandos 640\nroot:root 644" {
			t.Errorf("the files of the configuration are\n%s", got)
		}

		// Debian's mandos-client is whole, and its command found first.
		if got := server.Run("dpkg", "--verify", "mandos-client"); got != "" {
			t.Errorf("Debian's mandos-client has changed:\n%s", got)
		}
		if got := server.Run("dpkg", "--audit"); got != "" {
			t.Errorf("dpkg --audit:\n%s", got)
		}
		if got := server.Sh("command -v mandos-keygen; dpkg -S /usr/sbin/mandos-keygen /usr/bin/mandos-keygen"); got !=
			"/usr/sbin/mandos-keygen\nmandos-client: /usr/sbin/mandos-keygen\nmandos: /usr/bin/mandos-keygen" {
			t.Errorf("mandos-keygen:\n%s", got)
		}

		server.Reboot()
		server.Await("", event(journal.Ready))
		expectKept(t, server, net.JoinHostPort(server.LinkLocal(), "7777"))
	})
}

// Whoever has disabled Debian's server has disabled ours, and what is on
// nobody's list is started by nobody.
func TestPackageOverDisabled(t *testing.T) {
	lab.Need(t)
	t.Parallel()
	server := lab.NewLink(t).Boot(t, lab.Trixie, "server")
	dpkg(server, "--install", server.Sh("ls /opt/mandos_*_all.deb"))
	server.Run("systemctl", "disable", "--now", "mandos.service")
	dpkg(server, "--install", ourDeb(t))
	if got := server.Sh("systemctl is-enabled mandos.service mandos.socket || true; systemctl is-active mandos.service mandos.socket || true"); got !=
		"disabled\ndisabled\ninactive\ninactive" {
		t.Errorf("service and socket are\n%s", got)
	}
	server.Reboot()
	if got := server.Sh("systemctl is-active mandos.service mandos.socket || true"); got != "inactive\ninactive" {
		t.Errorf("after a reboot, service and socket are\n%s", got)
	}
}
