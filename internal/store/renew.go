package store

import (
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// renew writes all that is stored to a new file, which then takes the place of
// the old one. It is for when the old one could not be synced: the kernel has
// reported that once, may have forgotten what was to be written, and shows it
// to us all the same; a later sync of that file that succeeds proves nothing.
// And bbolt may take a commit for done that is not on disk, and write over
// what the last one there needs.
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
	_ = s.db.Close() // nothing of it is needed any more
	s.db, s.file, s.room = db, file, 0
	if err := syncDir(dir); err != nil {
		return err // the name may still be that of the old one
	}
	s.doubt = nil
	return nil
}

const (
	// roomFor is how much of the file at most there is room to write anew: more
	// than the thousand clients that expire in one commit take.
	roomFor = 8 << 20
	// roomStep is by how much room grows.
	roomStep = 256 << 10
)

// reserve sets room aside on the disk for the next commit: it writes anew
// whatever it changes, and a disk that others have filled must keep nobody from
// being disabled. It does what it can; a file system that copies on write, such
// as btrfs, may take no notice.
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
