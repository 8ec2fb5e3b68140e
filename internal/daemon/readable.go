package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mandos/internal/checker"
)

// serviceUser is the user that mandos.service runs as.
const serviceUser = "mandos"

// hidden are the folders that are hidden from mandos.service (ProtectHome=,
// PrivateTmp=).
var hidden = []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"}

// unreadableBy returns a function, to be called as root, that says why the
// service, as user u, can't read a file, and how to fix that; see
// config.LoadOptions.
func unreadableBy(u *user.User, hidden []string) func(path string) (problem, remedy string) {
	group := u.Gid
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		group = g.Name
	}
	return func(path string) (problem, remedy string) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", "" // already reported
		}
		for _, dir := range hidden {
			if strings.HasPrefix(real, dir+"/") {
				const place = systemConfigDir + "/secrets"
				return "the service doesn't see " + dir, fmt.Sprintf("install -m 640 -g %s %s %s/ and name that file as the secfile",
					group, checker.Quote(path), place)
			}
		}
		folders, file, err := closedTo(u, real)
		if err != nil {
			return fmt.Sprintf("it can't be found out whether user %s may read the file: %v", u.Username, err), ""
		}
		var fixes []string
		fix := func(path, right string) {
			quoted := checker.Quote(path)
			if info, err := os.Stat(path); err == nil && fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid) == u.Uid {
				fixes = append(fixes, "chmod u+"+right+" "+quoted)
				return
			}
			fixes = append(fixes, "chgrp "+group+" "+quoted, "chmod g+"+right+" "+quoted)
		}
		for _, dir := range folders {
			fix(dir, "x")
		}
		if file {
			fix(real, "r")
		}
		if len(fixes) == 0 {
			return "", ""
		}
		return fmt.Sprintf("user %s, as whom the service runs, can't read the file", u.Username), strings.Join(fixes, " && ")
	}
}

// closedTo returns the folders above path that u may not enter, and whether u
// may not read the file. The path is absolute, and has no symbolic links.
func closedTo(u *user.User, path string) (folders []string, file bool, err error) {
	// Opened as root: as u, nothing in a closed folder could be checked.
	var paths []string
	for i, c := range path {
		if c == '/' {
			paths = append(paths, path[:max(i, 1)])
		}
	}
	paths = append(paths, path)
	fds := make([]int, len(paths))
	for i, p := range paths {
		if fds[i], err = unix.Open(p, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
			return nil, false, &fs.PathError{Op: "open", Path: p, Err: err}
		}
		defer unix.Close(fds[i])
	}
	err = as(u, func() error {
		for i, p := range paths {
			mode := uint32(unix.X_OK)
			if i == len(paths)-1 {
				mode = unix.R_OK
			}
			err := unix.Faccessat(fds[i], "", mode, unix.AT_EACCESS|unix.AT_EMPTY_PATH)
			switch {
			case err == nil:
			case !errors.Is(err, fs.ErrPermission):
				return &fs.PathError{Op: "access", Path: p, Err: err}
			case i == len(paths)-1:
				file = true
			default:
				folders = append(folders, p)
			}
		}
		return nil
	})
	return folders, file, err
}
