package lab_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"mandos/internal/checker/helper"
	"mandos/internal/journal"
	"mandos/internal/lab"
)

// playing is the start of a shell command that plays a role.
func playing(role string) string { return "env " + roleVariable + "=" + role + " /lab" }

// by is the client's checker; the file takes a % twice over.
func by(command string) string {
	return "checker = " + strings.ReplaceAll(command, "%", "%%%%")
}

// checkedServer boots a server with a folder that checkers can write to.
func checkedServer(t *testing.T, link *lab.Link, s lab.Suite, clients ...string) *lab.Host {
	t.Helper()
	h := install(t, link, s, "server")
	h.Sh("mkdir -m 1777 /run/lab; umask 022; echo d /run/lab 1777 >/etc/tmpfiles.d/lab.conf")
	h.CopyIn(clientsConf, strings.Join(clients, ""), 0o600)
	h.Run("systemctl", "enable", "--now", "mandos.socket")
	h.Await("", event(journal.Ready))
	return h
}

// tested runs mandos-checker test, which must print a result; it returns the
// output of the checker and the result.
func tested(t *testing.T, h *lab.Host, client string, wantStatus int) (output, result string) {
	t.Helper()
	r := h.Try("mandos-checker", "test", "--", client)
	found := regexp.MustCompile(`(?s)^command: [^\n]*\n(?:output:\n(.*)\n)?result: ([^\n]*), after [0-9.]+m?s\n$`).FindStringSubmatch(r.Stdout)
	if r.Status != wantStatus || found == nil {
		t.Fatalf("mandos-checker test %q: exit status %d, want %d\n%s%s", client, r.Status, wantStatus, r.Stdout, r.Stderr)
	}
	return found[1], found[2]
}

// scopes returns the checkers' scopes.
func scopes(h *lab.Host) []string {
	return strings.Fields(h.Sh(`systemctl list-units --all --plain --no-legend 'mandos-check-*' | cut -d' ' -f1`))
}

// expectNothingLeft waits until no scope and no process of a checker is there.
func expectNothingLeft(h *lab.Host) {
	h.AwaitUntil("no checker is left", func() bool {
		return len(scopes(h)) == 0 && h.Try("pgrep", "-u", "mandos-checker").Status == 1
	})
}

// property is a property of a client over D-Bus, as mandos-ctl prints it.
func property(h *lab.Host, client, name string) any {
	var all map[string]map[string]any
	h.AwaitUntil("mandos-ctl reaches the server", func() bool {
		r := h.Try("mandos-ctl", "--dump-json")
		return r.Status == 0 && json.Unmarshal([]byte(r.Stdout), &all) == nil
	})
	return all[client][name]
}

func status(h *lab.Host) string {
	return h.Run("systemctl", "show", "-P", "StatusText", "mandos.service")
}

// Each checker runs as its own user, in a scope of its own with limits, can't
// read what it needn't, and is gone with all its children when its time is up.
func TestCheckersInScopes(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		const off = "enabled = no" // checked by this test only
		long := strings.Repeat("x", 300)
		names := []string{"a b", "a/b", "-a.b", "ö 日本", `back\slash`, "it's", long, long + "y"}
		clients := []string{
			section("::1", off),
			section("::2", off),
			section("waits", off, by("touch /run/lab/waits; until test -e /run/lab/go; do sleep 0.1; done")),
			section("endless", off, "interval = PT10S",
				by(`trap "" TERM; setsid sh -c 'trap "" TERM; while :; do sleep 1000; done' & while :; do sleep 1000; done`)),
			section("spy", off, by(playing("spy")+" $(cat /run/lab/pid) /etc/mandos/clients.conf /etc/mandos /var/lib/mandos"+
				" /run/mandos-checker/socket /run/lab/pid; busctl get-property se.recompile.Mandos / se.recompile.Mandos x || echo bus: refused;"+
				playing("request")+" spy true || true")),
			section("stalker", off, by(playing("stalk"))),
			section("victim", off, by("until test -e /run/lab/stalked; do sleep 0.1; done")),
		}
		for _, name := range names {
			clients = append(clients, strings.Replace(section(name, by(`echo "$MANDOS_CLIENT"; grep ^0:: /proc/self/cgroup`)),
				"host = "+name, "host = ::1", 1))
		}
		server := checkedServer(t, lab.NewLink(t), s, clients...)
		endless := server.Start("mandos-checker", "test", "endless")

		// Debian's fping.
		if _, result := tested(t, server, "::1", 0); result != "exit status 0: alive" {
			t.Errorf("a host that is up: %s", result)
		}
		if _, result := tested(t, server, "::2", 1); !strings.HasSuffix(result, ": not alive") || strings.Contains(result, "status 4") {
			t.Errorf("a host that is down: %s", result)
		}

		// The scope.
		waits := server.Start("mandos-checker", "test", "waits")
		const scope = "mandos-check-waits.scope"
		server.AwaitUntil(scope+" is there", func() bool {
			return server.Run("systemctl", "show", "-P", "SubState", scope) == "running"
		})
		const want = "Slice=mandos-checkers.slice\nControlGroup=/mandos.slice/mandos-checkers.slice/" + scope +
			"\nMemoryMax=134217728\nTasksMax=64\nRuntimeMaxUSec=2min 5s\nCollectMode=inactive-or-failed"
		got := server.Run("systemctl", "show", "-p", "Slice,ControlGroup,MemoryMax,TasksMax,RuntimeMaxUSec,CollectMode", scope)
		for line := range strings.SplitSeq(want, "\n") {
			if !strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
				t.Errorf("the scope has not %s but\n%s", line, got)
			}
		}
		awaitFile(server, "/run/lab/waits") // until then the process may still be the helper's, held
		users := server.Sh("for p in $(cat /sys/fs/cgroup/mandos.slice/mandos-checkers.slice/" + scope + "/cgroup.procs); do ps -o user:20=,group:20= -p $p || true; done")
		if names := slices.Compact(strings.Fields(users)); !slices.Equal(names, []string{"mandos-checker"}) {
			t.Errorf("the checker runs as %s", users)
		}
		server.Run("touch", "/run/lab/go")
		if r := waits.Wait(); r.Status != 0 {
			t.Errorf("it ended with %+v", r)
		}

		// What it can't read.
		server.Sh("systemctl show -P MainPID mandos.service >/run/lab/pid; chmod 644 /run/lab/pid")
		secrets, _ := tested(t, server, "spy", 0)
		for _, in := range intrusions {
			if !strings.Contains(secrets, in.name+": refused, own child: possible\n") {
				t.Errorf("getting into the daemon by %s is not refused:\n%s", in.name, secrets)
			}
		}
		for _, file := range []string{"/etc/mandos/clients.conf", "/etc/mandos", "/var/lib/mandos"} {
			if !strings.Contains(secrets, file+": refused\n") {
				t.Errorf("reading %s is not refused:\n%s", file, secrets)
			}
		}
		if !strings.Contains(secrets, "/run/lab/pid: possible\n") || !strings.Contains(secrets, "bus: refused") ||
			!strings.Contains(secrets, "/run/mandos-checker/socket: connect: permission denied") {
			t.Errorf("a checker can reach the bus or the helper, or can read nothing at all:\n%s", secrets)
		}

		// Another checker that is held can't be traced, until it is the shell.
		stalker := server.Start("mandos-checker", "test", "stalker")
		awaitFile(server, "/run/lab/stalking")
		server.Signal(syscall.SIGSTOP) // systemd answers the helper no more
		victim := server.Start("mandos-checker", "test", "victim")
		awaitFile(server, "/run/lab/found")
		server.Signal(syscall.SIGCONT)
		r := stalker.Wait()
		if !regexp.MustCompile(`\nstalked with [1-9][0-9]* tries; as the shell, tracing it is possible\n`).MatchString(r.Stdout) ||
			strings.Contains(r.Stdout, "while held") {
			t.Errorf("the stalker: %+v", r)
		}
		server.Run("touch", "/run/lab/stalked")
		if r := victim.Wait(); r.Status != 0 {
			t.Errorf("its victim: %+v", r)
		}

		// Names of all kinds, by the daemon and by hand.
		ctl(server, append([]string{"--start-checker", "--"}, names...)...)
		for _, name := range names {
			output, _ := tested(t, server, name, 0)
			said, cgroup, _ := strings.Cut(output, "\n")
			if said != name || cgroup != "0::/mandos.slice/mandos-checkers.slice/"+helper.UnitName(name) {
				t.Errorf("the checker of %q said\n%s", name, output)
			}
			server.AwaitUntil("the daemon checks "+name, func() bool { return property(server, name, "LastCheckedOK") != "" })
		}
		if got := server.Journal("_SYSTEMD_UNIT=mandos.service", event(journal.CheckFailed)); len(got) > 0 {
			t.Errorf("a check failed: %v", got)
		}

		if r := endless.Wait(); r.Status != 1 || !regexp.MustCompile(`(?m)^result: killed, because it took too long: not alive, after [1-9][0-9]`).MatchString(r.Stdout) {
			t.Errorf("the endless one: %+v", r)
		}
		ctl(server, append([]string{"--disable", "--"}, names...)...)
		expectNothingLeft(server)
	})
}

func awaitFile(h *lab.Host, path string) {
	h.AwaitUntil(path+" is there", func() bool { return h.Try("test", "-e", path).Status == 0 })
}

// The helper takes requests from the daemon's user, and from it only those
// that are well-formed.
func TestHelperRefuses(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := checkedServer(t, lab.NewLink(t), s)
		asking := func(user, role string, args ...string) lab.Result {
			return server.Try(append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--clear-groups", "env", roleVariable + "=" + role, "/lab"}, args...)...)
		}
		for _, user := range []string{"mandos-checker", "avahi", "nobody"} {
			if user == "nobody" {
				user = "65534"
			}
			if r := asking(user, "request", "a", "echo ran >>/run/lab/garbage"); r.Status != 1 || !strings.Contains(r.Stderr, "connect: permission denied") {
				t.Errorf("%s: %+v", user, r)
			}
		}
		if r := asking("root", "request", "a", "echo ran >>/run/lab/garbage"); r.Status != 1 || !strings.Contains(r.Stderr, "uid 0 (process ") || !strings.Contains(r.Stderr, "may not ask") {
			t.Errorf("root: %+v", r)
		}
		server.Await("", event(journal.CheckRequestRefused))

		pid := server.Run("systemctl", "show", "-P", "MainPID", "mandos-checker.service")
		if r := asking("mandos", "garbage", "500"); r.Status != 0 || r.Stdout != "500 refused\n" {
			t.Errorf("garbage: %+v", r)
		}
		if r := server.Try("test", "-e", "/run/lab/garbage"); r.Status == 0 {
			t.Error("something was run")
		}
		// A request is still taken, with whatever name, by the same process.
		name := "a\nb\t\x01 " + strings.Repeat("\n", 1000)
		r := asking("mandos", "request", name, `test "$(printf %s "$MANDOS_CLIENT" | wc -c)" = `+strconv.Itoa(len(name)))
		if r.Status != 0 || !strings.Contains(r.Stdout, `"ExitStatus":0`) {
			t.Errorf("a name with newlines: %+v", r)
		}
		if got := server.Run("systemctl", "show", "-P", "MainPID", "mandos-checker.service"); got != pid {
			t.Errorf("the helper was process %s and is now %s", pid, got)
		}
		expectNothingLeft(server)
	})
}

// The cost of a scope. It is printed, not judged.
func TestScopeCost(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		server := checkedServer(t, lab.NewLink(t), s)
		// What this test itself runs is outside of the host's control groups.
		usage := func(cgroup string) float64 {
			text := server.Sh("grep usage_usec /sys/fs/cgroup" + cgroup + "/cpu.stat | cut -d' ' -f2")
			usec, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return usec / 1000
		}
		const number = 100
		groups := []string{"", "/init.scope", "/mandos.slice/mandos-checker.service", "/mandos.slice/mandos-checkers.slice"}
		before := map[string]float64{}
		server.Run("setpriv", "--reuid=mandos", "--regid=mandos", "--clear-groups", "env", roleVariable+"=load", "/lab", "3") // starts the helper
		for _, g := range groups {
			before[g] = usage(g)
		}
		wall := server.Run("setpriv", "--reuid=mandos", "--regid=mandos", "--clear-groups", "env", roleVariable+"=load", "/lab", strconv.Itoa(number))
		var report strings.Builder
		for _, g := range groups {
			fmt.Fprintf(&report, "  %6.2f ms CPU %s\n", (usage(g)-before[g])/number, g)
		}
		total := (usage("") - before[""]) / number
		t.Logf("systemd %d: a check in a scope takes %s ms; of the whole host:\n%s10 %% of a core are %.0f clients with an interval of 2 minutes",
			s.Systemd, wall, &report, 0.1*120_000/total)
	})
}
