package helper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/coreos/go-systemd/v22/unit"
	"github.com/godbus/dbus/v5"

	"mandos/internal/checker"
)

// What systemd is asked for: names, and the limits of one check.
const (
	slice          = "mandos-checkers.slice"
	service        = "mandos-checker.service" // this helper's
	unitPrefix     = "mandos-check-"
	unitSuffix     = ".scope"
	maxUnitName    = 255 // systemd's UNIT_NAME_MAX
	tasksMax       = 64
	memoryMax      = 128 << 20
	backstop       = 5 * time.Second // how long after the limit systemd kills a check if the helper is gone
	managerTimeout = 15 * time.Second
	leftOverTries  = 20
	leftOverPause  = 100 * time.Millisecond
)

// UnitName returns the name of the scope in which client is checked. A name
// that would be too long for systemd is shortened, with a hash appended.
func UnitName(client string) string {
	escaped := unit.UnitNameEscape(client)
	if len(unitPrefix)+len(escaped)+len(unitSuffix) > maxUnitName {
		sum := sha256.Sum256([]byte(client))
		hash := "_" + hex.EncodeToString(sum[:16])
		escaped = escaped[:maxUnitName-len(unitPrefix)-len(unitSuffix)-len(hash)]
		// Don't leave part of an escape sequence.
		if i := strings.LastIndexByte(escaped, '\\'); i >= 0 && i > len(escaped)-len(`\x00`) {
			escaped = escaped[:i]
		}
		escaped += hash
	}
	return unitPrefix + escaped + unitSuffix
}

// description describes client's scope in one line, for systemctl.
func description(client string) string {
	return fmt.Sprintf("Mandos checker for %.100q", client)
}

// A Manager is what the helper needs of systemd.
type Manager interface {
	// StartScope puts the process pid into a new scope; it returns once the
	// process is there, or [ErrUnitExists] if there already is a unit of that
	// name.
	StartScope(ctx context.Context, name, description string, pid int, limit time.Duration) error
	// KillScope sends SIGKILL to all processes in the scope. It is no error if
	// there is no such scope.
	KillScope(ctx context.Context, name string) error
	// KillScopes does the same for all checkers' scopes.
	KillScopes(ctx context.Context) error
}

// ErrUnitExists is returned for a scope whose name is taken.
var ErrUnitExists = errors.New("there is a unit of that name")

// Scopes runs commands as UID and GID, each in a scope of its own.
type Scopes struct {
	Manager  Manager
	UID, GID uint32
}

var _ Runner = (*Scopes)(nil)

// Run implements [Runner].
func (s *Scopes) Run(ctx context.Context, r checker.Request) (Outcome, error) {
	name := UnitName(r.Client)
	child, err := hold(s.UID, s.GID, r)
	if err != nil {
		return Outcome{}, err
	}
	defer child.discard()

	if err := s.scope(ctx, name, description(r.Client), child.pid(), r.Limit+backstop); err != nil {
		return Outcome{}, fmt.Errorf("starting %s: %w", name, err)
	}
	// Whatever happens from here on, nothing must stay behind in the scope.
	kill := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), managerTimeout)
		defer cancel()
		if err := s.Manager.KillScope(ctx, name); err != nil {
			child.kill() // at least the shell
		}
	})
	defer kill()

	limited, cancel := context.WithTimeout(ctx, r.Limit)
	defer cancel()
	stop := context.AfterFunc(limited, kill)
	defer stop()
	var state *os.ProcessState
	var output []byte
	if err = child.release(); err == nil {
		state, output, err = child.wait()
	}
	timedOut := limited.Err() != nil // before kill, which can take long
	kill()
	if ctx.Err() != nil { // no matter how far it got
		return Outcome{}, context.Cause(ctx)
	}
	if err != nil {
		return Outcome{}, err
	}
	status, signal := checker.Status(state)
	return Outcome{status, signal, timedOut, output}, nil
}

// Sweep kills whatever an earlier helper that was killed has left running. It
// must be called before the first Run.
func (s *Scopes) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, managerTimeout)
	defer cancel()
	if err := s.Manager.KillScopes(ctx); err != nil {
		return fmt.Errorf("killing left-over checkers: %w", err)
	}
	return nil
}

// scope puts pid into a new scope; one of the same name, left over by a
// helper that was killed, is killed first.
func (s *Scopes) scope(ctx context.Context, name, description string, pid int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, managerTimeout)
	defer cancel()
	var err error
	for range leftOverTries {
		if err = s.Manager.StartScope(ctx, name, description, pid, limit); !errors.Is(err, ErrUnitExists) {
			return err
		}
		if err := s.Manager.KillScope(ctx, name); err != nil {
			return fmt.Errorf("killing the left-over one: %w", err)
		}
		select {
		case <-time.After(leftOverPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}

// Systemd is the [Manager] of this machine. It connects at the first call, and
// again after the connection was lost.
type Systemd struct {
	mu   sync.Mutex
	conn *systemd.Conn
}

var _ Manager = (*Systemd)(nil)

// connection returns the connection to systemd's own socket, not to the bus, so
// that checks go on while dbus-daemon restarts.
func (m *Systemd) connection(ctx context.Context) (*systemd.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && m.conn.Connected() {
		return m.conn, nil
	}
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
	conn, err := systemd.NewSystemdConnectionContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	m.conn = conn
	return conn, nil
}

// StartScope implements [Manager].
func (m *Systemd) StartScope(ctx context.Context, name, description string, pid int, limit time.Duration) error {
	conn, err := m.connection(ctx)
	if err != nil {
		return err
	}
	property := func(name string, value any) systemd.Property {
		return systemd.Property{Name: name, Value: dbus.MakeVariant(value)}
	}
	done := make(chan string, 1)
	_, err = conn.StartTransientUnitContext(ctx, name, "fail", []systemd.Property{
		systemd.PropDescription(description),
		systemd.PropSlice(slice),
		systemd.PropPids(uint32(pid)),
		// This makes it end after this helper when the machine shuts down. If
		// systemd killed a checker first, the client would seem to be down, and
		// such a client gets no time to boot after a power cut.
		systemd.PropBefore(service),
		property("RuntimeMaxUSec", uint64(limit.Microseconds())),
		property("TimeoutStopUSec", uint64(time.Second.Microseconds())),
		property("TasksMax", uint64(tasksMax)),
		property("MemoryMax", uint64(memoryMax)),
		property("CollectMode", "inactive-or-failed"),
	}, done)
	if err != nil {
		if isDBusError(err, "org.freedesktop.systemd1.UnitExists") {
			return ErrUnitExists
		}
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd's job ended as %q", result)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// KillScope implements [Manager].
func (m *Systemd) KillScope(ctx context.Context, name string) error {
	conn, err := m.connection(ctx)
	if err != nil {
		return err
	}
	err = conn.KillUnitWithTarget(ctx, name, systemd.All, int32(syscall.SIGKILL))
	if isDBusError(err, "org.freedesktop.systemd1.NoSuchUnit") || isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") {
		return nil
	}
	return err
}

// KillScopes implements [Manager].
func (m *Systemd) KillScopes(ctx context.Context) error {
	conn, err := m.connection(ctx)
	if err != nil {
		return err
	}
	units, err := conn.ListUnitsByPatternsContext(ctx, nil, []string{unitPrefix + "*" + unitSuffix})
	if err != nil {
		return err
	}
	for _, u := range units {
		err = errors.Join(err, m.KillScope(ctx, u.Name))
	}
	return err
}

func isDBusError(err error, name string) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && e.Name == name
}

// A held child is a process that waits to be let go before it becomes the
// unprivileged shell.
type heldChild struct {
	cmd    *exec.Cmd
	gate   *os.File // a byte releases the child; closing it makes the child exit
	fault  *os.File // onItsWay, or why it couldn't become the shell
	output *os.File
}

// hold starts the child. It stays root, and so out of reach of other checkers,
// until it has been put into its scope and is released.
func hold(uid, gid uint32, r checker.Request) (*heldChild, error) {
	var pipes [3]struct{ r, w *os.File }
	closeAll := func() {
		for _, p := range pipes {
			p.r.Close() // of a nil file: just an error
			p.w.Close()
		}
	}
	for i := range pipes {
		var err error
		if pipes[i].r, pipes[i].w, err = os.Pipe(); err != nil {
			closeAll()
			return nil, fmt.Errorf("making a pipe: %w", err)
		}
	}
	gate, fault, output := pipes[0], pipes[1], pipes[2]

	cmd := exec.Command("/proc/self/exe", HeldArgs(uid, gid, r.Command)...)
	cmd.Dir, cmd.Env = "/", checker.Environment(r.Client)
	cmd.Stdout, cmd.Stderr = output.w, output.w
	cmd.ExtraFiles = []*os.File{gate.r, fault.w} // gateFD, faultFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		closeAll()
		return nil, fmt.Errorf("starting the checker's process: %w", err)
	}
	gate.r.Close()
	fault.w.Close()
	output.w.Close()
	return &heldChild{cmd, gate.w, fault.r, output.r}, nil
}

func (c *heldChild) pid() int { return c.cmd.Process.Pid }

var errNeverShell = errors.New("the checker's process was killed before it could become the shell")

func (c *heldChild) kill() { _ = c.cmd.Process.Kill() }

// release lets the child become the shell, and returns once it has.
func (c *heldChild) release() error {
	// If it has ended already, it has said why.
	if _, err := c.gate.Write([]byte{1}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("letting the checker go: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(c.fault, checker.MaxOutput))
	why, gone := strings.CutPrefix(string(said), onItsWay)
	switch {
	case err != nil:
		return fmt.Errorf("letting the checker go: %w", err)
	case why != "":
		return errors.New(why)
	case !gone:
		return errNeverShell
	}
	return nil
}

// outputGrace is how long output is still read after the shell has ended.
const outputGrace = 200 * time.Millisecond

// wait returns how the shell ended and the beginning of its output.
func (c *heldChild) wait() (*os.ProcessState, []byte, error) {
	output := make(chan []byte, 1)
	go func() {
		kept, err := io.ReadAll(io.LimitReader(c.output, checker.MaxOutput))
		if err == nil {
			_, _ = io.Copy(io.Discard, c.output)
		}
		output <- kept
	}()
	err := c.cmd.Wait()
	// Something that the shell left behind may keep the pipe open.
	_ = c.output.SetReadDeadline(time.Now().Add(outputGrace))
	kept := c.rest(<-output)
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return nil, nil, fmt.Errorf("waiting for the checker: %w", err)
	}
	return c.cmd.ProcessState, kept, nil
}

// rest appends to kept what is already in the pipe: on a busy machine the grace
// can be over before anything was read.
func (c *heldChild) rest(kept []byte) []byte {
	_ = c.output.SetReadDeadline(time.Time{})
	raw, err := c.output.SyscallConn()
	if err != nil {
		return kept
	}
	more := make([]byte, checker.MaxOutput-len(kept))
	_ = raw.Read(func(fd uintptr) bool {
		n, _ := syscall.Read(int(fd), more) // EAGAIN if it is empty but open
		kept = append(kept, more[:max(n, 0)]...)
		return true
	})
	return kept
}

// discard frees what is left; a child that was never released exits.
func (c *heldChild) discard() {
	c.gate.Close()
	c.fault.Close()
	c.output.Close()
	if c.cmd.ProcessState == nil {
		c.kill()
		_ = c.cmd.Wait()
	}
}
