package keytls

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
	"mandos/internal/testenv"
)

// gnutlsPriority is the priority string of Mandos's own peers, to which a list
// of groups can be appended.
const gnutlsPriority = "SECURE128:!CTYPE-X.509:+CTYPE-RAWPK:!RSA:!VERS-ALL:+VERS-TLS1.3:%PROFILE_ULTRA"

// pemFiles writes the halves of key in the form that GnuTLS's programs read.
func pemFiles(t *testing.T, key crypto.Signer) (public, private string) {
	t.Helper()
	spki, err := peerkey.MarshalSPKI(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	public, private = filepath.Join(dir, "public.pem"), filepath.Join(dir, "private.pem")
	for name, block := range map[string]*pem.Block{
		public:  {Type: "PUBLIC KEY", Bytes: spki},
		private: {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return public, private
}

// gnutlsKeys are the types of key that mandos-keygen may make.
var gnutlsKeys = []string{"Ed25519", "ECDSA P-256", "ECDSA P-384", "RSA 3072"}

func TestAgainstGnuTLSServer(t *testing.T) {
	program := testenv.Program(t, "gnutls-serv", "gnutls-bin")
	for name, tt := range map[string]struct {
		keys     []string
		priority string
		group    wire.Group // if it isn't X25519: after a HelloRetryRequest
	}{
		"Debian's priority":     {gnutlsKeys, gnutlsPriority, 0},
		"a HelloRetryRequest":   {[]string{"Ed25519"}, "NORMAL:-CTYPE-ALL:+CTYPE-SRV-RAWPK:-GROUP-ALL:+GROUP-SECP384R1", wire.P384},
		"X25519 and ChaCha20":   {[]string{"Ed25519"}, "NORMAL:-CTYPE-ALL:+CTYPE-SRV-RAWPK:-GROUP-ALL:+GROUP-X25519:-CIPHER-ALL:+CHACHA20-POLY1305", 0},
		"P-256 and AES-128":     {[]string{"Ed25519"}, "NORMAL:-CTYPE-ALL:+CTYPE-SRV-RAWPK:-GROUP-ALL:+GROUP-SECP256R1:-CIPHER-ALL:+AES-128-GCM", wire.P256},
		"no compatibility mode": {[]string{"Ed25519"}, gnutlsPriority + ":%DISABLE_TLS13_COMPAT_MODE", 0},
		"raw keys or X.509":     {[]string{"Ed25519"}, "NORMAL:+CTYPE-SRV-RAWPK", 0},
	} {
		for _, keyName := range tt.keys {
			t.Run(name+"/"+keyName, func(t *testing.T) {
				key := testKey(keyName)
				address := startGnuTLSServer(t, program, key, tt.priority)
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				hellos := &handshakeCounter{Conn: conn}
				c := Client(hellos, &Config{})
				defer c.Close()
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				if got := c.PeerIdentity(); got != identity(t, key) {
					t.Errorf("the peer's identity is %v, want %v", got, identity(t, key))
				}
				group, trips := wire.X25519, 1
				if tt.group != 0 {
					group, trips = tt.group, 2
				}
				if _, _, g := c.Negotiated(); g != group || hellos.n != trips {
					t.Errorf("group %v with %d hellos, want %v with %d", g, hellos.n, group, trips)
				}
				line := []byte(strings.Repeat("echo ", 100) + "\n")
				if _, err := c.Write(line); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(line))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, line) {
					t.Errorf("the echo is %q, %v", got, err)
				}
				if err := c.CloseNotify(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A handshakeCounter counts the records that hold handshake messages in the
// clear: a TLS client's hellos.
type handshakeCounter struct {
	net.Conn
	n int
}

func (c *handshakeCounter) Write(b []byte) (int, error) {
	for rest := b; len(rest) >= wire.HeaderLen; {
		h, err := wire.ParseHeader(rest)
		if err != nil {
			return 0, err
		}
		if h.Type == wire.TypeHandshake {
			c.n++
		}
		rest = rest[min(len(rest), wire.HeaderLen+h.Length):]
	}
	return c.Conn.Write(b)
}

// startGnuTLSServer starts an echo server, which is stopped when the test ends,
// and returns its address.
func startGnuTLSServer(t *testing.T, program string, key crypto.Signer, priority string) string {
	t.Helper()
	public, private := pemFiles(t, key)
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		cmd := exec.CommandContext(t.Context(), program, "--echo", "--disable-client-cert", "--priority", priority,
			"--port", strconv.Itoa(port), "--rawpkfile", public, "--rawpkkeyfile", private)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = cmd.Stdout
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		var said []string
		taken := false // somebody else had the port first; it goes on without IPv4
		for s := bufio.NewScanner(out); !taken && s.Scan(); {
			said = append(said, s.Text())
			if strings.Contains(s.Text(), "listening on IPv4") && strings.Contains(s.Text(), "done") {
				go io.Copy(io.Discard, out) //nolint:errcheck // ends with the process
				return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			}
			taken = strings.Contains(s.Text(), "bind() failed")
		}
		if !taken {
			t.Fatalf("gnutls-serv doesn't listen:\n%s", strings.Join(said, "\n"))
		}
	}
	t.Fatal("gnutls-serv finds each port taken")
	return ""
}

func TestAgainstGnuTLSClient(t *testing.T) {
	program := testenv.Program(t, "gnutls-cli", "gnutls-bin")
	for name, tt := range map[string]struct {
		keys     []string
		priority string
		policy   Policy
	}{
		"Debian's priority":     {gnutlsKeys, gnutlsPriority, Policy{}},
		"a HelloRetryRequest":   {[]string{"Ed25519"}, gnutlsPriority, Policy{Groups: []wire.Group{wire.P384}}},
		"X25519 and ChaCha20":   {[]string{"Ed25519"}, gnutlsPriority, Policy{Groups: []wire.Group{wire.X25519}, Suites: []wire.Suite{wire.ChaCha20Poly1305}}},
		"P-256 and AES-128":     {[]string{"Ed25519"}, gnutlsPriority, Policy{Groups: []wire.Group{wire.P256}, Suites: []wire.Suite{wire.AES128GCM}}},
		"no compatibility mode": {[]string{"Ed25519"}, gnutlsPriority + ":%DISABLE_TLS13_COMPAT_MODE", Policy{}},
	} {
		for _, keyName := range tt.keys {
			t.Run(name+"/"+keyName, func(t *testing.T) {
				key := testKey(keyName)
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				_, port, _ := net.SplitHostPort(l.Addr().String())
				cmd := exec.CommandContext(t.Context(), program, "--insecure", "--no-ca-verification",
					"--logfile", os.DevNull, "--priority", tt.priority, "--port", port, "127.0.0.1")
				var out, errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errs
				stdin, err := cmd.StdinPipe() // open until the end, or gnutls-cli stops at once
				if err != nil {
					t.Fatal(err)
				}
				defer stdin.Close()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				conn, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				secret := bytes.Repeat([]byte("secret "), 10_000)
				c := Server(conn, &Config{Key: key, Policy: tt.policy})
				if _, err = c.Write(secret); err == nil {
					err = c.CloseNotify()
				}
				if e := cmd.Wait(); err != nil || e != nil {
					t.Fatalf("our side: %v; gnutls-cli: %v\n%s", err, e, &errs)
				}
				if !bytes.Contains(out.Bytes(), secret) {
					t.Errorf("gnutls-cli got %d bytes, not the %d sent", out.Len(), len(secret))
				}
			})
		}
	}
}
