package keygen

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// sshServer answers on an unused port of localhost with one host key.
func sshServer(t *testing.T, key any) (addr string, line string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(signer)
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _, _, _ = ssh.NewServerConn(conn, cfg)
			conn.Close()
		}
	}()
	return l.Addr().String(), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

func generateSSHKeys(t *testing.T) map[string]any {
	t.Helper()
	_, ed, err1 := ed25519.GenerateKey(rand.Reader)
	ec, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, err3 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"ed25519": ed, "ecdsa": ec, "rsa": rs}
}

func TestSSHHostKey(t *testing.T) {
	for kind, key := range generateSSHKeys(t) {
		addr, line := sshServer(t, key)
		got, ok := sshHostKey(t.Context(), addr, time.Minute)
		if want := (hostKey{kind, line}); !ok || got != want {
			t.Errorf("%s: got %v, %v; want %v", kind, got, ok, want)
		}
	}
}

func TestNoSSHServer(t *testing.T) {
	other, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "220 mail.example.org ESMTP\r\n")
			conn.Close()
		}
	}()
	if k, ok := sshHostKey(t.Context(), other.Addr().String(), time.Minute); ok {
		t.Errorf("a host key from a mail server: %v", k)
	}

	conn, err := net.Dial("tcp", other.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // meanwhile nobody can listen at the port of its own end
	if k, ok := sshHostKey(t.Context(), conn.LocalAddr().String(), time.Minute); ok {
		t.Errorf("a host key from nobody: %v", k)
	}
}

// The checker that is printed runs in a shell, as the server runs it: with
// the two values filled in, the host quoted. ssh-keyscan is a stand-in.
func TestChecker(t *testing.T) {
	var b strings.Builder
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkkA"
	writeChecker(&b, hostKey{"ed25519", line})
	command, ok := strings.CutPrefix(strings.SplitN(b.String(), "\n", 2)[0], "checker = ")
	if !ok || !strings.Contains(b.String(), "\nssh_fingerprint = "+line+"\n") {
		t.Fatalf("unexpected form:\n%s", &b)
	}
	const host = "cl.example.org"
	command = strings.NewReplacer("%%(host)s", "'"+host+"'", "%(ssh_fingerprint)s", line).Replace(command)
	if strings.Contains(command, "%") {
		t.Fatalf("something is left to expand: %s", command)
	}
	for answer, up := range map[string]bool{
		host + " " + line:                       true,
		host + " " + line + "x":                 false,
		host + " ssh-ed25519 AAAAsomethingelse": false,
		"clxexample.org " + line:                false,
		"":                                      false,
	} {
		dir := t.TempDir()
		script := fmt.Sprintf("#!/bin/sh\n[ \"$*\" = '-t ed25519 %s' ] && echo '%s'\n", host, answer)
		if err := os.WriteFile(filepath.Join(dir, "ssh-keyscan"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", command)
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
		if err := cmd.Run(); (err == nil) != up {
			t.Errorf("ssh-keyscan says %q: checker says %v, want success %v", answer, err, up)
		}
	}
}

func TestSectionHasChecker(t *testing.T) {
	dir := t.TempDir()
	pw := filepath.Join(dir, "pw")
	if err := os.WriteFile(pw, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(addr string, args ...string) string {
		var out, errs bytes.Buffer
		c := Command{Args: append(args, "--dir", dir, "--name", "n"), Stdin: os.Stdin, Stdout: &out, Stderr: &errs, sshAddr: addr, sshTimeout: time.Minute}
		if status := c.Run(t.Context()); status != 0 {
			t.Fatalf("%v: exit status %d\n%s", args, status, &errs)
		}
		return out.String()
	}
	run("", "-l2048", "-L2048")
	addr, line := sshServer(t, generateSSHKeys(t)["ed25519"])
	if got := run(addr, "-F", pw); !strings.Contains(got, "\nssh_fingerprint = "+line+"\n") || !strings.Contains(got, "\nchecker = ssh-keyscan -t ed25519 %%(host)s ") {
		t.Errorf("no checker in:\n%s", got)
	}
	if got := run(addr, "-F", pw, "--no-ssh"); strings.Contains(got, "ssh") {
		t.Errorf("--no-ssh, and yet:\n%s", got)
	}
}

// terminal returns the two ends of a pseudo-terminal (pty(7)).
func terminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keyboard, tty
}

func TestAskOnTerminal(t *testing.T) {
	for _, tt := range []struct {
		first, second string
		want, wantErr string
	}{
		{" pass word ", "pass word", "pass word", ""},
		{"pass", "other", "", "differ"},
		{"", "", "", "empty"},
	} {
		keyboard, tty := terminal(t)
		// As a person would, type only after a prompt.
		prompts, stderr := io.Pipe()
		type answer struct {
			password []byte
			err      error
		}
		done := make(chan answer)
		go func() {
			p, err := Command{Stdin: tty, Stderr: stderr}.askPassword(t.Context())
			stderr.Close()
			done <- answer{p, err}
		}()
		go func() {
			b := make([]byte, 64)
			for _, line := range []string{tt.first, tt.second} {
				for { // a prompt ends with a blank; the line break after a password doesn't
					n, err := prompts.Read(b)
					if err != nil {
						return
					}
					if b[n-1] == ' ' {
						break
					}
				}
				fmt.Fprintln(keyboard, line)
			}
			io.Copy(io.Discard, prompts)
		}()
		got := <-done
		if string(got.password) != tt.want {
			t.Errorf("typed %q, %q: got %q, want %q", tt.first, tt.second, got.password, tt.want)
		}
		if tt.wantErr == "" && got.err != nil || tt.wantErr != "" && (got.err == nil || !strings.Contains(got.err.Error(), tt.wantErr)) {
			t.Errorf("typed %q, %q: error %v, want %q", tt.first, tt.second, got.err, tt.wantErr)
		}
	}
}

// TestInterrupted: who is interrupted while a password is asked for gets the
// terminal back as it was.
func TestInterrupted(t *testing.T) {
	_, tty := terminal(t)
	echoes := func() bool {
		t.Helper()
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	if !echoes() {
		t.Fatal("the terminal has no echo to begin with")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := Command{Stdin: tty, Stderr: io.Discard}.askPassword(ctx)
		done <- err
	}()
	for echoes() {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, errInterrupted) {
		t.Errorf("error %v", err)
	}
	if !echoes() {
		t.Error("the terminal is left without echo")
	}
}

// TestInterruptedKeys: who is interrupted while keys are made has none.
func TestInterruptedKeys(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	status := Command{Args: []string{"-d", dir, "-n", "x", "-l", "8192"}, Stdin: os.Stdin, Stdout: io.Discard, Stderr: &errs}.Run(ctx)
	if status != 1 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit status %d, printed %q", status, &errs)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
