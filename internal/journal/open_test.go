package journal

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// roleEnv makes this test's program log to a stderr without a reader: its value
// says whether that is journald's.
const roleEnv = "JOURNAL_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		var st unix.Stat_t
		if err := unix.Fstat(2, &st); err != nil {
			panic(err)
		}
		if role == "journal" {
			os.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
		}
		Open("test", Levels{})
		_, err := fmt.Fprintln(os.Stderr, "what the journal's socket doesn't take")
		fmt.Println("alive:", err)
		return
	}
	os.Exit(m.Run())
}

// TestStderrWithoutReader: a service doesn't end because journald is gone. A
// pipe whose reader is gone ends a program, as it does any other.
func TestStderrWithoutReader(t *testing.T) {
	for role, want := range map[string]string{
		"journal": "alive: write /dev/stderr: broken pipe\n",
		"plain":   "",
	} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fds[0])
		stderr := os.NewFile(uintptr(fds[1]), "stderr")
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{roleEnv + "=" + role, "GORACE=" + os.Getenv("GORACE")}
		cmd.Stderr = stderr
		out, err := cmd.Output()
		stderr.Close()
		if string(out) != want || (err == nil) != (want != "") || err != nil && !strings.Contains(err.Error(), "broken pipe") {
			t.Errorf("%s: %q, %v; want %q", role, out, err, want)
		}
	}
}

// TestJournaldGone: an entry that can't be logged is an error, until journald
// is back.
func TestJournaldGone(t *testing.T) {
	path := t.TempDir() + "/socket"
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	log := patient(NewNative(path, "test", Levels{}, w))
	write := func() error { return Ready.Write(t.Context(), log) }
	if err := write(); err == nil {
		t.Error("without journald and without a reader of stderr: no error")
	}
	journald, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer journald.Close()
	if err := write(); err != nil {
		t.Errorf("journald is back: %v", err)
	}
}

// TestStartedWithoutJournald: systemd gives a service /dev/null for its stderr
// while journald is away. What is written there doesn't count as logged.
func TestStartedWithoutJournald(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("JOURNAL_STREAM", "")
	for _, tt := range []struct {
		stderr     *os.File
		invocation string
		service    bool
	}{{null, "7e5f", true}, {null, "", false}, {file, "7e5f", false}} {
		t.Setenv("INVOCATION_ID", tt.invocation)
		w := besideJournal(tt.stderr)
		if (w != nil) != tt.service {
			t.Errorf("%s, INVOCATION_ID=%q: logs to the journal: %v, want %v", tt.stderr.Name(), tt.invocation, w != nil, tt.service)
		}
		if w == nil {
			continue
		}
		h := NewNative(t.TempDir()+"/socket", "test", Levels{}, w)
		if err := Ready.Write(t.Context(), slog.New(h)); err == nil {
			t.Error("without journald: no error")
		}
	}
}
