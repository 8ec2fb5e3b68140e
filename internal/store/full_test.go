package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/registry"
	"mandos/internal/testenv"
)

// mountT mounts a small tmpfs, which only root may.
func mountT(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	testenv.Need(t, err == nil, fmt.Sprintf("to mount a tmpfs, as root can (%v)", err))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestFullDisk fills a file system, goes on, and makes room again. Whatever was
// acknowledged is there after each of these.
func TestFullDisk(t *testing.T) {
	dir := mountT(t, "1m")
	s := openT(t, dir)
	var want registry.State
	var err error
	for i := range 10000 {
		r := fullRecord(fmt.Sprintf("client%d", i))
		if err = s.Commit(registry.Batch{Seen: epoch, Put: []registry.Record{r}}); err != nil {
			break
		}
		want.Seen, want.Records = epoch, append(want.Records, r)
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Fatalf("on a full disk: %v, want an error that says to make room", err)
	}
	same(t, loadT(t, s), want)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openT(t, dir)
	same(t, loadT(t, s), want)

	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	r := fullRecord("another")
	commitT(t, s, registry.Batch{Seen: epoch, Put: []registry.Record{r}})
	want.Records = append(want.Records, r)
	s.Close()
	same(t, loadT(t, openT(t, dir)), want)
}

func TestNoRoomToBegin(t *testing.T) {
	dir := mountT(t, "8k")
	_, err := open(dir, time.Millisecond)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("beginning on a full disk: %v, want an error that says to make room", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("it has left %q", left)
	}
}

func TestReadOnly(t *testing.T) {
	dir := mountT(t, "1m")
	filled := openT(t, dir)
	commitT(t, filled, registry.Batch{Seen: epoch, Put: []registry.Record{fullRecord("a")}})
	filled.Close()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"with a file", "without"} {
		_, err := open(dir, time.Millisecond)
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "--statedir") {
			t.Errorf("read-only, %s: %v, want an error that names --statedir", what, err)
		}
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, fileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRoomIsSetAside: on a disk that others have filled, all that is stored can
// be written again and again, a thousand clients at a time.
func TestRoomIsSetAside(t *testing.T) {
	for _, clients := range []int{1, 100, 3000} {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			dir := mountT(t, "32m")
			s := openT(t, dir)
			var records []registry.Record
			for i := range clients {
				records = append(records, fullRecord(fmt.Sprintf("client%d", i)))
			}
			commitT(t, s, registry.Batch{Seen: epoch, Put: records})
			fillT(t, dir)
			for round := range 5 {
				for i := range records {
					records[i].Saved.Enabled = round%2 == 1
					records[i].Saved.Change.Why = strings.Repeat("for the longest of reasons ", 2)
				}
				for batch := range slices.Chunk(records, 1000) {
					if err := s.Commit(registry.Batch{Seen: epoch, Put: batch}); err != nil {
						t.Fatalf("on a full disk, round %d: %v", round, err)
					}
				}
			}
			s.Close()
			s = openT(t, dir)
			for _, r := range loadT(t, s).Records {
				if r.Saved.Enabled {
					t.Fatalf("%s is enabled", r.Name)
				}
			}
			// A crash on a full disk doesn't change that.
			commitT(t, s, registry.Batch{Seen: epoch, Put: records[:1]})
		})
	}
}

// fillT writes a file until the disk is full.
func fillT(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for err = nil; err == nil; _, err = f.Write(make([]byte, size)) {
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestFailedSync: once the file could not be synced, nothing relies on it any
// more; everything that was acknowledged is in the file that replaces it.
func TestFailedSync(t *testing.T) {
	dir := t.TempDir()
	s := openT(t, dir)
	a, b, c := fullRecord("a"), fullRecord("b"), fullRecord("c")
	for range 5 { // until there are free pages
		commitT(t, s, registry.Batch{Seen: epoch, Put: []registry.Record{a}})
	}
	old, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	// A file that accepts what is written, loses it, and can't be synced.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := syscall.Dup3(int(null.Fd()), int(s.file.Fd()), syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(registry.Batch{Seen: epoch, Put: []registry.Record{b}}); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("a commit that can't be synced: %v", err)
	}

	// A crash while the new file is made loses nothing either.
	points := map[string]string{}
	defer func(f func(string)) { failpoint = f }(failpoint)
	failpoint = func(name string) {
		if copied := filepath.Join(t.TempDir(), "copy"); points[name] == "" {
			points[name] = copied
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Error(err)
			}
		}
	}
	commitT(t, s, registry.Batch{Seen: epoch, Put: []registry.Record{c}})
	failpoint = func(string) {}
	for _, point := range []string{"temporary made", "temporary written", "renamed"} {
		same(t, loadT(t, openT(t, points[point])), registry.State{Seen: epoch, Records: []registry.Record{a}})
		if left, _ := filepath.Glob(filepath.Join(points[point], "*")); len(left) != 1 {
			t.Errorf("after a crash at %q there is %q", point, left)
		}
	}
	want := registry.State{Seen: epoch, Records: []registry.Record{a, c}}
	same(t, loadT(t, s), want)
	if is, err := os.Stat(s.path); err != nil || os.SameFile(is, old) {
		t.Errorf("it is still the same file (%v)", err)
	}
	if _, err := open(dir, time.Millisecond); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("another server opens it as well: %v", err)
	}
	commitT(t, s, registry.Batch{Seen: epoch, Delete: []string{"c"}})
	want.Records = want.Records[:1]
	s.Close()
	same(t, loadT(t, openT(t, dir)), want)
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("there is %q", left)
	}
}

// TestOpenedWhileRenewed: a server that waits for the lock of a file that
// another server replaces meanwhile doesn't use the old file once it gets the
// lock.
func TestOpenedWhileRenewed(t *testing.T) {
	dir := t.TempDir()
	first := openT(t, dir)
	commitT(t, first, registry.Batch{Seen: epoch, Put: []registry.Record{fullRecord("a")}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	defer func(f func(string)) { failpoint = f }(failpoint)
	failpoint = func(string) { // the second has looked at the file, opened it, and doesn't have the lock yet
		failpoint = func(string) {}
		first = openT(t, dir)
		first.doubt = errors.New("a commit could not be synced")
		commitT(t, first, registry.Batch{Seen: epoch, Delete: []string{"a"}})
	}
	if _, err := open(dir, time.Second); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("two servers have the state: %v", err)
	}
	same(t, loadT(t, first), registry.State{Seen: epoch})
}

// TestFailedSyncOnBadDisk: as long as there can be no other file, every commit
// fails; then all is well again.
func TestFailedSyncOnBadDisk(t *testing.T) {
	dir := mountT(t, "1m")
	s := openT(t, dir)
	a := fullRecord("a")
	commitT(t, s, registry.Batch{Seen: epoch, Put: []registry.Record{a}})
	s.doubt = errors.New("the disk was bad")
	fillT(t, dir)
	for range 3 {
		err := s.Commit(registry.Batch{Seen: epoch, Delete: []string{"a"}})
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk was bad") || !strings.Contains(err.Error(), "make room") {
			t.Fatalf("while there can be no other file: %v", err)
		}
	}
	same(t, loadT(t, s), registry.State{Seen: epoch, Records: []registry.Record{a}})
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	commitT(t, s, registry.Batch{Seen: epoch, Delete: []string{"a"}})
	same(t, loadT(t, s), registry.State{Seen: epoch})
}
