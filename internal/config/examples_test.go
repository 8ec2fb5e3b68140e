package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The example files that are installed, see the Makefile.
const examples = "../../man/examples"

func example(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// uncommented turns commented-out settings into settings: lines with a # that
// isn't followed by a blank, and continuation lines.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^#([^ \n]|    )`).ReplaceAllString(text, "$1")
}

// commentedSettings returns the keys that text has commented out in its
// [DEFAULT] section, with their values.
func commentedSettings(text string) map[string]string {
	text, _, _ = strings.Cut(text, "\n#[")
	settings := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#([a-z_0-9]+) =(.*)$`).FindAllStringSubmatch(text, -1) {
		settings[m[1]] = strings.TrimSpace(m[2])
	}
	return settings
}

func TestExampleMandosConf(t *testing.T) {
	text := example(t, "mandos.conf")
	want := map[string]string{}
	for _, o := range Options {
		if o.Key != "" {
			want[o.Key] = o.Default
		}
	}
	compareSettings(t, commentedSettings(text), want)
	for _, text := range []string{text, uncommented(text)} {
		dir := files(t, map[string]string{"mandos.conf": text})
		s, found := LoadServer(mustArgs(t, "--configdir", dir), LoadOptions{Suspect: true})
		if len(found) != 0 {
			t.Fatalf("findings:\n%v", found)
		}
		if s.ServiceName != "Mandos" || !s.DBus || s.Port != 0 {
			t.Errorf("not the defaults: %+v", s)
		}
	}
}

func TestExampleClientsConf(t *testing.T) {
	text := example(t, "clients.conf")
	want := map[string]string{}
	for _, k := range ClientKeys {
		switch k.Key {
		case "key_id", "fingerprint", "secret", "secfile":
			if !strings.Contains(text, "\n#"+k.Key+" =") {
				t.Errorf("no client has %s", k.Key)
			}
		default:
			want[k.Key] = k.Default
		}
	}
	compareSettings(t, commentedSettings(text), want)

	dir := files(t, map[string]string{"clients.conf": text})
	if clients, found := LoadClients(dir, LoadOptions{Suspect: true}); found.Err() != nil || len(clients) != 0 {
		t.Errorf("%d clients, findings:\n%v", len(clients), found)
	}

	secret := filepath.Join(t.TempDir(), "second.bin")
	all := strings.Replace(uncommented(text), "/etc/mandos/secrets/second.bin", secret, 1)
	dir = files(t, map[string]string{"clients.conf": all})
	message := decodeBase64(regexp.MustCompile(`(?s)\nsecret =\n(.*?)\n\n`).FindStringSubmatch(all)[1])
	if message.err != nil {
		t.Fatal(message.err)
	}
	if err := os.WriteFile(secret, message.bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	clients, found := LoadClients(dir, LoadOptions{Suspect: true})
	if found.Err() != nil || len(clients) != 2 {
		t.Fatalf("%d clients, findings:\n%v", len(clients), found)
	}
	for _, f := range found {
		// Here both have the same secret, and that is noticed.
		if !strings.Contains(f.Problem, "same key as that of client") {
			t.Errorf("finding: %v", f)
		}
	}
	if c := clients[0]; c.Name != "host.example.org" || c.Timeout != 5*time.Minute || c.Checker != "fping -q -- %(host)s" || c.Secret.Len() == 0 {
		t.Errorf("%+v", c)
	}
	if c := clients[1]; c.ApprovalDelay != 30*time.Second || c.ApprovedByDefault {
		t.Errorf("%+v", c)
	}
}

func compareSettings(t *testing.T, got, want map[string]string) {
	t.Helper()
	for key, w := range want {
		if g, ok := got[key]; !ok || g != w {
			t.Errorf("the example has %s = %q (%v), the default is %q", key, g, ok, w)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("the example has %s, which is no key", key)
		}
	}
}
