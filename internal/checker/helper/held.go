package helper

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// heldCommand is the hidden subcommand for the child that waits.
const heldCommand = "exec-held"

// Descriptors of that child beyond the standard ones.
const (
	gateFD  = 3
	faultFD = 4
)

// onItsWay is the last thing that the child writes before it executes the
// shell. If it dies before that, the check could not be run.
const onItsWay = "\x06"

// HeldArgs are the arguments of the process that [Held] serves.
func HeldArgs(uid, gid uint32, command string) []string {
	return []string{heldCommand, strconv.FormatUint(uint64(uid), 10), strconv.FormatUint(uint64(gid), 10), command}
}

// Held is the child's side. If args (os.Args[1:]) are those of [HeldArgs], it
// waits at the gate, gives up root and becomes /bin/sh, or reports why it
// can't; it never returns then. Otherwise it does nothing.
//
// Giving up root makes a process undumpable until it executes the shell, and
// before that it belongs to root: so at no time can another checker trace it.
func Held(args []string) {
	if len(args) != 4 || args[0] != heldCommand {
		return
	}
	fail := func(doing string, err error) {
		fmt.Fprintf(os.NewFile(faultFD, "fault"), "%s: %v", doing, err)
		os.Exit(1)
	}
	// The shell gets the standard descriptors and no other.
	if err := unix.CloseRange(gateFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fail("closing descriptors", err)
	}
	uid, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil || uid == 0 {
		fail("reading the user to become", fmt.Errorf("%q is none", args[1]))
	}
	gid, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil || gid == 0 {
		fail("reading the group to become", fmt.Errorf("%q is none", args[2]))
	}
	if n, err := os.NewFile(gateFD, "gate").Read(make([]byte, 1)); n != 1 {
		fail("waiting to be let go", err)
	}
	if err := syscall.Setgroups(nil); err != nil {
		fail("dropping the groups", err)
	}
	if err := syscall.Setresgid(int(gid), int(gid), int(gid)); err != nil {
		fail("becoming group "+args[2], err)
	}
	if err := syscall.Setresuid(int(uid), int(uid), int(uid)); err != nil {
		fail("becoming user "+args[1], err)
	}
	if _, err := syscall.Write(faultFD, []byte(onItsWay)); err != nil {
		os.Exit(1)
	}
	fail("executing /bin/sh", syscall.Exec("/bin/sh", []string{"sh", "-c", args[3]}, os.Environ()))
}
