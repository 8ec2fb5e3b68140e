package helper

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"mandos/internal/testenv"
)

// scopeRole makes this test's program start a scope: its value is the file in
// which the check says how it ended.
const scopeRole = "HELPER_TEST_SCOPE"

func startScope(order string) {
	check := exec.Command("sh", "-c", `trap "echo check >>'`+order+`'; exit" TERM; echo ready; while :; do sleep 0.1; done`)
	ready, err := check.StdoutPipe()
	if err == nil {
		err = check.Start()
	}
	if err == nil {
		_, err = ready.Read(make([]byte, 1))
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = (&Systemd{}).StartScope(ctx, UnitName("one"), description("one"), check.Process.Pid, time.Minute)
	}
	if err != nil {
		panic(err)
	}
}

// shutDown starts a systemd, with the tools to see what it does in the end: it
// is a user's, with the paths of the machine's own.
const shutDown = `
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
group=$(mktemp -d /sys/fs/cgroup/mandos-helper-test-XXXXXX)
mkdir $group/systemd
trap 'echo $$ >/sys/fs/cgroup/cgroup.procs; echo 1 >$group/cgroup.kill; until find $group -depth -type d -exec rmdir {} +; do sleep 0.1; done' EXIT
echo $$ >$group/systemd/cgroup.procs
export XDG_RUNTIME_DIR=/run DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent
/lib/systemd/systemd --user --log-target=console &
until systemctl --user start mandos-checker.service; do sleep 0.1; done
until test -e /run/ready; do sleep 0.1; done
"$TEST"
unset HELPER_TEST_SCOPE
systemctl --user start --no-block exit.target
wait
`

// TestShutdown: when the machine shuts down, a running check is abandoned by
// the helper before systemd kills it, so that no client seems to be down
// because of it.
func TestShutdown(t *testing.T) {
	testenv.Root(t, "for namespaces")
	testenv.Program(t, "/lib/systemd/systemd", "systemd")
	testenv.Program(t, "unshare", "util-linux")
	dir := t.TempDir()
	order := filepath.Join(dir, "order")
	units := filepath.Join(dir, "systemd/user")
	// A helper that takes its time.
	unit := "[Service]\nKillMode=mixed\n" +
		`ExecStart=sh -c 'trap "sleep 1; echo helper >>` + order + `; exit" TERM; echo >/run/ready; while :; do sleep 0.1; done'` + "\n"
	if err := errors.Join(os.MkdirAll(units, 0o755), os.WriteFile(filepath.Join(units, service), []byte(unit), 0o644)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "bash", "-c", shutDown)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TEST=" + self, scopeRole + "=" + order, "XDG_CONFIG_HOME=" + dir, "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	said, readErr := os.ReadFile(order)
	// On a busy machine systemd kills the check before it has reported
	// anything.
	if err != nil || readErr != nil || string(said) != "helper\ncheck\n" && string(said) != "helper\n" {
		t.Errorf("%v, %v, ended in the order %q, of\n%s", err, readErr, said, out)
	}
}
