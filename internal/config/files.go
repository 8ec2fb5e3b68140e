package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The limit on what is read.
const maxFile = 1 << 30 // a configuration file; 100,000 clients take 200 MB

// others are the permission bits that nobody but owner and group may have.
const (
	othersAny   fs.FileMode = 0o007
	othersWrite fs.FileMode = 0o002
)

// readFiles reads DIR/NAME, then DIR/NAME.d/*.conf in lexical order, into f. It
// reports whether DIR/NAME itself exists.
func (f *ini) readFiles(dir, name string, refuse fs.FileMode) (found bool) {
	main := filepath.Join(dir, name)
	found = f.readFile(main, refuse)

	folder := main + ".d"
	list, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.errorAt(place{file: folder}, "", "", "the folder can't be read: "+reason(err),
			fmt.Sprintf("let the server's group read it: chgrp mandos %s && chmod g+rx %s", folder, folder))
		return found
	}
	for _, e := range list { // sorted by name
		if !strings.HasSuffix(e.Name(), ".conf") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if path := filepath.Join(folder, e.Name()); !f.readFile(path, refuse) {
			f.errorAt(place{file: path}, "", "", "the file is a link to nothing", "remove it")
		}
	}
	return found
}

// readFile adds one file and reports whether it exists.
func (f *ini) readFile(path string, refuse fs.FileMode) bool {
	text, err := readText(path, maxFile, refuse)
	f.files = append(f.files, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		p := asProblem(err)
		f.errorAt(place{file: path}, "", "", p.what, p.remedy)
	}
	f.read(path, text) // even if it is exposed: all that is wrong is reported at once
	return true
}

// A problem is an error with its remedy.
type problem struct{ what, remedy string }

func (p *problem) Error() string { return p.what }

func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return &problem{what: err.Error()}
}

// readText returns the content of a regular file of at most limit bytes. The
// file must not have any of the permission bits in refuse; if it has, the
// content comes with the error. The error is a *problem, or fs.ErrNotExist.
func readText(path string, limit int64, refuse fs.FileMode) (string, error) {
	// Non-blocking: the path may be a FIFO.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", notOpened(path, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", &problem{what: "the file can't be examined: " + reason(err)}
	}
	if !info.Mode().IsRegular() {
		return "", &problem{"this is no regular file", "name one, or put one there"}
	}
	if info.Size() > limit {
		return "", &problem{what: fmt.Sprintf("the file has %d bytes, more than the %d that are read", info.Size(), limit)}
	}
	var b strings.Builder
	b.Grow(int(info.Size()))
	n, err := io.Copy(&b, io.LimitReader(file, limit+1))
	if err != nil {
		return "", &problem{what: "the file can't be read: " + reason(err)}
	}
	if n > limit {
		return "", &problem{what: fmt.Sprintf("the file has more than the %d bytes that are read", limit)}
	}
	if mode := info.Mode().Perm(); mode&refuse != 0 {
		verb, fix := "read or change", "o-rwx"
		if refuse == othersWrite {
			verb, fix = "change", "o-w"
		}
		return b.String(), &problem{fmt.Sprintf("everybody may %s the file (mode %04o)", verb, mode), fmt.Sprintf("forbid it: chmod %s %s", fix, path)}
	}
	return b.String(), nil
}

// notOpened turns an error from opening path into one with a remedy.
func notOpened(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		return &problem{"the server's user may not read the file", fmt.Sprintf("let its group: chgrp mandos %s && chmod g+r %s", path, path)}
	}
	return &problem{what: "the file can't be opened: " + reason(err)}
}

// reason returns err without the path, which the finding already names.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}
