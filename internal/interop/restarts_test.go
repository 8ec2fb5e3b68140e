package interop

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
)

// TestMonitorSurvives: mandos-monitor on a terminal of 80x24, without colour,
// through the end and the return of the daemon and of the bus. Then a client
// waits, and is let have its secret by a key.
func TestMonitorSurvives(t *testing.T) {
	ours := Ours(t)
	keys := ours.Keygen(t, "ed25519")
	password := []byte("the disk's password")
	waits := ours.Section(t, keys, "asking", password) + "approval_delay = PT1H\napproved_by_default = no\n"
	configdir, statedir := config(t, []string{waits, section("other", "interval = P1D", "timeout = P2D")})
	dir := Folder(t)
	o := &operated{bus: "unix:path=" + filepath.Join(dir, "bus")}

	startBus := func() (kill func()) {
		t.Helper()
		os.Remove(filepath.Join(dir, "bus"))
		write(t, filepath.Join(dir, "bus.conf"), busConfig(dir))
		cmd := command([]string{"dbus-daemon"}, "--config-file="+filepath.Join(dir, "bus.conf"), "--nofork", "--nopidfile", "--print-address=1")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		start(t, cmd)
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		return sync.OnceFunc(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() })
	}
	startServer := func() (kill func()) {
		t.Helper()
		socket, addr := listen(t)
		o.addr = addr
		cmd := command(ours.server, "--no-zeroconf", "--socket", "3", "--configdir", configdir, "--statedir", statedir)
		cmd.ExtraFiles = []*os.File{socket}
		cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+o.bus)
		start(t, cmd)
		return sync.OnceFunc(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() })
	}
	connect := func() {
		t.Helper()
		conn, err := dbus.Connect(o.bus)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		o.conn = conn
	}

	const asking = `> asking: enabled` // in the list; the log has it, too
	killBus := startBus()
	killServer := startServer()
	s := o.screen(t, ours.monitor, "NO_COLOR=1")
	output(t, command(s.tmux, "resize-window", "-x", "80", "-y", "24"))
	s.shows(asking)
	for range 2 {
		killServer()
		s.shows(`No Mandos server is on the system bus`)
		s.showsNot(asking)
		killServer = startServer()
		s.shows(asking)
		connect()
		s.press("-") // the first is chosen
		s.shows(`> asking: DISABLED`)
		o.until(t, "asking", "Enabled", false)
		s.press("+")
		s.shows(asking)
		o.until(t, "asking", "Enabled", true)

		killBus()
		s.shows(`There is no system bus`)
		s.press("-") // does nothing, and is no harm
		killBus = startBus()
		s.shows(asking)
		connect()
		s.press("j")
		s.shows(`> other: enabled`)
		s.press("-")
		s.shows(`> other: DISABLED`)
		o.until(t, "other", "Enabled", false)
		s.press("+")
		s.shows(`> other: enabled`)
		s.press("k")
		s.shows(asking)
	}

	// What waits is on top, and chosen by hand.
	client := ours.Client(t, keys, o.addr)
	s.shows(`asking: Denial in .*\(a\)pprove\?`)
	s.press("g", "d")
	s.shows(`(?s)asking: Denial in .*\(a\)pprove\?.*asking: was refused its secret.*asking: asks for its secret`) // again
	s.press("a")
	s.shows(`asking: received its secret`)
	if got := client.Password(t); string(got) != string(password) {
		t.Errorf("got %q", abbreviate(got))
	}

	lines := strings.Split(strings.TrimSuffix(string(output(t, command(s.tmux, "capture-pane", "-p", "-e"))), "\n"), "\n")
	if len(lines) != 24 {
		t.Errorf("%d lines on a screen of 24", len(lines))
	}
	colour := regexp.MustCompile(`\x1b\[([0-9;]*;)?(3[0-8]|4[0-8]|9[0-7])[;m]`) // 39 and 49 are none
	for _, line := range lines {
		if colour.MatchString(line) {
			t.Errorf("there is colour in %q", line)
		}
	}
	s.press("q")
	s.ended()
}
