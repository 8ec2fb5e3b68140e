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
	return map[string]Programs{"debian": Debian(t), "ours": Ours(t)}
}

// A host is a client of the matrix: its name in clients.conf and its keys.
type host struct {
	name string
	keys Keys
}

// hostsOfDebian have keys of each type that Debian's mandos-keygen makes, and
// two smaller ones that people have.
func hostsOfDebian(t *testing.T, debian Programs) []host {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa3072, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	return []host{
		{"debian-Ed25519", debian.Keygen(t, "ed25519")},
		{"debian-P384", debian.Keygen(t, "ecdsa")},
		{"debian-RSA8192", debian.Keygen(t, "rsa")},
		{"debian-P256", debian.Keygen(t, "ed25519").WithTLSKey(t, p256)},
		{"debian-RSA3072", debian.Keygen(t, "ed25519").WithTLSKey(t, rsa3072)},
	}
}

// hostsOfOurs have keys of each type that our mandos-keygen makes.
func hostsOfOurs(t *testing.T, ours Programs) []host {
	return []host{
		{"ours-Ed25519", ours.Keygen(t, "ed25519")},
		{"ours-P256", ours.Keygen(t, "ecdsa")},
		{"ours-RSA3072", ours.Keygen(t, "rsa")},
	}
}

// TestMatrix pairs each server with each client, with keys and secrets made
// by each mandos-keygen: the password arrives exact.
func TestMatrix(t *testing.T) {
	all := programs(t)
	hosts := map[string][]host{
		"debian": hostsOfDebian(t, all["debian"]),
		"ours":   hostsOfOurs(t, all["ours"]),
	}

	for sizeName, size := range sizes {
		password := make([]byte, size)
		rand.Read(password)
		var sections []string
		for name, p := range all {
			for _, h := range hosts[name] {
				sections = append(sections, p.Section(t, h.keys, h.name, password))
			}
		}
		for serverName, server := range all {
			t.Run(fmt.Sprintf("%s/server=%s", sizeName, serverName), func(t *testing.T) {
				t.Parallel()
				addr := server.Server(t, sections...)
				for clientName, client := range all {
					for _, hs := range hosts {
						for _, h := range hs {
							passed := t.Run(fmt.Sprintf("client=%s/keys=%s", clientName, h.name), func(t *testing.T) {
								got := client.Client(t, h.keys, addr).Password(t)
								if !bytes.Equal(got, password) {
									t.Errorf("got %q, want %q", abbreviate(got), abbreviate(password))
								}
							})
							if !passed {
								return // each client waits for minutes; show what the server says
							}
						}
					}
				}
			})
		}
	}
}
