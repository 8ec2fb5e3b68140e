package lab_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// when an entry was written.
func when(t *testing.T, e lab.Entry) time.Time {
	t.Helper()
	usec, err := strconv.ParseInt(e.Text("__REALTIME_TIMESTAMP"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMicro(usec)
}

// instant is a time that is a property of a client; the zero time if it is "".
func instant(t *testing.T, h *lab.Host, client, name string) time.Time {
	t.Helper()
	text, _ := property(h, client, name).(string)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse("2006-01-02T15:04:05.000000", text)
	if err != nil {
		t.Fatalf("%s of %s: %v", name, client, err)
	}
	return at
}

// awaitCheck waits until a check of the client has succeeded that began after now.
func awaitCheck(t *testing.T, h *lab.Host, client string) {
	t.Helper()
	for range 2 { // the first may have begun before
		last := instant(t, h, client, "LastCheckedOK")
		h.AwaitUntil(client+" is checked", func() bool { return instant(t, h, client, "LastCheckedOK").After(last) })
	}
}

// failedChecks are those that failed, but for those that took longer than their
// short interval, as they do on a machine that stands still for a moment.
func failedChecks(h *lab.Host) []lab.Entry {
	return slices.DeleteFunc(h.Journal("_SYSTEMD_UNIT=mandos.service", event(journal.CheckFailed)), func(e lab.Entry) bool {
		return strings.Contains(e.Text("MANDOS_REASON"), "because it took too long")
	})
}

// leave shortens the timeout of a client whose checks have failed, so that it
// has so much time left, and returns it and the time of its last good check.
// So a test needn't be quick until then.
func leave(t *testing.T, h *lab.Host, client string, left time.Duration) (timeout time.Duration, lastOK time.Time) {
	t.Helper()
	lastOK = instant(t, h, client, "LastCheckedOK")
	timeout = (time.Since(lastOK) + left).Round(time.Second)
	ctl(h, fmt.Sprintf("--timeout=PT%.0fS", timeout.Seconds()), client)
	return timeout, lastOK
}

// The daemon or the helper ends in the middle of a check, in whatever way:
// nothing of the check is left, it is made again, and has not failed.
func TestEndsAmidCheck(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		// Hangs once for each time that the file is removed.
		server := checkedServer(t, lab.NewLink(t), s, section("one", "interval = PT1H", "timeout = PT12H",
			by(`mkdir /run/lab/hangs 2>/dev/null || exit 0; trap "" TERM; setsid sleep 1000 & sleep 1000; sleep 1000`)),
			section("two", "enabled = no", by("setsid sleep 1000 & sleep 1000")))
		hangs := func() {
			t.Helper()
			server.AwaitUntil("it hangs", func() bool {
				return server.Try("pgrep", "-u", "mandos-checker", "-c", "sleep").Stdout == "2\n"
			})
		}
		for i, end := range []string{
			"systemctl restart mandos.service",
			"systemctl kill --signal=KILL mandos.service",
			"systemctl restart mandos-checker.service",
			"systemctl kill --signal=KILL mandos-checker.service",
			"systemctl stop mandos-checker.service", // the socket starts it again
		} {
			if i > 0 {
				server.Run("rmdir", "/run/lab/hangs")
			}
			ctl(server, "--start-checker", "one") // which may take as long as the interval is, however busy this machine
			awaitFile(server, "/run/lab/hangs")
			hangs()
			server.Sh(end)
			// From now on, checks succeed.
			ctl(server, "--interval=PT2S", "one")
			awaitCheck(t, server, "one")
			ctl(server, "--interval=PT1H", "one")
			expectNothingLeft(server)
			if got := property(server, "one", "LastCheckerStatus"); got != 0.0 {
				t.Errorf("after %s the last check's status is %v", end, got)
			}
		}

		// What a helper leaves when it is killed, the next one ends, though
		// nobody asks for a check of that client again.
		two := server.Start("mandos-checker", "test", "two")
		hangs()
		server.Run("systemctl", "kill", "--signal=KILL", "mandos-checker.service")
		if r := two.Wait(); r.Status != 3 || !strings.Contains(r.Stderr, "it hung up") {
			t.Errorf("the test of a checker whose helper was killed: %+v", r)
		}
		expectNothingLeft(server)

		if got := failedChecks(server); len(got) > 0 {
			t.Errorf("a check failed: %v", got)
		}
		for _, e := range []journal.Event{journal.ClientExpiresSoon, journal.ClientDisabled} {
			if got := server.Journal("_SYSTEMD_UNIT=mandos.service", event(e)); len(got) > 0 {
				t.Errorf("the journal has %v", got)
			}
		}
	})
}

// Without the helper no check can be made: clients expire in their own time
// and not earlier, and the status and the journal say what is wrong.
func TestHelperAbsent(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := checkedServer(t, lab.NewLink(t), s,
			section("short", "interval = PT2S", "timeout = PT1H", by("true")),
			section("long", "interval = PT2S", "timeout = PT1H", by("true")))
		awaitCheck(t, server, "short")
		awaitCheck(t, server, "long")

		since := server.Now()
		server.Run("systemctl", "mask", "--runtime", "--now", "mandos-checker.socket", "mandos-checker.service")
		trouble := server.Await(since, event(journal.ChecksCannotRun))
		if text, _ := json.Marshal(trouble); !strings.Contains(string(text), "mandos-checker.socket") {
			t.Errorf("the journal does not say what is missing: %v", trouble)
		}
		server.AwaitUntil("the status tells", func() bool { return strings.Contains(status(server), "checks can't run for 2") })
		timeout, lastOK := leave(t, server, "short", 20*time.Second)
		// The server, too, starts anew without the helper, which gives nobody more or less time.
		server.Run("systemctl", "restart", "mandos.service")
		disabled := server.Await(since, event(journal.ClientDisabled))
		if got := disabled.Text("MANDOS_CLIENT"); got != "short" {
			t.Errorf("%s was disabled", got)
		}
		if got := when(t, disabled).Sub(lastOK); got < timeout-50*time.Millisecond { // saved in whole steps of the clock
			t.Errorf("disabled %v after its last check, which is too early", got)
		}
		if reason := disabled.Text("MANDOS_REASON"); !strings.Contains(reason, "the checker can't be run: reaching the checker helper") {
			t.Errorf("disabled for the reason %q", reason)
		}
		expectRefusal(t, server, at(server), "short")
		expectSecret(t, server, at(server), "long")
		server.AwaitUntil("the status tells", func() bool { return strings.Contains(status(server), "checks can't run for 1") })

		since = server.Now()
		server.Run("systemctl", "unmask", "--runtime", "mandos-checker.socket", "mandos-checker.service")
		server.Run("systemctl", "start", "mandos-checker.socket")
		server.Await(since, event(journal.ChecksRunAgain))
		awaitCheck(t, server, "long")
		server.AwaitUntil("the status tells", func() bool { return status(server) == "clients: 1 enabled, 1 disabled, 0 waiting for approval" })
		expectRefusal(t, server, at(server), "short") // only an operator enables
		if got := failedChecks(server); len(got) > 0 {
			t.Errorf("a check failed: %v", got)
		}
	})
}

// A host that is cut off is warned about, disabled in time, and refused when
// it is back; one that fetched its secret has its extended timeout to boot.
// An operator enables the first again; what an operator disables stays so.
func TestCutOff(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		laptop := link.Boot(t, s, "laptop")
		server := checkedServer(t, link, s,
			section("laptop", "interval = PT2S", "timeout = PT1H", by("fping -q -- "+laptop.LinkLocal())),
			// Doesn't answer as long as it boots.
			section("boots", "interval = PT2S", "timeout = PT10M", "extended_timeout = PT3H", by("false")))
		expectSecret(t, laptop, at(server), "boots")
		awaitCheck(t, server, "laptop")

		since := server.Now()
		link.Down()
		named := func(e journal.Event) lab.Entry {
			return server.Await(since, event(e), "MANDOS_CLIENT=laptop")
		}
		failed := named(journal.CheckFailed)
		timeout, lastOK := leave(t, server, "laptop", 15*time.Second) // the last quarter of it comes with a warning
		soon, disabled := named(journal.ClientExpiresSoon), named(journal.ClientDisabled)
		if !when(t, soon).Before(when(t, disabled)) || !when(t, failed).Before(when(t, disabled)) {
			t.Error("the warnings come after the disabling")
		}
		if got := when(t, disabled).Sub(lastOK); got < timeout-50*time.Millisecond || got > timeout+time.Minute {
			t.Errorf("disabled %v after the last check", got)
		}
		for _, e := range []lab.Entry{failed, soon} {
			if e.Text("PRIORITY") != "4" || e.Text("MANDOS_EXPIRES") == "" {
				t.Errorf("the warning is %v", e)
			}
		}
		link.Up()
		laptop.AwaitUntil("the server answers", func() bool {
			return laptop.Try("ping", "-c1", "-W1", server.LinkLocal()).Status == 0
		})
		expectRefusal(t, laptop, at(server), "laptop")
		if left := time.Until(instant(t, server, "boots", "Expires")); left < 2*time.Hour {
			t.Errorf("the host that boots has %v left", left)
		}
		expectSecret(t, laptop, at(server), "boots")

		ctl(server, "--timeout", "PT1H", "--enable", "laptop")
		expectSecret(t, laptop, at(server), "laptop")
		awaitCheck(t, server, "laptop")

		// Disabled for good.
		ctl(server, "--disable", "laptop")
		for name, restart := range map[string]func(){
			"power cut": func() { server.PowerCut(); server.PowerOn() },
			"kill":      func() { server.Run("systemctl", "kill", "--signal=KILL", "mandos.service") },
			"reboot":    func() { server.Reboot() },
		} {
			restart()
			expectRefusal(t, laptop, at(server), "laptop")
			if got := property(server, "laptop", "Enabled"); got != false {
				t.Errorf("after the %s its Enabled is %v", name, got)
			}
		}
		ctl(server, "--enable", "laptop")
		server.PowerCut()
		server.PowerOn()
		server.Await("", event(journal.Ready))
		expectSecret(t, laptop, at(server), "laptop")
	})
}

// The commands of the manual for trying a checker out.
func TestTryingACheckerOut(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := checkedServer(t, lab.NewLink(t), s,
			section("::1", "enabled = no"),
			section("bad", "enabled = no", by("echo no answer; echo from it >&2; exit 3")))
		if output, result := tested(t, server, "bad", 1); output != "no answer\nfrom it" || result != "exit status 3: not alive" {
			t.Errorf("it printed %q, %q", output, result)
		}
		if r := server.Try("mandos-checker", "test", "nobody"); r.Status != 3 || !strings.Contains(r.Stderr, `no client "nobody"`) {
			t.Errorf("a client that isn't there: %+v", r)
		}
		server.Run("systemctl", "mask", "--runtime", "--now", "mandos-checker.socket", "mandos-checker.service")
		if r := server.Try("mandos-checker", "test", "::1"); r.Status != 3 || !strings.Contains(r.Stderr, "mandos-checker.socket") {
			t.Errorf("without the helper: %+v", r)
		}
		server.Run("systemctl", "unmask", "--runtime", "mandos-checker.socket", "mandos-checker.service")

		// From the line with systemd-run to the one that doesn't continue.
		command := server.Sh(`sed -n '/^ *systemd-run/,/[^\\e]$/p' /src/man/mandos-checker.8 | sed 's/\\e$/\\/'`)
		if strings.Count(command, "systemd-run") != 1 || !strings.Contains(command, "laptop") {
			t.Fatalf("the page has the command %q", command)
		}
		for host, want := range map[string]string{"::1": "0", "::2": "12"} {
			r := server.Try("sh", "-c", strings.ReplaceAll(command, "laptop", host))
			if !strings.Contains(want, strconv.Itoa(r.Status)) {
				t.Errorf("%s for %s: %+v", command, host, r)
			}
		}
		r := server.Try("sh", "-c", strings.ReplaceAll(command, "fping -q -- laptop", "id -un; grep ^0:: /proc/self/cgroup"))
		if !strings.HasPrefix(r.Stdout, "mandos-checker\n0::/mandos.slice/mandos-checkers.slice/") {
			t.Errorf("%s runs the command as %+v", command, r)
		}
	})
}
