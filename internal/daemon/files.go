package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/journal"
	"mandos/internal/registry"
	"mandos/internal/store"
)

const (
	systemConfigDir = "/etc/mandos"
	pidFile         = "/run/mandos/mandos.pid"
)

// stateDir returns the folder of the state: that of the options, or of
// systemd's StateDirectory=, or the default. But a server that is started with
// a configuration of its own, perhaps beside the system's, keeps its own state
// next to that configuration.
func (d *daemon) stateDir() string {
	if d.Config.Where("statedir") != "" {
		return d.Config.StateDir
	}
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" && underSystemd() {
		return dir
	}
	if d.Config.ConfigDir != systemConfigDir {
		return filepath.Join(d.Config.ConfigDir, "state")
	}
	return d.Config.StateDir
}

// A savedState is a read-only copy of what was saved, for --no-restore.
type savedState registry.State

func (s savedState) Load() (registry.State, error) { return registry.State(s), nil }
func (savedState) Commit(registry.Batch) error     { return errors.New("not saved with --no-restore") }

// leftAside reads the state that --no-restore ignores, so that the log can say
// how many clients that enables. A state that can't be read is no reason not to
// start.
func (d *daemon) leftAside() registry.Store {
	var state registry.State
	dir := d.stateDir()
	err := asOwner(dir, func() (err error) {
		if state, err = store.Read(dir); err != nil {
			return err
		}
		return addOldState(dir, &state)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("the saved state can't be read, so it is unknown how many clients --no-restore enables", journal.Err(err))
	}
	return savedState(state)
}

// openState opens the state.
func (d *daemon) openState() (s *store.Store, err error) {
	dir := d.stateDir()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making the folder for the state: %w (name another one with --statedir)", err)
	}
	err = asOwner(dir, func() (err error) {
		if s, err = store.Open(dir); err != nil {
			return err
		}
		if err = d.importOldState(dir, s, time.Now()); err != nil {
			_ = s.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// writePIDFile writes our process ID to path, if its folder exists and is
// writable and no other server holds the file. The caller must call cleanup in
// the end.
func writePIDFile(path string) (cleanup func()) {
	cleanup = func() {}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return cleanup
	}
	// The lock shows that the process is alive, and ends with it.
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return cleanup
	}
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintln(f, os.Getpid()) // nobody depends on it
	}
	return func() {
		_ = os.Remove(path) // fails if we have given up root's privileges
		f.Close()
	}
}
