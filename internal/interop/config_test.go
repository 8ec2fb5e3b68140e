package interop

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	mandosconf "mandos/internal/config"
)

// A parsed client is what a server made of a section. Durations are seconds.
type parsed struct {
	Host              string `json:"host"`
	KeyID             string `json:"key_id"`
	Fingerprint       string `json:"fingerprint"`
	Secret            string `json:"secret"` // hexadecimal
	Checker           string `json:"checker"`
	Timeout           int64  `json:"timeout"`
	ExtendedTimeout   int64  `json:"extended_timeout"`
	Interval          int64  `json:"interval"`
	ApprovalDelay     int64  `json:"approval_delay"`
	ApprovalDuration  int64  `json:"approval_duration"`
	ApprovedByDefault bool   `json:"approved_by_default"`
	Enabled           bool   `json:"enabled"`
}

func ours(c mandosconf.Client) parsed {
	p := parsed{
		Host: c.Host, Checker: c.Checker, Secret: hex.EncodeToString(c.Secret.Reveal()),
		Timeout: int64(c.Timeout / time.Second), ExtendedTimeout: int64(c.ExtendedTimeout / time.Second),
		Interval: int64(c.Interval / time.Second), ApprovalDelay: int64(c.ApprovalDelay / time.Second),
		ApprovalDuration: int64(c.ApprovalDuration / time.Second), ApprovedByDefault: c.ApprovedByDefault, Enabled: c.Enabled,
	}
	if !c.KeyID.IsZero() {
		p.KeyID = c.KeyID.String()
	}
	if !c.Fingerprint.IsZero() {
		p.Fingerprint = c.Fingerprint.String()
	}
	return p
}

const (
	aKeyID = "5f77de250406d032bb5fba8d4d716164573fddec8146985c8e80ca68f5a045d4"
	bKeyID = "00d9ba36dc04e9b9d7ae4ba1a63d2a4d0c4eff27dd0a7df0ee0ed5ca1f5d7a2b"
	aPrint = "7788 2722 5BA7 DE53 9C5A 7CFA 59CF F7CD BD9A 5920"
	needs  = "key_id = " + aKeyID + "\nfingerprint =\nsecret = YWJj\n"
)

// variants are hard to read right: sections of clients.conf, or whole files.
var variants = map[string]string{
	"comments":               "# one\n; two\n[a]\n  # indented\n" + needs + "   ; and this\nhost = h # no comment\n",
	"comment in a value":     "[a]\n" + needs + "checker = one\n# not part of it\n    two\n",
	"continuation lines":     "[a]\n" + needs + "checker = one\n  two\n\tthree\n",
	"blank in a value":       "[a]\n" + needs + "checker = one\n\n  two\n\n\nhost = h\n",
	"continued comment":      "[a]\n" + needs + "checker = one\n  # not this\n  ; nor this\n  two\n",
	"colons":                 "[a]\nkey_id: " + aKeyID + "\nfingerprint:\nsecret:YWJj\nhost : h\n",
	"colon in a value":       "[a]\n" + needs + "host = 2001:db8::1\n",
	"equals in a value":      "[a]\n" + needs + "checker : test a = b\n",
	"colon before equals":    "[a]\n" + needs + "host: a=b\n",
	"odd spacing":            "[a]\n" + needs + "host    =      h   \t \ntimeout=PT7M\ninterval   =PT3M\n",
	"case of keys":           "[A]\nKEY_ID = " + aKeyID + "\nFingerPrint =\nSecret = YWJj\nHOST = H\n",
	"case of names":          "[a]\n" + needs + "[A]\nkey_id = " + bKeyID + "\nfingerprint =\nsecret = ZGVm\n",
	"spaces in a name":       "[ a b ]\n" + needs,
	"brackets in a name":     "[a[b]c]\n" + needs,
	"text after a header":    "[a] rest\n" + needs,
	"DEFAULT":                "[DEFAULT]\ntimeout = PT9M\nhost = d\n[a]\n" + needs + "[b]\nkey_id = " + bKeyID + "\nfingerprint =\nsecret = ZGVm\ntimeout = PT1M\n",
	"DEFAULT at the end":     "[a]\n" + needs + "[DEFAULT]\napproved_by_default = no\n",
	"interpolation":          "[a]\n" + needs + "host = h.example\nchecker = ping %(host)s %%(host)s\n",
	"interpolation chain":    "[DEFAULT]\nx = %(y)s-x\ny = %(z)s-y\n[a]\n" + needs + "z = end\nhost = %(x)s\n",
	"interpolation case":     "[a]\n" + needs + "Site = s\nhost = %(SITE)s\n",
	"percent signs":          "[a]\n" + needs + "checker = date +%%%%s; echo 100%%%%\n",
	"own keys":               "[a]\n" + needs + "ssh_fingerprint = ssh-ed25519 AAAA\nchecker = ssh-keyscan -t ed25519 %%(host)s | grep '%(ssh_fingerprint)s'\n",
	"RFC 3339 durations":     "[a]\n" + needs + "timeout = P1DT3M20S\nextended_timeout = P2W\ninterval = PT1H30M\napproval_delay = P1Y2M3D\napproval_duration = PT90S\n",
	"more durations":         "[a]\n" + needs + "timeout = P1M\nextended_timeout = P1DT12H\ninterval = PT5M30S\napproval_delay = PT0S\napproval_duration = P3D\n",
	"old durations":          "[a]\n" + needs + "timeout = 1d\nextended_timeout = 5m 30s\ninterval = 2h\napproval_delay = 1w 2d\napproval_duration = 45s\n",
	"old durations, odd":     "[a]\n" + needs + "timeout = 30s 5m\nextended_timeout = 1m 1m 1m\ninterval = 1h   1s\napproval_delay =\n",
	"booleans":               "[a]\n" + needs + "enabled = NO\napproved_by_default = oN\n[b]\nkey_id = " + bKeyID + "\nfingerprint =\nsecret = ZGVm\nenabled = 1\napproved_by_default = 0\n",
	"keys with blanks":       "[a]\nkey_id = " + aKeyID[:32] + " " + aKeyID[32:] + "\nfingerprint = " + aPrint + "\nsecret = YWJj\n",
	"secret in lines":        "[a]\nkey_id = " + aKeyID + "\nfingerprint =\nsecret =\n    aGVs\n    bG8g\n\n    d29y\n    bGQ=\n",
	"secret with characters": "[a]\nkey_id = " + aKeyID + "\nfingerprint =\nsecret = YW!!Jj\n",
	"UTF-8":                  "[bücher]\n" + needs + "host = bücher.example\n",
	"CRLF":                   strings.ReplaceAll("[a]\n"+needs+"host = h\nchecker = one\n  two\n", "\n", "\r\n"),
	"no newline at the end":  "[a]\n" + needs + "host = h",
	"secfile":                "[a]\nkey_id = " + aKeyID + "\nfingerprint =\nsecfile = SECFILE\n",
	"secret before secfile":  "[a]\n" + needs + "secfile = /nonexistent\n",
	"unknown keys":           "[a]\n" + needs + "colour = blue\n",
}

// readByDebian returns what Debian's server makes of each of the paths,
// according to a script that is given the server and them.
func readByDebian[T any](t *testing.T, script string, paths []string) (all []T) {
	t.Helper()
	args := append([]string{"-B", script, filepath.Join(DebianRoot(t), "usr/sbin/mandos")}, paths...)
	out := output(t, exec.Command("/usr/bin/python3", args...))
	if err := json.Unmarshal(out, &all); err != nil || len(all) != len(paths) {
		t.Fatalf("%v: %s", err, out)
	}
	return all
}

// TestClientsConf compares what both servers make of Debian's own example,
// as it is and with all that it has commented out, of ours, and of the
// variants, value by value.
func TestClientsConf(t *testing.T) {
	root := DebianRoot(t)
	dir := t.TempDir()
	secfile := filepath.Join(dir, "secret.bin")
	write(t, secfile, []byte("from a file\n"))
	shipped, err := os.ReadFile(filepath.Join(root, "etc/mandos/clients.conf"))
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^[#;]([^ #;\n]|    )`).ReplaceAllString(string(shipped), "$1")
	all = regexp.MustCompile(`(?m)^secfile = .*`).ReplaceAllString(all, "secfile = "+secfile)
	// Its two clients have the same keys, which we refuse.
	foo, bar, two := strings.Cut(all, "[bar]")
	bar = regexp.MustCompile(`(?m)^key_id *=.*`).ReplaceAllString(bar, "key_id = "+strings.ToUpper(bKeyID[:32]+" "+bKeyID[32:]))
	bar = regexp.MustCompile(`(?m)^fingerprint *=.*`).ReplaceAllString(bar, "fingerprint = 3e393aeaefb84c7e89e2f547b3a107558fca3a27")
	all = foo + "[bar]" + bar
	if !two || !strings.Contains(all, "\n[foo]\n") {
		t.Fatal("Debian's example isn't what it was")
	}
	files := map[string]string{"Debian's example": string(shipped), "Debian's example, all of it": all}
	for name, text := range variants {
		files[name] = strings.ReplaceAll(text, "SECFILE", secfile)
	}
	if len(variants) < 30 {
		t.Errorf("only %d variants", len(variants))
	}

	var names, paths []string
	for name, text := range files {
		folder := filepath.Join(dir, fmt.Sprint(len(names)))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, "clients.conf")
		write(t, path, []byte(text))
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		names, paths = append(names, name), append(paths, path)
	}
	debian := readByDebian[map[string]parsed](t, "testdata/clients.py", paths)
	for i, path := range paths {
		clients, found := mandosconf.LoadClients(filepath.Dir(path), mandosconf.LoadOptions{})
		if err := found.Err(); err != nil {
			t.Errorf("%s: %v\n%s", names[i], err, files[names[i]])
			continue
		}
		got := map[string]parsed{}
		for _, c := range clients {
			got[c.Name] = ours(c)
		}
		if !reflect.DeepEqual(got, debian[i]) {
			t.Errorf("%s: read as\n%+v\nby Debian's server as\n%+v\nfrom\n%s", names[i], got, debian[i], files[names[i]])
		}
		if names[i] == "Debian's example, all of it" && len(got) < 2 {
			t.Errorf("%s: only %d clients", names[i], len(got))
		}
	}
}
