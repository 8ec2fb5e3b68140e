package daemon

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mandos/internal/testenv"
)

// TestNoOptions is the manual's first example: nothing but a folder. The
// kernel chooses the port.
func TestNoOptions(t *testing.T) {
	a, stranger := newMember(t, "a"), newMember(t, "stranger")
	disabled := newMember(t, "disabled")
	dir := folder(t, a.section(), disabled.section("enabled = False"))
	p := start(t, nil, "--configdir", dir)
	addr := p.Ready()
	a.gets(t, loopback(addr))
	_, port, _ := net.SplitHostPort(addr)
	a.gets(t, "127.0.0.1:"+port) // one socket for both
	stranger.getsNothing(t, loopback(addr))
	disabled.getsNothing(t, loopback(addr))
	p.stop()
	for _, want := range []string{
		"NOTICE registry: releasing a client's secret to it: client=a key_id=" + a.keyID(),
		"NOTICE registry: refused a peer with an unknown key: key_id=" + stranger.keyID(),
		`NOTICE registry: refused a client its secret: client=disabled`,
	} {
		if !strings.Contains(p.Log(), want) {
			t.Errorf("not logged: %s", want)
		}
	}
}

// TestBesideAnother is the manual's second example: a server for a test, with
// a configuration of its own, beside one that runs.
func TestBesideAnother(t *testing.T) {
	t.Parallel() // it waits for a lock
	a, b := newMember(t, "a"), newMember(t, "b")
	running := start(t, nil, "--configdir", folder(t, a.section()))
	dir := folder(t, b.section())
	second := start(t, nil, "--debug", "--configdir", dir, "--servicename", "Test")
	addrA, addrB := loopback(running.Ready()), loopback(second.Ready())
	a.gets(t, addrA)
	b.gets(t, addrB)
	a.getsNothing(t, addrB)
	b.getsNothing(t, addrA)
	second.Await("DEBUG|INFO server: a peer connected")
	running.stop()
	b.gets(t, addrB)
	second.stop()

	t.Run("with the other's state", func(t *testing.T) {
		holder := start(t, nil, "--configdir", dir)
		holder.Ready()
		p := start(t, nil, "--configdir", folder(t), "--statedir", filepath.Join(dir, "state"))
		if status := p.Wait(); status != 1 {
			t.Errorf("exit status %d", status)
		}
		p.Await("CRITICAL daemon: giving up: error=.* in use by another mandos.*--statedir")
	})
}

// TestOrdinaryUser is the same example for an ordinary user.
func TestOrdinaryUser(t *testing.T) {
	a := newMember(t, "a")
	dir := folder(t, a.section())
	asUser := func(*exec.Cmd) {}
	if os.Geteuid() == 0 {
		const uid = 12345 // nobody's
		for _, path := range []string{dir, filepath.Join(dir, "clients.conf")} {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		program := copyOfTest(t)
		asUser = func(cmd *exec.Cmd) {
			cmd.Path = program
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
	}
	p := start(t, asUser, "--debug", "--configdir", dir, "--servicename", "Test")
	a.gets(t, loopback(p.Ready()))
	p.stop()
	// What it knows is there at the next start.
	state := filepath.Join(dir, "state", "clients.db")
	if _, err := os.Stat(state); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	// As root has put it back from a backup: no start with everyone enabled.
	if err := os.Chown(state, 0, 0); err != nil {
		t.Fatal(err)
	}
	p = start(t, asUser, "--configdir", dir)
	if status := p.Wait(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	p.Await("CRITICAL daemon: giving up: error=.*" + regexp.QuoteMeta(state) + ": permission denied .*must be the server's user's")
}

// TestLinkLocal is the manual's third example: one interface, and its
// link-local address.
func TestLinkLocal(t *testing.T) {
	testenv.Root(t, "for network namespaces")
	testenv.Program(t, "ip", "iproute2")
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			testenv.Need(t, false, fmt.Sprintf("network namespaces (ip %s: %v: %s)", strings.Join(args, " "), err, out))
		}
	}
	ns := []string{fmt.Sprintf("mandos-test-%d-a", os.Getpid()), fmt.Sprintf("mandos-test-%d-b", os.Getpid())}
	for _, name := range ns {
		_ = exec.Command("ip", "netns", "del", name).Run() // of a killed process with our number
		ip("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	ip("link", "add", "veth0", "netns", ns[0], "type", "veth", "peer", "name", "veth0", "netns", ns[1])
	for i, name := range ns {
		ip("-n", name, "link", "set", "veth0", "addrgenmode", "none")
		ip("-n", name, "link", "set", "veth0", "up")
		ip("-n", name, "addr", "add", fmt.Sprintf("fe80::%d/64", i+1), "dev", "veth0", "nodad")
	}
	inside := func(name string) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"ip", "netns", "exec", name, cmd.Path}, cmd.Args[1:]...)
			cmd.Path, _ = exec.LookPath("ip")
		}
	}

	a := newMember(t, "a")
	p := start(t, inside(ns[0]), "--configdir", folder(t, a.section()), "--interface", "veth0", "--address", "fe80::1")
	addr := p.Ready()
	if !strings.HasPrefix(addr, "[fe80::1%veth0]:") {
		t.Fatalf("listens on %s", addr)
	}
	client := command([]string{addr}, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "DAEMON_TEST_ROLE=client", "DAEMON_TEST_KEY="+hex.EncodeToString(a.key.Seed()))
		inside(ns[1])(cmd)
	})
	out, err := client.CombinedOutput()
	if err != nil || string(out) != string(a.secret) {
		t.Errorf("the client printed %q, %v", out, err)
	}
	p.Await(`releasing a client's secret to it: .*peer=\[fe80::2%veth0\]:`)
	p.stop()

	// An interface that doesn't exist: logged, and the server goes on without
	// it.
	p = start(t, inside(ns[0]), "--configdir", folder(t), "--interface", "veth9")
	p.Ready()
	p.Await(`ERROR daemon: could not bind to the interface, going on without: interface=veth9`)
	p.stop()
}

// TestNothingSecretIsLogged has everything logged, and looks for secrets and
// for whatever looks like a key.
func TestNothingSecretIsLogged(t *testing.T) {
	a, stranger := newMember(t, "a"), newMember(t, "stranger")
	disabled := newMember(t, "disabled")
	dir := folder(t, a.section(), disabled.section("enabled = False"))
	p := start(t, nil, "--debug", "--configdir", dir)
	addr := loopback(p.Ready())
	a.gets(t, addr)
	stranger.getsNothing(t, addr)
	disabled.getsNothing(t, addr)
	// A broken file with a secret in it.
	b := newMember(t, "b")
	writeClients(t, dir, a.section(), strings.Replace(b.section("timeout = soon"), "secret = ", "secret = !", 1))
	p.signal(syscall.SIGHUP)
	p.Await("the old one stays")
	writeClients(t, dir, a.section(), b.section("timeout = soon"))
	p.signal(syscall.SIGHUP)
	p.Await("(?s)the old one stays.*the old one stays")
	a.gets(t, addr)
	p.stop()

	log := p.Log()
	known := []string{}
	for _, m := range []member{a, b, disabled, stranger} {
		known = append(known, m.keyID())
		for _, form := range []string{
			string(m.secret), hex.EncodeToString(m.secret), strings.ToUpper(hex.EncodeToString(m.secret)),
			base64.StdEncoding.EncodeToString(m.secret), fmt.Sprint(m.secret),
		} {
			for _, part := range []string{form, form[:len(form)/2], form[len(form)/2:]} {
				if strings.Contains(log, part) {
					t.Errorf("the log has %q of %s's secret", part, m.name)
				}
			}
		}
	}
	// Keys and traffic secrets have 16 bytes or more: nothing else in the log
	// may look like that.
	for _, run := range regexp.MustCompile(`[0-9A-Za-z+/]{32,}`).FindAllString(log, -1) {
		if !slices.Contains(known, run) && !strings.Contains(run, "/") {
			t.Errorf("the log has %q", run)
		}
	}
	if !strings.Contains(log, a.keyID()) {
		t.Error("not even the key ID is in the log: has anything been logged?")
	}
}

// TestReload: a good file takes effect, a broken one doesn't, and no session is
// disturbed.
func TestReload(t *testing.T) {
	a, b := newMember(t, "a"), newMember(t, "b")
	dir := folder(t, a.section())
	m := newManager(t)
	p := start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path) }, "--configdir", dir)
	addr := loopback(p.Ready())
	m.await("READY=1", "STATUS=clients: 1 enabled, 0 disabled, 0 waiting for approval")
	b.getsNothing(t, addr)

	writeClients(t, dir, a.section(), b.section())
	p.signal(syscall.SIGHUP)
	if got := m.await("RELOADING=1"); !regexp.MustCompile(`(?m)^MONOTONIC_USEC=\d+$`).MatchString(got) {
		t.Errorf("RELOADING without its time: %q", got)
	}
	m.await("READY=1", "STATUS=clients: 2 enabled, 0 disabled, 0 waiting for approval")
	b.gets(t, addr)
	p.Await("NOTICE daemon: re-read the configuration: changes=")

	writeClients(t, dir, a.section("timeout = soon"), b.section("interval = never"))
	p.signal(syscall.SIGHUP)
	m.await("RELOADING=1")
	m.await("READY=1", "STATUS=clients: 2 enabled, 0 disabled, 0 waiting for approval")
	p.Await(`clients.conf:5: \[a\] timeout: `)
	p.Await(`clients.conf:11: \[b\] interval: `)
	p.Await(`ERROR daemon: could not re-read the configuration, the old one stays: error="it has errors: 2"`)
	a.gets(t, addr)
	b.gets(t, addr)

	// Options of mandos.conf wait for a restart.
	if err := os.WriteFile(filepath.Join(dir, "mandos.conf"), []byte("[DEFAULT]\nservicename = Other\ndebuglevel = info\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	// The status line follows.
	writeClients(t, dir, a.section(), b.section(), newMember(t, "c").section("enabled = False"))
	p.signal(syscall.SIGHUP)
	m.await("READY=1", "STATUS=clients: 2 enabled, 1 disabled, 0 waiting for approval")
	p.signal(syscall.SIGTERM)
	p.Await(`(?s)a changed option takes a restart to have its effect: setting=debuglevel\n.*setting=servicename\n`)
	m.await("STOPPING=1")
	if status := p.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestStop: with sessions open, both signals end the server cleanly.
func TestStop(t *testing.T) {
	t.Parallel() // the server waits for its sessions
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, nil, "--configdir", folder(t), "--debug")
			conn, err := net.Dial("tcp", loopback(p.Ready()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			p.Await("a peer connected")
			p.signal(s)
			if status := p.Wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
			// On a busy machine the session's own time may be over first.
			p.Await("cut off a session, the server stops|not done within 10s")
		})
	}
}

// TestSignalsDuringStart: a SIGHUP that comes before clients are served is a
// reload afterwards, and SIGTERM ends the start cleanly.
func TestSignalsDuringStart(t *testing.T) {
	a := newMember(t, "a")
	dir := folder(t, a.section("enabled = False"))
	p := start(t, nil, "--configdir", dir)
	p.Ready()
	p.stop()
	writeClients(t, dir, a.section("enabled = True"))

	// begin starts a server, which can't get further than its state, sends it a
	// signal, and lets it go on.
	begin := func(sig syscall.Signal, after string) process {
		for {
			db, err := os.Open(filepath.Join(dir, "state", "clients.db"))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Flock(int(db.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			p := start(t, nil, "--configdir", dir, "--debug")
			p.Await("listening for clients")
			p.signal(sig)
			db.Close()
			const inUse = "in use by another mandos" // it waits for only so long, and this machine is busy
			if p.Await(after + "|" + inUse)[0] != inUse {
				return p
			}
		}
	}
	p = begin(syscall.SIGTERM, "NOTICE daemon: stopping")
	if status := p.Wait(); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}

	p = begin(syscall.SIGHUP, "ready to serve clients")
	addr := p.Ready()
	p.Await("(?s)ready to serve clients.*re-read the configuration")
	a.getsNothing(t, loopback(addr)) // still disabled
	p.stop()
}

// TestNoClients: a server without clients runs, and says so.
func TestNoClients(t *testing.T) {
	m := newManager(t)
	dir := folder(t)
	p := start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path) }, "--configdir", dir)
	addr := p.Ready()
	p.Await("WARNING config: .*no clients")
	m.await("READY=1", "STATUS=no clients in "+dir)
	newMember(t, "a").getsNothing(t, loopback(addr))
	p.stop()
}

// TestStateIsKept: a client that is disabled stays disabled, whatever
// clients.conf says; --no-restore ignores the state and writes nothing.
func TestStateIsKept(t *testing.T) {
	a := newMember(t, "a")
	dir := folder(t, a.section("enabled = False"))
	p := start(t, nil, "--configdir", dir)
	p.Ready()
	p.Await("registry: a new client is in clients.conf.*client=a ")
	p.stop()

	writeClients(t, dir, a.section("enabled = True"))
	p = start(t, nil, "--configdir", dir)
	a.getsNothing(t, loopback(p.Ready()))
	p.stop()

	db := filepath.Join(dir, "state", "clients.db")
	before, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	p = start(t, nil, "--configdir", dir, "--no-restore")
	a.gets(t, loopback(p.Ready()))
	p.Await("WARNING registry: the saved state is left aside.*count=1")
	p.stop()
	if after, err := os.ReadFile(db); err != nil || string(after) != string(before) {
		t.Errorf("--no-restore changed the saved state (%v)", err)
	}
}

// TestDebugInvocation: a service with RestartMode=debug logs everything at
// its second try, whatever the options say.
func TestDebugInvocation(t *testing.T) {
	p := start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "DEBUG_INVOCATION=1") },
		"--configdir", folder(t), "--debuglevel", "critical")
	newMember(t, "a").getsNothing(t, loopback(p.Ready()))
	p.Await("INFO server: a peer connected")
	p.stop()
}

// TestWatchdog: pings come while all is well.
func TestWatchdog(t *testing.T) {
	m := newManager(t)
	p := start(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=400000")
	}, "--configdir", folder(t))
	p.Ready()
	for range 3 {
		m.await("WATCHDOG=1")
	}
	p.stop()
}

// TestManagerGone: a service manager that is gone is no reason to stop, and is
// logged only once.
func TestManagerGone(t *testing.T) {
	a := newMember(t, "a")
	p := start(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET=/nonexistent/notify")
	}, "--configdir", folder(t, a.section()))
	addr := loopback(p.Ready())
	p.signal(syscall.SIGHUP)
	p.Await("re-read the configuration")
	a.gets(t, addr)
	p.stop()
	if n := strings.Count(p.Log(), "could not talk to systemd"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}
