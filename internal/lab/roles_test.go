package lab_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/keytls"
)

// roleVariable tells this program which role to play inside a host, rather
// than to run tests.
const roleVariable = "MANDOS_LAB_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		// Hosts take inotify instances, of which root has 128 by default.
		_ = flag.Set("test.parallel", strconv.Itoa(min(runtime.GOMAXPROCS(0), 6))) // -parallel comes after this
		os.Exit(m.Run())
	}
	play := map[string]func([]string) error{
		"ask": ask, "askers": askers, "crowd": crowd, "hoard": hoard, "hold": hold,
		"garbage": garbage, "stepclock": stepClock, "load": load, "request": request, "spy": spy, "stalk": stalk,
	}[role]
	if play == nil {
		fmt.Fprintln(os.Stderr, "no such role:", role)
		os.Exit(2)
	}
	if err := play(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

// as is the start of a command that plays a role inside a host.
func as(role string, args ...string) []string {
	return append([]string{"env", roleVariable + "=" + role, "/lab"}, args...)
}

// keyOf returns the key of the client with this name. It's no secret.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("key of " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// secretOf returns the secret of the client with this name.
func secretOf(name string) string { return "S3CR3T of " + name }

// section returns the client's section of clients.conf.
func section(name string, lines ...string) string {
	spki, err := x509.MarshalPKIXPublicKey(keyOf(name).Public())
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("[%s]\nhost = %[1]s\nkey_id = %x\nsecret = %s\n%s\n\n", name, sha256.Sum256(spki),
		base64.StdEncoding.EncodeToString([]byte(secretOf(name))), strings.Join(lines, "\n"))
}

// errRefused: the server closed the session properly and sent nothing.
var errRefused = errors.New("refused")

// fetch connects once as the client and returns the secret.
func fetch(address, name string) (string, error) {
	secret, _, err := fetchWithin(address, name, 2*time.Minute, 5*time.Minute)
	return secret, err
}

// fetchWithin is fetch with time limits for the connection and for the rest;
// it returns its own address, too. With an error there may be a part of the
// secret.
func fetchWithin(address, name string, dial, session time.Duration) (secret string, local netip.AddrPort, err error) {
	raw, err := net.DialTimeout("tcp", address, dial)
	if err != nil {
		return "", local, err
	}
	defer raw.Close()
	local = raw.LocalAddr().(*net.TCPAddr).AddrPort()
	if err := raw.SetDeadline(time.Now().Add(session)); err != nil {
		return "", local, err
	}
	if _, err := io.WriteString(raw, "1\r\n"); err != nil {
		return "", local, err
	}
	conn := keytls.Server(raw, &keytls.Config{Key: keyOf(name)})
	if err := conn.Handshake(); err != nil {
		return "", local, fmt.Errorf("handshake: %w", err)
	}
	text, err := io.ReadAll(conn) // fails without close_notify
	switch {
	case err != nil:
		err = fmt.Errorf("reading the secret: %w", err)
	case len(text) == 0:
		err = errRefused
	}
	return string(text), local, err
}

// ask ADDRESS NAME prints the client's secret, or nothing and "refused" on standard error.
func ask(args []string) error {
	secret, err := fetch(args[0], args[1])
	if err != nil {
		return err
	}
	_, err = fmt.Print(secret)
	return err
}

// crowd ADDRESS SIZE: for each line on standard input, SIZE more clients
// (crowd-0, crowd-1 …) connect at once, each a single time. At the end it
// prints how many got their secret, and why others didn't.
func crowd(args []string) error {
	var size int
	if _, err := fmt.Sscan(args[1], &size); err != nil {
		return err
	}
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		served int
		others = map[string]int{}
		next   int
	)
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		for range size {
			name := fmt.Sprintf("crowd-%d", next)
			next++
			wg.Go(func() {
				secret, err := fetch(args[0], name)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					others[err.Error()]++
				case secret != secretOf(name):
					others["wrong secret"]++
				default:
					served++
				}
			})
		}
	}
	wg.Wait()
	fmt.Printf("%d of %d served\n", served, next)
	for why, n := range others {
		fmt.Printf("%d: %s\n", n, why)
	}
	return nil
}

// hold ADDRESS NUMBER opens connections that greet and then say nothing, and
// keeps them until standard input ends.
func hold(args []string) error {
	var number int
	if _, err := fmt.Sscan(args[1], &number); err != nil {
		return err
	}
	for range number {
		conn, err := net.DialTimeout("tcp", args[0], 2*time.Minute)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "1\r\n"); err != nil {
			return err
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil { // the ClientHello: a session has begun
			return err
		}
	}
	fmt.Println("holding")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// hoard PORT has the socket that systemd listens with on that port open as
// well, as a process that systemd has just forked does, until standard input
// ends.
func hoard(args []string) error {
	var number int
	if _, err := fmt.Sscan(args[0], &number); err != nil {
		return err
	}
	systemd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return err
	}
	files, err := os.ReadDir("/proc/1/fd")
	if err != nil {
		return err
	}
	for _, file := range files {
		var theirs int
		if _, err := fmt.Sscan(file.Name(), &theirs); err != nil {
			return err
		}
		ours, err := unix.PidfdGetfd(systemd, theirs, 0)
		if err != nil {
			continue // it is closed again
		}
		address, err := unix.Getsockname(ours)
		listens, _ := unix.GetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) // fails for what is no socket
		if a, ok := address.(*unix.SockaddrInet6); err == nil && ok && a.Port == number && listens == 1 {
			fmt.Println("holding")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		}
		_ = unix.Close(ours)
	}
	return errors.New("systemd has no such socket")
}
