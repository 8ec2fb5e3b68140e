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

// Open returns the program's logger: to the journal when stderr is connected
// to it, else to stderr in plain lines. Without a reader of those the program
// ends by SIGPIPE; without journald it goes on. identifier is the program's name.
// DEBUG_INVOCATION=1, which systemd sets for a service with
// RestartMode=debug, overrules levels.
func Open(identifier string, levels Levels) *slog.Logger {
	if os.Getenv("DEBUG_INVOCATION") == "1" {
		levels = Debug()
	}
	if fallback := besideJournal(os.Stderr); fallback != nil {
		// journald may go away and come back; without this, Go ends a program
		// that writes to a stderr that nobody reads. What isn't on record
		// then doesn't happen, and the program goes on.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
		return slog.New(NewNative(SocketPath, identifier, levels, fallback))
	}
	return slog.New(NewPlain(os.Stderr, levels))
}

// besideJournal returns where a service writes what journald doesn't take, or
// nil for a program that doesn't log to the journal. One that systemd starts
// while journald is away gets /dev/null for its stderr; nothing is on record
// there.
func besideJournal(stderr *os.File) io.Writer {
	switch {
	case isJournal(stderr, os.Getenv("JOURNAL_STREAM")):
		return stderr
	case os.Getenv("INVOCATION_ID") != "" && isNull(stderr):
		return nowhere{}
	}
	return nil
}

// nowhere takes nothing.
type nowhere struct{}

func (nowhere) Write([]byte) (int, error) { return 0, errors.New("stderr is /dev/null") }

func isNull(f *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// isJournal reports whether f is the stream to the journal that
// $JOURNAL_STREAM names by device and inode (systemd.exec(5)). The variable
// alone proves nothing: it is inherited by processes whose stderr isn't.
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
