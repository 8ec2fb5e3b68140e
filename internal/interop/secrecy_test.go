package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestNothingSecretIsLogged runs our server and client with all that --debug
// says, for a client that is served and one that isn't, and looks for what
// must not be there.
func TestNothingSecretIsLogged(t *testing.T) {
	ours := Ours(t)
	password := []byte("correct horse battery staple")
	known, stranger := ours.Keygen(t, "ed25519"), ours.Keygen(t, "ed25519")
	section := ours.Section(t, known, "known", password)
	addr, serverLog := ours.serve(t, []string{section}, "--debug")
	r := newRelay(t, addr)

	c := ours.ask(t, known, r.addr, "--debug")
	if got := c.Password(t); !bytes.Equal(got, password) {
		t.Fatalf("got %q", got)
	}
	<-r.ended
	s := ours.ask(t, stranger, r.addr, "--debug")
	<-r.ended
	s.Kill(t)

	secrets := map[string][]byte{"the password": password}
	_, encoded, _ := strings.Cut(section, "secret =")
	encoded, _, _ = strings.Cut(encoded, "\n[")
	secret, err := base64.StdEncoding.DecodeString(regexp.MustCompile(`\s`).ReplaceAllString(encoded, ""))
	if err != nil {
		t.Fatal(err)
	}
	secrets["the secret"] = secret
	for _, keys := range []Keys{known, stranger} {
		for _, name := range []string{keys.TLSPrivate(), keys.PGPSecret()} {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if block, _ := pem.Decode(data); block != nil {
				data = block.Bytes
			}
			secrets["the key in "+name] = data
		}
	}

	for who, log := range map[string]*logBuffer{"server": serverLog, "client": c.log, "stranger": s.log} {
		said := log.String()
		if len(said) < 100 {
			t.Errorf("%s said next to nothing with --debug: %q", who, said)
		}
		for what, b := range secrets {
			// 12 bytes are too many, from the middle or near the end, wherever
			// base64 would begin a group of its own.
			for _, at := range []int{len(b) / 2, len(b) - 12} {
				part := b[at-at%3:][:12]
				for _, form := range []string{
					string(part), base64.RawStdEncoding.EncodeToString(part),
					hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
				} {
					if strings.Contains(said, form) {
						t.Errorf("%s logged a part of %s: %s", who, what, form)
					}
				}
			}
		}
	}
}
