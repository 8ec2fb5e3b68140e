package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/oldstate"
	"mandos/internal/registry"
	"mandos/internal/store"
)

const (
	// imported is the name that the old server's file gets once it has been
	// taken over.
	imported = oldstate.FileName + ".imported"
	// secretsWithin is how long a start may spend on finding out whose secret
	// was changed at run time. systemd waits for a minute.
	secretsWithin = 20 * time.Second
)

// importOldState takes over into s what the server before this one may have
// left in dir: all of it, and on disk, or it returns an error. If we die on the
// way, the next start does it again, with the same outcome.
func (d *daemon) importOldState(dir string, s *store.Store, now time.Time) error {
	path := filepath.Join(dir, oldstate.FileName)
	old, err := readOldState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what the server before this one has saved: %s: %w; not starting, as clients that were"+
			" disabled could be enabled by that. Start that server again and stop it in good order, which writes the file"+
			" anew, or restore it from a backup; or, if you know which clients to trust, move it away (all clients then start"+
			" as clients.conf says)", path, err)
	}
	have, err := s.Load()
	if err != nil {
		return err
	}
	if err := s.Commit(old.Batch(have, now)); err != nil {
		return fmt.Errorf("taking over %s: %w", path, err)
	}
	if err := rename(dir, oldstate.FileName, imported); err != nil {
		return fmt.Errorf("%s has been taken over; renaming it: %w (move it away, or it is taken over again at each start)", path, err)
	}
	ctx := context.Background()
	journal.OldStateTaken.Log(ctx, d.log, journal.Count(len(old.Clients)))
	d.reportLost(ctx, old)
	return nil
}

// addOldState adds to state what importOldState would take over into it.
func addOldState(dir string, state *registry.State) error {
	path := filepath.Join(dir, oldstate.FileName)
	old, err := readOldState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var both registry.MemoryStore
	for _, b := range []registry.Batch{{Seen: state.Seen, Put: state.Records, PutTombstones: state.Tombstones}, old.Batch(*state, time.Now())} {
		if err := both.Commit(b); err != nil {
			return err
		}
	}
	*state, err = both.Load()
	return err
}

func readOldState(path string) (*oldstate.State, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if pathError, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, pathError.Err // the caller names the path
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Size() > oldstate.MaxSize:
		return nil, fmt.Errorf("it has %d bytes, and %d are the most that are read", info.Size(), oldstate.MaxSize)
	}
	data, err := io.ReadAll(io.LimitReader(f, oldstate.MaxSize))
	if err != nil {
		return nil, err
	}
	return oldstate.Parse(data, info.ModTime())
}

// reportLost logs what an operator had set at run time and must set again.
func (d *daemon) reportLost(ctx context.Context, old *oldstate.State) {
	configured := map[string]*client.Settings{}
	for i := range d.Clients {
		configured[d.Clients[i].Settings.Name] = &d.Clients[i].Settings
	}
	deadline := time.Now().Add(secretsWithin)
	for i := range old.Clients {
		c := &old.Clients[i]
		name := journal.Client(c.Current.Name)
		set := configured[c.Current.Name]
		if set == nil {
			continue
		}
		for _, key := range c.Unfit {
			journal.OldSettingLost.Log(ctx, d.log, name, journal.Setting(key))
		}
		if time.Now().After(deadline) {
			journal.OldSecretLost.Log(ctx, d.log, name, journal.Reason("no time to find out whether it was set at run time"))
		} else if c.SecretChanged(set.Secret) {
			journal.OldSecretLost.Log(ctx, d.log, name, journal.Reason("it was set at run time, and the one of clients.conf counts now"))
		}
	}
}

// rename renames a file in dir, and syncs that to disk.
func rename(dir, from, to string) error {
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
