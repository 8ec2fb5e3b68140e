package helper

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"mandos/internal/checker"
	"mandos/internal/testenv"
)

func TestUnitName(t *testing.T) {
	long := strings.Repeat("ö/ \n", 100)
	names := map[string]string{ // unit name to client
		UnitName("laptop"):           "laptop",
		UnitName("a-b"):              "a-b",
		UnitName("a/b"):              "a/b",
		UnitName(".hidden"):          ".hidden",
		UnitName(""):                 "",
		UnitName(long):               long,
		UnitName(long + "x"):         long + "x",
		UnitName("a b\nc"):           "a b\nc",
		UnitName("@%s$HOME`id`\\\""): "other signs",
	}
	if len(names) != 9 {
		t.Errorf("two clients share a unit name: %q", names)
	}
	for name, client := range names {
		if len(name) > maxUnitName {
			t.Errorf("%q: the unit name has %d bytes", client, len(name))
		}
		if strings.Trim(name, `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\`) != "" {
			t.Errorf("%q: systemd allows no such unit name: %q", client, name)
		}
	}
	if got, want := UnitName("a-b c"), `mandos-check-a\x2db\x20c.scope`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Cut anywhere, a name is still one that can be unescaped.
	for n := range 20 {
		name := strings.TrimSuffix(strings.TrimPrefix(UnitName(strings.Repeat("x", n)+strings.Repeat("-", 300)), unitPrefix), unitSuffix)
		for _, part := range strings.Split(name, `\`)[1:] {
			if len(part) < 3 || part[0] != 'x' {
				t.Errorf("half an escape sequence is in %s", name)
			}
		}
		_ = unit.UnitNameUnescape(name)
	}
}

// fakeManager stands in for systemd.
type fakeManager struct {
	mu       sync.Mutex
	pid      int
	starts   int
	kills    int
	limit    time.Duration
	onStart  func(pid int)
	onKill   func()
	startErr func(n int) error // of the n-th start
}

func (m *fakeManager) StartScope(_ context.Context, _, _ string, pid int, limit time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts++
	if m.startErr != nil {
		if err := m.startErr(m.starts); err != nil {
			return err
		}
	}
	m.pid, m.limit = pid, limit
	if m.onStart != nil {
		m.onStart(pid)
	}
	return nil
}

func (m *fakeManager) KillScope(context.Context, string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kills++
	if m.onKill != nil {
		m.onKill()
	}
	if m.pid > 0 {
		_ = syscall.Kill(-m.pid, syscall.SIGKILL) // the child leads a session
	}
	return nil
}

func (m *fakeManager) KillScopes(ctx context.Context) error { return m.KillScope(ctx, "") }

const nobody = 65534

func scopes(t *testing.T, m *fakeManager) *Scopes {
	t.Helper()
	testenv.Root(t, "to run commands as another user")
	return &Scopes{Manager: m, UID: nobody, GID: nobody}
}

func TestScopes(t *testing.T) {
	for name, tt := range map[string]struct {
		command string
		want    Outcome
	}{
		"alive":        {"exit 0", Outcome{}},
		"not alive":    {"exit 3", Outcome{ExitStatus: 3}},
		"by a signal":  {"kill -9 $$", Outcome{Signal: 9}},
		"output":       {"echo one; echo two >&2", Outcome{Output: []byte("one\ntwo\n")}},
		"user, groups": {"id -u; id -g; id -G", Outcome{Output: []byte("65534\n65534\n65534\n")}},
		"environment":  {"env | cut -d= -f1 | grep -vx -e PWD -e _ -e SHLVL -e OLDPWD | sort | tr '\n' ' '; printf %s \"$MANDOS_CLIENT\"", Outcome{Output: []byte("LANG MANDOS_CLIENT PATH a")}},
		"folder":       {"pwd", Outcome{Output: []byte("/\n")}},
		"stdin":        {"cat", Outcome{}},
		// 0, 1, 2 and the one that ls opens
		"descriptors":  {"ls /proc/self/fd", Outcome{Output: []byte("0\n1\n2\n3\n")}},
		"capabilities": {"grep -h -E 'Cap(Prm|Eff|Inh|Amb)' /proc/self/status | cut -f2 | sort -u", Outcome{Output: []byte("0000000000000000\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &fakeManager{}
			got, err := scopes(t, m).Run(t.Context(), checker.Request{Client: "a", Command: tt.command, Limit: time.Minute})
			if err != nil || got.ExitStatus != tt.want.ExitStatus || got.Signal != tt.want.Signal || string(got.Output) != string(tt.want.Output) {
				t.Errorf("got %+v (%q), %v; want %+v", got, got.Output, err, tt.want)
			}
			if m.starts != 1 || m.kills == 0 || m.limit <= time.Minute {
				t.Errorf("%d scopes started with a limit of %v, %d kills", m.starts, m.limit, m.kills)
			}
		})
	}
}

// TestHeldUntilScoped checks that nothing of the command runs before its
// process is in the scope, and that the process can't be traced by others
// of the checkers' user meanwhile.
func TestHeldUntilScoped(t *testing.T) {
	m := &fakeManager{onStart: func(pid int) {
		proc := "/proc/" + strconv.Itoa(pid)
		status, err := os.ReadFile(proc + "/status")
		if err != nil || !strings.Contains(string(status), "\nUid:\t0\t0\t0\t0\n") {
			t.Errorf("the held process isn't root's: %v\n%s", err, status)
		}
		exe, err := os.Readlink(proc + "/exe")
		own, _ := os.Readlink("/proc/self/exe")
		if err != nil || exe != own {
			t.Errorf("the held process runs %s already, %v", exe, err)
		}
	}}
	if _, err := scopes(t, m).Run(t.Context(), request); err != nil {
		t.Error(err)
	}
}

func TestNoScopeNoCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("systemd is away")
	m := &fakeManager{startErr: func(int) error { return broken }}
	ran := filepath.Join(dir, "ran")
	_, err := scopes(t, m).Run(t.Context(), checker.Request{Client: "a", Command: "echo >" + ran, Limit: time.Minute})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the command ran without a scope")
	}
}

func TestLeftOverScope(t *testing.T) {
	m := &fakeManager{startErr: func(n int) error {
		if n < 3 {
			return ErrUnitExists
		}
		return nil
	}}
	if _, err := scopes(t, m).Run(t.Context(), request); err != nil {
		t.Error(err)
	}
	if m.starts != 3 || m.kills < 2 {
		t.Errorf("%d starts, %d kills; want the left-over killed before each new start", m.starts, m.kills)
	}
}

func TestScopeKilled(t *testing.T) {
	for name, giveUp := range map[string]bool{"at the limit": false, "given up": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			reason := errors.New("the client was disabled")
			m := &fakeManager{}
			r := checker.Request{Client: "a", Command: "trap '' TERM; sleep 1000 & wait; sleep 1000", Limit: time.Second}
			if giveUp {
				r.Limit = time.Hour
				m.onStart = func(int) { time.AfterFunc(100*time.Millisecond, func() { cancel(reason) }) }
			}
			got, err := scopes(t, m).Run(ctx, r)
			for ; !giveUp && errors.Is(err, errNeverShell); r.Limit *= 2 { // a busy machine
				got, err = scopes(t, m).Run(ctx, r)
			}
			if giveUp && !errors.Is(err, reason) {
				t.Errorf("error %v, want %v", err, reason)
			}
			if !giveUp && (err != nil || !got.TimedOut || got.Signal != 9) {
				t.Errorf("got %+v, %v; want a time-out and signal 9", got, err)
			}
			left := session(t, m.pid)
			for end := time.Now().Add(time.Minute); len(left) > 0 && time.Now().Before(end); left = session(t, m.pid) {
				time.Sleep(5 * time.Millisecond) // who was killed takes some processor time to die
			}
			if len(left) > 0 {
				t.Errorf("of the command still runs: %q", left)
			}
		})
	}
}

// TestSlowKill checks that a command that has ended in time is not taken for one
// that hasn't, when systemd takes long to end its scope.
func TestSlowKill(t *testing.T) {
	r := request
	for r.Limit = time.Second; ; r.Limit *= 2 {
		var began time.Time
		inTime := false
		m := &fakeManager{onStart: func(int) { began = time.Now() }, onKill: func() {
			inTime = time.Since(began) < r.Limit
			time.Sleep(r.Limit)
		}}
		got, err := scopes(t, m).Run(t.Context(), r)
		if !inTime { // on a busy machine: that tells nothing
			continue
		}
		if err != nil || got.TimedOut || got.ExitStatus != 0 || got.Signal != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
		return
	}
}

// session returns the lines of /proc/PID/stat of the processes in session sid
// that aren't dead.
func session(t *testing.T, sid int) (left []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, _ := os.ReadFile(file) // it may have ended
		// pid (comm) state ppid pgrp session …; comm may hold anything
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) > 3 && f[0] != "Z" && f[0] != "X" && f[3] == strconv.Itoa(sid) {
			left = append(left, string(stat))
		}
	}
	return left
}

// ended waits until the process is a zombie, with no thread left.
func ended(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			t.Error(err)
			return
		}
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			t.Error(err)
			return
		}
		if bytes.Contains(stat, []byte(") Z ")) && len(threads) == 1 {
			return
		}
	}
	t.Error("the child doesn't end")
}

// TestHeldKilled checks that a child that is killed before it is the shell is
// an error, not a check that failed.
func TestHeldKilled(t *testing.T) {
	for name, wait := range map[string]func(*testing.T, int){"just now": func(*testing.T, int) {}, "a while ago": ended} {
		t.Run(name, func(t *testing.T) {
			m := &fakeManager{onStart: func(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL); wait(t, pid) }}
			if got, err := scopes(t, m).Run(t.Context(), request); !errors.Is(err, errNeverShell) {
				t.Errorf("got the result %+v, %v", got, err)
			}
		})
	}
}

// TestHeldFails checks that a child that can't become the shell is an error
// that says why, not a check that failed.
func TestHeldFails(t *testing.T) {
	s := scopes(t, &fakeManager{onStart: func(pid int) { ended(t, pid) }})
	s.UID = 0 // Held refuses to run anything as root
	_, err := s.Run(t.Context(), request)
	if err == nil || !strings.Contains(err.Error(), "user to become") {
		t.Errorf("error %v, want one about the user", err)
	}
}

// TestOutputOfABusyMachine checks that output which came in time is kept even
// if the helper didn't get round to reading it.
func TestOutputOfABusyMachine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // held open by something that the shell left behind
	if _, err := w.WriteString("two\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &heldChild{output: r}
	if got := string(c.rest([]byte("one\n"))); got != "one\ntwo\n" {
		t.Errorf("kept %q", got)
	}
	if got := string(c.rest(nil)); got != "" {
		t.Errorf("of an empty pipe: %q", got)
	}
}
