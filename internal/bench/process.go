package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Of the fields of /proc/PID/stat that come after the command's name
// (proc_pid_stat(5)), counted from 0.
const (
	statGroup = 2  // pgrp
	statUser  = 11 // utime; then stime, cutime, cstime
)

const tick = 10 * time.Millisecond // of /proc, everywhere

// A Tree is a server's processes: those of its process group, which none of
// them leaves.
type Tree int

// each calls f with the folder in /proc of each process, and the fields of
// its stat.
func (t Tree) each(f func(dir string, stat []string)) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		stat := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if stat[statGroup] == strconv.Itoa(int(t)) {
			f(dir, stat)
		}
	}
	return nil
}

// CPU returns the time that the processes have had, with that of their
// children that have ended.
func (t Tree) CPU() (sum time.Duration, err error) {
	err = t.each(func(_ string, stat []string) {
		for _, field := range stat[statUser : statUser+4] {
			n, _ := strconv.ParseInt(field, 10, 64)
			sum += time.Duration(n) * tick
		}
	})
	return sum, err
}

// PSS returns the processes' memory, in bytes: what each has alone, and its
// share of what it shares with others.
func (t Tree) PSS() (sum int64, err error) {
	found := false
	err = t.each(func(dir string, _ []string) {
		f, err := os.Open(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			return
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err == nil {
					sum += n << 10
					found = true
				}
				return
			}
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("no process of the group %d says how much memory it has", int(t))
	}
	return sum, err
}

// OwnCPU returns the time that this process has had: the load's.
func OwnCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // its arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
