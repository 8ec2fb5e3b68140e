package lab_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// olderDeb is the same with an older version.
func olderDeb(t *testing.T) string {
	t.Helper()
	if err := makeOlder(lab.Source(t)); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(lab.Source(t), "build/packages/older/mandos_0.0.1-1_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	return "/src/build/packages/older/" + filepath.Base(found[0])
}

var makeOlder = func() func(source string) error {
	var once sync.Once
	var err error
	return func(source string) error {
		once.Do(func() {
			cmd := exec.Command("tools/packages/build.sh", "0.0.1", "build/packages/older", "deb")
			cmd.Dir = source
			if out, e := cmd.CombinedOutput(); e != nil {
				err = fmt.Errorf("%w\n%s", e, out)
			}
		})
		return err
	}
}()

// The package is installed where there was none, removed, purged and upgraded,
// and at no point is a client enabled that an operator had disabled, a setting
// lost, or a client turned away that should be served.
func TestPackagesAgain(t *testing.T) {
	lab.Need(t)
	older, newer := olderDeb(t), ourDeb(t)
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := lab.NewLink(t).Boot(t, s, "server")
		conf := "[DEFAULT]\nchecker = true\n\n" + section("normal") + section("changed") + section("disabled")
		dpkg(server, "--install", newer)
		server.CopyIn(clientsConf, conf, 0o600)
		server.Run("systemctl", "reload", "mandos.service")
		server.Await("", event(journal.Reloaded))
		ctl(server, "--disable", "disabled")
		ctl(server, "--timeout", "PT7M", "changed")
		expectKept(t, server, at(server))

		// Removed, and installed again.
		dpkg(server, "--remove", "mandos")
		if got := server.Sh("systemctl is-active mandos.service mandos.socket mandos-checker.socket || true; ss -Hltn"); strings.Contains("\n"+got, "\nactive") || strings.Contains(got, ":6637 ") {
			t.Errorf("after the removal:\n%s", got)
		}
		if got := server.Run("cat", clientsConf) + "\n"; got != conf {
			t.Errorf("after the removal clients.conf is\n%s", got)
		}
		dpkg(server, "--install", newer)
		expectKept(t, server, at(server))

		// Purged, and installed again, with clients.conf from a backup.
		dpkg(server, "--purge", "mandos")
		if got := server.Sh("cd /etc; find . -path './*mandos*' ! -type d; find /usr/lib/systemd /var/lib/systemd /usr/share -name '*mandos*'"); strings.Contains(got, "clients.conf") ||
			strings.Contains(got, "mandos.conf") || strings.Contains(got, "mandos.service") || strings.Contains(got, "default/mandos") {
			t.Errorf("left after the purge:\n%s", got)
		}
		dpkg(server, "--install", older)
		expectRefusal(t, server, at(server), "normal")
		if got := server.Sh("cmp " + clientsConf + " /usr/share/mandos/clients.conf && stat -c '%U:%G %a' " + clientsConf); got != "root:mandos 640" {
			t.Errorf("the new clients.conf is %s", got)
		}
		for i := range 200 {
			conf += section(fmt.Sprintf("crowd-%d", i))
		}
		server.CopyIn(clientsConf, conf, 0o600)
		since := server.Now()
		server.Run("systemctl", "reload", "mandos.service")
		server.Await(since, event(journal.Reloaded))
		expectRefusal(t, server, at(server), "disabled")
		// The server ran without them in the file: their status was kept, but
		// not what else was set.
		ctl(server, "--timeout", "PT7M", "changed")
		expectKept(t, server, at(server))

		// Upgraded: the socket stays, and nobody who connects is turned away.
		socket := server.Run("systemctl", "show", "-P", "InvocationID", "mandos.socket")
		service := server.Run("systemctl", "show", "-P", "InvocationID", "mandos.service")
		crowd := server.Start(as("crowd", at(server), "2")...)
		install := server.Start("dpkg", "--install", newer)
		for range 100 {
			crowd.Tell("now")
			if !install.Running() {
				break
			}
			server.Run("sleep", "0.1") // so that they come all the time
		}
		if r := install.Wait(); r.Status != 0 {
			t.Errorf("dpkg: %s%s", r.Stdout, r.Stderr)
		}
		got := crowd.Wait().Stdout
		if all := regexp.MustCompile(`^(\d+) of (\d+) served$`).FindStringSubmatch(got); all == nil || all[1] != all[2] {
			t.Errorf("during the upgrade: %s", got)
		}
		if got := server.Run("systemctl", "show", "-P", "InvocationID", "mandos.socket"); got != socket {
			t.Error("the upgrade restarted the socket")
		}
		if got := server.Run("systemctl", "show", "-P", "InvocationID", "mandos.service"); got == service {
			t.Error("the upgrade didn't restart the service")
		}
		expectKept(t, server, at(server))

		// A secfile that only root can read: the service can't start, but the
		// installation tells the command that mends it, and nothing else is needed.
		server.Sh("mkdir -m 700 /etc/keys/lab; umask 077; printf '" + secretOf("filed") + "' >/etc/keys/lab/filed")
		filed := regexp.MustCompile(`secret = .*`).ReplaceAllString(section("filed"), "secfile = /etc/keys/lab/filed")
		server.CopyIn(clientsConf, conf+filed, 0o600)
		output := dpkg(server, "--install", newer)
		remedy := regexp.MustCompile(`/etc/mandos/clients\.conf:\d+: \[filed\] secfile: .*; (chgrp .*)`).FindStringSubmatch(output)
		if remedy == nil {
			t.Fatalf("no remedy in\n%s", output)
		}
		since = server.Now()
		server.Sh(remedy[1])
		server.Await(since, event(journal.Ready))
		expectSecret(t, server, at(server), "filed")
		expectKept(t, server, at(server))
	})
}
