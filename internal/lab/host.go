package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed host.sh
var hostScript string

// patience is how long something that is due to happen may take. Only a hang reaches it.
const patience = 3 * time.Minute

// A Host is a booted machine.
type Host struct {
	Name  string
	Suite Suite

	t       testing.TB
	dir     string
	cmd     *exec.Cmd
	boots   io.WriteCloser // of host.sh
	disks   bool           // see Disks
	booting atomic.Int64   // leader of a boot that hasn't started up yet
	started chan int       // leader, after each boot
	leader  int            // the host's process 1, as this machine numbers it; 0 while it is off
	console *os.File
}

// An Option changes how a host is made.
type Option func(*options)

type options struct {
	ipv4   string
	disks  string
	nspawn []string
}

// Disks gives the host two disks of its own, file systems of type ext4: a large
// one for everything, and one of 16 MiB at /var/lib/mandos. A PowerCut then
// loses what was not synced.
func Disks() Option { return func(o *options) { o.disks = "disks" } }

// IPv4 gives the host an IPv4 address besides the IPv6 link-local one, such as 192.0.2.1/24.
func IPv4(address string) Option { return func(o *options) { o.ipv4 = address } }

// Boot boots a host of the suite on the link, with the source tree at /src
// and this test's own program at /lab, and returns when it has started up.
func (l *Link) Boot(t testing.TB, s Suite, name string, opts ...Option) *Host {
	t.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	h := &Host{Name: name, Suite: s, t: t, disks: o.disks != "", started: make(chan int, 10)}
	var err error
	h.dir = filepath.Join(os.TempDir(), unique())
	if err = os.Mkdir(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(h.dir) })
	notify := filepath.Join(h.dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	go h.listen(socket)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"netns", "exec", l.name, "unshare", "-m", "bash", "-c", hostScript, "host.sh",
		name, unique(), rootFS(t, s), o.ipv4, o.disks,
		"--bind-ro=" + Source(t) + ":/src", "--bind-ro=" + self + ":/lab"}
	h.cmd = exec.Command("ip", append(args, o.nspawn...)...)
	h.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if h.console, err = os.Create(filepath.Join(h.dir, "console")); err != nil {
		t.Fatal(err)
	}
	h.cmd.Stdout, h.cmd.Stderr = h.console, h.console
	if h.boots, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.remove)
	h.boot()
	return h
}

// tell writes a line to host.sh.
func (h *Host) tell(line string) {
	h.t.Helper()
	if _, err := io.WriteString(h.boots, line+"\n"); err != nil {
		console, _ := os.ReadFile(h.console.Name())
		h.t.Fatalf("telling %s to %s: %v\n%s", h.Name, line, err, console)
	}
}

// boot starts the host, which is off, and waits until it has started up.
func (h *Host) boot() {
	h.t.Helper()
	h.tell("boot")
	select {
	case h.leader = <-h.started:
	case <-time.After(patience):
		h.leader = int(h.booting.Load())
		h.t.Fatalf("booting %s: it does not start up\n%s", h.Name, h.state())
	}
}

// state says what the host is at.
func (h *Host) state() []byte {
	console, _ := os.ReadFile(h.console.Name())
	if h.leader != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		state, _ := h.command(ctx, "sh", "-c", "ps axf; systemctl list-jobs; systemctl --failed; journalctl -b -n 100").CombinedOutput()
		console = append(console, state...)
	}
	return console
}

// listen reads what systemd-nspawn notifies until the socket is closed, and
// sends the leader of each boot that has started up. It reads on all the time,
// as systemd-nspawn waits for us once the socket is full.
func (h *Host) listen(socket *net.UnixConn) {
	for message := make([]byte, 4096); ; {
		n, err := socket.Read(message)
		if err != nil {
			return
		}
		for line := range strings.SplitSeq(string(message[:n]), "\n") {
			if value, ok := strings.CutPrefix(line, "X_NSPAWN_LEADER_PID="); ok {
				leader, _ := strconv.Atoi(value) // systemd-nspawn's own number
				h.booting.Store(int64(leader))
			}
			if line == "READY=1" {
				if leader := h.booting.Swap(0); leader != 0 {
					h.started <- int(leader)
				}
			}
		}
	}
}

func (h *Host) remove() {
	if h.t.Failed() && h.leader != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := h.command(ctx, "sh", "-c", "journalctl -b --no-pager -o short-precise -n 1000 -u 'mandos*' |"+
			" grep -v 'systemd.*mandos-check-' | tail -n 60").CombinedOutput()
		if err == nil { // else there is nothing of mandos in its journal
			h.t.Logf("%s (%s), end of its journal:\n%s", h.Name, h.Suite, out)
		}
	}
	h.boots.Close()
	if err := h.cmd.Wait(); err != nil {
		h.t.Errorf("removing %s: %v", h.Name, err)
	}
	h.console.Close()
}

// command makes a command that runs inside the host, as root.
func (h *Host) command(ctx context.Context, args ...string) *exec.Cmd {
	if h.leader == 0 {
		h.t.Fatalf("%s is off", h.Name)
	}
	enter := []string{"-t", strconv.Itoa(h.leader), "-a", "--wdns=/", "--", "env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	// nsenter forks to enter the host's PID namespace; both must end together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// A Result is how a command inside a host went.
type Result struct {
	Status int // exit status
	Stdout string
	Stderr string
}

// Try runs a command inside the host, whatever its exit status.
func (h *Host) Try(args ...string) Result {
	h.t.Helper()
	return h.feed(h.t.Context(), nil, args...)
}

func (h *Host) feed(ctx context.Context, stdin io.Reader, args ...string) Result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := h.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); (err != nil && !exited) || ctx.Err() != nil {
		h.t.Fatalf("%s: %s: %v\n%s%s", h.Name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Run runs a command inside the host, which must succeed, and returns its
// standard output without the last newline.
func (h *Host) Run(args ...string) string {
	h.t.Helper()
	r := h.Try(args...)
	if r.Status != 0 {
		h.t.Fatalf("%s: %s: exit status %d\n%s%s", h.Name, strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Sh runs a line of shell inside the host, which must succeed.
func (h *Host) Sh(line string) string {
	h.t.Helper()
	return h.Run("sh", "-euc", line)
}

// CopyIn writes a file inside the host, owned by root. Its folder must exist.
func (h *Host) CopyIn(path, content string, mode os.FileMode) {
	h.t.Helper()
	r := h.feed(h.t.Context(), strings.NewReader(content),
		"sh", "-euc", `umask 077; cat >"$1"; chmod "$2" "$1"`, "sh", path, fmt.Sprintf("%o", mode))
	if r.Status != 0 {
		h.t.Fatalf("%s: writing %s: %s", h.Name, path, r.Stderr)
	}
}

// LinkLocal returns the host's link-local address, as its neighbours write it.
func (h *Host) LinkLocal() string {
	h.t.Helper()
	var found string
	h.AwaitUntil("it has a link-local address", func() bool { // the kernel gives it some time after the link is up
		for _, field := range strings.Fields(h.Run("ip", "-6", "-o", "addr", "show", "dev", "host0", "scope", "link")) {
			if address, ok := strings.CutSuffix(field, "/64"); ok {
				found = address + "%host0"
			}
		}
		return found != ""
	})
	return found
}

// PowerCut stops the host at once, and all that runs on it. With Disks it
// loses what was not synced.
func (h *Host) PowerCut() {
	h.t.Helper()
	h.off(h.leader, syscall.SIGKILL)
	if h.disks {
		h.tell("cut")
	}
}

// PowerOn boots a host that is off.
func (h *Host) PowerOn() {
	h.t.Helper()
	h.boot()
}

// Reboot shuts the host down in an orderly way and boots it again.
func (h *Host) Reboot() {
	h.t.Helper()
	const poweroff = syscall.Signal(34 + 4) // SIGRTMIN+4: systemd powers off
	h.off(h.leader, poweroff)
	h.boot()
}

// off sends a signal to the leader and waits until it is gone.
func (h *Host) off(pid int, signal syscall.Signal) {
	h.t.Helper()
	fd, err := unix.PidfdOpen(h.leader, 0)
	if err != nil {
		h.t.Fatalf("stopping %s: %v", h.Name, err)
	}
	defer unix.Close(fd)
	if err := syscall.Kill(pid, signal); err != nil {
		h.t.Fatalf("stopping %s: %v", h.Name, err)
	}
	for deadline := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			h.t.Fatalf("stopping %s: it does not stop (%v)\n%s", h.Name, err, h.state())
		}
		break
	}
	h.leader = 0
}

// Signal sends a signal to the host's process 1.
func (h *Host) Signal(signal syscall.Signal) {
	h.t.Helper()
	if err := syscall.Kill(h.leader, signal); err != nil {
		h.t.Fatalf("sending a signal to %s: %v", h.Name, err)
	}
}
