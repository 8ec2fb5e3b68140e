// Package lab boots whole hosts, each with its own systemd, for tests that
// look at mandos from outside. A host is a systemd-nspawn container on a
// throw-away overlay of a Debian root file system; hosts on one Link see each
// other. Everything that a test makes is gone when it ends, or when its
// process is killed.
//
// What differs from real hosts: resource limits of control groups and
// IPAddressDeny= may have no effect, and a PowerCut loses data that was written
// but not yet synced only on a host with Disks; what a disk itself keeps in
// memory is never lost.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"mandos/internal/testenv"
)

// Variable is the environment variable that must be 1 for tests that boot hosts.
const Variable = "MANDOS_LAB"

// programs are those that the lab needs, each with its Debian package.
var programs = map[string]string{
	"mmdebstrap":     "mmdebstrap",
	"systemd-nspawn": "systemd-container",
	"ip":             "iproute2",
	"nsenter":        "util-linux",
	"unshare":        "util-linux",
	"mkfs.ext4":      "e2fsprogs",
}

// Need skips the test unless it may boot hosts, and fails it in CI when it can't.
func Need(t *testing.T) {
	t.Helper()
	if os.Getenv(Variable) != "1" {
		t.Skipf("boots hosts: run it with make check-system (%s=1)", Variable)
	}
	testenv.Root(t, "to boot hosts")
	for program, pkg := range programs {
		testenv.Program(t, program, pkg)
	}
}

var counter atomic.Int64

// unique returns a name that nothing else on this machine has.
func unique() string { return fmt.Sprintf("mlab-%d-%d", os.Getpid(), counter.Add(1)) }

// Source returns the folder of this source tree.
func Source(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("finding the source tree: no caller")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// A Link is a bridge that hosts are connected to, with nothing else on it.
type Link struct {
	t    testing.TB
	name string // of the network namespace that has the bridge
}

// NewLink makes a link without hosts.
func NewLink(t testing.TB) *Link {
	t.Helper()
	sweep()
	l := &Link{t: t, name: unique()}
	command(t, "ip", "netns", "add", l.name)
	t.Cleanup(func() { command(t, "ip", "netns", "del", l.name) })
	command(t, "ip", "-n", l.name, "link", "set", "lo", "up")
	// With snooping, a bridge forwards no multicast DNS until somebody queries for groups.
	command(t, "ip", "-n", l.name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	l.Up()
	return l
}

// Down cuts the link: no host reaches another.
func (l *Link) Down() {
	l.t.Helper()
	command(l.t, "ip", "-n", l.name, "link", "set", "br0", "down")
}

// Up mends the link.
func (l *Link) Up() {
	l.t.Helper()
	command(l.t, "ip", "-n", l.name, "link", "set", "br0", "up")
}

// sweep removes the network namespaces and folders that killed test processes left behind.
func sweep() {
	namespaces, _ := filepath.Glob("/run/netns/mlab-*-*")
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), "mlab-*-*"))
	for _, path := range append(namespaces, folders...) {
		name := filepath.Base(path)
		if _, err := os.Stat("/proc/" + strings.Split(name, "-")[1]); !os.IsNotExist(err) {
			continue
		}
		if strings.HasPrefix(path, "/run/netns/") {
			_ = exec.Command("ip", "netns", "del", name).Run() // else it stays, unused
		} else {
			_ = os.RemoveAll(path)
		}
	}
}

// command runs a program on this machine, which must succeed.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
