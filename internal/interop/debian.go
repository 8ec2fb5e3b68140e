package interop

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mandos/internal/testenv"
)

// Debian is Debian's mandos and mandos-client, unpacked by make deps. A test
// that gets it has all that they need.
func Debian(t testing.TB) Programs {
	t.Helper()
	root := DebianRoot(t)
	lib, err := filepath.Glob(filepath.Join(root, "usr/lib/*/mandos"))
	if err != nil || len(lib) != 1 {
		t.Fatalf("looking for usr/lib/ARCHITECTURE/mandos in %s: found %q, %v", root, lib, err)
	}
	return Programs{
		server:    []string{"/usr/bin/python3", filepath.Join(root, "usr/sbin/mandos")},
		client:    []string{filepath.Join(lib[0], "plugins.d/mandos-client"), "--network-hook-dir=/nonexistent"},
		keygen:    []string{"sh", filepath.Join(root, "usr/sbin/mandos-keygen")},
		ctl:       []string{"/usr/bin/python3", filepath.Join(root, "usr/sbin/mandos-ctl")},
		monitor:   []string{"/usr/bin/python3", filepath.Join(root, "usr/sbin/mandos-monitor")},
		clientEnv: []string{"MANDOSPLUGINHELPERDIR=" + filepath.Join(lib[0], "plugin-helpers")},
		wantsBus:  true,
	}
}

// DebianRoot is the folder with the files of Debian's packages:
// $MANDOS_DEBIAN, or where make deps unpacks them.
func DebianRoot(t testing.TB) string {
	t.Helper()
	root := os.Getenv("MANDOS_DEBIAN")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "mandos-go/debian/current")
	}
	_, err := os.Stat(filepath.Join(root, "usr/sbin/mandos"))
	testenv.Need(t, err == nil, fmt.Sprintf("Debian's mandos (%v): make deps", err))
	for program, pkg := range map[string]string{"/usr/bin/python3": "python3", "dbus-daemon": "dbus", "gpg": "gnupg", "certtool": "gnutls-bin"} {
		testenv.Program(t, program, pkg)
	}
	testenv.Need(t, exec.Command("/usr/bin/python3", "-c", "import dbus, gi").Run() == nil, "python3-dbus and python3-gi")
	return root
}

// Bus starts a private D-Bus daemon in place of the system's and returns its
// address. Its configuration may have more elements.
func Bus(t testing.TB, more ...string) string {
	t.Helper()
	dir := Folder(t)
	conf := filepath.Join(dir, "bus.conf")
	write(t, conf, busConfig(dir, more...))
	cmd := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile", "--print-address=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	// It prints its address when it is ready.
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon didn't print its address: %v", err)
	}
	return strings.TrimSpace(addr)
}

// busConfig is the configuration of a bus that listens in dir and lets
// everybody do everything.
func busConfig(dir string, more ...string) []byte {
	return fmt.Appendf(nil, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
  %s
</busconfig>
`, dir, strings.Join(more, ""))
}
