package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/checker"
)

// request NAME COMMAND asks the helper as the daemon would.
func request(args []string) error {
	result, err := checker.Remote{Path: checker.SocketPath}.Run(context.Background(),
		checker.Request{Client: args[0], Command: args[1], Limit: time.Minute})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// garbage NUMBER sends packets that are no requests, the same ones each time,
// and prints how many were refused.
func garbage(args []string) error {
	number, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	good, err := checker.MarshalRequest(checker.Request{Client: "garbage", Command: "echo ran >>/run/lab/garbage", Limit: time.Second})
	if err != nil {
		return err
	}
	refused := 0
	for i, random := 0, rand.New(rand.NewPCG(1, 2)); i < number; {
		packet := bytes.Clone(good)
		for range 1 + random.IntN(3) {
			switch at := random.IntN(len(packet)); random.IntN(4) {
			case 0:
				packet[at] = byte(random.Uint32())
			case 1:
				packet = packet[:at+1]
			case 2:
				packet = append(packet, packet[at:]...)
			default:
				packet = bytes.Replace(packet, []byte(`"client"`), []byte(`"uid":0,"client"`), 1)
			}
		}
		if _, err := checker.UnmarshalRequest(packet); err == nil {
			continue // still a request
		}
		i++
		why, err := send(packet)
		if err != nil {
			return fmt.Errorf("packet %q: %w", packet, err)
		}
		if why == nil {
			return fmt.Errorf("packet %q was taken", packet)
		}
		refused++
	}
	fmt.Printf("%d refused\n", refused)
	return nil
}

// send returns the reason with which the helper refused a packet; nil if it took it.
func send(packet []byte) (refusal, err error) {
	conn, err := net.Dial("unixpacket", checker.SocketPath)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(packet); err != nil {
		return nil, err
	}
	reply := make([]byte, checker.MaxPacket)
	n, err := conn.Read(reply)
	if err != nil {
		return nil, err
	}
	_, refusal = checker.UnmarshalReply(reply[:n])
	return refusal, nil
}

// load NUMBER has the helper run a trivial checker that many times, one after
// the other, and prints the milliseconds that each took on average.
func load(args []string) error {
	number, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	start := time.Now()
	for i := range number {
		result, err := checker.Remote{Path: checker.SocketPath}.Run(context.Background(),
			checker.Request{Client: fmt.Sprintf("load-%d", i), Command: "true", Limit: time.Minute})
		if err != nil {
			return err
		}
		if !result.OK() {
			return fmt.Errorf("the checker failed: %+v", result)
		}
	}
	fmt.Println(float64(time.Since(start).Microseconds()) / 1000 / float64(number))
	return nil
}

// intrusions are the ways into a process of another user, or into one of the
// same user that isn't dumpable.
var intrusions = []struct {
	name string
	try  func(pid int) error
}{
	{"environ", func(pid int) error { return open(pid, "environ", os.O_RDONLY) }},
	{"maps", func(pid int) error { return open(pid, "maps", os.O_RDONLY) }},
	{"mem", func(pid int) error { return open(pid, "mem", os.O_RDWR) }},
	{"fd", func(pid int) error {
		_, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		return err
	}},
	{"process_vm_readv", func(pid int) error {
		var here byte
		local := []unix.Iovec{{Base: &here, Len: 1}}
		_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0)
		if errors.Is(err, unix.EFAULT) {
			return nil // it would be allowed, were something mapped there
		}
		return err
	}},
	{"ptrace", func(pid int) error {
		// Not PTRACE_ATTACH: its SIGSTOP can come after another stop, and then
		// stays when the tracer has gone.
		if err := unix.PtraceSeize(pid); err != nil {
			return err
		}
		if err := unix.PtraceInterrupt(pid); err != nil {
			return err
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
			return err
		}
		return syscall.PtraceDetach(pid)
	}},
}

func open(pid int, file string, flag int) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, file), flag, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if file == "mem" {
		return nil // to open it is what is controlled
	}
	if _, err = f.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// spy PID FILE… tries all intrusions into a process, and for comparison into
// a child of its own, and to read files; it prints what came of each.
func spy(args []string) error {
	runtime.LockOSThread() // ptrace is a thread's
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		return err
	}
	defer func() { _ = child.Process.Kill() }()
	result := func(err error) string {
		switch {
		case err == nil:
			return "possible"
		case errors.Is(err, os.ErrPermission): // EACCES and EPERM
			return "refused"
		}
		return err.Error()
	}
	for _, in := range intrusions {
		fmt.Printf("%s: %s, own child: %s\n", in.name, result(in.try(pid)), result(in.try(child.Process.Pid)))
	}
	for _, file := range args[1:] {
		_, err := os.ReadFile(file)
		if errors.Is(err, syscall.EISDIR) {
			_, err = os.ReadDir(file)
		}
		fmt.Printf("%s: %s\n", file, result(err))
	}
	return nil
}

// stalk waits for a checker that is held, and tries to get into it until it
// has become the shell. Files in /run/lab say how far it is.
func stalk([]string) error {
	runtime.LockOSThread()
	out := bufio.NewWriter(os.Stdout)
	if err := os.WriteFile("/run/lab/stalking", nil, 0o600); err != nil {
		return err
	}
	victim := 0
	for end := time.Now().Add(100 * time.Second); victim == 0; {
		if time.Now().After(end) {
			return errors.New("no checker is held")
		}
		commands, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
		for _, file := range commands {
			if pid, _ := strconv.Atoi(strings.Split(file, "/")[2]); held(pid) {
				victim = pid
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.WriteFile("/run/lab/found", nil, 0o600); err != nil {
		return err
	}
	tries := 0
	for held(victim) {
		for _, in := range intrusions {
			if err := in.try(victim); err == nil && held(victim) {
				fmt.Fprintf(out, "%s is possible while held\n", in.name)
			}
		}
		tries++
	}
	after := "possible"
	if err := intrusions[len(intrusions)-1].try(victim); err != nil {
		after = err.Error()
	}
	fmt.Fprintf(out, "stalked with %d tries; as the shell, tracing it is %s\n", tries, after)
	return out.Flush()
}

// held tells whether a process is the victim's checker and has not become the
// shell yet.
func held(pid int) bool {
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may be gone
	return bytes.Contains(command, []byte("\x00exec-held\x00")) && bytes.Contains(command, []byte("/run/lab/stalked"))
}
