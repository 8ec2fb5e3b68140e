package lab_test

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// elapsed is a clock that this machine and all its hosts share, and that
// nobody sets.
func elapsed() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // always there
	return time.Duration(ts.Nano())
}

// askers ADDRESS takes lines on standard input: "ask NAME" makes the client
// ask about each second from then on, "rest NAME" ends that. It prints for
// each connection a line, see attempt, and "rests NAME"
// once a client has stopped.
func askers(args []string) error {
	var out sync.Mutex
	say := func(words ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(words...)
	}
	asking := map[string]chan struct{}{}
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		word, name, _ := strings.Cut(s.Text(), " ")
		stop := asking[name]
		switch {
		case word == "ask" && stop == nil:
			stop = make(chan struct{})
			asking[name] = stop
			go func() {
				for {
					say(ask1(args[0], name))
					select {
					case <-stop:
						say("rests", name)
						return
					case <-time.After(500*time.Millisecond + rand.N(time.Second)):
					}
				}
			}()
		case word == "rest" && stop != nil:
			close(stop)
			delete(asking, name)
		case word == "rest":
			say("rests", name)
		}
	}
	return nil
}

// ask1 asks once and returns the line of an attempt.
func ask1(address, name string) string {
	begun := elapsed()
	secret, local, err := fetchWithin(address, name, 3*time.Second, 15*time.Second)
	result := "got"
	switch {
	case secret == secretOf(name) && err == nil:
	case secret != "" && strings.HasPrefix(secretOf(name), secret):
		result = fmt.Sprint("got, but: ", err) // even a part is too much
	case secret != "":
		result = fmt.Sprintf("wrong: %q", secret)
	case errors.Is(err, errRefused):
		result = "refused"
	default:
		result = fmt.Sprint("failed: ", err)
	}
	return fmt.Sprintf("%s %d %d %d %s", name, begun, elapsed(), local.Port(), result)
}

// A span is a time, by elapsed.
type span struct{ begun, end time.Duration }

// An attempt is what a client says about one connection.
type attempt struct {
	client     string
	begun, end time.Duration // by elapsed
	port       uint64        // its own
	got        bool          // its secret, or a part of it
	refused    bool
	text       string
}

func (a attempt) String() string {
	return fmt.Sprintf("%s %s (from %v to %v, port %d)", a.client, a.text, a.begun, a.end, a.port)
}

func parseAttempt(line string) (a attempt, err error) {
	_, err = fmt.Sscan(line, &a.client, &a.begun, &a.end, &a.port)
	if fields := strings.SplitN(line, " ", 5); err == nil && len(fields) == 5 {
		a.text = fields[4]
	}
	a.got, a.refused = strings.HasPrefix(a.text, "got"), a.text == "refused"
	return a, err
}

// setClock is the machine code of the function that programs ask for the time
// (__vdso_clock_gettime), by the system call, with an offset in seconds added
// to the wall clock. The offset follows it, and then the code's end.
var setClock = []byte{
	0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi: is it CLOCK_REALTIME?
	0x75, 13, // jne to ret
	0x48, 0xb9, // mov rcx, offset
}
var setClockEnd = []byte{0x48, 0x01, 0x0e, 0xc3} // add [rsi], rcx; ret

// stepClock PID SECONDS makes a program, and nobody else, see a wall clock that
// is off by that much from now on. A container can't have a clock of its own,
// and a program without shared libraries can't be given another one at its
// start.
func stepClock(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	offset, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	if runtime.GOARCH != "amd64" {
		return errors.New("this is machine code for amd64")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	var from, to int64
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			_, err = fmt.Sscanf(line, "%x-%x", &from, &to)
		}
	}
	if err != nil || from == 0 {
		return fmt.Errorf("no vDSO in %s", maps)
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return err
	}
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return err
	}
	code := append(binary.LittleEndian.AppendUint64(bytes.Clone(setClock), uint64(offset)), setClockEnd...)
	for _, symbol := range symbols {
		if symbol.Name == "__vdso_clock_gettime" {
			return overwrite(pid, mem, from+int64(symbol.Value), code)
		}
	}
	return errors.New("no __vdso_clock_gettime in the vDSO")
}

// overwrite writes code into a program while none of its threads is there.
func overwrite(pid int, mem *os.File, at int64, code []byte) error {
	for range 1000 {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			return err
		}
		free, err := stoppedOutside(pid, at, at+int64(len(code)))
		if err == nil && free {
			_, err = mem.WriteAt(code, at)
		}
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			return err
		}
		if err != nil || free {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("there is always a thread asking for the time")
}

// stoppedOutside waits until all threads are stopped, and reports whether none
// of them is between two addresses.
func stoppedOutside(pid int, from, to int64) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			stat, err := os.ReadFile(thread + "/stat")
			if errors.Is(err, os.ErrNotExist) {
				break // it has ended
			}
			if err != nil {
				return false, err
			}
			if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
				break
			}
			if time.Now().After(end) {
				return false, fmt.Errorf("a thread does not stop: %s", stat)
			}
		}
		registers, err := os.ReadFile(thread + "/syscall") // ends with the program counter
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		fields := strings.Fields(string(registers))
		counter, err := strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
		if err != nil {
			return false, fmt.Errorf("where a thread is: %q", registers)
		}
		if int64(counter) >= from && int64(counter) < to {
			return false, nil
		}
	}
	return true, nil
}
