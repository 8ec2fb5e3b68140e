package interop

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// DebianPrograms are Debian's mandos and mandos-client, unpacked by make deps.
type DebianPrograms struct{ root string }

// Debian finds Debian's programs in $MANDOS_DEBIAN, or where make deps puts
// them.
func Debian(t testing.TB) DebianPrograms {
	t.Helper()
	root := os.Getenv("MANDOS_DEBIAN")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "mandos-go/debian/current")
	}
	if _, err := os.Stat(filepath.Join(root, "usr/sbin/mandos")); err != nil {
		Missing(t, fmt.Sprintf("Debian's mandos (%v)", err))
	}
	for _, program := range []string{"/usr/bin/python3", "dbus-daemon", "gpg", "certtool"} {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, err.Error())
		}
	}
	if err := exec.Command("/usr/bin/python3", "-c", "import dbus, gi").Run(); err != nil {
		Missing(t, "python3-dbus and python3-gi")
	}
	return DebianPrograms{root}
}

// Path returns the path of one of its files: Path("usr/sbin/mandos-ctl").
func (d DebianPrograms) Path(name string) string { return filepath.Join(d.root, name) }

func (d DebianPrograms) Server(t testing.TB, sections ...string) string {
	t.Helper()
	configdir, statedir := config(t, sections)
	socket, addr := listen(t)
	cmd := exec.Command("/usr/bin/python3", d.Path("usr/sbin/mandos"), "--foreground",
		"--no-dbus", "--no-zeroconf", "--socket", "3", "--configdir", configdir, "--statedir", statedir)
	cmd.ExtraFiles = []*os.File{socket}
	// It wants a system bus even with --no-dbus.
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+Bus(t))
	start(t, cmd)
	return addr
}

func (d DebianPrograms) Client(t testing.TB, keys Keys, addr string) *Client {
	t.Helper()
	lib := d.lib(t)
	cmd := exec.Command(filepath.Join(lib, "plugins.d/mandos-client"),
		"--connect="+addr, "--interface=none", "--network-hook-dir=/nonexistent", "--retry=1",
		"--pubkey="+keys.PGPPublic(), "--seckey="+keys.PGPSecret(),
		"--tls-pubkey="+keys.TLSPublic(), "--tls-privkey="+keys.TLSPrivate())
	cmd.Env = append(os.Environ(), "MANDOSPLUGINHELPERDIR="+filepath.Join(lib, "plugin-helpers"))
	return startClient(t, cmd)
}

// lib is usr/lib/ARCHITECTURE/mandos.
func (d DebianPrograms) lib(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob(d.Path("usr/lib/*/mandos"))
	if err != nil || len(found) != 1 {
		t.Fatalf("looking for usr/lib/ARCHITECTURE/mandos in %s: found %q, %v", d.root, found, err)
	}
	return found[0]
}

func (d DebianPrograms) Keygen(t testing.TB) Keys {
	t.Helper()
	return d.KeygenType(t, "ed25519")
}

// KeygenType makes keys with another --tls-keytype. The OpenPGP key is
// shorter than its default, for speed.
func (d DebianPrograms) KeygenType(t testing.TB, tlsKeytype string) Keys {
	t.Helper()
	keys := Keys(Folder(t))
	output(t, exec.Command("sh", d.Path("usr/sbin/mandos-keygen"), "--dir", string(keys), "--name", "client",
		"--length", "2048", "--sublength", "2048", "--tls-keytype", tlsKeytype, "--force"))
	return keys
}

func (d DebianPrograms) Section(t testing.TB, keys Keys, name string, password []byte) string {
	t.Helper()
	file := filepath.Join(Folder(t), "password")
	write(t, file, password)
	return string(output(t, exec.Command("sh", d.Path("usr/sbin/mandos-keygen"), "--dir", string(keys), "--name", name,
		"--passfile", file, "--no-ssh")))
}

// Bus starts a private D-Bus daemon in place of the system's and returns its
// address.
func Bus(t testing.TB) string {
	t.Helper()
	dir := Folder(t)
	conf := filepath.Join(dir, "bus.conf")
	write(t, conf, fmt.Appendf(nil, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
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
</busconfig>
`, dir))
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
