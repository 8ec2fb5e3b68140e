package main

import (
	"bytes"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mandos/internal/clientkeys"
	"mandos/internal/interop"
	"mandos/internal/keygen"
)

// ours runs our mandos-keygen and returns what it prints.
func ours(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	c := keygen.Command{Args: args, Stdin: os.Stdin, Stdout: &out, Stderr: &errs}
	if status := c.Run(t.Context()); status != 0 {
		t.Fatalf("mandos-keygen %q: exit status %d\n%s", args, status, &errs)
	}
	return out.String()
}

func ourKeys(t *testing.T, args ...string) interop.Keys {
	dir := interop.Folder(t)
	ours(t, append(args, "--dir", dir, "--name", "client", "--length", "2048", "--sublength", "2048")...)
	return interop.Keys(dir)
}

func ourSection(t *testing.T, keys interop.Keys, password string) string {
	t.Helper()
	file := filepath.Join(interop.Folder(t), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	return ours(t, "--passfile", file, "--dir", string(keys), "--name", "client", "--no-ssh")
}

// open decrypts the secret of a section with our code.
func open(t *testing.T, keys interop.Keys, section string) string {
	t.Helper()
	key, err := clientkeys.ReadPGPPair(keys.PGPPublic(), keys.PGPSecret())
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(section, "secret =")
	if !ok {
		t.Fatalf("no secret in\n%s", section)
	}
	message, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, strings.NewReader(strings.NewReplacer(" ", "", "\n", "").Replace(body))))
	if err != nil {
		t.Fatal(err)
	}
	password, signed, err := key.Open(message, time.Now())
	if err != nil || !signed {
		t.Fatalf("Open: signed %v, %v", signed, err)
	}
	return string(password)
}

// Keys made by either side, a section made by either, Debian's server,
// Debian's client.
func TestWithDebian(t *testing.T) {
	debian := interop.Debian(t)
	const password = " the disk\npassword \x00\xff"
	for _, keys := range []struct {
		name string
		make func(*testing.T) interop.Keys
	}{
		{"Debian's keys", func(t *testing.T) interop.Keys { return debian.Keygen(t, "ed25519") }},
		{"our keys", func(t *testing.T) interop.Keys { return ourKeys(t) }},
		{"our keys with ECDSA", func(t *testing.T) interop.Keys { return ourKeys(t, "-T", "ecdsa") }},
		{"our keys with RSA", func(t *testing.T) interop.Keys { return ourKeys(t, "-T", "rsa") }},
		{"our keys with an expiry", func(t *testing.T) interop.Keys { return ourKeys(t, "-x", "1y") }},
	} {
		t.Run(keys.name, func(t *testing.T) {
			k := keys.make(t)
			for _, section := range []struct{ name, text string }{
				{"Debian's section", debian.Section(t, k, "client", []byte(password))},
				{"our section", ourSection(t, k, password)},
			} {
				t.Run(section.name, func(t *testing.T) {
					if got := open(t, k, section.text); got != password {
						t.Errorf("our code decrypts %q, want %q", got, password)
					}
					addr := debian.Server(t, section.text)
					if got := debian.Client(t, k, addr).Password(t); string(got) != password {
						t.Errorf("Debian's client prints %q, want %q", got, password)
					}
				})
			}
		})
	}
}
