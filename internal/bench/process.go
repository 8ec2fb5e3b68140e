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
	statParent = 1
	statGroup  = 2
	statUser   = 11 // utime; then stime, cutime, cstime
)

const tick = 10 * time.Millisecond // of /proc, everywhere

// A Tree is a server's processes: those of its process group, which none of
// them leaves.
type Tree int

// each calls f with the folder in /proc of each process, and the fields of
// its stat.
func each(f func(dir string, stat []string)) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		f(dir, strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])))
	}
	return nil
}

// cpuOf returns the time that a process has had, with that of its children
// that have ended.
func cpuOf(stat []string) (sum time.Duration) {
	for _, field := range stat[statUser : statUser+4] {
		n, _ := strconv.ParseInt(field, 10, 64)
		sum += time.Duration(n) * tick
	}
	return sum
}

// PSS returns the processes' memory, in bytes: what each has alone, and its
// share of what it shares with others.
func (t Tree) PSS() (sum int64, err error) {
	found := false
	err = each(func(dir string, stat []string) {
		if stat[statGroup] != strconv.Itoa(int(t)) {
			return
		}
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

// A Clock says how much CPU time whoever has had.
type Clock struct {
	Server, Load time.Duration
	Others       time.Duration // of all but those, and but this process's children such as the bus
}

// Now reads the clock for a server.
func (t Tree) Now() (c Clock, err error) {
	c.Load = ownCPU()
	var children time.Duration
	self := strconv.Itoa(os.Getpid())
	err = each(func(_ string, stat []string) {
		switch {
		case stat[statGroup] == strconv.Itoa(int(t)):
			c.Server += cpuOf(stat)
		case stat[statParent] == self:
			children += cpuOf(stat)
		}
	})
	if err != nil {
		return c, err
	}
	busy, err := busyCPU()
	c.Others = busy - c.Server - c.Load - children
	return c, err
}

// Since returns what was had since then.
func (c Clock) Since(then Clock) Clock {
	return Clock{Server: c.Server - then.Server, Load: c.Load - then.Load, Others: max(0, c.Others-then.Others)}
}

// busyCPU returns the time in which all processors together were busy, or
// were taken away by the machine's host (proc_stat(5)).
func busyCPU() (sum time.Duration, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, field := range strings.Fields(line)[1:9] { // user to steal
		const idle, iowait = 3, 4
		if i == idle || i == iowait {
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// ownCPU returns the time that this process has had: the load's.
func ownCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // its arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
