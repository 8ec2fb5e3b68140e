package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// users are the users that a daemon started as root may switch to; it takes the
// first that exists.
var users = []string{"mandos", "_mandos", "nobody"}

// dropPrivileges turns a process of root's into one of an ordinary user's, for
// good.
func (d *daemon) dropPrivileges() error {
	if os.Getuid() != 0 && os.Geteuid() != 0 {
		return nil
	}
	u, err := firstUser()
	if err != nil {
		return err
	}
	if err := become(u); err != nil {
		return fmt.Errorf("giving up root's privileges for user %s: %w", u.Username, err)
	}
	d.log.Info("gave up root's privileges", "user", u.Username)
	return nil
}

func firstUser() (*user.User, error) {
	for _, name := range users {
		if u, err := user.Lookup(name); err == nil {
			return u, nil
		}
	}
	return nil, fmt.Errorf("not serving as root, and there is none of the users %v to serve as: make one, or start this as an ordinary user", users)
}

// become changes all IDs of all threads to those of u, and makes sure that
// there is no way back.
func become(u *user.User) error {
	uid, gid, groups, err := ids(u)
	if err != nil {
		return err
	}
	if uid == 0 || gid == 0 {
		return errors.New("this user is root as well")
	}
	if err := syscall.Setgroups(groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return noWayBack(uid, gid)
}

// ids returns the numeric IDs of u, of its primary group, and of all its
// groups.
func ids(u *user.User) (uid, gid int, groups []int, err error) {
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, nil, err
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, nil, err
	}
	names, err := u.GroupIds()
	if err != nil {
		return 0, 0, nil, err
	}
	for _, name := range names {
		g, err := strconv.Atoi(name)
		if err != nil {
			return 0, 0, nil, err
		}
		groups = append(groups, g)
	}
	return uid, gid, groups, nil
}

// noWayBack returns an error if this process has more rights than uid and gid,
// or could get them.
func noWayBack(uid, gid int) error {
	for _, id := range []int{os.Getuid(), os.Geteuid()} {
		if id != uid {
			return fmt.Errorf("still user %d", id)
		}
	}
	for _, id := range []int{os.Getgid(), os.Getegid()} {
		if id != gid {
			return fmt.Errorf("still group %d", id)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for _, c := range caps {
		if c.Effective != 0 || c.Permitted != 0 || c.Inheritable != 0 {
			return errors.New("still has capabilities")
		}
	}
	if syscall.Setuid(0) == nil || syscall.Setgid(0) == nil {
		return errors.New("could become root again")
	}
	return nil
}

// asOwner runs f as the owner of dir, if we are root and dir belongs to another
// user: then the files that f makes there belong to that user, and a symbolic
// link that the user made can't lead f to root's files.
func asOwner(dir string, f func() error) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || owner.Uid == 0 {
		return f()
	}
	return withIDs(int(owner.Uid), int(owner.Gid), f)
}

// as runs f with the rights of u, and no others. Only root can.
func as(u *user.User, f func() error) (err error) {
	uid, gid, groups, err := ids(u)
	if err != nil {
		return err
	}
	before, err := syscall.Getgroups()
	if err != nil {
		return os.NewSyscallError("getgroups", err)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("setgroups", syscall.Setgroups(before))) }()
	return withIDs(uid, gid, f)
}

// withIDs runs f while root's process has the effective IDs uid and gid.
func withIDs(uid, gid int, f func() error) (err error) {
	if err := syscall.Setresgid(-1, gid, -1); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("setresgid", syscall.Setresgid(-1, 0, -1))) }()
	if err := syscall.Setresuid(-1, uid, -1); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("setresuid", syscall.Setresuid(-1, 0, -1))) }()
	return f()
}
