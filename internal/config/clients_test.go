package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
)

const (
	keyA = "f33fcbed11ed5e03073f6a55b86ffe92af0e24c045fb6e3b40547b3dc0c030ed"
	keyB = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	fprA = "7788 2722 5BA7 DE53 9C5A  7CFA 59CF F7CD BD9A 5920"
	fprB = "3e393aeaefb84c7e89e2f547b3a107558fca3a27"
)

// files writes a configuration folder. A name that ends in a slash and a
// mode is not needed: the files are 0640.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoadClients(t *testing.T) {
	dir := files(t, map[string]string{"clients.conf": `# Two clients.
[DEFAULT]
interval = PT1M
checker = fping -q -- %%(host)s ; # of %(nick)s
nick = nobody

[foo.example.org]
key_id = ` + keyA + `
Fingerprint: ` + fprA + `
secret =
    YXR0YWNr
    IGF0IGRhd24=
host = foo
timeout = 1h 5m
nick = Foo

[bar]
fingerprint = ` + fprB + `
secret = YQ==
approval_delay = PT30S
approved_by_default = Off
enabled = no
generation = any
allow_expired_key = yes
`})
	clients, found := LoadClients(dir, LoadOptions{})
	if len(found) != 0 {
		t.Fatalf("findings:\n%v", found)
	}
	if len(clients) != 2 {
		t.Fatalf("%d clients", len(clients))
	}
	foo, bar := clients[0], clients[1]
	if got := string(foo.Secret.Reveal()); got != "attack at dawn" {
		t.Errorf("foo's secret is %q", got)
	}
	path := filepath.Join(dir, "clients.conf")
	want := Client{Settings: client.Settings{
		Name: "foo.example.org", Host: "foo", Checker: "fping -q -- %(host)s ; # of Foo",
		Timeout: 65 * time.Minute, ExtendedTimeout: 15 * time.Minute, Interval: time.Minute, ApprovalDuration: time.Second,
		ApprovedByDefault: true, Enabled: true,
	}, File: path, Line: 7}
	check := func(got, want Client) {
		t.Helper()
		got.Secret, got.KeyID, got.Fingerprint = want.Secret, want.KeyID, want.Fingerprint
		if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
			t.Errorf("got  %s\nwant %s", g, w)
		}
	}
	check(foo, want)
	if got := foo.KeyID.String(); got != strings.ToUpper(keyA) {
		t.Errorf("foo's key ID is %s", got)
	}
	if got := foo.Fingerprint.String(); got != strings.ReplaceAll(fprA, " ", "") {
		t.Errorf("foo's fingerprint is %s", got)
	}
	check(bar, Client{Settings: client.Settings{
		Name: "bar", Checker: "fping -q -- %(host)s ; # of nobody",
		Timeout: 5 * time.Minute, ExtendedTimeout: 15 * time.Minute, Interval: time.Minute,
		ApprovalDelay: 30 * time.Second, ApprovalDuration: time.Second, AllowExpiredKey: true,
	}, File: path, Line: 17})
	if !bar.KeyID.IsZero() {
		t.Errorf("bar has the key ID %v", bar.KeyID)
	}
}

// TestNameWithNUL: D-Bus accepts no such text, so one client with it would cost
// all others their signals, and mandos-checker would never check it.
func TestNameWithNUL(t *testing.T) {
	dir := files(t, map[string]string{"clients.conf": "[fine]\nkey_id = " + keyA + "\nsecret = YQ==\n\n[foo\x00bar]\nkey_id = " + keyB + "\nsecret = YQ==\n"})
	clients, found := LoadClients(dir, LoadOptions{})
	want := filepath.Join(dir, "clients.conf") + `:5: [foo\x00bar] the name holds a NUL; remove it` + "\n"
	if got := found.Errors().String(); got != want || clients != nil {
		t.Errorf("%d clients, errors:\n%swant:\n%s", len(clients), got, want)
	}
}
