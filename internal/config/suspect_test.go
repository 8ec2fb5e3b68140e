package config

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// message is an OpenPGP message to a key ID (RFC 9580, sections 4.2 and 5.1).
func message(keyID string) string {
	m := "\xc1\x0d\x03" + keyID + "\x01esk" + "\xd2\x05\x01data"
	return base64.StdEncoding.EncodeToString([]byte(m))
}

func TestSuspect(t *testing.T) {
	const (
		sub1 = "\x01\x02\x03\x04\x05\x06\x07\x08"
		fpr1 = "000102030405060708090A0B0C0D0E0F10111213"
		fpr2 = "FF0102030405060708090A0B0C0D0E0F10111214"
		key2 = "\x0c\x0d\x0e\x0f\x10\x11\x12\x14" // of fpr2
		fine = "fingerprint = " + fpr1 + "\nhost = foo\n"
	)
	for name, tt := range map[string]struct {
		text string
		want []string // each: line, then what the warning holds
	}{
		"nothing":     {text: "[foo]\n" + fine + "secret = " + message(sub1)},
		"private key": {text: "[DEFAULT]\nsite = x\n[foo]\n" + fine + "nick = %(site)s\nchecker = test %(Nick)s\nsecret = " + message(sub1)},
		"short time-out": {
			text: "[foo]\n" + fine + "timeout = PT3M\nsecret = " + message(sub1),
			want: []string{"4: warning: [foo] timeout: a timeout of PT3M holds less than two checks at an interval of PT2M"},
		},
		"long interval": {
			text: "[foo]\n" + fine + "secret = " + message(sub1) + "\ninterval = PT10M",
			want: []string{"5: warning: [foo] interval: a timeout of PT5M holds less than two checks at an interval of PT10M"},
		},
		"just enough": {text: "[foo]\n" + fine + "timeout = PT4M\nsecret = " + message(sub1)},
		"no host": {
			text: "[foo]\nfingerprint = " + fpr1 + "\nsecret = " + message(sub1),
			want: []string{"1: warning: [foo] host is empty, but the checker asks for it"},
		},
		"no host needed": {text: "[foo]\nfingerprint = " + fpr1 + "\nchecker = fping -q ::1\nsecret = " + message(sub1)},
		"key of nothing": {
			text: "[foo]\n" + fine + "key_id = E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\nsecret = " + message(sub1),
			want: []string{"4: warning: [foo] key_id: this is the key ID of no key at all"},
		},
		"two keys of nothing": {
			text: "[DEFAULT]\nkey_id = e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n[foo]\n" + fine + "secret = " + message(sub1) +
				"\n[bar]\nhost = bar\nfingerprint = " + fpr2 + "\nsecret = " + message(key2),
			want: []string{"2: warning: [DEFAULT] key_id: this is the key ID of no key at all"},
		},
		"plain text": {
			text: "[foo]\n" + fine + "secret = aHVudGVyMg==",
			want: []string{"4: warning: [foo] secret: the secret is no OpenPGP message"},
		},
		"cut off": {
			text: "[foo]\n" + fine + "secret = " + message(sub1)[:8],
			want: []string{"4: warning: [foo] secret: the secret is an OpenPGP message that is cut off"},
		},
		"empty": {
			text: "[foo]\n" + fine + "secret =",
			want: []string{"4: warning: [foo] secret: the secret is empty"},
		},
		"not all base64": {
			text: "[foo]\n" + fine + "secret = " + message(sub1) + "!!",
			want: []string{"4: warning: [foo] secret: 2 characters that aren't base64"},
		},
		"two in one": {
			text: "[foo]\n" + fine + "secret = " + message(sub1) + "\n  =" + message(sub1),
			want: []string{"4: warning: [foo] secret: 33 characters that aren't base64, or that follow its end"},
		},
		"both": {
			text: "[foo]\n" + fine + "secret = " + message(sub1) + "\nsecfile = /x",
			want: []string{"5: warning: [foo] secfile: it is ignored"},
		},
		"other client's primary key": {
			text: "[foo]\n" + fine + "secret = " + message(key2) + "\n[bar]\nhost = b\nfingerprint = " + fpr2 + "\nsecret = " + message("\x00\x00\x00\x00\x00\x00\x00\x00"),
			want: []string{`4: warning: [foo] secret: it is encrypted to the key of client "bar" at `},
		},
		"same subkey twice": {
			text: "[foo]\n" + fine + "secret = " + message(sub1) + "\n[bar]\nhost = b\nfingerprint = " + fpr2 + "\nsecret = " + message(sub1),
			want: []string{`8: warning: [bar] secret: the secret is encrypted to the same key as that of client "foo" at `},
		},
		"unknown keys": {
			text: "[DEFAULT]\ntimout = PT5M\n[foo]\n" + fine + "hots = foo\nsecret = " + message(sub1) + "\nAAAABBBBCCCCDDDDEEEEFFFFGGGGHH==",
			want: []string{"2: warning: [DEFAULT] timout: no such key is known", "6: warning: [foo] hots: no such key", "8: warning: [foo] …: no such key"},
		},
		"unknown keys that values refer to": {
			text: "[DEFAULT]\nshared = s\nname = %(own)s\n[foo]\n" + fine + "secret = " + message(sub1) + "\nown = o\nchecker = true %(Shared)s %(name)s" +
				"\n[bar]\nhost = b\nfingerprint = " + fpr2 + "\nsecret = " + message(key2) + "\nown = o\nother = o\nhost2 = %(other)s\n[baz]\nhost = b\nkey_id = " + keyB +
				"\nsecret = " + message("\x00\x00\x00\x00\x00\x00\x00\x00") + "\nown = o\nother = o",
			want: []string{"16: warning: [bar] host2: no such key", "22: warning: [baz] other: no such key"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := files(t, map[string]string{"clients.conf": tt.text + "\n"})
			clients, found := LoadClients(dir, LoadOptions{Suspect: true})
			if found.Err() != nil || len(clients) == 0 {
				t.Fatalf("refused: %v", found)
			}
			path := filepath.Join(dir, "clients.conf")
			for i, f := range found {
				if i >= len(tt.want) || !strings.HasPrefix(f.String(), path+":"+tt.want[i]) {
					t.Errorf("found  %s", f)
				}
				if f.Remedy == "" {
					t.Errorf("no remedy: %s", f)
				}
			}
			if len(found) < len(tt.want) {
				t.Errorf("not found: %s", strings.Join(tt.want[len(found):], "\n"))
			}
		})
	}
}

func TestSuspectSecfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.bin")
	m, err := base64.StdEncoding.DecodeString(message("12345678"))
	if err != nil {
		t.Fatal(err)
	}
	dir := files(t, map[string]string{"clients.conf": "[foo]\nhost = foo\nkey_id = " + keyA + "\nsecfile = " + path + "\n"})
	for mode, want := range map[os.FileMode]string{
		0o640: "",
		0o644: ":4: warning: [foo] secfile: everybody may read or change " + path + " (mode 0644); forbid it: chmod o-rwx " + path + "\n",
	} {
		if err := os.WriteFile(path, m, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, found := LoadClients(dir, LoadOptions{Suspect: true})
		if got := strings.TrimPrefix(found.String(), filepath.Join(dir, "clients.conf")); got != want {
			t.Errorf("mode %04o: got %q, want %q", mode, got, want)
		}
	}
}

func TestSuspectServer(t *testing.T) {
	dir := files(t, map[string]string{"mandos.conf": "[DEFAULT]\nprot = 1\n[server]\nport = 2\n"})
	s, found := LoadServer(mustArgs(t, "--configdir", dir), LoadOptions{Suspect: true})
	want := fmt.Sprintf("%[1]s:2: warning: [DEFAULT] prot: no such key is known, so it is ignored; correct or remove it\n"+
		"%[1]s:3: warning: [server] only [DEFAULT] counts in mandos.conf; move its keys there, or remove it\n", filepath.Join(dir, "mandos.conf"))
	if s == nil || s.Port != 0 || found.String() != want {
		t.Errorf("got\n%swant\n%s", found, want)
	}
}

// TestBase64 has the results of Python's binascii.a2b_base64 for each text.
func TestBase64(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		ok       bool
		ignored  int
	}{
		{"", "", true, 0},
		{"YWI=", "ab", true, 0},
		{"YWJj", "abc", true, 0},
		{"YWJ!!j", "abc", true, 2},
		{" Y W\nJ\tj ", "abc", true, 0},
		{"YQ==YQ==", "a", true, 4},
		{"=YQ==", "a", true, 0},
		{"YWJj=", "abc", true, 0},
		{"====", "", true, 0},
		{"YQ=a==", "a\x06", true, 1},
		{"YW=J", "", false, 0},
		{"Y=Q=", "", false, 0},
		{"Y==Q", "", false, 0},
		{"YWJjZ===", "", false, 0},
		{"YQ=", "", false, 0},
		{"YQ", "", false, 0},
		{"YWI", "", false, 0},
		{"Y", "", false, 0},
	} {
		got := decodeBase64(tt.in)
		if string(got.bytes) != tt.want || (got.err == nil) != tt.ok || got.ignored != tt.ignored {
			t.Errorf("%q: %q, %d ignored, %v", tt.in, got.bytes, got.ignored, got.err)
		}
		for i := range tt.in {
			e := entry{raw: tt.in[:i] + "\n# comment\n  " + tt.in[i:], folded: true}
			if folded := e.decode(); string(folded.bytes) != tt.want || (folded.err == nil) != tt.ok || folded.ignored != tt.ignored {
				t.Errorf("%q: %q, %d ignored, %v", e.raw, folded.bytes, folded.ignored, folded.err)
			}
		}
	}
}
