package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SocketPath is the socket on which journald accepts entries in its native
// protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
const SocketPath = "/run/systemd/journal/socket"

const (
	fieldPrefix    = "MANDOS_"
	maxFieldName   = 64          // journald drops longer ones
	journalTimeout = time.Second // how long to wait for a journald that doesn't read
	maxKept        = 4 << 10     // size in bytes up to which a buffer is reused

	// facility is daemon (syslog(3)). A syslogd to which journald forwards
	// entries files them by it; without it they would count as a user's
	// (LOG_USER).
	facility = "3"
)

// NewNative returns a handler that sends entries with their fields to the
// journal's socket at path. What can't be sent goes to fallback, one line each,
// with its priority in the form of sd-daemon(3). identifier becomes
// SYSLOG_IDENTIFIER.
//
// It is our own writer, not go-systemd's: that one sends fields even though it
// has just found their names invalid, has a fixed socket path, and waits
// forever for a journald that hangs.
func NewNative(path, identifier string, levels Levels, fallback io.Writer) slog.Handler {
	return &handler{sink: &native{path: path, identifier: identifier, patience: journalTimeout, fallback: fallback}, levels: levels}
}

type native struct {
	path, identifier string
	patience         time.Duration // see journalTimeout

	mu       sync.Mutex
	conn     *net.UnixConn // nil until needed, and after an error
	buf      []byte        // for the next entry
	fallback io.Writer
}

func (n *native) write(e entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.encode(n.buf[:0], e)
	if cap(b) <= maxKept {
		n.buf = b
	}
	err := n.send(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = n.send(b) // journald may have been restarted
	}
	if err == nil {
		return nil
	}
	_, priority := levelName(e.level)
	_, err = fmt.Fprintf(n.fallback, "<%c>%s\n", priority, e.line())
	return err
}

func (n *native) send(b []byte) error {
	if n.conn == nil {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
		if err != nil {
			return err
		}
		n.conn = conn
	}
	if err := n.conn.SetWriteDeadline(time.Now().Add(n.patience)); err != nil {
		return err
	}
	_, err := n.conn.Write(b)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = n.sendMemfd(b)
	}
	if err != nil {
		_ = n.conn.Close()
		n.conn = nil
	}
	return err
}

// Settle waits, for at most a second, until journald has read what was logged.
// A program calls it before it exits: journald looks up the unit of an entry's
// process only when it reads the entry, so `journalctl -u` doesn't show the
// last entries of a process that has already exited by then.
func Settle(log *slog.Logger) {
	if h, ok := log.Handler().(*handler); ok {
		if n, ok := h.sink.(*native); ok {
			n.settle()
		}
	}
}

func (n *native) settle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil {
		return
	}
	// journald ignores an empty datagram, but reads it only after it has
	// handled the entry before.
	if _, err := n.conn.Write(nil); err != nil {
		return
	}
	raw, err := n.conn.SyscallConn()
	if err != nil {
		return
	}
	for deadline := time.Now().Add(n.patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		unread := 0
		if cerr := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); cerr != nil || err != nil || unread == 0 {
			return
		}
	}
}

// sendMemfd sends an entry that is too big for a datagram in a sealed memfd.
func (n *native) sendMemfd(b []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "journal-entry")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return err
	}
	raw, err := n.conn.SyscallConn() // WriteMsgUnix doesn't work with a connected datagram socket
	if err != nil {
		return err
	}
	rights := unix.UnixRights(fd)
	waitErr := raw.Write(func(socket uintptr) bool {
		err = unix.Sendmsg(int(socket), nil, rights, nil, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	return cmp.Or(waitErr, err)
}

// encode appends e in the native protocol to b.
func (n *native) encode(b []byte, e entry) []byte {
	_, priority := levelName(e.level)
	b = appendField(b, "MESSAGE", e.line())
	b = appendField(b, "PRIORITY", string(priority))
	b = appendField(b, "SYSLOG_FACILITY", facility)
	b = appendField(b, "SYSLOG_IDENTIFIER", n.identifier)
	if e.component != "" {
		b = appendField(b, keyComponent, e.component)
	}
	for _, f := range e.fields {
		b = appendField(b, fieldName(f.key), f.value)
	}
	return b
}

// appendField uses the form with an explicit length for every value that
// doesn't fit in a line, so that no value can begin another field.
func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	} else {
		b = append(b, '=')
	}
	b = append(b, value...)
	return append(b, '\n')
}

// fieldName turns an attribute's key into the name of one of our own fields, so
// that no attribute can pass for a field that has a meaning to journald or
// another program. Only MESSAGE_ID is taken as it is.
func fieldName(key string) string {
	if key == keyMessageID || isOwnField(key) {
		return key
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, key)
	if !strings.HasPrefix(name, fieldPrefix) {
		name = fieldPrefix + name
	}
	return name[:min(len(name), maxFieldName)]
}

// isOwnField reports whether key already is the name of one of our own fields.
func isOwnField(key string) bool {
	if !strings.HasPrefix(key, fieldPrefix) || len(key) > maxFieldName {
		return false
	}
	for i := range len(key) {
		if c := key[i]; c != '_' && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
