package keytls

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"mandos/internal/keytls/wire"
)

// A tapped connection records what is sent in both directions.
type tapped struct {
	net.Conn
	in, out bytes.Buffer
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.in.Write(b[:n])
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	c.out.Write(b)
	return c.Conn.Write(b)
}

// knownPeers are the peers of the self-tests, by the session's name: a TLS
// server of ours with an Ed25519 key, and one of the old generation that does
// what GnuTLS 3.5 does.
func knownPeers(t *testing.T) map[string]func(net.Conn) error {
	return map[string]func(net.Conn) error{
		"tls13": func(conn net.Conn) error {
			c := Server(conn, &Config{Key: testKey("Ed25519"), Policy: Policy{Groups: []wire.Group{wire.X25519}}})
			got, err := io.ReadAll(c)
			if err == nil && string(got) != knownSecret {
				err = fmt.Errorf("it got %q", got)
			}
			if err == nil {
				err = c.CloseNotify()
			}
			return err
		},
		"tls12": func(conn net.Conn) error {
			peer := &peer12{script: script{key: pgpVector(t, "rsa2048"), wrong: true}, conn: conn}
			err := peer.serve()
			if err == nil && string(peer.transmitted) != knownSecret {
				err = fmt.Errorf("it got %q", peer.transmitted)
			}
			return err
		},
	}
}

// TestSelfTest: the recorded sessions come out as they did; with one byte of
// them changed they don't. With -update it records them anew.
func TestSelfTest(t *testing.T) {
	run := map[string]func() error{"tls13": SelfTestTLS13, "tls12": SelfTestTLS12}
	for name, peer := range knownPeers(t) {
		t.Run(name, func(t *testing.T) {
			if *update {
				a, b := transports(t)
				ended := make(chan error, 1)
				go func() { ended <- peer(b) }()
				tap := &tapped{Conn: a}
				identity, err := handOutKnown(tap)
				if err != nil {
					t.Fatal(err)
				}
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprintf("%x\n%x\n%s\n", tap.in.Bytes(), tap.out.Bytes(), identity)
				if err := os.WriteFile("known/"+name+".txt", []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return // what is embedded is the old one
			}
			if err := run[name](); err != nil {
				t.Errorf("%v; if the hello has changed on purpose, record anew: go test -run TestSelfTest ./internal/keytls -update", err)
			}
			good, err := readKnown(name)
			if err != nil {
				t.Fatal(err)
			}
			change := func(b []byte, i int) []byte {
				b = bytes.Clone(b)
				b[i] ^= 1
				return b
			}
			// Record by record, but for the last: how the peer says goodbye
			// changes nothing. Nor does a record's version, its bytes 1 and 2.
			for at := 0; ; {
				h, err := wire.ParseHeader(good.sent[at:][:wire.HeaderLen])
				if err != nil {
					t.Fatal(err)
				}
				end := at + wire.HeaderLen + h.Length
				if end == len(good.sent) {
					break
				}
				for i := at; i < end; i += 3 {
					bad := good
					if bad.sent = change(good.sent, i); bad.replay() == nil {
						t.Errorf("byte %d of what the peer sends may be another", i)
					}
				}
				at = end
			}
			for _, i := range []int{0, 50, len(good.got) / 2, len(good.got) - 1} {
				bad := good
				if bad.got = change(good.got, i); bad.replay() == nil {
					t.Errorf("byte %d of what is sent may be another", i)
				}
			}
			bad := good
			if bad.identity = "somebody else"; bad.replay() == nil {
				t.Error("the peer may be another")
			}
		})
	}
}

// TestRandom: what is random, or comes of it, is so in all sessions but those of
// the self-tests.
func TestRandom(t *testing.T) {
	for name, peer := range knownPeers(t) {
		t.Run(name, func(t *testing.T) {
			first, second := randomParts(t, peer), randomParts(t, peer)
			for what, part := range first {
				if bytes.Equal(part, second[what]) {
					t.Errorf("%s is the same in two sessions: %x", what, part)
				}
				counted := make([]byte, len(part))
				(&counting{part[0] - 1}).read(counted)
				if bytes.Equal(part, counted) {
					t.Errorf("%s is that of a self-test: %x", what, part)
				}
			}
		})
	}
}

// randomParts returns what is random of what a session with peer sends in the
// clear.
func randomParts(t *testing.T, peer func(net.Conn) error) map[string][]byte {
	t.Helper()
	a, b := transports(t)
	ended := make(chan error, 1)
	go func() { ended <- peer(b) }()
	tap := &tapped{Conn: a}
	c := Client(tap, &Config{HoldFinished: true})
	if _, err := io.WriteString(c, knownSecret); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseNotify(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	next := func() (wire.ContentType, []byte) {
		h, err := wire.ParseHeader(tap.out.Next(wire.HeaderLen))
		if err != nil {
			t.Fatal(err)
		}
		return h.Type, tap.out.Next(h.Length)
	}
	_, msg := next()
	hello, err := wire.ParseClientHello(msg)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string][]byte{"the ClientHello's random": hello.Random[:], "the session ID": hello.SessionID}
	body, _ := hello.Extensions.Get(wire.ExtKeyShare)
	shares, err := wire.ParseClientKeyShares(body)
	if err != nil || len(shares) == 0 {
		t.Fatalf("the shares: %v, %v", shares, err)
	}
	for _, share := range shares {
		parts[fmt.Sprintf("the share in %v", share.Group)] = share.Data
	}
	if kind, msg := next(); kind == wire.TypeHandshake { // TLS 1.2
		exchange, err := wire.ParseClientKeyExchange(msg, false)
		if err != nil {
			t.Fatal(err)
		}
		parts["the ClientKeyExchange"] = exchange.Public
	}
	return parts
}
