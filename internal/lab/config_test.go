package lab_test

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

const waiting = "approval_delay = PT10M\napproved_by_default = no\napproval_duration = PT1M"

// awaitPending waits until a client waits for approval.
func awaitPending(server *lab.Host) {
	server.AwaitUntil("a client waits for approval", func() bool {
		return strings.Contains(server.Run("systemctl", "show", "-P", "StatusText", "mandos.service"), "1 waiting")
	})
}

func TestReload(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("old"), section("waits", waiting))
		client := link.Boot(t, s, "client")
		waits := client.Start(as("ask", at(server), "waits")...)
		awaitPending(server)
		expectRefusal(t, client, at(server), "new")

		// A good file, written by root as editors do, with mode 0600.
		since := server.Now()
		server.CopyIn(clientsConf, section("old")+section("waits", waiting)+section("new"), 0o600)
		server.Run("systemctl", "reload", "mandos.service")
		server.Await(since, event(journal.Reloaded))
		expectSecret(t, client, at(server), "new")
		if !waits.Running() {
			t.Error("the reload ended a running session")
		}

		// A broken one.
		since = server.Now()
		server.CopyIn(clientsConf, section("old")+"[broken]\ntimeout = soon\n", 0o600)
		if r := server.Try("systemctl", "reload", "mandos.service"); r.Status == 0 {
			t.Error("systemctl reload succeeded with a broken file")
		}
		server.Run("journalctl", "--sync")
		log := server.Run("journalctl", "-u", "mandos", "-o", "cat", "--since", since)
		if !regexp.MustCompile(`clients\.conf:\d+: .*timeout`).MatchString(log) {
			t.Errorf("the journal does not name the line:\n%s", log)
		}
		expectSecret(t, client, at(server), "new")

		// The session that began before both.
		ctl(server, "--approve", "waits")
		if r := waits.Wait(); r.Stdout != secretOf("waits") {
			t.Errorf("the session across two reloads got %q: %s", r.Stdout, r.Stderr)
		}

		// A reload that is asked for during a start waits until the service is
		// ready: a process that handles no signals yet would end by SIGHUP.
		server.CopyIn(clientsConf, section("old")+section("new"), 0o600)
		for range 5 {
			server.Run("systemctl", "restart", "--no-block", "mandos.service")
			server.Run("systemctl", "reload", "mandos.service")
		}
		expectSecret(t, client, at(server), "new")
		server.Run("journalctl", "--sync")
		if killed := server.Journal("_PID=1", "UNIT=mandos.service", "EXIT_CODE=killed"); len(killed) > 0 {
			t.Errorf("reloads during starts ended the service: %v", killed)
		}
	})
}

// The service can't start, a client waits on the socket, the file is mended,
// and the client is served with no other command typed.
func TestBrokenFileAtStart(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := install(t, link, s, "server")
		client := link.Boot(t, s, "client")
		server.CopyIn(clientsConf, section("one")+"[broken]\ntimeout = soon\n", 0o600)
		server.Run("systemctl", "enable", "--now", "mandos.socket")
		one := client.Start(as("ask", at(server), "one")...)
		// It is tried again and again; five failures are more than the usual start limit allows.
		server.AwaitUntil("five failures", func() bool {
			return len(server.Journal("_PID=1", "UNIT=mandos.service", "UNIT_RESULT=exit-code")) >= 5
		})
		if got := server.Run("systemctl", "show", "-P", "ActiveState", "mandos.socket"); got != "active" {
			t.Errorf("the socket is %s", got)
		}
		if !one.Running() {
			t.Errorf("the waiting client was turned away: %+v", one.Wait())
		}
		server.Run("journalctl", "--sync")
		log := server.Run("journalctl", "-u", "mandos", "-o", "cat")
		if !regexp.MustCompile(`clients\.conf:\d+: .*timeout`).MatchString(log) {
			t.Errorf("the journal does not name the line:\n%s", log)
		}
		server.CopyIn(clientsConf, section("one"), 0o600)
		if r := one.Wait(); r.Stdout != secretOf("one") {
			t.Errorf("the waiting client got %q: %s", r.Stdout, r.Stderr)
		}
	})
}

// Root's editor and mandos-keygen leave a mode of 0600 behind.
func TestFileModes(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := serve(t, lab.NewLink(t), s, section("one"))
		mode := func() string { return server.Run("stat", "-c", "%a %U %G", clientsConf) }
		if got := mode(); got != "640 root mandos" {
			t.Errorf("after the start the file is %s", got)
		}
		for _, verb := range []string{"reload", "restart"} {
			// As an editor does: a new file, renamed over the old one.
			server.CopyIn(clientsConf+".new", section("one")+section(verb), 0o600)
			server.Run("mv", clientsConf+".new", clientsConf)
			since := server.Now()
			server.Run("systemctl", verb, "mandos.service")
			if verb == "reload" {
				server.Await(since, event(journal.Reloaded))
			}
			expectSecret(t, server, at(server), verb)
			if got := mode(); got != "640 root mandos" {
				t.Errorf("after the %s the file is %s", verb, got)
			}
		}
	})
}

// One clear message each, and the right exit status.
func TestMisuse(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("one"))
		refused := func(what, want string, args ...string) {
			t.Helper()
			r := server.Try(append([]string{"timeout", "100", "mandos", "--no-dbus", "--no-zeroconf", "--statedir=/root/state"}, args...)...)
			message := strings.TrimSpace(r.Stderr)
			if r.Status != 1 || !regexp.MustCompile(want).MatchString(message) || strings.Count(message, "\n") > 0 {
				t.Errorf("%s: exit status %d, message\n%s\nwant one line with %s", what, r.Status, message, want)
			}
		}
		server.Run("mkdir", "-p", "/root/state", "/root/open")
		refused("a port in use", `6637.*address already in use`, "--port=6637")
		server.CopyIn("/root/open/clients.conf", section("one"), 0o644)
		refused("a clients.conf that others can read", `/root/open/clients\.conf.*(chmod|mode|permission|read)`, "--port=7000", "--configdir=/root/open")

		// No clients.conf: a warning, and the server runs.
		server.Run("rm", clientsConf)
		since := server.Now()
		server.Run("systemctl", "restart", "mandos.service")
		server.Await(since, "_SYSTEMD_UNIT=mandos.service", "PRIORITY=4")
		expectRefusal(t, server, at(server), "one")
		server.CopyIn(clientsConf, section("one"), 0o600)

		// --port under socket activation: one warning that names the drop-in to edit.
		server.CopyIn("/etc/default/mandos", "DAEMON_ARGS=--port=7000\n", 0o644)
		since = server.Now()
		server.Run("systemctl", "restart", "mandos.service")
		server.Await(since, event(journal.OptionOverruled))
		entries := server.Journal("-u", "mandos", "--since", since, event(journal.OptionOverruled))
		if len(entries) != 1 {
			t.Errorf("%d warnings about --port", len(entries))
		}
		text, _ := json.Marshal(entries)
		if !strings.Contains(string(text), "--port") || !strings.Contains(string(text), "mandos.socket") {
			t.Errorf("the warning does not say what to edit: %s", text)
		}
		expectSecret(t, server, at(server), "one")
		server.CopyIn("/etc/default/mandos", "", 0o644)

		// A datagram socket.
		setUnit(server, "mandos.socket", "[Socket]\nListenStream=\nListenDatagram=6637\n")
		server.Run("systemctl", "stop", "mandos.socket")
		since = server.Now()
		server.Run("systemctl", "start", "mandos.socket")
		server.Await(since, "UNIT=mandos.service", "UNIT_RESULT=exit-code")
		server.Run("systemctl", "stop", "mandos.socket")
		server.Run("journalctl", "--sync")
		log := server.Run("journalctl", "-o", "cat", "--since", since, "_SYSTEMD_UNIT=mandos.service")
		if !regexp.MustCompile(`(?i)stream`).MatchString(log) {
			t.Errorf("a datagram socket: the journal says\n%s", log)
		}
		if got := server.Journal("--since", since, "UNIT=mandos.service", "EXIT_STATUS=1"); len(got) == 0 {
			t.Errorf("a datagram socket: no exit status 1")
		}
	})
}

// A client's whole life in the journal: every entry has its MESSAGE_ID and
// fields, and no secret is there.
func TestJournalOfALife(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		server := serve(t, link, s, section("one", "enabled = no"))
		client := link.Boot(t, s, "client")
		expectRefusal(t, client, at(server), "stranger")
		expectRefusal(t, client, at(server), "one")
		ctl(server, "--enable", "one")
		expectSecret(t, client, at(server), "one")
		released := server.Await("", event(journal.SecretReleased))
		if released.Text("MANDOS_CLIENT") != "one" || len(released.Text("MANDOS_KEY_ID")) != 64 ||
			!strings.HasPrefix(released.Text("MANDOS_PEER"), "["+strings.TrimSuffix(client.LinkLocal(), "%host0")+"%") {
			t.Errorf("the entry of the release has the fields %v", released)
		}
		if got := server.Await("", event(journal.Refused)); got.Text("MANDOS_CLIENT") != "one" || got.Text("MANDOS_REASON") == "" {
			t.Errorf("the entry of the refusal has the fields %v", got)
		}
		if got := server.Await("", event(journal.UnknownKey)); len(got.Text("MANDOS_KEY_ID")) != 64 || got.Text("MANDOS_PEER") == "" {
			t.Errorf("the entry of the stranger has the fields %v", got)
		}
		server.Run("journalctl", "--sync")
		for _, e := range server.Journal("_SYSTEMD_UNIT=mandos.service") {
			if len(e.Text("MESSAGE_ID")) != 32 || e.Text("SYSLOG_IDENTIFIER") != "mandos" || e.Text("SYSLOG_FACILITY") != "3" {
				t.Errorf("an entry without MESSAGE_ID, or of another identifier or facility: %v", e)
			}
		}
		all := server.Run("journalctl", "-o", "export", "--no-pager")
		for _, secret := range []string{secretOf("one"), base64.StdEncoding.EncodeToString([]byte(secretOf("one")))} {
			if strings.Contains(all, secret) {
				t.Errorf("the journal has the secret %q", secret)
			}
		}
		// journalctl -x explains each.
		explained := server.Run("journalctl", "-x", "-u", "mandos", event(journal.SecretReleased))
		if !strings.Contains(explained, "Subject: Client one is given its secret") {
			t.Errorf("journalctl -x does not explain the release:\n%s", explained)
		}
	})
}

// The example of a secret in an encrypted credential, its commands as they
// are written there.
func TestCredential(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		const example = "/usr/local/share/doc/mandos/mandos.service.d-credentials.conf"
		server := serve(t, lab.NewLink(t), s, section("other"))
		server.CopyIn("/root/secret.bin", secretOf("client1"), 0o600)

		commands := regexp.MustCompile(`(?m)^#   ((?:systemd-creds|mkdir|cp|systemctl) .*)$`).FindAllStringSubmatch(server.Run("cat", example), -1)
		if len(commands) != 5 {
			t.Fatalf("the example has %d commands: %q", len(commands), commands)
		}
		conf := regexp.MustCompile(`(?m)^secret = .*$`).ReplaceAllString(section("client1"), "secfile = client1")
		server.CopyIn(clientsConf, "[DEFAULT]\nchecker = true\n\n"+section("other")+conf, 0o600)
		for _, c := range commands {
			server.Sh("cd /root; " + strings.ReplaceAll(c[1], "THIS", example))
		}
		server.AwaitUntil("the service is ready again", func() bool {
			return server.Run("systemctl", "show", "-P", "SubState", "mandos.service") == "running"
		})
		expectSecret(t, server, at(server), "client1")
		expectSecret(t, server, at(server), "other")
		if r := server.Try("grep", "-c", secretOf("client1"), "/etc/credstore.encrypted/client1"); r.Status != 1 {
			t.Errorf("the credential is not encrypted: %+v", r)
		}
	})
}
