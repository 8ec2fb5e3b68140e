package fetch

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"mandos/internal/clientkeys"
	"mandos/internal/fetch/fetchtest"
	"mandos/internal/keyid"
	"mandos/internal/keytls"
	"mandos/internal/pgp"
)

var pgpKey, otherPGPKey = sync.OnceValue(newPGPKey), sync.OnceValue(newPGPKey)

func newPGPKey() *pgp.Key {
	k, err := pgp.Generate(pgp.Request{Name: "client", Bits: 2048, SubBits: 2048, Created: time.Now()})
	if err != nil {
		panic(err)
	}
	return k
}

func seal(t *testing.T, k *pgp.Key, password []byte) []byte {
	t.Helper()
	message, err := k.Seal(password, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func newAsker(t *testing.T, kind string) (*asker, keyid.KeyID, *bytes.Buffer) {
	t.Helper()
	key, err := clientkeys.NewTLSKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	return &asker{tls: &keytls.Config{Key: key}, key: pgpKey(), log: &notes{w: log, debug: true}}, keyid.OfSPKI(spki), log
}

func serverAt(t *testing.T, addr string) server {
	t.Helper()
	return server{addr: netip.MustParseAddrPort(addr)}
}

func TestAsk(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		for name, size := range map[string]int{"1 B": 1, "4 KiB": 4 << 10, "1 MiB": 1 << 20} {
			t.Run(kind+" "+name, func(t *testing.T) {
				a, id, log := newAsker(t, kind)
				password := bytes.Repeat([]byte{0, 'p', '\n', 0xff}, size/4+1)[:size]
				message := seal(t, a.key, password)
				addr := fetchtest.Serve(t, func(s *fetchtest.Session) {
					if s.Greeting != "1\r\n" {
						t.Errorf("greeting %q", s.Greeting)
					}
					if s.KeyID != id {
						t.Errorf("client shows key ID %v, has %v", s.KeyID, id)
					}
					_, _ = s.Write(message)
					_ = s.CloseWrite()
					// The client takes leave, too: a server needn't wait.
					var b [1]byte
					if _, err := s.Read(b[:]); err != io.EOF {
						t.Errorf("after the secret the client sends %v, want close_notify", err)
					}
				})
				got, err := a.ask(t.Context(), serverAt(t, addr))
				if err != nil || !bytes.Equal(got, password) {
					t.Fatalf("%d bytes, %v; want the %d of the password\n%s", len(got), err, size, log)
				}
				if size > 16 && bytes.Contains(log.Bytes(), password[:16]) {
					t.Error("the password is in the log")
				}
			})
		}
	}
}

// TestAskForLong: one server at a time may send a long message; meanwhile
// others may send short ones.
func TestAskForLong(t *testing.T) {
	a, _, _ := newAsker(t, "ed25519")
	for _, password := range [][]byte{make([]byte, 2*maxShort), nil} {
		message := []byte("no message")
		if password != nil {
			message = seal(t, a.key, password)
		}
		short := fetchtest.Serve(t, func(s *fetchtest.Session) { s.Give(seal(t, a.key, []byte("short"))) })
		long := fetchtest.Serve(t, func(s *fetchtest.Session) {
			_, _ = s.Write(message)
			if password == nil {
				_, _ = s.Write(make([]byte, 2*maxShort))
			}
			for a.long.TryLock() { // the client hasn't read that far
				a.long.Unlock()
				runtime.Gosched()
			}
			if got, err := a.ask(t.Context(), serverAt(t, short)); err != nil || string(got) != "short" {
				t.Errorf("beside a long message: %q, %v", got, err)
			}
			s.Give(nil)
		})
		if got, err := a.ask(t.Context(), serverAt(t, long)); !bytes.Equal(got, password) || (err == nil) != (password != nil) {
			t.Errorf("%d bytes, %v; want %d", len(got), err, len(password))
		}
		if !a.long.TryLock() {
			t.Fatal("the next long message has to wait for ever")
		}
		a.long.Unlock()
	}
}

func TestAskInSmallRecords(t *testing.T) {
	a, _, _ := newAsker(t, "ed25519")
	message := seal(t, a.key, []byte("password"))
	addr := fetchtest.Serve(t, func(s *fetchtest.Session) {
		for i := range message {
			_, _ = s.Write(message[i : i+1])
		}
		s.Give(nil)
	})
	if got, err := a.ask(t.Context(), serverAt(t, addr)); err != nil || string(got) != "password" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAskUnsigned(t *testing.T) {
	// A message made by hand with the public key alone, by gpg.
	a, _, log := newAsker(t, "ed25519")
	a.key = must(pgp.ReadSecret(dsaKey))
	addr := fetchtest.Serve(t, func(s *fetchtest.Session) { s.Give(dsaMessage) })
	if got, err := a.ask(t.Context(), serverAt(t, addr)); err != nil || string(got) != "pw-dsa2048" {
		t.Errorf("%q, %v", got, err)
	}
	if !strings.Contains(log.String(), "warning: ") || !strings.Contains(log.String(), "isn't signed") {
		t.Errorf("no warning in:\n%s", log)
	}
}

func TestAskRefuses(t *testing.T) {
	good := seal(t, pgpKey(), []byte("password"))
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name   string
		handle func(*fetchtest.Session)
		want   string
	}{
		{"nothing, as to an unknown client", func(s *fetchtest.Session) { s.Give(nil) }, errNoSecret.Error()},
		{"cut off by a FIN", func(s *fetchtest.Session) { _, _ = s.Write(good); s.TCP.Close() }, "reading the password: "},
		{"cut off by a reset", func(s *fetchtest.Session) { _, _ = s.Write(good); _ = s.TCP.SetLinger(0); s.TCP.Close() }, "reading the password: "},
		{"not a byte, and gone", func(s *fetchtest.Session) { s.TCP.Close() }, "reading the password: "},
		{"half of it, with a goodbye", func(s *fetchtest.Session) { s.Give(good[:len(good)/2]) }, "can't be decrypted"},
		{"changed", func(s *fetchtest.Session) { s.Give(flipped) }, "can't be decrypted"},
		{"to another key", func(s *fetchtest.Session) { s.Give(seal(t, otherPGPKey(), []byte("x"))) }, "isn't encrypted to this key"},
		{"plain text", func(s *fetchtest.Session) { s.Give([]byte("password")) }, "OpenPGP message"},
		{"without end", func(s *fetchtest.Session) {
			junk := make([]byte, 1<<20)
			for range maxMessage>>20 + 2 {
				if _, err := s.Write(junk); err != nil {
					return
				}
			}
		}, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _, _ := newAsker(t, "ed25519")
			addr := fetchtest.Serve(t, tt.handle)
			got, err := a.ask(t.Context(), serverAt(t, addr))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if got != nil {
				t.Errorf("%d bytes came out", len(got))
			}
		})
	}
}

func TestAskWhatIsNoServer(t *testing.T) {
	for name, handle := range map[string]func(*net.TCPConn){
		"hangs up":     func(c *net.TCPConn) {},
		"speaks first": func(c *net.TCPConn) { _, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")); _, _ = io.Copy(io.Discard, c) },
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newAsker(t, "ed25519")
			addr := fetchtest.Raw(t, func(_ int, c *net.TCPConn, _ chan struct{}) { handle(c) })
			if got, err := a.ask(t.Context(), serverAt(t, addr)); err == nil || got != nil {
				t.Errorf("%q, %v; want an error", got, err)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // meanwhile nobody can listen at the port of its own end
		a, _, _ := newAsker(t, "ed25519")
		if _, err := a.ask(t.Context(), serverAt(t, conn.LocalAddr().String())); err == nil || err.Error() != "connecting: connection refused" {
			t.Errorf("error %v", err)
		}
	})
}

// The end of the context ends a wait in every stage at once.
func TestAskEnds(t *testing.T) {
	t.Run("in the handshake", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, _, _ := newAsker(t, "ed25519")
		addr := fetchtest.Raw(t, func(_ int, c *net.TCPConn, stop chan struct{}) {
			b := make([]byte, 3)
			_, _ = io.ReadFull(c, b)
			cancel()
			<-stop
		})
		if got, err := a.ask(ctx, serverAt(t, addr)); err == nil || got != nil {
			t.Errorf("%q, %v; want an error", got, err)
		}
	})
	t.Run("while an operator thinks", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a, _, _ := newAsker(t, "ed25519")
		addr := fetchtest.Serve(t, func(s *fetchtest.Session) {
			cancel()
			<-s.Stop
		})
		if got, err := a.ask(ctx, serverAt(t, addr)); !errors.Is(err, net.ErrClosed) || got != nil {
			t.Errorf("%q, %v; want %v", got, err, net.ErrClosed)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A key of the kind that was made before 2013, and an unsigned message to it.
var (
	dsaKey     = must(os.ReadFile("../pgp/testdata/dsa2048/seckey.txt"))
	dsaMessage = must(os.ReadFile("../pgp/testdata/dsa2048/secret.gpg"))
)
