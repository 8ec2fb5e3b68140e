// Package store keeps the state of clients in a bbolt file, behind the
// Store interface of package registry.
//
// The file is trusted as a whole or not at all: one that was damaged (even if
// only by a byte that makes bbolt fall back to the commit before the last), cut
// short or written by a newer version is an error that says so, because
// starting without it would enable clients that were disabled.
//
// The file holds three buckets:
//
//	meta    "version": the version of the format, decimal
//	        "summary": the last instant seen, and the number and the sum
//	                   of the checksums of all items below
//	clients a client's name: an item, see coder.record
//	graves  kind, 0, value:  an item, see coder.tombstone
//
// An item is one byte of version, eight of checksum, and its body. The checksum
// also covers bucket, key and version, so that an item in the wrong place is
// noticed; the summary shows when items are missing.
package store

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"mandos/internal/cores"
	"mandos/internal/registry"
)

const (
	fileName = "clients.db"
	// version is the version of the format. A change that an older program
	// would misread raises it. The items of an older file are read as they are,
	// and the first commit makes it a file of this version.
	version = 2
	// pageSize is fixed, so that a file can move to a machine with memory pages
	// of another size.
	pageSize = 4096
	// mapped is how much address space the file gets from the start. Whenever
	// the file outgrows it, bbolt copies everything that a commit has changed.
	mapped = 256 << 20
	// growth is how much further than needed the file grows.
	growth = 32 << 10
	// fillPercent is how full rewritten pages may be: nearly full, as most
	// items keep their length.
	fillPercent = 0.9
	// lockTimeout is how long to wait for another process to release the file,
	// as one that is being restarted does.
	lockTimeout = 5 * time.Second
)

var (
	metaBucket       = []byte("meta")
	clientsBucket    = []byte("clients")
	tombstonesBucket = []byte("graves") // as the first versions called them
	versionText      = strconv.Itoa(version)
	versionKey       = []byte("version")
	summaryKey       = []byte("summary")
)

// errDamaged is the cause of every error about a file that can't be trusted.
var errDamaged = errors.New("the state file is damaged")

// A Store is the state file of one server. It is a [registry.Store].
type Store struct {
	path   string
	db     *bbolt.DB
	file   *os.File // of db
	room   int64    // bytes of the disk that are set aside for the file; see reserve
	doubt  error    // a commit failed in such a way that what the file says may not be on disk; see renew
	broken error    // no commit can be trusted any more
}

var _ registry.Store = (*Store)(nil)

// failpoint is called at each point where a crash could do harm. Tests set it.
var failpoint = func(name string) {}

// Open opens the state file in the folder dir, or makes an empty one where
// there is none. One process at a time can have it open.
func Open(dir string) (*Store, error) { return open(dir, lockTimeout) }

// Read returns what is in the state file of the folder dir, or the zero State
// if there is none. It changes nothing.
func Read(dir string) (registry.State, error) {
	if _, err := os.Stat(filepath.Join(dir, fileName)); errors.Is(err, fs.ErrNotExist) {
		return registry.State{}, nil
	}
	s, err := open(dir, 100*time.Millisecond) // if another process has it open, don't wait for that
	if err != nil {
		return registry.State{}, err
	}
	defer s.Close()
	return s.Load()
}

func open(dir string, timeout time.Duration) (*Store, error) {
	s := &Store{path: filepath.Join(dir, fileName)}
	info, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.create(dir); err != nil {
			return nil, fmt.Errorf("making the state file %s: %w%s", s.path, err, hint(err))
		}
	case err != nil:
		return nil, fmt.Errorf("opening the state file: %w%s", err, hint(err))
	case info.Size() == 0:
		return nil, s.damaged("it is empty")
	}
	// bbolt must not see a damaged file: it may panic in a goroutine of its
	// own.
	if err := s.inspect(timeout); err != nil {
		return nil, err
	}
	var f *os.File
	err = s.guard(func() (err error) { s.db, err = openBolt(s.path, timeout, &f); return err })
	if err != nil {
		if f != nil {
			_ = f.Close() // a panic has left it open
		}
		switch {
		case errors.Is(err, bbolterrors.ErrTimeout):
			return nil, s.inUse()
		case errors.Is(err, errDamaged):
			return nil, err
		}
		return nil, fmt.Errorf("opening the state file: %w%s", err, hint(err))
	}
	s.file = f
	err = s.isCurrent()
	if err == nil {
		err = s.guard(s.check)
	}
	if err != nil {
		_ = s.db.Close()
		return nil, err
	}
	s.removeTemporary(dir)
	s.reserve()
	return s, nil
}

// openBolt opens path with bbolt, and sets *f to the file as soon as it is
// open.
func openBolt(path string, timeout time.Duration, f **os.File) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         timeout,
		PageSize:        pageSize,
		InitialMmapSize: mapped,
		FreelistType:    bbolt.FreelistMapType,
		OpenFile: func(path string, flag int, mode fs.FileMode) (*os.File, error) {
			file, err := os.OpenFile(path, flag, mode)
			*f = file
			failpoint("opened")
			return file, err
		},
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = growth
	return db, nil
}

// inspect verifies the file while nobody else has it open.
func (s *Store) inspect(timeout time.Duration) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the state file: %w%s", err, hint(err))
	}
	defer f.Close()
	for deadline := time.Now().Add(timeout); ; time.Sleep(50 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if err != syscall.EWOULDBLOCK {
			return fmt.Errorf("locking the state file %s: %w", s.path, err)
		}
		if time.Now().After(deadline) {
			return s.inUse()
		}
	}
	if err := verify(f); err != nil {
		return s.damaged(err.Error())
	}
	return nil
}

// isCurrent returns an error if the open file is no longer the one at s.path:
// the process that had the lock before may have replaced it, see renew, and
// hold the lock of the new one.
func (s *Store) isCurrent() error {
	opened, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("opening the state file %s: %w", s.path, err)
	}
	named, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("opening the state file: %w", err)
	}
	if !os.SameFile(opened, named) {
		return s.inUse()
	}
	return nil
}

func (s *Store) inUse() error {
	return fmt.Errorf("the state file %s is in use by another mandos: stop that one, or give this one another folder with --statedir", s.path)
}

// hint says what to do about an error from the operating system.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return " (the server must be able to write in the folder of --statedir)"
	case errors.Is(err, fs.ErrPermission):
		return " (the folder of --statedir, and all in it, must be the server's user's)"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return " (make room there, or name another folder with --statedir)"
	case errors.Is(err, fs.ErrNotExist):
		return " (make that folder, or name another one with --statedir)"
	}
	return ""
}

// damaged returns the error for a file that can't be trusted.
func (s *Store) damaged(why string) error {
	return fmt.Errorf("%w: %s: %s; not starting, as clients that were disabled could be enabled by that."+
		" Restore the file from a backup; or, if you know which clients to trust, move it away"+
		" (all clients then start as clients.conf says) or start with --no-restore once", errDamaged, s.path, why)
}

// create makes an empty state file, completely or not at all.
func (s *Store) create(dir string) error {
	temp, db, _, err := s.build(dir, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if err := meta.Put(versionKey, []byte(versionText)); err != nil {
			return err
		}
		return putSummary(meta, summary{})
	})
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := db.Close(); err != nil {
		return err
	}
	failpoint("temporary written")
	// Link, unlike Rename, doesn't replace what another process has made
	// meanwhile.
	if err := os.Link(temp, s.path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	failpoint("linked")
	if err := syncDir(dir); err != nil {
		return err
	}
	// The folder may be new, too. This is best effort: the one above isn't ours.
	_ = syncDir(dir + "/..")
	return nil
}

// build makes a temporary file with what fill puts into its buckets, and syncs
// it. The file stays open.
func (s *Store) build(dir string, fill func(*bbolt.Tx) error) (temp string, db *bbolt.DB, bolt *os.File, err error) {
	f, err := os.CreateTemp(dir, fileName+".new-")
	if err != nil {
		return "", nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := f.Close(); err != nil {
		return "", nil, nil, err
	}
	failpoint("temporary made")
	if db, err = openBolt(f.Name(), time.Second, &bolt); err != nil {
		return "", nil, nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{metaBucket, clientsBucket, tombstonesBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return fill(tx)
	})
	if err = errors.Join(err, db.Sync()); err != nil {
		return "", nil, nil, errors.Join(err, db.Close())
	}
	return f.Name(), db, bolt, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// removeTemporary removes what a crash within build has left. The lock is held,
// so nobody else is in build.
func (s *Store) removeTemporary(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, fileName+".new-*"))
	for _, temp := range left {
		_ = os.Remove(temp)
	}
}

// guard runs f and turns a panic into an error: bbolt panics when it runs into
// damage, and reading a file that was cut short is a memory fault.
func (s *Store) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = s.damaged(fmt.Sprint(p))
		}
	}()
	return f()
}

// check checks what bbolt doesn't: the version, and that all buckets are there.
func (s *Store) check() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			return s.damaged("it has no version")
		}
		text := string(meta.Get(versionKey))
		v, err := strconv.Atoi(text)
		switch {
		case err != nil || v < 1:
			return s.damaged(fmt.Sprintf("it has the version %q", text))
		case v > version:
			return fmt.Errorf("the state file %s was written by a newer mandos (format %d; this one knows up to %d):"+
				" run that version again, or move the file away, and all clients start as clients.conf says", s.path, v, version)
		case tx.Bucket(clientsBucket) == nil || tx.Bucket(tombstonesBucket) == nil:
			return s.damaged("a part of it is missing")
		}
		return nil
	})
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Path returns the path of the file.
func (s *Store) Path() string { return s.path }

// checksum returns the checksum of an item.
func checksum(bucket, key []byte, version byte, body []byte) uint64 {
	h := sha256.New()
	for _, part := range [][]byte{bucket, key} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	h.Write([]byte{version})
	h.Write(body)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

const itemHeader = 1 + 8

// seal makes an item whose body f writes.
func seal(bucket, key []byte, f func(*coder)) []byte {
	c := coder{out: make([]byte, itemHeader, 512)}
	f(&c)
	c.out[0] = version
	binary.BigEndian.PutUint64(c.out[1:], checksum(bucket, key, version, c.out[itemHeader:]))
	return c.out
}

// unseal verifies an item, decodes its body with read, and returns its checksum
// as well.
func unseal[T any](bucket, key, item []byte, read func(version byte, key, body []byte) (T, error)) (v T, sum uint64, err error) {
	if len(item) < itemHeader {
		return v, 0, errors.New("it is too short")
	}
	sum = binary.BigEndian.Uint64(item[1:])
	if sum != checksum(bucket, key, item[0], item[itemHeader:]) {
		return v, 0, errors.New("it has a wrong checksum")
	}
	v, err = read(item[0], key, item[itemHeader:])
	return v, sum, err
}

func putSummary(meta *bbolt.Bucket, s summary) error {
	return meta.Put(summaryKey, seal(metaBucket, summaryKey, func(c *coder) { c.summary(&s) }))
}

// summary reads the summary.
func (s *Store) summary(tx *bbolt.Tx) (summary, error) {
	sum, _, err := unseal(metaBucket, summaryKey, tx.Bucket(metaBucket).Get(summaryKey), readSummary)
	if err != nil {
		return sum, s.damaged("its summary: " + err.Error())
	}
	return sum, nil
}

// Load implements [registry.Store].
func (s *Store) Load() (state registry.State, err error) {
	err = s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			sum, err := s.summary(tx)
			if err != nil {
				return err
			}
			state.Seen = sum.Seen
			var found summary
			if state.Records, err = load(s, tx.Bucket(clientsBucket), clientsBucket, &found, readRecord); err != nil {
				return err
			}
			if state.Tombstones, err = load(s, tx.Bucket(tombstonesBucket), tombstonesBucket, &found, readTombstone); err != nil {
				return err
			}
			if found.Items != sum.Items || found.Sum != sum.Sum {
				return s.damaged(fmt.Sprintf("its %d items aren't the %d of its summary", found.Items, sum.Items))
			}
			s.forget(tx)
			return nil
		})
	})
	if err != nil {
		return registry.State{}, err
	}
	return state, nil
}

// forget gives back the memory that tx took by reading the whole file; what is
// needed again is read again.
func (s *Store) forget(tx *bbolt.Tx) {
	// If this fails, only memory is lost.
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, s.db.Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED)
}

// load reads all items of a bucket, and adds them to found. One goroutine finds
// them; reading them is most of the work, and shared by all cores.
func load[T any](s *Store, bucket *bbolt.Bucket, name []byte, found *summary, read func(version byte, key, body []byte) (T, error)) ([]T, error) {
	var items [][2][]byte
	err := bucket.ForEach(func(k, v []byte) error {
		if !bytes.Equal(bucket.Get(k), v) {
			return s.damaged(fmt.Sprintf("the item %q of %s is in a wrong place", k, name))
		}
		items = append(items, [2][]byte{k, v})
		return nil
	})
	if err != nil {
		return nil, err
	}
	all, sums, errs := make([]T, len(items)), make([]uint64, len(items)), make([]error, len(items))
	cores.Each(len(items), func(i int) {
		errs[i] = s.guard(func() (err error) {
			all[i], sums[i], err = unseal(name, items[i][0], items[i][1], read)
			return err
		})
	})
	for i, err := range errs {
		switch {
		case errors.Is(err, errDamaged): // it needs no more words
			return nil, err
		case err != nil:
			return nil, s.damaged(fmt.Sprintf("the item %q of %s: %v", items[i][0], name, err))
		}
		found.Items, found.Sum = found.Items+1, found.Sum+sums[i]
	}
	return all, nil
}

// Commit implements [registry.Store].
func (s *Store) Commit(b registry.Batch) error {
	if s.broken != nil {
		return s.broken
	}
	failpoint("before commit")
	if s.doubt != nil {
		if err := s.guard(s.renew); err != nil {
			return s.failed(fmt.Errorf("%w; that is why it is written anew, which fails, too: %w%s", s.doubt, err, hint(err)))
		}
	}
	changes := changes(b)
	err := s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return s.apply(tx, b.Seen, changes) })
	})
	failpoint("after commit")
	if err != nil {
		write, ok := errors.AsType[*fs.PathError](err)
		err = fmt.Errorf("writing the state file %s: %w%s", s.path, err, hint(err))
		if !ok || write.Op != "write" {
			s.doubt = err
		}
		return s.failed(err)
	}
	s.reserve()
	return nil
}

// failed notes that a commit failed with err, and returns err.
func (s *Store) failed(err error) error {
	if errors.Is(err, errDamaged) {
		s.broken = fmt.Errorf("not written since this happened: %w", err)
	}
	return err
}

// A change puts or deletes one item.
type change struct {
	bucket, key []byte
	item        []byte // nil: delete it
}

// changes returns the changes of b in the order in which bbolt is quickest: it
// keeps keys sorted, and a commit of many new ones in another order takes
// several times as long. Making the items is most of the work, and needs no
// transaction.
func changes(b registry.Batch) []change {
	dropped := make([]change, 0, len(b.Delete)+len(b.DeleteTombstones))
	for _, name := range b.Delete {
		dropped = append(dropped, change{clientsBucket, []byte(name), nil})
	}
	for _, id := range b.DeleteTombstones {
		dropped = append(dropped, change{tombstonesBucket, tombstoneKey(id), nil})
	}
	put := make([]change, len(b.Put)+len(b.PutTombstones))
	cores.Each(len(put), func(i int) {
		c := change{bucket: clientsBucket}
		var body func(*coder)
		if i < len(b.Put) {
			r := &b.Put[i]
			c.key, body = []byte(r.Name), func(c *coder) { c.record(r) }
		} else {
			ts := &b.PutTombstones[i-len(b.Put)]
			c.bucket, c.key, body = tombstonesBucket, tombstoneKey(ts.Identity), func(c *coder) { c.tombstone(ts) }
		}
		c.item = seal(c.bucket, c.key, body)
		put[i] = c
	})
	slices.SortStableFunc(put, func(a, b change) int {
		return cmp.Or(bytes.Compare(a.bucket, b.bucket), bytes.Compare(a.key, b.key))
	})
	return append(dropped, put...)
}

func (s *Store) apply(tx *bbolt.Tx, seen time.Time, changes []change) error {
	meta := tx.Bucket(metaBucket)
	sum, err := s.summary(tx)
	if err != nil {
		return err
	}
	sum.Seen = seen
	if string(meta.Get(versionKey)) != versionText {
		if err := meta.Put(versionKey, []byte(versionText)); err != nil {
			return err
		}
	}
	for i := range changes {
		c := &changes[i]
		bucket := tx.Bucket(c.bucket)
		bucket.FillPercent = fillPercent
		if old := bucket.Get(c.key); len(old) >= itemHeader {
			sum.Items--
			sum.Sum -= binary.BigEndian.Uint64(old[1:])
		}
		if c.item == nil {
			failpoint("drop")
			err = bucket.Delete(c.key)
		} else {
			failpoint("put")
			sum.Items++
			sum.Sum += binary.BigEndian.Uint64(c.item[1:])
			err = bucket.Put(c.key, c.item)
		}
		if err != nil {
			return err
		}
	}
	failpoint("within commit")
	return putSummary(meta, sum)
}
