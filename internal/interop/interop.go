// Package interop runs our programs against Debian's unmodified Mandos. It is
// for tests only. Debian(t) and Ours(t) are the two sets of programs; both
// are used alike, so that a test can pair any server with any client and any
// keys. tools/deps.sh (make deps) brings what Debian's programs need.
package interop

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Programs is one implementation of Mandos: the beginnings of the command
// lines of its programs. The options are the same for both.
type Programs struct {
	server, client, keygen []string
	ctl, monitor           []string // of operators
	clientEnv              []string
	wantsBus               bool // the server needs a system bus, whatever its options say
}

// Server starts a server with these sections of clients.conf and returns its
// address. It is stopped when the test ends.
func (p Programs) Server(t testing.TB, sections ...string) (addr string) {
	t.Helper()
	addr, _ = p.serve(t, sections)
	return addr
}

// serve is Server with more options. What the server says is in log.
func (p Programs) serve(t testing.TB, sections []string, options ...string) (addr string, log *logBuffer) {
	t.Helper()
	configdir, statedir := config(t, sections)
	socket, addr := listen(t)
	cmd := command(p.server, "--foreground", "--no-dbus", "--no-zeroconf", "--socket", "3",
		"--configdir", configdir, "--statedir", statedir)
	cmd.Args = append(cmd.Args, options...)
	cmd.ExtraFiles = []*os.File{socket}
	if p.wantsBus {
		cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+Bus(t))
	}
	return addr, start(t, cmd)
}

// ServerCommand returns the beginning of a server's command line, which takes
// its options. A server that needs a bus gets one, as its environment says;
// others find it by the same.
func (p Programs) ServerCommand(t testing.TB) *exec.Cmd {
	t.Helper()
	cmd := command(p.server)
	cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+Bus(t))
	return cmd
}

// Client starts a client with keys that asks the server at addr until it has
// its password.
func (p Programs) Client(t testing.TB, keys Keys, addr string) *Client {
	t.Helper()
	return p.ask(t, keys, addr)
}

// ask is Client with more options.
func (p Programs) ask(t testing.TB, keys Keys, addr string, options ...string) *Client {
	t.Helper()
	cmd := command(p.client, "--connect="+addr, "--interface=none", "--retry=1",
		"--pubkey="+keys.PGPPublic(), "--seckey="+keys.PGPSecret(),
		"--tls-pubkey="+keys.TLSPublic(), "--tls-privkey="+keys.TLSPrivate())
	cmd.Args = append(cmd.Args, options...)
	cmd.Env = append(cmd.Environ(), p.clientEnv...)
	c := startClient(t, cmd)
	if len(p.clientEnv) > 0 {
		c.end = syscall.SIGTERM
	}
	return c
}

// Keygen makes an OpenPGP key, shorter than the default for speed, and a TLS
// key of mandos-keygen's type: "ed25519", "ecdsa" or "rsa".
func (p Programs) Keygen(t testing.TB, tlsKeytype string) Keys {
	t.Helper()
	keys := Keys(Folder(t))
	output(t, command(p.keygen, "--dir", string(keys), "--name", "client",
		"--length", "2048", "--sublength", "2048", "--tls-keytype", tlsKeytype, "--force"))
	return keys
}

// Section encrypts password to keys and returns a section of clients.conf for
// the client name.
func (p Programs) Section(t testing.TB, keys Keys, name string, password []byte) string {
	t.Helper()
	file := filepath.Join(Folder(t), "password")
	write(t, file, password)
	return string(output(t, command(p.keygen, "--dir", string(keys), "--name", name, "--passfile", file, "--no-ssh")))
}

func command(start []string, args ...string) *exec.Cmd {
	return exec.Command(start[0], slices.Concat(start[1:], args)...)
}

// Folder makes a temporary folder that every user may enter, as servers drop
// their privileges, with a path short enough for a Unix socket in it.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mandos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Keys is a client's folder of keys, with the file names of mandos-keygen.
type Keys string

// PGPPublic and the others are the paths of the four files.
func (k Keys) PGPPublic() string  { return filepath.Join(string(k), "pubkey.txt") }
func (k Keys) PGPSecret() string  { return filepath.Join(string(k), "seckey.txt") }
func (k Keys) TLSPublic() string  { return filepath.Join(string(k), "tls-pubkey.pem") }
func (k Keys) TLSPrivate() string { return filepath.Join(string(k), "tls-privkey.pem") }

// WithTLSKey replaces the TLS key.
func (k Keys) WithTLSKey(t testing.TB, key crypto.Signer) Keys {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	write(t, k.TLSPrivate(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	write(t, k.TLSPublic(), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	return k
}

func write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// config writes clients.conf into a new folder beside an empty state folder
// that belongs to the user a server drops to.
func config(t testing.TB, sections []string) (configdir, statedir string) {
	t.Helper()
	dir := Folder(t)
	configdir, statedir = filepath.Join(dir, "etc"), filepath.Join(dir, "state")
	for _, d := range []string{configdir, statedir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The hosts of the tests need no checking.
	conf := []byte("[DEFAULT]\nchecker = true\n\n")
	for _, s := range sections {
		conf = append(conf, s...)
		conf = append(conf, '\n')
	}
	write(t, filepath.Join(configdir, "clients.conf"), conf)
	if os.Getuid() == 0 {
		uid, gid := Unprivileged(t)
		if err := errors.Join(os.Chown(statedir, uid, gid), os.Chmod(configdir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return configdir, statedir
}

// Unprivileged finds the user that a server started by root runs as.
func Unprivileged(t testing.TB) (uid, gid int) {
	t.Helper()
	for _, name := range []string{"_mandos", "mandos", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return uid, gid
	}
	t.Fatal("no user to drop privileges to: none of _mandos, mandos, nobody exists")
	return 0, 0
}

// listen opens the socket that a server inherits: it listens already, so no
// test waits for a server to be ready, and no port is guessed.
func listen(t testing.TB) (socket *os.File, addr string) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err = l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return socket, l.Addr().String()
}

// start runs cmd in a process group of its own, which is killed when the
// test ends; cmd itself also when the tests are killed, unless it becomes
// another user. What it writes to standard error is in log, and is shown if
// the test fails.
func start(t testing.TB, cmd *exec.Cmd) (log *logBuffer) {
	t.Helper()
	log = &logBuffer{}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), log)
		}
	})
	return log
}

// output runs cmd to its end and returns its standard output.
func output(t testing.TB, cmd *exec.Cmd) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return out
}

// A Client is a running client.
type Client struct {
	cmd    *exec.Cmd
	out    bytes.Buffer
	log    *logBuffer
	limit  *time.Timer // kills it
	waited sync.Once
	err    error
	// What Kill sends. Debian's client removes its folder at SIGTERM; else a
	// gpg-agent would stay for good, with two of the 128 inotify instances.
	end syscall.Signal
}

func startClient(t testing.TB, cmd *exec.Cmd) *Client {
	t.Helper()
	c := &Client{cmd: cmd, end: syscall.SIGKILL}
	cmd.Stdout = &c.out
	c.log = start(t, cmd)
	// A client that gets nothing asks for ever. On a busy machine it may take
	// long to get something.
	c.limit = time.AfterFunc(5*time.Minute, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	t.Cleanup(func() { c.limit.Stop() })
	return c
}

// Password waits for the client's end and returns what it printed.
func (c *Client) Password(t testing.TB) []byte {
	t.Helper()
	c.waited.Do(func() {
		c.err = c.cmd.Wait()
		c.limit.Stop() // its number may be another's now
	})
	if c.err != nil {
		t.Fatalf("client ended with %v after printing %q", c.err, abbreviate(c.out.Bytes()))
	}
	return c.out.Bytes()
}

// Kill ends a client that has no password to wait for, and returns what it
// had printed.
func (c *Client) Kill(t testing.TB) []byte {
	t.Helper()
	c.waited.Do(func() {
		syscall.Kill(-c.cmd.Process.Pid, c.end)
		c.err = c.cmd.Wait()
	})
	if exit, ok := errors.AsType[*exec.ExitError](c.err); !ok || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("client ended by itself: %v", c.err)
	}
	return c.out.Bytes()
}

func abbreviate(b []byte) string {
	if len(b) > 64 {
		return fmt.Sprintf("%s… (%d bytes)", b[:64], len(b))
	}
	return string(b)
}

// A logBuffer keeps the last part of what a program says.
type logBuffer struct {
	mu  sync.Mutex
	buf []byte
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if extra := len(l.buf) - 1<<20; extra > 0 {
		l.buf = l.buf[extra:]
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}
