package helper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mandos/internal/checker"
	"mandos/internal/client"
)

func TestMain(m *testing.M) {
	Held(os.Args[1:]) // the tests' own children are made of this binary
	if order := os.Getenv(scopeRole); order != "" {
		startScope(order)
		return
	}
	os.Exit(m.Run())
}

type runnerFunc func(context.Context, checker.Request) (Outcome, error)

func (f runnerFunc) Run(ctx context.Context, r checker.Request) (Outcome, error) { return f(ctx, r) }

// serve starts a Server and returns its socket's path.
func serve(t *testing.T, allow uint32, run runnerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &Server{AllowUID: allow, Runner: run, Log: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return path
}

var (
	self    = uint32(os.Getuid())
	request = checker.Request{Client: "a", Command: "true", Limit: time.Minute}
)

func TestServer(t *testing.T) {
	path := serve(t, self, func(_ context.Context, r checker.Request) (Outcome, error) {
		if r != request {
			return Outcome{}, errors.New("another request arrived")
		}
		return Outcome{ExitStatus: 4, Output: []byte("no answer\n")}, nil
	})
	got, err := checker.Remote{Path: path}.Run(t.Context(), request)
	if want := (client.CheckResult{ExitStatus: 4, Output: "no answer"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestServerRefuses(t *testing.T) {
	var ran atomic.Bool
	run := func(context.Context, checker.Request) (Outcome, error) {
		ran.Store(true)
		return Outcome{}, nil
	}
	t.Run("another user", func(t *testing.T) {
		_, err := checker.Remote{Path: serve(t, self+1, run)}.Run(t.Context(), request)
		if err == nil || !strings.Contains(err.Error(), "may not ask") {
			t.Errorf("error %v, want a refusal", err)
		}
	})
	path := serve(t, self, run)
	for name, packet := range map[string]string{
		"no JSON":       "1\r\n",
		"an empty name": `{"client":"","command":"true","limit_ms":1000}`,
		"another key":   `{"client":"a","command":"true","limit_ms":1000,"user":"root"}`,
		"too large":     `{"client":"a","command":"` + strings.Repeat("x", checker.MaxPacket) + `","limit_ms":1000}`,
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unixpacket", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(packet)); err != nil {
				t.Fatal(err)
			}
			reply := make([]byte, checker.MaxPacket)
			n, err := conn.Read(reply)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := checker.UnmarshalReply(reply[:n]); err == nil {
				t.Errorf("was answered with %+v", res)
			}
		})
	}
	if ran.Load() {
		t.Error("something was run")
	}
}

// TestOneAtATime checks that the checks of one client wait for each other,
// and those of two clients don't.
func TestOneAtATime(t *testing.T) {
	started := make(chan string, 10)
	release := make(chan struct{})
	path := serve(t, self, func(_ context.Context, r checker.Request) (Outcome, error) {
		started <- r.Client
		<-release
		return Outcome{}, nil
	})
	results := make(chan error, 3)
	ask := func(client string) {
		r := request
		r.Client = client
		_, err := checker.Remote{Path: path}.Run(t.Context(), r)
		results <- err
	}
	go ask("a")
	if got := <-started; got != "a" {
		t.Fatalf("%s started", got)
	}
	go ask("a")
	go ask("b")
	if got := <-started; got != "b" {
		t.Fatalf("%s started beside the first check of a", got)
	}
	release <- struct{}{}
	release <- struct{}{}
	if got := <-started; got != "a" {
		t.Fatalf("%s started", got)
	}
	release <- struct{}{}
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestHangingUpCancels(t *testing.T) {
	started, ended := make(chan struct{}), make(chan struct{})
	path := serve(t, self, func(ctx context.Context, _ checker.Request) (Outcome, error) {
		close(started)
		<-ctx.Done()
		close(ended)
		return Outcome{}, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go checker.Remote{Path: path}.Run(ctx, request)
	<-started
	cancel()
	<-ended
}

// TestStoppedMeanwhile: a request that waits when the helper is stopped is told
// so, and where to look.
func TestStoppedMeanwhile(t *testing.T) {
	started := make(chan struct{})
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &Server{AllowUID: self, Log: slog.New(slog.DiscardHandler), Runner: runnerFunc(func(ctx context.Context, _ checker.Request) (Outcome, error) {
		close(started)
		<-ctx.Done()
		return Outcome{}, fmt.Errorf("starting the scope: %w", ctx.Err())
	})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	answer := make(chan error, 1)
	go func() {
		_, err := checker.Remote{Path: path}.Run(t.Context(), request)
		answer <- err
	}()
	<-started
	stop()
	if err := <-answer; err == nil || !strings.Contains(err.Error(), "it was stopped meanwhile (systemctl status mandos-checker.socket)") {
		t.Errorf("the answer is %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// TestMutePeer: a peer that sends nothing is cut off, and the end of the server
// waits for no peer.
func TestMutePeer(t *testing.T) {
	path := serve(t, self, nil)
	conn, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	reply := make([]byte, checker.MaxPacket)
	n, err := conn.Read(reply)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if res, err := checker.UnmarshalReply(reply[:n]); err == nil {
		t.Errorf("a mute peer was answered with %+v", res)
	}
}
