package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"mandos/internal/checker"
	"mandos/internal/client"
	"mandos/internal/config"
	"mandos/internal/keyid"
	"mandos/internal/keytls"
	"mandos/internal/registry"
	"mandos/internal/secret"
	"mandos/internal/server"
	"mandos/internal/store"
)

// selfTests are the tests that --check runs. None of them leaves anything
// behind.
var selfTests = []struct {
	name string
	run  func(context.Context) error
}{
	{"a client gets its secret, in memory", func(ctx context.Context) error { return testHandOut(ctx, true) }},
	{"a disabled client gets nothing, in memory", func(ctx context.Context) error { return testHandOut(ctx, false) }},
	{"TLS 1.3 with a raw public key, as it was recorded", func(context.Context) error { return keytls.SelfTestTLS13() }},
	{"TLS 1.2 with an OpenPGP key, as it was recorded", func(context.Context) error { return keytls.SelfTestTLS12() }},
	{"the configuration is read, and a broken one refused", testConfig},
	{"the state outlives its process, in a temporary folder", testState},
	{"the environment has what the server needs", testEnvironment},
}

var errSelfTest = errors.New("this program doesn't work here")

// selfTest runs all self-tests and prints a line for each.
func selfTest(ctx context.Context, out io.Writer) error {
	var failed error
	for _, test := range selfTests {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := test.run(ctx)
		cancel()
		line := "ok      " + test.name
		if err != nil {
			line, failed = fmt.Sprintf("FAILED  %s: %v", test.name, err), errSelfTest
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return failed
}

// testHandOut runs a whole session with a server that has one client.
func testHandOut(ctx context.Context, enabled bool) error {
	want := []byte("the quick brown fox")
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	reg, err := registry.New(ctx, registry.Options{
		Settings: []client.Settings{{
			Name: "self-test", KeyID: keyid.OfSPKI(spki), Secret: secret.New(bytes.Clone(want)),
			Checker: "true", Timeout: time.Hour, ExtendedTimeout: time.Hour, Interval: time.Hour, Enabled: enabled,
		}},
		Store: &registry.MemoryStore{}, Checker: checker.Checks{Runner: checker.Local{}}, Log: quiet,
	})
	if err != nil {
		return err
	}
	l := newOneConn()
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	s := &server.Server{Directory: reg, TLS: clientTLS(keytls.Policy{}), Log: quiet}
	go func() { served <- s.Serve(ctx, l) }()
	got, err := fetch(l.theirs, key)
	stop()
	err = errors.Join(err, <-served)
	switch {
	case err != nil:
		return err
	case !enabled && len(got) > 0:
		return errors.New("it got something")
	case enabled && !bytes.Equal(got, want):
		return errors.New("it got something else")
	}
	return nil
}

// fetch fetches the secret as a client does.
func fetch(conn net.Conn, key ed25519.PrivateKey) ([]byte, error) {
	if _, err := io.WriteString(conn, "1\r\n"); err != nil {
		return nil, err
	}
	tls := keytls.Server(conn, &keytls.Config{Key: key})
	got, err := io.ReadAll(tls)
	_ = tls.CloseNotify()
	return got, err
}

// oneConn is a listener with one connection, in memory.
type oneConn struct {
	conns        chan net.Conn
	ours, theirs net.Conn
	closed       context.Context
	closing      context.CancelFunc
}

func newOneConn() *oneConn {
	l := &oneConn{conns: make(chan net.Conn, 1)}
	l.ours, l.theirs = net.Pipe()
	l.conns <- l.ours
	l.closed, l.closing = context.WithCancel(context.Background())
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed.Done():
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error   { l.closing(); return nil }
func (l *oneConn) Addr() net.Addr { return l.ours.LocalAddr() }

func testConfig(context.Context) error {
	return inTempDir(func(dir string) error {
		write := func(name, text string) error {
			return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
		}
		section := "[self-test]\nkey_id = " + keyid.OfSPKI([]byte("x")).String() +
			"\nsecret = " + base64.StdEncoding.EncodeToString([]byte("x")) + "\n"
		if err := errors.Join(write("mandos.conf", "[DEFAULT]\nport = 6637\n"), write("clients.conf", section)); err != nil {
			return err
		}
		cl, err := config.ParseArgs([]string{"--configdir", dir})
		if err != nil {
			return err
		}
		cfg, clients, found := config.Load(cl, config.LoadOptions{})
		switch {
		case found.Err() != nil:
			return found.Err()
		case cfg.Port != 6637 || len(clients) != 1 || clients[0].Name != "self-test":
			return errors.New("it was read wrong")
		}
		if err := write("clients.conf", section+"timeout = soon\n"); err != nil {
			return err
		}
		if _, _, found := config.Load(cl, config.LoadOptions{}); found.Err() == nil {
			return errors.New("an error was not noticed")
		}
		return nil
	})
}

func testState(context.Context) error {
	return inTempDir(func(dir string) error {
		for range 2 { // the first creates it, the second finds it
			s, err := store.Open(dir)
			if err != nil {
				return err
			}
			state, err := s.Load()
			seen := state.Seen
			if err == nil {
				err = s.Commit(registry.Batch{Seen: seen.Add(time.Second)})
			}
			if err := errors.Join(err, s.Close()); err != nil {
				return err
			}
		}
		s, err := store.Open(dir)
		if err != nil {
			return err
		}
		defer s.Close()
		if state, err := s.Load(); err != nil {
			return err
		} else if (state.Seen == time.Time{}) {
			return errors.New("what was saved is lost")
		}
		return nil
	})
}

func testEnvironment(context.Context) error {
	if _, err := os.Stat("/bin/sh"); err != nil {
		return fmt.Errorf("checkers need it: %w", err)
	}
	if now := time.Now(); now.Year() < 2020 {
		return fmt.Errorf("the clock isn't set: it is %v", now)
	}
	if os.Geteuid() == 0 {
		if _, err := firstUser(); err != nil {
			return err
		}
	}
	return nil
}

func inTempDir(f func(dir string) error) error {
	dir, err := os.MkdirTemp("", "mandos-check-")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}
