package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// TestOldGnuTLS has the last generation of GnuTLS that knows OpenPGP keys, the
// real library, fetch secrets from our server. No distribution ships it any
// more: OLD_GNUTLS is where one was installed, with include and lib below
// (./configure --enable-openpgp-authentication; 3.3 to 3.5).
func TestOldGnuTLS(t *testing.T) {
	prefix := os.Getenv("OLD_GNUTLS")
	if prefix == "" {
		t.Skip("OLD_GNUTLS names no installation of GnuTLS 3.3 to 3.5")
	}
	client := filepath.Join(Folder(t), "oldclient")
	output(t, exec.Command("gcc", "-Wall", "-o", client, "testdata/oldclient.c",
		"-I", filepath.Join(prefix, "include"), "-L", filepath.Join(prefix, "lib"), "-lgnutls", "-Wl,-rpath,"+filepath.Join(prefix, "lib")))

	const normal = "SECURE256:!CTYPE-X.509:+CTYPE-OPENPGP:!RSA:+SIGN-DSA-SHA256" // Mandos's default of then
	for _, c := range []struct {
		key, priority string // the client's
		server        string // our priority string, if not the default
		enabled       string // the client's key in clients.conf
		suite         string // as the library describes it; "" if refused
		refusal       string // in our log
	}{
		{key: "rsa2048", priority: normal, suite: "-(ECDHE-RSA-SECP384R1)-(AES-256-GCM)"},
		{key: "rsa4096", priority: normal, suite: "-(ECDHE-RSA-SECP384R1)-(AES-256-GCM)"},
		{key: "rsa2048", priority: normal + ":-ECDHE-RSA:-ECDHE-ECDSA:+DHE-RSA", suite: "-(DHE-RSA-"},
		{key: "rsa2048", priority: normal + ":-KX-ALL:+RSA", refusal: "handshake"},
		{key: "rsa2048", priority: normal, enabled: "no", refusal: "disabled"},
		{key: "rsa-expired", priority: normal, refusal: "expired"},
		{key: "dsa2048", priority: normal + ":+DHE-DSS", refusal: "handshake"},
		{key: "dsa2048", priority: normal + ":+DHE-DSS", server: normal + ":+DHE-DSS", suite: "-(DHE-DSS-"},
		{key: "dsa2048", priority: normal + ":+DHE-DSS:%COMPAT", server: normal + ":+DHE-DSS", refusal: "prime isn't safe"},
		{key: "dsa2048", priority: normal + ":+DHE-DSS:%COMPAT", server: normal + ":+DHE-DSS:%COMPAT", suite: "-(DHE-DSS-"},
	} {
		name := fmt.Sprint(c.key, strings.TrimPrefix(c.priority, normal), " for ", strings.TrimPrefix(c.server, normal), c.enabled)
		t.Run(name, func(t *testing.T) {
			folder := "../keytls/testdata/openpgp-tls/keys/" + c.key
			cert, err := dearmor(filepath.Join(folder, "pubkey.txt"))
			if err != nil {
				t.Fatal(err)
			}
			primary, err := packet.Read(bytes.NewReader(cert))
			if err != nil {
				t.Fatal(err)
			}
			fingerprint := primary.(*packet.PublicKey).Fingerprint
			secret := bytes.Repeat([]byte("what only the host can read\n"), 50)
			section := fmt.Sprintf("[old]\nfingerprint = %X\nhost = localhost\nchecker = :\nsecret = %s\n", fingerprint, base64.StdEncoding.EncodeToString(secret))
			if c.enabled != "" {
				section += "enabled = " + c.enabled + "\n"
			}
			options := []string{"--debug"}
			if c.server != "" {
				options = append(options, "--priority", c.server)
			}
			addr, log := Ours(t).serve(t, []string{section}, options...)
			host, port, _ := net.SplitHostPort(addr)
			cmd := exec.Command(client, host, port, filepath.Join(folder, "pubkey.txt"), filepath.Join(folder, "seckey.txt"), c.priority)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err = cmd.Run()
			t.Logf("%s", &stderr)
			if c.refusal != "" {
				if stdout.Len() > 0 {
					t.Errorf("got %d bytes (%v)", stdout.Len(), err)
				}
				for end := time.Now().Add(patience); !strings.Contains(log.String(), c.refusal); {
					if time.Now().After(end) {
						t.Fatalf("nothing of %q in our log:\n%s", c.refusal, log)
					}
					time.Sleep(10 * time.Millisecond)
				}
				return
			}
			if err != nil || !bytes.Equal(stdout.Bytes(), secret) || !strings.Contains(stderr.String(), c.suite) {
				t.Errorf("got %d bytes, want %d: %v\n%s\nour log:\n%s", stdout.Len(), len(secret), err, &stderr, log)
			}
		})
	}
}
