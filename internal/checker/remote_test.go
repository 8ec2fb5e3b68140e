package checker

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
)

// fakeHelper answers the requests to a socket with answer; it returns the
// socket's path.
func fakeHelper(t *testing.T, answer func(net.Conn, []byte)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unixpacket", path)
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
			packet := make([]byte, MaxPacket)
			n, _ := conn.Read(packet)
			answer(conn, packet[:n])
			conn.Close()
		}
	}()
	return path
}

func TestRemote(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  func(net.Conn, []byte)
		want    client.CheckResult
		wantErr string
	}{
		"a result":  {func(c net.Conn, _ []byte) { c.Write(MarshalReply(1, 0, false, []byte("x"), nil)) }, client.CheckResult{ExitStatus: 1, Output: "x"}, ""},
		"an error":  {func(c net.Conn, _ []byte) { c.Write(MarshalReply(0, 0, false, nil, errors.New("no such user"))) }, client.CheckResult{}, "could not run the command: no such user"},
		"hangs up":  {func(net.Conn, []byte) {}, client.CheckResult{}, "hung up"},
		"an essay":  {func(c net.Conn, _ []byte) { c.Write([]byte(strings.Repeat("x", 8*MaxOutput))) }, client.CheckResult{}, "helper's reply"},
		"a riddle":  {func(c net.Conn, _ []byte) { c.Write([]byte("?")) }, client.CheckResult{}, "helper's reply"},
		"an object": {func(c net.Conn, _ []byte) { c.Write([]byte(`{"exit_status":1000}`)) }, client.CheckResult{}, "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Remote{fakeHelper(t, tt.answer)}.Run(t.Context(), valid)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want one with %q", err, tt.wantErr)
				}
			} else if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	t.Run("no helper", func(t *testing.T) {
		_, err := Remote{filepath.Join(t.TempDir(), "none")}.Run(t.Context(), valid)
		if err == nil || !strings.Contains(err.Error(), "mandos-checker.socket") {
			t.Errorf("error %v, want one that names the unit", err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		reason := errors.New("the client was disabled")
		hungUp := make(chan struct{})
		ctx, cancel := context.WithCancelCause(t.Context())
		path := fakeHelper(t, func(c net.Conn, _ []byte) {
			cancel(reason)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := c.Read(make([]byte, 1)); n == 0 && !errors.Is(err, context.DeadlineExceeded) {
				close(hungUp)
			}
		})
		if _, err := (Remote{path}).Run(ctx, valid); !errors.Is(err, reason) {
			t.Errorf("error %v, want %v", err, reason)
		}
		<-hungUp // the helper learns of it, and kills the check
	})
}
