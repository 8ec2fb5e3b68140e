package keytls

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"mandos/internal/keyid"
	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/wire"
)

// testKeyNames are the types of keys; testKey makes each once, when it is first
// needed, as RSA keys take long to make.
var testKeyNames = []string{"Ed25519", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "RSA 2048", "RSA 3072"}

var (
	testKeysMu sync.Mutex
	testKeys   = map[string]crypto.Signer{}
)

func testKey(name string) crypto.Signer {
	testKeysMu.Lock()
	defer testKeysMu.Unlock()
	if key := testKeys[name]; key != nil {
		return key
	}
	var key crypto.Signer
	var err error
	switch name {
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ECDSA P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSA P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSA P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RSA 2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "RSA 3072":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	}
	if key == nil || err != nil {
		panic(fmt.Sprintf("no key %q: %v", name, err))
	}
	testKeys[name] = key
	return key
}

// suites13 are the suites of TLS 1.3.
var suites13 = slices.DeleteFunc(slices.Clone(defaultPolicy.Suites), func(s wire.Suite) bool { return !s.IsTLS13() })

func identity(t testing.TB, key crypto.Signer) keyid.Identity {
	t.Helper()
	spki, err := peerkey.MarshalSPKI(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return keyid.Identity{KeyID: keyid.OfSPKI(spki)}
}

// transports returns the two ends of a loopback TCP connection with a deadline
// of five minutes.
func transports(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	// Somebody who had another server at this port may come first.
	for b == nil || b.RemoteAddr().String() != a.LocalAddr().String() {
		if b != nil {
			b.Close()
		}
		if b, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

// handshaker is what crypto/tls and this package have in common.
// session has the client's end send down and close, and the server's end
// receive, answer with up, and close.
type handshaker interface {
	net.Conn
	Handshake() error
	CloseWrite() error
}

func session(t testing.TB, client, server handshaker, down, up []byte) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	end := func(c handshaker, who string, send, want []byte) {
		defer c.Close()
		if err := c.Handshake(); err != nil {
			t.Errorf("%s: handshake: %v", who, err)
			return
		}
		var inner sync.WaitGroup
		inner.Go(func() {
			if _, err := c.Write(send); err != nil {
				t.Errorf("%s: writing: %v", who, err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Errorf("%s: closing: %v", who, err)
			}
		})
		got, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: reading: %v", who, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, not the %d sent", who, len(got), len(want))
		}
		inner.Wait()
	}
	wg.Go(func() { end(client, "client", down, up) })
	wg.Go(func() { end(server, "server", up, down) })
}

func TestOwnPair(t *testing.T) {
	all := []wire.Group{wire.X25519MLKEM768, wire.X25519, wire.P256, wire.P384, wire.P521}
	for _, name := range testKeyNames {
		key := testKey(name)
		for _, suite := range suites13 {
			for _, group := range all {
				if name != "Ed25519" && suite != wire.AES256GCM {
					continue // key and suite don't meet
				}
				for _, share := range []wire.Group{group, wire.X25519} {
					t.Run(fmt.Sprintf("%s/%v/%v/share in %v", name, suite, group, share), func(t *testing.T) {
						a, b := transports(t)
						client := Client(a, &Config{Policy: Policy{Groups: all, KeyShares: []wire.Group{share}}})
						server := Server(b, &Config{Key: key, Policy: Policy{
							Suites: []wire.Suite{suite}, Groups: []wire.Group{group},
						}})
						secret := make([]byte, 100_000)
						_, _ = rand.Read(secret)
						session(t, client, server, secret, []byte("thanks"))
						if got := client.PeerIdentity(); got != identity(t, key) {
							t.Errorf("the peer's identity is %v, want %v", got, identity(t, key))
						}
						for _, c := range []*Conn{client, server} {
							v, s, g := c.Negotiated()
							if v != wire.VersionTLS13 || s != suite || g != group {
								t.Errorf("%v has %v, %v, %v", c.role, v, s, g)
							}
						}
					})
				}
			}
		}
	}
}
