package lab

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Suite is a release of Debian.
type Suite struct {
	Name    string
	Systemd int // version
}

// The suites that tests boot.
var (
	Bookworm = Suite{"bookworm", 252}
	Trixie   = Suite{"trixie", 257}
)

// Suites are all of them.
func Suites() []Suite { return []Suite{Bookworm, Trixie} }

func (s Suite) String() string { return s.Name }

// packages are what a root file system has beyond the essential ones. They
// include Debian's client with its keys, and what Debian's server needs.
const packages = "systemd,systemd-sysv,libpam-systemd,libnss-systemd,dbus,polkitd,avahi-daemon,avahi-utils," +
	"libnss-mdns,iproute2,fping,iputils-ping,procps,make,mandos-client," +
	"debconf,adduser,gnupg,python3,python3-dbus,python3-gi,python3-urwid"

// debianServer leaves the package of Debian's server in a root file system,
// not installed.
const debianServer = `cd "$1"/opt && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download mandos`

// rootFS returns the folder of the suite's root file system. It is made once,
// which takes a minute or two, and kept in the user's cache folder.
func rootFS(t testing.TB, s Suite) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "mandos-go", "rootfs")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(cache, s.Name+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("locking %s: %v", lock.Name(), err)
	}
	folder := filepath.Join(cache, fmt.Sprintf("%s-%.6x", s.Name, sha256.Sum256([]byte(packages+debianServer))))
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	t.Logf("making the root file system of %s in %s", s, folder)
	args := []string{"--variant=minbase", "--mode=root", `--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Retries "3"`,
		"--include=" + packages, "--customize-hook=" + debianServer, s.Name, folder + ".tmp"}
	args = append(args, sources(t, s)...)
	again(t, "making the root file system of "+s.Name, func() ([]byte, error) {
		if err := os.RemoveAll(folder + ".tmp"); err != nil {
			return nil, err
		}
		return exec.Command("mmdebstrap", args...).CombinedOutput()
	})
	if err := os.Rename(folder+".tmp", folder); err != nil {
		t.Fatal(err)
	}
	return folder
}

// again tries three times what comes over the network: one request that fails
// must not fail a test.
func again(t testing.TB, doing string, try func() (output []byte, err error)) {
	t.Helper()
	for n := 1; ; n++ {
		output, err := try()
		if err == nil {
			return
		}
		if n == 3 {
			t.Fatalf("%s: %v\n%s", doing, err, output)
		}
		t.Logf("%s: try %d of 3: %v\n%s", doing, n, err, output)
		time.Sleep(time.Duration(n) * 10 * time.Second)
	}
}

// sources returns lines for apt: the Debian mirrors that this machine uses,
// with its suite replaced by s.
func sources(t testing.TB, s Suite) []string {
	t.Helper()
	lines := indexTargets(t, s)
	if len(lines) == 0 { // apt knows the origins only once it has the lists
		again(t, "getting the lists of packages", func() ([]byte, error) {
			out, err := exec.Command("apt-get", "-q", "update").CombinedOutput()
			if lines = indexTargets(t, s); err == nil && len(lines) == 0 {
				err = errors.New("apt on this machine has no source of Debian")
			}
			return out, err
		})
	}
	return lines
}

func indexTargets(t testing.TB, s Suite) []string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)",
		"Created-By: Packages").Output()
	if err != nil {
		t.Fatalf("asking apt for its sources: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "Debian" {
			continue
		}
		suite := s.Name
		if _, pocket, ok := strings.Cut(fields[1], "-"); ok { // bookworm-security
			suite += "-" + pocket
		}
		lines = append(lines, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "+fields[2]+" "+suite+" main")
	}
	return lines
}
