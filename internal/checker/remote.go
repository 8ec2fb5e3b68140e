package checker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"mandos/internal/client"
)

// SocketPath is the socket on which systemd listens for the helper.
const SocketPath = "/run/mandos-checker/socket"

// A Remote has commands run by the helper behind the socket Path.
type Remote struct{ Path string }

var _ Runner = Remote{}

// replyGrace is how much longer than a request's limit the helper may take: it
// may have to wait for another check of the same client, and for systemd.
const replyGrace = 30 * time.Second

// Run implements [Runner].
func (h Remote) Run(ctx context.Context, r Request) (client.CheckResult, error) {
	packet, err := MarshalRequest(r)
	if err != nil {
		return client.CheckResult{}, fmt.Errorf("asking the checker helper: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", h.Path)
	if err != nil {
		return client.CheckResult{}, fmt.Errorf("reaching the checker helper (systemctl status mandos-checker.socket): %w", err)
	}
	defer conn.Close()
	// The deadline's clock stops in suspend, so that this makes a check late,
	// not lost.
	if err := conn.SetDeadline(time.Now().Add(r.Limit + replyGrace)); err != nil {
		return client.CheckResult{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	if _, err := conn.Write(packet); err != nil {
		return client.CheckResult{}, giveUp(ctx, fmt.Errorf("asking the checker helper: %w", err))
	}
	reply := make([]byte, 4*MaxOutput)
	n, err := conn.Read(reply)
	if errors.Is(err, io.EOF) || err == nil && n == 0 {
		err = errors.New("it hung up")
	}
	if err != nil {
		return client.CheckResult{}, giveUp(ctx, fmt.Errorf("waiting for the checker helper: %w", err))
	}
	res, err := UnmarshalReply(reply[:n])
	if err != nil {
		return client.CheckResult{}, fmt.Errorf("the checker helper could not run the command: %w", err)
	}
	return res, nil
}

// giveUp returns the reason why ctx ended, if it did, rather than the error of
// the connection that this broke.
func giveUp(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
