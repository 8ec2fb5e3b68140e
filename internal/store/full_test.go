package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/registry"
)

// mountT mounts a small tmpfs, which only root may.
func mountT(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mounting a tmpfs: %v; run the tests as root", err)
		}
		t.Skipf("mounting a tmpfs: %v; run the tests as root", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// TestFullDisk fills a file system, goes on, and makes room again. Whatever
// was acknowledged is there after each of it.
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
