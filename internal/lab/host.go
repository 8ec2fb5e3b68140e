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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed host.sh
var hostScript string

// patience is how long something that is due to happen may take. Only a hang reaches it.
const patience = 60 * time.Second

// A Host is a booted machine.
type Host struct {
	Name  string
	Suite Suite

	t       testing.TB
	dir     string
	cmd     *exec.Cmd
	boots   io.WriteCloser // a line boots
	ready   *net.UnixConn  // where systemd-nspawn notifies us
	leader  int            // the host's process 1, as this machine numbers it; 0 while it is off
	console *os.File
}

// An Option changes how a host is made.
type Option func(*options)

type options struct {
	ipv4   string
	nspawn []string
}

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
	h := &Host{Name: name, Suite: s, t: t}
	var err error
	h.dir = filepath.Join(os.TempDir(), unique())
	if err = os.Mkdir(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(h.dir) })
	notify := filepath.Join(h.dir, "notify")
	if h.ready, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ready.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"netns", "exec", l.name, "unshare", "-m", "bash", "-c", hostScript, "host.sh",
		name, unique(), rootFS(t, s), o.ipv4,
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

// boot starts the host, which is off, and waits until it has started up.
func (h *Host) boot() {
	h.t.Helper()
	if _, err := io.WriteString(h.boots, "boot\n"); err != nil {
		h.t.Fatalf("booting %s: %v", h.Name, err)
	}
	if err := h.ready.SetReadDeadline(time.Now().Add(patience)); err != nil {
		h.t.Fatal(err)
	}
	for message := make([]byte, 4096); ; {
		n, err := h.ready.Read(message)
		if err != nil {
			console, _ := os.ReadFile(h.console.Name())
			h.t.Fatalf("booting %s: %v\n%s", h.Name, err, console)
		}
		ready := false
		for line := range strings.SplitSeq(string(message[:n]), "\n") {
			if value, ok := strings.CutPrefix(line, "X_NSPAWN_LEADER_PID="); ok {
				if h.leader, err = strconv.Atoi(value); err != nil {
					h.t.Fatalf("booting %s: leader %q", h.Name, value)
				}
			}
			ready = ready || line == "READY=1"
		}
		if ready && h.leader != 0 {
			return
		}
	}
}

func (h *Host) remove() {
	if h.t.Failed() && h.leader != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, _ := h.command(ctx, "journalctl", "-b", "--no-pager", "-o", "short-precise", "-n", "60",
			"-u", "mandos*", "-u", "avahi*", "-u", "init.scope").CombinedOutput()
		h.t.Logf("%s (%s), end of its journal:\n%s", h.Name, h.Suite, out)
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
	cmd.WaitDelay = 5 * time.Second
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

// A Process is a command that runs inside a host.
type Process struct {
	h      *Host
	cmd    *exec.Cmd
	name   string
	stdout bytes.Buffer
	stderr bytes.Buffer
	done   chan struct{}
	cancel context.CancelFunc
}

// Start starts a command inside the host; it is killed at the end of the test.
func (h *Host) Start(args ...string) *Process {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &Process{h: h, name: strings.Join(args, " "), done: make(chan struct{}), cancel: cancel}
	p.cmd = h.command(ctx, args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		h.t.Fatalf("%s: %s: %v", h.Name, p.name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its exit status is in Result
	}()
	h.t.Cleanup(p.Kill)
	return p
}

// Kill ends the command, if it still runs.
func (p *Process) Kill() {
	p.cancel()
	<-p.done
}

// Done is closed when the command has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until the command has ended.
func (p *Process) Wait() Result {
	p.h.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
		p.h.t.Fatalf("%s: %s does not end\n%s%s", p.h.Name, p.name, &p.stdout, &p.stderr)
	}
	return Result{p.cmd.ProcessState.ExitCode(), p.stdout.String(), p.stderr.String()}
}

// PowerCut stops the host at once, and all that runs on it.
func (h *Host) PowerCut() {
	h.t.Helper()
	h.off(h.leader, syscall.SIGKILL)
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
			h.t.Fatalf("stopping %s: it does not stop (%v)", h.Name, err)
		}
		break
	}
	h.leader = 0
}
