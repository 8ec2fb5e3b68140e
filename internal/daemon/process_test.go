package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/daemon/daemontest"
	"mandos/internal/keyid"
)

// TestMain can also run mandos itself, and a client, so that tests can start
// both as processes.
func TestMain(m *testing.M) {
	switch os.Getenv("DAEMON_TEST_ROLE") {
	case "":
		syscall.Umask(0o022) // other users have to read some of the files
		os.Exit(m.Run())
	case "activated": // as systemd does it
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	case "client":
		os.Exit(clientMain(os.Args[1]))
	}
	os.Exit(Command{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Version: "test"}.Run(context.Background()))
}

// clientMain fetches from addr with the key in $DAEMON_TEST_KEY.
func clientMain(addr string) int {
	seed, err := hex.DecodeString(os.Getenv("DAEMON_TEST_KEY"))
	if err != nil {
		panic(err)
	}
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		var got []byte
		if got, err = fetch(conn, ed25519.NewKeyFromSeed(seed)); err == nil {
			os.Stdout.Write(got)
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// deadline is how long a test waits for what must happen.
const deadline = daemontest.Deadline

// A member is a client of a test's server.
type member struct {
	name   string
	key    ed25519.PrivateKey
	secret []byte
}

func newMember(t *testing.T, name string) member {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return member{name, key, []byte("the secret of " + name + ", which is no other's")}
}

func (m member) keyID() string {
	spki, err := x509.MarshalPKIXPublicKey(m.key.Public())
	if err != nil {
		panic(err)
	}
	return keyid.OfSPKI(spki).String()
}

// section returns m's section of clients.conf.
func (m member) section(more ...string) string {
	return fmt.Sprintf("[%s]\nkey_id = %s\nsecret = %s\nchecker = true\n%s\n", m.name, m.keyID(),
		base64.StdEncoding.EncodeToString(m.secret), strings.Join(more, "\n"))
}

// folder makes a configuration folder that every user can enter.
func folder(t *testing.T, sections ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mandos-daemon-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeClients(t, dir, sections...)
	return dir
}

func writeClients(t *testing.T, dir string, sections ...string) {
	t.Helper()
	path := filepath.Join(dir, "clients.conf")
	if err := os.WriteFile(path, []byte(strings.Join(sections, "\n")), 0o640); err != nil {
		t.Fatal(err)
	}
	// For a reload, after root's privileges are given up.
	if u, err := firstUser(); err == nil && os.Geteuid() == 0 {
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(path, 0, gid); err != nil {
			t.Fatal(err)
		}
	}
}

// A process is a running mandos.
type process struct{ *daemontest.Process }

// command makes the command line of mandos; change may alter it.
func command(args []string, change func(*exec.Cmd)) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = []string{
		"DAEMON_TEST_ROLE=mandos", "PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE"),
		"DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent", // whatever the machine has
	}
	if change != nil {
		change(cmd)
	}
	return cmd
}

// start starts mandos; it is killed when the test ends.
func start(t *testing.T, change func(*exec.Cmd), args ...string) process {
	t.Helper()
	return process{daemontest.Start(t, command(args, change))}
}

// stop ends p as systemd does.
func (p process) stop() {
	p.T.Helper()
	p.signal(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		p.T.Errorf("exit status %d after SIGTERM", status)
	}
}

func (p process) signal(s syscall.Signal) {
	p.T.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.T.Fatal(err)
	}
}

// loopback returns the address on this host at which to reach a server that
// listens on addr.
func loopback(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	if strings.HasPrefix(addr, "[") {
		return net.JoinHostPort("::1", port)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

func (m member) fetch(addr string) ([]byte, error) {
	conn, err := net.DialTimeout("tcp", addr, deadline)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, err
	}
	return fetch(conn, m.key)
}

// gets checks that m gets its secret at addr.
func (m member) gets(t *testing.T, addr string) {
	t.Helper()
	if got, err := m.fetch(addr); err != nil || !bytes.Equal(got, m.secret) {
		t.Errorf("%s got %q, %v; want its secret", m.name, got, err)
	}
}

// getsNothing checks that m is properly refused.
func (m member) getsNothing(t *testing.T, addr string) {
	t.Helper()
	if got, err := m.fetch(addr); err != nil || len(got) > 0 {
		t.Errorf("%s got %q, %v; want nothing but close_notify", m.name, got, err)
	}
}

// manager is the service manager's end of $NOTIFY_SOCKET.
type manager struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir := folder(t)
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, path, conn}
}

// await waits for a message that for each of lines has one that begins so, and
// returns it. The status goes on if a check is due so early that the test sees
// it fail, as no helper is there.
func (m *manager) await(lines ...string) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		m.t.Fatal(err)
	}
	var seen []string
	for {
		b := make([]byte, 4096)
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatalf("no message with %q (%v), but %q", lines, err, seen)
		}
		got := "\n" + string(b[:n])
		if !slices.ContainsFunc(lines, func(l string) bool { return !strings.Contains(got, "\n"+l) }) {
			return got[1:]
		}
		seen = append(seen, got[1:])
	}
}

// listenerFile returns a listening TCP socket as a file to be inherited, and
// its address.
func listenerFile(t *testing.T, network, addr string) (*os.File, string) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().String()
}

// activate changes a command so that it inherits files as from systemd.
func activate(names string, files ...*os.File) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "DAEMON_TEST_ROLE=activated",
			"LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+names)
		cmd.ExtraFiles = files
	}
}

// copyOfTest returns the path of a copy of this test's program that every user
// can run.
func copyOfTest(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(folder(t), "mandos")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}
