package lab_test

import (
	"strconv"
	"strings"
	"testing"

	"mandos/internal/lab"
)

// eachSuite runs a test on hosts of each suite.
func eachSuite(t *testing.T, test func(t *testing.T, s lab.Suite)) {
	lab.Need(t)
	t.Parallel()
	for _, s := range lab.Suites() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// The lab itself: hosts boot whole, see each other, and keep their files.
func TestLab(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		link := lab.NewLink(t)
		a := link.Boot(t, s, "a")
		b := link.Boot(t, s, "b", lab.IPv4("192.0.2.2/24"))
		if got := a.Run("systemctl", "is-system-running"); got != "running" {
			t.Errorf("host a is %s:\n%s", got, a.Run("systemctl", "--failed"))
		}
		if got := a.Run("systemctl", "--version"); !strings.HasPrefix(got, "systemd "+strconv.Itoa(s.Systemd)) {
			t.Errorf("booted %s", got)
		}
		ping := []string{"ping", "-c1", "-W2", b.LinkLocal()}
		a.AwaitUntil("b answers", func() bool { return a.Try(ping...).Status == 0 })
		link.Down()
		if r := a.Try(ping...); r.Status == 0 {
			t.Error("the link is down and yet carries packets")
		}
		link.Up()
		a.AwaitUntil("b answers", func() bool { return a.Try(ping...).Status == 0 })

		b.CopyIn("/etc/kept", "content", 0o600)
		before := strings.Fields(b.Run("cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"))
		b.Reboot()
		after := strings.Fields(b.Run("cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"))
		if before[0] != after[0] || before[1] == after[1] {
			t.Errorf("machine ID and boot ID went from %s to %s", before, after)
		}
		if got := b.Run("stat", "-c", "%a %s", "/etc/kept"); got != "600 7" {
			t.Errorf("after the reboot the file has mode and size %s", got)
		}
		b.PowerCut()
		b.PowerOn()
		if got := b.Run("cat", "/etc/kept"); got != "content" {
			t.Errorf("after the power cut the file has %q", got)
		}
	})
}

// A power cut takes what was not synced, on a host with disks.
func TestPowerCutLosesUnsynced(t *testing.T) {
	eachSuite(t, func(t *testing.T, s lab.Suite) {
		h := lab.NewLink(t).Boot(t, s, "a", lab.Disks())
		h.Sh("echo old >/etc/changed; echo old >/var/lib/mandos/changed; sync")
		for _, dir := range []string{"/etc", "/var/lib/mandos"} {
			h.Sh("cd " + dir + "; echo kept >kept; sync kept; echo new >lost; echo new >>changed")
		}
		h.PowerCut()
		h.PowerOn()
		for _, dir := range []string{"/etc", "/var/lib/mandos"} {
			if got := h.Sh("cd " + dir + "; cat kept; cat changed lost 2>/dev/null || true"); !strings.HasPrefix(got, "kept") || strings.Contains(got, "new") {
				t.Errorf("%s has %q after a power cut", dir, got)
			}
		}
		// And an orderly end loses nothing.
		h.Sh("echo content >/var/lib/mandos/late; echo content >/etc/late")
		h.Reboot()
		if got := h.Sh("cat /etc/late /var/lib/mandos/late"); got != "content\ncontent" {
			t.Errorf("after a reboot the files have %q", got)
		}
	})
}
