package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open returns the program's logger: to the journal if stderr is connected to
// it, otherwise to stderr in plain lines. If nobody reads those, SIGPIPE ends
// the program; without journald it goes on. identifier is the program's name.
// DEBUG_INVOCATION=1, which systemd sets for a service with RestartMode=debug,
// overrules levels.
func Open(identifier string, levels Levels) *slog.Logger {
	if os.Getenv("DEBUG_INVOCATION") == "1" {
		levels = Debug()
	}
	if fallback := besideJournal(os.Stderr); fallback != nil {
		// journald may go away and come back; without this, Go ends a program
		// that writes to a stderr that nobody reads. With it the program goes
		// on, and what can't be logged doesn't happen.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		return slog.New(NewNative(SocketPath, identifier, levels, fallback))
	}
	return slog.New(NewPlain(os.Stderr, levels))
}

// besideJournal returns where a service writes what journald doesn't accept, or
// nil for a program that doesn't log to the journal. A service that systemd
// starts while journald is away gets /dev/null for its stderr; what is written
// there is lost.
func besideJournal(stderr *os.File) io.Writer {
	switch {
	case isJournal(stderr, os.Getenv("JOURNAL_STREAM")):
		return stderr
	case os.Getenv("INVOCATION_ID") != "" && isNull(stderr):
		return nowhere{}
	}
	return nil
}

// nowhere is a writer that always fails.
type nowhere struct{}

func (nowhere) Write([]byte) (int, error) { return 0, errors.New("stderr is /dev/null") }

func isNull(f *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// isJournal reports whether f is the stream to the journal that $JOURNAL_STREAM
// names by device and inode (systemd.exec(5)). The variable alone proves
// nothing: processes inherit it even if their stderr is another.
func isJournal(f *os.File, stream string) bool {
	var dev, ino uint64
	if n, err := fmt.Sscanf(stream, "%d:%d", &dev, &ino); n != 2 || err != nil {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return uint64(st.Dev) == dev && st.Ino == ino
}
