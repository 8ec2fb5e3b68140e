// Package memory keeps what a process has in its memory to that process. What
// it leaves behind in memory is the business of secret.Do.
package memory

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Hide forbids core dumps of this process, and lets no other process of the
// same user read its memory, environment or descriptors. Changing the user
// undoes that.
func Hide() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) } // fails for other values only

// Guard does what Hide does, and keeps all memory, also what the process gets
// later, out of swap. The error says why it may be swapped all the same.
//
// It is for programs that run for a moment. Go gives locked memory back page by
// page, by a new mapping each; a daemon could run out of mappings by that, and
// has MemorySwapMax= in its unit.
func Guard() error {
	Hide()
	// For root, and where the limit is that already.
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	// With all memory to be locked, none is given beyond the limit, and Go
	// reserves far more than any limit but none.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if limit.Cur != unix.RLIM_INFINITY && !mayLock() {
		return errors.New("the limit on locked memory (LimitMEMLOCK=, ulimit -l) isn't infinity")
	}
	// Locked as it is used.
	return os.NewSyscallError("mlockall", unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT))
}

// mayLock reports whether no limit on locked memory applies to this process.
func mayLock() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
