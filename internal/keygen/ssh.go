package keygen

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshTimeout bounds the wait for the SSH server on this host.
const sshTimeout = 3 * time.Second

// A hostKey is an SSH host key as ssh-keyscan(1) shows it.
type hostKey struct {
	kind string // for ssh-keyscan's option -t
	line string // algorithm, blank, base64: the line without the host
}

// sshHostKey asks the SSH server at addr for its host key, in the order in
// which OpenSSH prefers them. ok is false if nobody answers within timeout, for
// each type of key.
func sshHostKey(ctx context.Context, addr string, timeout time.Duration) (key hostKey, ok bool) {
	if addr == "" {
		addr = "localhost:22"
	}
	for _, try := range []struct {
		kind       string
		algorithms []string
	}{
		{"ed25519", []string{ssh.KeyAlgoED25519}},
		{"ecdsa", []string{ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}},
		{"rsa", []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}},
	} {
		var seen ssh.PublicKey
		done := errors.New("host key seen")
		cfg := &ssh.ClientConfig{
			HostKeyAlgorithms: try.algorithms,
			HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
				seen = k // the exchange's signature by this key has been checked
				return done
			},
		}
		dialer := net.Dialer{Timeout: timeout}
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return hostKey{}, false
		}
		_ = conn.SetDeadline(time.Now().Add(timeout))
		_, _, _, _ = ssh.NewClientConn(conn, addr, cfg) // always fails: the callback does
		conn.Close()
		if seen != nil {
			line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(seen)))
			return hostKey{try.kind, line}, true
		}
	}
	return hostKey{}, false
}
