// Package attack_test holds the server against crowds: hostile ones, and a
// whole site that boots at once. The server, the crowd and the clients that
// have to be served meanwhile are processes of their own, on the loopback,
// each with source addresses of its own.
//
// Without $ATTACK it is small and has no opinion on time. `make attack` runs
// it in full, prints figures, and has one.
package attack_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mandos/internal/daemon"
	"mandos/internal/daemon/daemontest"
	"mandos/internal/keyid"
	"mandos/internal/keytls"
)

// TestMain is also the server, and the crowd.
func TestMain(m *testing.M) {
	switch os.Getenv("ATTACK_ROLE") {
	case "server":
		os.Exit(daemon.Command{Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr, Version: "test"}.Run(context.Background()))
	case "crowd":
		os.Exit(crowdMain())
	}
	// What mandos.service asks for, where that is permitted.
	files := syscall.Rlimit{Cur: 1 << 15, Max: 1 << 15}
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
	os.Exit(m.Run())
}

// deadline is how long what must happen may take.
const deadline = time.Minute

// keyOf returns the n-th key. They are the same in each process.
func keyOf(n int) ed25519.PrivateKey {
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	return ed25519.NewKeyFromSeed(seed[:])
}

func keyIDOf(n int) string {
	spki, err := x509.MarshalPKIXPublicKey(keyOf(n).Public())
	if err != nil {
		panic(err)
	}
	return keyid.OfSPKI(spki).String()
}

// secretOf returns the n-th client's secret, as long as that of a usual
// password with an RSA key of 4096 bits and a signature.
func secretOf(n int) []byte {
	secret := bytes.Repeat([]byte{byte(n), byte(n >> 8), 0xa5}, 400)
	return secret[:1190]
}

// section is the n-th client's in clients.conf.
func section(n int, more ...string) string {
	return fmt.Sprintf("[c%d]\nkey_id = %s\nsecret = %s\nchecker = true\ninterval = P1D\ntimeout = P2D\n%s\n\n", n, keyIDOf(n),
		base64.StdEncoding.EncodeToString(secretOf(n)), strings.Join(more, "\n"))
}

// dial connects to addr from the loopback address source.
func dial(source, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: deadline}
	return d.Dial("tcp", addr)
}

// fetch asks at addr with the n-th key, as a client does.
func fetch(source, addr string, n int) ([]byte, error) {
	conn, err := dial(source, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "1\r\n"); err != nil {
		return nil, err
	}
	tls := keytls.Server(conn, &keytls.Config{Key: keyOf(n)})
	got, err := io.ReadAll(tls)
	if err == nil {
		_ = tls.CloseNotify()
	}
	return got, err
}

// get is fetch for a client, which wants its secret.
func get(source, addr string, n int) error {
	got, err := fetch(source, addr, n)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(got, secretOf(n)):
		return fmt.Errorf("got %d bytes that aren't the secret", len(got))
	}
	return nil
}

// A process is one that tests started.
type process struct {
	*daemontest.Process
	stdin io.WriteCloser
}

// startProcess runs program with the role in $ATTACK_ROLE.
func startProcess(t *testing.T, program, role string, args ...string) process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "ATTACK_ROLE="+role, "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return process{daemontest.Start(t, cmd), stdin}
}

// serve starts a server with these sections of clients.conf, and returns
// where it listens. $ATTACK_SERVER may name another program than this
// source's.
func serve(t *testing.T, sections []string) (process, string) {
	t.Helper()
	return serveWith(t, 0, sections)
}

// serveWith is serve with a limit on descriptors, unless that is 0.
func serveWith(t *testing.T, files int, sections []string) (process, string) {
	t.Helper()
	program := os.Getenv("ATTACK_SERVER")
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "mandos-attack-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "clients.conf"), []byte(strings.Join(sections, "")), 0o640); err != nil {
		t.Fatal(err)
	}
	args := []string{"--no-ipv6", "--address", "127.0.0.1", "--configdir", dir}
	if files > 0 {
		args = append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), program}, args...)
		program = "sh"
	}
	p := startProcess(t, program, "server", args...)
	return p, p.Ready()
}

// openFiles returns how many descriptors p has.
func (p process) openFiles() int {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Cmd.Process.Pid))
	if err != nil {
		p.T.Fatal(err)
	}
	return len(fds)
}

// memory returns a field of p's /proc/…/status, such as VmRSS, in KiB.
func (p process) memory(field string) int {
	p.T.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		p.T.Fatal(err)
	}
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindStringSubmatch(string(status))
	if m == nil {
		p.T.Fatalf("no %s in %s", field, status)
	}
	kb, _ := strconv.Atoi(m[1])
	return kb
}

// processorTime returns what p has used so far.
func (p process) processorTime() time.Duration {
	p.T.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Cmd.Process.Pid))
	if err != nil {
		p.T.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ") // proc(5): fields 14 and 15 are ticks of 10 ms
	fields := strings.Fields(after)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// stacks ends p and returns the stacks of its goroutines.
func (p process) stacks() []string {
	p.T.Helper()
	if err := p.Cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		p.T.Fatal(err)
	}
	p.Wait()
	_, dump, _ := strings.Cut(p.Log(), "SIGQUIT: quit")
	var stacks []string
	for stack := range strings.SplitSeq(dump, "\n\n") {
		if strings.HasPrefix(stack, "goroutine ") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// full reports whether figures are wanted.
func full() bool { return os.Getenv("ATTACK") != "" }

// eventually polls until ok, which must come to pass.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("not within %v: %s", deadline, what)
			return
		}
	}
}
