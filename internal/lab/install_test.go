package lab_test

import (
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

const (
	port = "6637"
	// Where Debian's client is.
	debianClient = "/usr/lib/x86_64-linux-gnu/mandos/plugins.d/mandos-client"
	clientsConf  = "/etc/mandos/clients.conf"
)

// event makes journalctl's argument for an event.
func event(e journal.Event) string { return "MESSAGE_ID=" + e.ID }

// at returns the server's address for a client on the same link.
func at(server *lab.Host) string { return net.JoinHostPort(server.LinkLocal(), port) }

// install boots a host and installs mandos on it.
func install(t *testing.T, link *lab.Link, s lab.Suite, name string, opts ...lab.Option) *lab.Host {
	t.Helper()
	h := link.Boot(t, s, name, opts...)
	h.Run("make", "-C", "/src", "install")
	return h
}

// serve boots a host with a running server and these clients.
func serve(t *testing.T, link *lab.Link, s lab.Suite, clients ...string) *lab.Host {
	t.Helper()
	h := install(t, link, s, "server")
	h.CopyIn(clientsConf, "[DEFAULT]\nchecker = true\n\n"+strings.Join(clients, ""), 0o600)
	h.Run("systemctl", "enable", "--now", "mandos.socket")
	h.Await("", event(journal.Ready))
	return h
}

// ctl has an operator run mandos-ctl, as soon as the server is on the bus,
// which is some time after it is ready.
func ctl(h *lab.Host, args ...string) string {
	h.AwaitUntil("mandos-ctl reaches the server", func() bool { return h.Try("mandos-ctl").Status == 0 })
	return h.Run(append([]string{"mandos-ctl"}, args...)...)
}

// setUnit adds a drop-in to a unit.
func setUnit(h *lab.Host, unit, content string) {
	h.Run("mkdir", "-p", "/etc/systemd/system/"+unit+".d")
	h.CopyIn("/etc/systemd/system/"+unit+".d/test.conf", content, 0o644)
	h.Run("systemctl", "daemon-reload")
}

// expectSecret has the client ask once; it must get its secret.
func expectSecret(t *testing.T, from *lab.Host, address, client string) {
	t.Helper()
	if r := from.Try(as("ask", address, client)...); r.Status != 0 || r.Stdout != secretOf(client) {
		t.Errorf("%s got %q: %s", client, r.Stdout, r.Stderr)
	}
}

// expectRefusal has the client ask once; it must get nothing.
func expectRefusal(t *testing.T, from *lab.Host, address, client string) {
	t.Helper()
	r := from.Try(as("ask", address, client)...)
	if r.Status != 1 || r.Stdout != "" || !strings.Contains(r.Stderr, errRefused.Error()) {
		t.Errorf("%s was not refused but got %q: %s", client, r.Stdout, r.Stderr)
	}
}

// From make install to a password in three commands, by a client that has
// nothing but its link-local address. First Debian's client, then ours.
func TestInstallToPassword(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		const password = "the disk's password"
		link := lab.NewLink(t)
		server := link.Boot(t, s, "server")
		client := link.Boot(t, s, "client")
		client.CopyIn("/root/password", password, 0o600)

		// The three commands; the second one's output goes from one host to the other.
		server.Run("make", "-C", "/src", "install")
		line := client.Run("mandos-keygen", "--passfile", "/root/password", "--name", "client", "--no-ssh")
		server.CopyIn("/root/section", line+"\n", 0o600)
		server.Sh("cat /root/section >>" + clientsConf)
		server.Run("systemctl", "enable", "--now", "mandos.socket")

		// The service starts and is announced without any connection.
		if got := server.Await("", event(journal.Announced)).Text("MANDOS_SERVICE"); got != "Mandos" {
			t.Errorf("announced as %q", got)
		}
		if got := server.Journal("-u", "mandos", event(journal.Connected)); len(got) != 0 {
			t.Errorf("something connected before: %v", got)
		}
		// One thing was enabled.
		if got := server.Run("systemctl", "list-unit-files", "--no-legend", "--state=enabled", "mandos*"); !regexp.MustCompile(`^mandos\.socket +enabled +enabled *$`).MatchString(got) {
			t.Errorf("these units are enabled:\n%s", got)
		}

		r := client.Try("timeout", "300", "env", "MANDOSPLUGINHELPERDIR=/usr/lib/x86_64-linux-gnu/mandos/plugin-helpers",
			debianClient, "--interface=host0", "--network-hook-dir=/nonexistent", "--delay=0", "--debug",
			"--pubkey=/etc/keys/mandos/pubkey.txt", "--seckey=/etc/keys/mandos/seckey.txt",
			"--tls-pubkey=/etc/keys/mandos/tls-pubkey.pem", "--tls-privkey=/etc/keys/mandos/tls-privkey.pem")
		if r.Status != 0 || r.Stdout != password {
			t.Errorf("Debian's client exited with %d and printed %q: %s", r.Status, r.Stdout, r.Stderr)
		}
		// GnuTLS tells which messages it sends. It takes our key share, or it would
		// ask for another in a HelloRetryRequest: a second round trip.
		if !strings.Contains(r.Stderr, "SERVER HELLO was queued") || strings.Contains(r.Stderr, "HELLO RETRY REQUEST was queued") {
			t.Errorf("not one round trip with Debian's client: %s", r.Stderr)
		}
		got := client.Run("timeout", "300", "/src/build/mandos-client", "--interface=host0", "--delay=0",
			"--pubkey=/etc/keys/mandos/pubkey.txt", "--seckey=/etc/keys/mandos/seckey.txt",
			"--tls-pubkey=/etc/keys/mandos/tls-pubkey.pem", "--tls-privkey=/etc/keys/mandos/tls-privkey.pem")
		if got != password {
			t.Errorf("our client printed %q", got)
		}
	})
}

func TestSandbox(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := serve(t, lab.NewLink(t), s)
		pid := server.Run("systemctl", "show", "-P", "MainPID", "mandos.service")
		if got := server.Run("ps", "-o", "user:20=,group:20=", "-p", pid); strings.Join(strings.Fields(got), ":") != "mandos:mandos" {
			t.Errorf("the daemon runs as %s", got)
		}
		status := server.Run("cat", "/proc/"+pid+"/status")
		for _, set := range []string{"Inh", "Prm", "Eff", "Bnd", "Amb"} {
			if !strings.Contains(status, "Cap"+set+":\t0000000000000000\n") {
				t.Errorf("the capability set %s is not empty:\n%s", set, status)
			}
		}
		if !strings.Contains(status, "NoNewPrivs:\t1\n") || !strings.Contains(status, "Seccomp:\t2\n") {
			t.Errorf("no sandbox:\n%s", status)
		}

		// Its memory: no core dumps, no swap, and no way in, not even for a
		// process of the same user.
		limits := server.Run("cat", "/proc/"+pid+"/limits")
		if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).MatchString(limits) {
			t.Errorf("it may dump core:\n%s", limits)
		}
		if got := server.Run("systemctl", "show", "-P", "MemorySwapMax", "mandos.service"); got != "0" {
			t.Errorf("MemorySwapMax=%s", got)
		}
		same := []string{"setpriv", "--reuid=mandos", "--regid=mandos", "--clear-groups"}
		spied := server.Run(append(same, as("spy", pid)...)...) + "\n"
		for _, in := range intrusions {
			if !strings.Contains(spied, in.name+": refused, own child: possible\n") {
				t.Errorf("getting into the daemon by %s is not refused to its own user:\n%s", in.name, spied)
			}
		}

		security := server.Run("systemd-analyze", "security", "--no-pager", "mandos.service")
		found := regexp.MustCompile(`Overall exposure level for mandos.service: ([0-9.]+)`).FindStringSubmatch(security)
		if found == nil {
			t.Fatalf("systemd-analyze security printed\n%s", security)
		}
		if exposure, err := strconv.ParseFloat(found[1], 64); err != nil || exposure > 1.5 {
			t.Errorf("the exposure level is %s, more than 1.5:\n%s", found[1], security)
		}
		units := strings.Fields(server.Sh("cd /src/systemd; ls -d *.socket *.service *.slice"))
		if len(units) < 6 {
			t.Errorf("units %s", units)
		}
		r := server.Try(append([]string{"systemd-analyze", "verify", "--man=no"}, units...)...)
		if r.Status != 0 || r.Stdout+r.Stderr != "" {
			t.Errorf("systemd-analyze verify: exit status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
		}
	})
}

// make uninstall leaves nothing but configuration and state.
func TestUninstall(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := lab.NewLink(t).Boot(t, s, "server")
		files := `find / -xdev \( -path /src -o -path /var/lib -o -path /var/cache -o -path /var/log -o -path /run \) -prune -o -type f -newer /root/start -path '*mandos*' -print | sort`
		server.Sh("touch /root/start")
		server.Run("make", "-C", "/src", "install")
		if got := server.Sh(files); !strings.Contains(got, "mandos.service") {
			t.Fatalf("installed only\n%s", got)
		}
		server.CopyIn(clientsConf, section("kept"), 0o600)
		server.Run("systemctl", "enable", "--now", "mandos.socket")
		server.Await("", event(journal.Ready))
		server.Run("make", "-C", "/src", "uninstall")
		if got := server.Sh(files); got != clientsConf {
			t.Errorf("left behind:\n%s", got)
		}
		if r := server.Try("systemctl", "is-active", "mandos.service", "mandos.socket"); r.Status == 0 {
			t.Errorf("still running: %s", r.Stdout)
		}
	})
}
