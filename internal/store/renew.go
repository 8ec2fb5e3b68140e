package store

import (
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// renew writes everything that is stored to a new file, which then replaces the
// old one. It is for when the old one could not be synced: the kernel reports
// that only once, may have dropped what was to be written, and still shows it
// to readers, so that a later sync that succeeds proves nothing. And bbolt may
// believe in a commit that is not on disk, and overwrite what the last one on
// disk needs.
func (s *Store) renew() error {
	if _, err := s.Load(); err != nil {
		return err
	}
	dir := filepath.Dir(s.path)
	temp, db, file, err := s.build(dir, func(to *bbolt.Tx) error {
		return s.db.View(func(from *bbolt.Tx) error {
			for _, name := range [][]byte{metaBucket, clientsBucket, tombstonesBucket} {
				bucket := to.Bucket(name)
				if err := from.Bucket(name).ForEach(bucket.Put); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	failpoint("temporary written")
	if err := os.Rename(temp, s.path); err != nil {
		_ = db.Close()
		_ = os.Remove(temp)
		return err
	}
	failpoint("renamed")
	_ = s.db.Close() // it is no longer needed
	s.db, s.file, s.room = db, file, 0
	if err := syncDir(dir); err != nil {
		return err // on disk the name may still be the old file's
	}
	s.doubt = nil
	return nil
}

const (
	// roomFor is how much of the file, at most, reserve leaves room to rewrite:
	// more than the thousand clients take that can expire in one commit.
	roomFor = 8 << 20
	// roomStep is the step by which room grows.
	roomStep = 256 << 10
)

// reserve sets aside room on the disk for the next commit, which writes a new
// copy of every page that it changes: a disk that others have filled must not
// keep a client from being disabled. This is best effort; a copy-on-write file
// system such as btrfs may ignore it.
func (s *Store) reserve() {
	stats := s.db.Stats()
	var pages int64
	_ = s.db.View(func(tx *bbolt.Tx) error { pages = tx.Size() / pageSize; return nil })
	used := (pages - int64(stats.FreePageN+stats.PendingPageN)) * pageSize
	want := used + min(used, roomFor) + roomStep/2
	if want <= s.room {
		return
	}
	want = (want + roomStep - 1) / roomStep * roomStep
	for {
		err := unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want)
		if err == nil {
			s.room = want
		}
		if err != unix.EINTR {
			return
		}
	}
}
