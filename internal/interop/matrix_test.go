package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"
)

// sizes are those of the password; what travels is 600 bytes to 1.2 KiB more.
var sizes = map[string]int{"1B": 1, "4KiB": 4 << 10, "1MiB": 1 << 20}

// programs are both implementations, by name.
func programs(t *testing.T) map[string]Programs {
	return map[string]Programs{"debian": Debian(t)}
}

// A host is a client of the matrix: its keys and its name in clients.conf.
type host struct {
	name string
	keys Keys
}

// hosts have keys of each type that maker's mandos-keygen makes (Debian's
// ecdsa is P-384 and its rsa 8192 bits), and of those that people have.
func hosts(t *testing.T, maker string, p Programs) []host {
	ed25519 := p.Keygen(t, "ed25519")
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa3072, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	return []host{
		{maker + "-Ed25519", ed25519},
		{maker + "-keygen-ecdsa", p.Keygen(t, "ecdsa")},
		{maker + "-keygen-rsa", p.Keygen(t, "rsa")},
		{maker + "-P256", ed25519.WithTLSKey(t, p256)},
		{maker + "-RSA3072", ed25519.WithTLSKey(t, rsa3072)},
	}
}

// TestMatrix pairs each server with each client, with keys and secrets made
// by each mandos-keygen: the password arrives exact.
func TestMatrix(t *testing.T) {
	all := programs(t)
	keys := map[string][]host{}
	for name, p := range all {
		keys[name] = hosts(t, name, p)
	}

	for sizeName, size := range sizes {
		password := make([]byte, size)
		rand.Read(password)
		var sections []string
		for name, p := range all {
			for _, h := range keys[name] {
				sections = append(sections, p.Section(t, h.keys, h.name, password))
			}
		}
		for serverName, server := range all {
			t.Run(fmt.Sprintf("%s/server=%s", sizeName, serverName), func(t *testing.T) {
				t.Parallel()
				addr := server.Server(t, sections...)
				for clientName, client := range all {
					for _, hs := range keys {
						for _, h := range hs {
							t.Run(fmt.Sprintf("client=%s/keys=%s", clientName, h.name), func(t *testing.T) {
								got := client.Client(t, h.keys, addr).Password(t)
								if !bytes.Equal(got, password) {
									t.Errorf("got %q, want %q", abbreviate(got), abbreviate(password))
								}
							})
						}
					}
				}
			})
		}
	}
}
