package interop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"mandos/internal/keyid"
	"mandos/internal/keytls"
)

// TestSecret fetches secrets of exact sizes, without decrypting them: no
// server knows, or cares, what a secret holds.
func TestSecret(t *testing.T) {
	type client struct {
		key    ed25519.PrivateKey
		secret []byte
	}
	clients := map[string]client{}
	var sections []string
	for name, size := range sizes {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		secret := make([]byte, size)
		rand.Read(secret)
		clients[name] = client{private, secret}
		sections = append(sections, fmt.Sprintf("[%s]\nkey_id = %s\nfingerprint =\nsecret = %s\n",
			name, keyid.OfSPKI(spki), base64.StdEncoding.EncodeToString(secret)))
	}
	for serverName, server := range programs(t) {
		t.Run("server="+serverName, func(t *testing.T) {
			t.Parallel()
			addr := server.Server(t, sections...)
			for name, c := range clients {
				got, err := fetch(addr, c.key)
				if err != nil || !bytes.Equal(got, c.secret) {
					t.Errorf("%s: got %d bytes, %q; want %d bytes, %q; error %v",
						name, len(got), abbreviate(got), len(c.secret), abbreviate(c.secret), err)
				}
			}
			_, stranger, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			// A refusal is a handshake and a proper close with nothing between.
			if got, err := fetch(addr, stranger); err != nil || len(got) != 0 {
				t.Errorf("stranger: got %q, error %v; want nothing and close_notify", abbreviate(got), err)
			}
		})
	}
}

// fetch asks the server at addr with key, and returns all that it sends up
// to its close_notify.
func fetch(addr string, key ed25519.PrivateKey) ([]byte, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "1\r\n"); err != nil {
		return nil, err
	}
	tls := keytls.Server(conn, &keytls.Config{Key: key})
	if err := tls.Handshake(); err != nil {
		return nil, err
	}
	got, err := io.ReadAll(tls)
	if err != nil {
		return got, err
	}
	return got, tls.CloseWrite()
}
