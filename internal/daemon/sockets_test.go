package daemon

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mandos/internal/testenv"
)

// TestActivation: sockets that systemd made, IPv6 and IPv4, are all served.
func TestActivation(t *testing.T) {
	a := newMember(t, "a")
	six, addr6 := listenerFile(t, "tcp6", "[::1]:0")
	four, addr4 := listenerFile(t, "tcp4", "127.0.0.1:0")
	p := start(t, activate("mandos:mandos4", six, four), "--configdir", folder(t, a.section()), "--no-zeroconf")
	p.Ready()
	a.gets(t, addr6)
	a.gets(t, addr4)
	p.stop()
	if strings.Contains(p.Log(), "no effect") {
		t.Error("it warns about options that weren't given")
	}

	// The socket stays, and who connects meanwhile waits and is served.
	conn, err := net.Dial("tcp", addr6)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p = start(t, activate("", six), "--configdir", folder(t, a.section()), "--no-zeroconf")
	if got, err := fetch(conn, a.key); err != nil || string(got) != string(a.secret) {
		t.Errorf("who waited got %q, %v", got, err)
	}
	p.stop()
}

// TestPassedToAnother: sockets passed to the process that started this one stay
// with it, and under systemd that is logged, as clients wait on them.
func TestPassedToAnother(t *testing.T) {
	six, addr := listenerFile(t, "tcp6", "[::1]:0")
	a, m := newMember(t, "a"), newManager(t)
	for _, notify := range []string{m.path, ""} {
		p := start(t, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "LISTEN_FDS=1", fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), "NOTIFY_SOCKET="+notify)
			cmd.ExtraFiles = []*os.File{six}
		}, "--configdir", folder(t, a.section()))
		own := loopback(p.Ready())
		if own == addr {
			t.Errorf("it serves %s, which is another process's", addr)
		}
		a.gets(t, own)
		p.stop()
		const says = "WARNING daemon: systemd passed its sockets to another process"
		if strings.Contains(p.Log(), says) != (notify != "") {
			t.Errorf("with NOTIFY_SOCKET=%q: does it say %q?", notify, says)
		}
	}
}

// TestOverruled: each option that the inherited socket overrules is warned
// about once, with what to do.
func TestOverruled(t *testing.T) {
	six, addr := listenerFile(t, "tcp6", "[::1]:0")
	_, port, _ := net.SplitHostPort(addr)
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "mandos.conf"), []byte("[DEFAULT]\naddress = ::2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, activate("mandos", six), "--configdir", dir, "--port", "1", "--interface", "lo")
	p.Ready()
	p.stop()
	if n := strings.Count(p.Log(), "systemd made the socket: setting=--interface reason="); n != 1 {
		t.Errorf("logged %d times that the socket isn't bound to the interface", n)
	}
	for _, setting := range []string{"--port", filepath.Join(dir, "mandos.conf:2")} {
		want := "WARNING daemon: an option has no effect, systemd made the socket: setting=" + setting +
			` reason="mandos.socket listens on ` + addr + `; to change that: systemctl daemon-reload && systemctl restart mandos.socket; `
		if n := strings.Count(p.Log(), want); n != 1 {
			t.Errorf("logged %d times: %s", n, want)
		}
	}

	p = start(t, activate("mandos", six), "--configdir", folder(t), "--port", port, "--address", "::1")
	p.Ready()
	p.stop()
	if strings.Contains(p.Log(), "no effect") {
		t.Error("it warns about options that agree with the socket")
	}
}

// TestWrongSocket: a socket that can't be served gives one clear message.
func TestWrongSocket(t *testing.T) {
	udp, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	f, err := udp.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, p := range map[string]process{
		"from systemd":  start(t, activate("mandos", f), "--configdir", folder(t)),
		"with --socket": start(t, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f} }, "--configdir", folder(t), "--socket", "3"),
	} {
		if status := p.Wait(); status != 1 {
			t.Errorf("%s: exit status %d", name, status)
		}
		p.Await(`CRITICAL daemon: giving up: error=.*datagram socket, Mandos needs a stream socket`)
		if n := strings.Count(p.Log(), "CRITICAL"); n != 1 {
			t.Errorf("%s: %d messages", name, n)
		}
	}
}

// TestSocketOption: --socket takes a descriptor that listens, is bound, or
// has still to be bound.
func TestSocketOption(t *testing.T) {
	a := newMember(t, "a")
	listening, _ := listenerFile(t, "tcp6", "[::1]:0")
	raw := func(bind bool) *os.File {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if bind {
			if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		f := os.NewFile(uintptr(fd), "socket")
		t.Cleanup(func() { f.Close() })
		return f
	}
	for name, tt := range map[string]struct {
		file *os.File
		args []string
	}{
		"listening": {listening, nil},
		"bound":     {raw(true), nil},
		"new":       {raw(false), []string{"--address", "::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--configdir", folder(t, a.section()), "--no-zeroconf", "--socket", "3"}, tt.args...)
			p := start(t, func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{tt.file} }, args...)
			addr := p.Ready()
			if !strings.HasPrefix(addr, "[::1]:") {
				t.Errorf("listens on %s", addr)
			}
			a.gets(t, addr)
			p.stop()
		})
	}
}

// TestUsedPort: for a server started by hand, a port that is in use gives one
// clear message.
func TestUsedPort(t *testing.T) {
	_, addr := listenerFile(t, "tcp6", "[::1]:0") // the file keeps it
	_, port, _ := net.SplitHostPort(addr)
	p := start(t, nil, "--configdir", folder(t), "--address", "::1", "--port", port)
	if status := p.Wait(); status != 1 {
		t.Errorf("exit status %d", status)
	}
	p.Await(`CRITICAL daemon: giving up: error="listening on \[::1\]:` + port + `: .*address already in use \(another program uses this port: stop it, or choose another --port\)"`)
}

// TestIPv4Only: --no-ipv6 leaves IPv6 alone.
func TestIPv4Only(t *testing.T) {
	a := newMember(t, "a")
	p := start(t, nil, "--configdir", folder(t, a.section()), "--no-ipv6")
	addr := p.Ready()
	if !strings.HasPrefix(addr, "0.0.0.0:") {
		t.Errorf("listens on %s", addr)
	}
	a.gets(t, loopback(addr))
	p.stop()
}

// unusedAddr returns an address to listen on. Its port is below those that the
// kernel gives out (ip(7): from 32768 on), to which another process could come first.
func unusedAddr(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", 10000+rand.N(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// TestSystemdSocketActivate runs the server under systemd's own tool, which
// starts it at the first connection.
func TestSystemdSocketActivate(t *testing.T) {
	tool := testenv.Program(t, "systemd-socket-activate", "systemd")
	a := newMember(t, "a")
	under := func(tool string, options ...string) func(*exec.Cmd) {
		return func(cmd *exec.Cmd) {
			args := append([]string{tool}, options...)
			for _, v := range cmd.Env {
				args = append(args, "--setenv="+v)
			}
			cmd.Args = append(append(args, cmd.Path), cmd.Args[1:]...)
			cmd.Path = tool
		}
	}
	addr := unusedAddr(t)
	p := start(t, under(tool, "--listen="+addr, "--fdname=mandos"), "--configdir", folder(t, a.section()), "--no-zeroconf")
	p.Await("Listening on ")
	a.gets(t, addr)
	p.Ready()
	p.stop()

	p = start(t, under(tool, "--listen="+addr, "--datagram"), "--configdir", folder(t), "--no-zeroconf")
	p.Await("Listening on ")
	conn, err := net.Dial("udp6", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("1")); err != nil {
		t.Fatal(err)
	}
	if status := p.Wait(); status != 1 {
		t.Errorf("exit status %d for a datagram socket", status)
	}
	p.Await("ListenStream=, not ListenDatagram=")
}
