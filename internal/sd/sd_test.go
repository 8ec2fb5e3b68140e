package sd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the process that inherits sockets: with $SD_TEST_HELPER it
// prints what Sockets returns.
func TestMain(m *testing.M) {
	switch os.Getenv("SD_TEST_HELPER") {
	case "":
		os.Exit(m.Run())
	case "self":
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	sockets, err := Sockets()
	if err != nil {
		fmt.Println("error:", err)
	}
	for _, s := range sockets {
		fmt.Println("socket:", s.Name, s.Listener.Addr().String())
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, ok := os.LookupEnv(v); ok {
			fmt.Println("left over:", v)
		}
	}
	os.Exit(0)
}

// inherit runs this test's program with files as sockets from systemd.
func inherit(t *testing.T, helper string, env []string, files ...*os.File) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SD_TEST_HELPER="+helper, "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.Env = append(cmd.Env, env...)
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func socketFile(t *testing.T, network, addr string) (*os.File, string) {
	t.Helper()
	var fdOf interface{ File() (*os.File, error) }
	var bound net.Addr
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fdOf, bound = c.(*net.UDPConn), c.LocalAddr()
	} else {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		fdOf, bound = l.(interface{ File() (*os.File, error) }), l.Addr()
	}
	f, err := fdOf.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, bound.String()
}

func TestSockets(t *testing.T) {
	six, addr6 := socketFile(t, "tcp6", "[::1]:0")
	four, addr4 := socketFile(t, "tcp4", "127.0.0.1:0")

	for name, tt := range map[string]struct {
		helper string
		env    []string
		want   string
	}{
		"two with names":          {"self", []string{"LISTEN_FDNAMES=mandos:old"}, "socket: mandos " + addr6 + "\nsocket: old " + addr4 + "\n"},
		"without names":           {"self", nil, "socket: LISTEN_FD_3 " + addr6 + "\nsocket: LISTEN_FD_4 " + addr4 + "\n"},
		"meant for another":       {"other", []string{"LISTEN_PID=1"}, ""},
		"LISTEN_PID is no number": {"other", []string{"LISTEN_PID=x"}, ""},
		"no LISTEN_PID":           {"other", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := inherit(t, tt.helper, tt.env, six, four); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestWrongSockets(t *testing.T) {
	good, _ := socketFile(t, "tcp6", "[::1]:0")
	udp, _ := socketFile(t, "udp6", "[::1]:0")
	local, _ := socketFile(t, "unix", filepath.Join(t.TempDir(), "s"))
	plain, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	deaf := os.NewFile(uintptr(fd), "deaf")
	defer deaf.Close()

	for want, f := range map[string]*os.File{
		"datagram socket":    udp,
		"no internet socket": local,
		"it is no socket":    plain,
		"it doesn't listen":  deaf,
	} {
		t.Run(want, func(t *testing.T) {
			got := inherit(t, "self", []string{"LISTEN_FDNAMES=a:b"}, good, f)
			if !strings.HasPrefix(got, `error: socket "b" from systemd (descriptor 4): `) || !strings.Contains(got, want) || strings.Contains(got, "\nsocket: ") {
				t.Errorf("got %q, want one error with %q", got, want)
			}
			if _, err := ListenerOf(int(f.Fd())); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("ListenerOf: error %v, want one with %q", err, want)
			}
		})
	}
	if _, err := ListenerOf(987654); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that isn't open: %v", err)
	}
}

// TestNoDelay: a connection of an inherited socket sends at once what it has
// to send (tcp(7)), whoever made the socket.
func TestNoDelay(t *testing.T) {
	for _, network := range []string{"tcp6", "tcp4"} {
		f, addr := socketFile(t, network, map[string]string{"tcp6": "[::1]:0", "tcp4": "127.0.0.1:0"}[network])
		l, err := ListenerOf(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var on int
		if e := raw.Control(func(fd uintptr) { on, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY) }); e != nil || err != nil || on == 0 {
			t.Errorf("%s: TCP_NODELAY is %d, %v, %v", network, on, e, err)
		}
	}
}

// manager stands for the service manager's end of $NOTIFY_SOCKET. It reads what
// comes at once: who sends to a full socket waits.
func manager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	messages := make(chan string, 1<<16)
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			messages <- string(b[:n])
		}
	})
	t.Cleanup(func() { conn.Close(); reading.Wait() })
	return func() string {
		t.Helper()
		select {
		case m := <-messages:
			return m
		case <-time.After(time.Minute):
			t.Fatal("no message comes")
			return ""
		}
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "") // whoever started this test
	if err := Ready("no manager"); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	next := manager(t)
	for _, tt := range []struct {
		call func() error
		want string
	}{
		{func() error { return Ready("2 clients") }, "READY=1\nSTATUS=2 clients"},
		{func() error { return Status("a\nREADY=1") }, "STATUS=a READY=1"},
		{Stopping, "STOPPING=1\nSTATUS=stopping"},
	} {
		if err := tt.call(); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}

	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano() / 1000
	}
	before := now()
	if err := Reloading(); err != nil {
		t.Fatal(err)
	}
	var usec int64
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("got %q", got)
	} else if _, err := fmt.Sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec < before || usec > now() {
		t.Errorf("got %q (%v), want a time since %d", got, err, before)
	}

	t.Setenv("NOTIFY_SOCKET", "/nonexistent/socket")
	if err := Stopping(); err == nil {
		t.Error("a manager that can't be reached is no error")
	}
}

func TestWatchdog(t *testing.T) {
	next := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, stop := context.WithCancel(t.Context())
	var hangs atomic.Bool
	complaints := make(chan error, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- Watchdog(ctx, func(err error) { complaints <- err },
			Probe{"quick", func(context.Context) error { return nil }},
			Probe{"slow", func(ctx context.Context) error {
				if hangs.Load() {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}})
	}()
	for range 3 {
		if got := next(); got != "WATCHDOG=1" {
			t.Fatalf("got %q", got)
		}
	}
	hangs.Store(true)
	if err := <-complaints; err == nil || !strings.HasPrefix(err.Error(), "slow: ") {
		t.Errorf("it says %v, want that slow is silent", err)
	}
	hangs.Store(false)
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWatchdogSilent: no ping is sent while a probe doesn't answer.
func TestWatchdogSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, stop := context.WithCancel(t.Context())
	complaints := 0
	err = Watchdog(ctx, func(error) {
		if complaints++; complaints == 3 {
			stop()
		}
	}, Probe{"dead", func(context.Context) error { return errors.New("dead") }})
	if err != nil {
		t.Error(err)
	}
	// What was sent before Watchdog returned is in the queue: ask the kernel.
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || n > 0 {
		t.Errorf("a ping was sent (%d bytes, %v)", n, err)
	}
}

func TestWatchdogNotWanted(t *testing.T) {
	for name, env := range map[string][2]string{
		"no variable": {"", ""},
		"another pid": {"1000000", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", env[0])
			t.Setenv("WATCHDOG_PID", env[1])
			if err := Watchdog(t.Context(), func(err error) { t.Error(err) }); err != nil {
				t.Error(err)
			}
		})
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := Watchdog(t.Context(), func(error) {}); err == nil {
		t.Error("nonsense in WATCHDOG_USEC is no error")
	}
}
