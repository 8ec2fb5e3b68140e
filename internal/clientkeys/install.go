package clientkeys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A File is one file to install.
type File struct {
	Name string // within the directory
	Data []byte
}

// Existing returns those of names that exist in dir, in their order.
func Existing(dir string, names ...string) ([]string, error) {
	var there []string
	for _, name := range names {
		switch _, err := os.Lstat(filepath.Join(dir, name)); {
		case err == nil:
			there = append(there, name)
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	return there, nil
}

// Install writes files into dir with mode 0600. A file that exists is kept as
// a numbered backup, NAME.~1~ and so on; where the file system has hard links,
// it is never missing in between. All contents are on disk before the first
// name changes: a full disk leaves what was there.
func Install(dir string, files []File) (err error) {
	var temps []string
	defer func() {
		for _, t := range temps {
			if e := os.Remove(t); e != nil && !errors.Is(e, os.ErrNotExist) && err == nil {
				err = e
			}
		}
	}()
	for _, f := range files {
		t, err := writeTemp(dir, f)
		if t != "" {
			temps = append(temps, t)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", filepath.Join(dir, f.Name), err)
		}
	}
	for i, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := backUp(path); err != nil {
			return fmt.Errorf("keeping the old %s: %w", path, err)
		}
		if err := os.Rename(temps[i], path); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

func writeTemp(dir string, f File) (path string, err error) {
	t, err := os.CreateTemp(dir, "."+f.Name+".*") // made with mode 0600
	if err != nil {
		return "", err
	}
	_, err = t.Write(f.Data)
	if err == nil {
		err = t.Sync()
	}
	return t.Name(), errors.Join(err, t.Close())
}

// backUp gives the file a second name with the next free number.
func backUp(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	next, err := nextBackup(path)
	if err != nil {
		return err
	}
	for ; ; next++ {
		backup := fmt.Sprintf("%s.~%d~", path, next)
		err := os.Link(path, backup)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, os.ErrExist):
			continue
		}
		// A file system without hard links (FAT): the name is free for a
		// moment.
		if _, e := os.Lstat(backup); e == nil {
			continue
		}
		return os.Rename(path, backup)
	}
}

// nextBackup returns a number greater than those of all backups of path.
func nextBackup(path string) (int, error) {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return 0, err
	}
	next := 1
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), name+".~")
		if !ok {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(rest, "%d~", &n); err == nil && rest == fmt.Sprintf("%d~", n) {
			next = max(next, n+1)
		}
	}
	return next, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
