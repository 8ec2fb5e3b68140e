package clientkeys

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mandos/internal/keyid"
	"mandos/internal/testenv"
)

func run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, &stderr)
	}
	return out
}

// write makes a TLS key pair in a new folder and returns the paths of its
// files.
func write(t testing.TB, kind string) (public, private string) {
	t.Helper()
	key, err := NewTLSKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	priv, pub, err := EncodeTLSKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := Install(dir, []File{{TLSPrivKey, priv}, {TLSPubKey, pub}}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, TLSPubKey), filepath.Join(dir, TLSPrivKey)
}

func TestTLSKeyAsOthersSeeIt(t *testing.T) {
	certtool, openssl := testenv.Program(t, "certtool", "gnutls-bin"), testenv.Program(t, "openssl", "openssl")
	for _, kind := range []string{"ed25519", "ecdsa", "rsa", "ED25519"} {
		t.Run(kind, func(t *testing.T) {
			public, private := write(t, kind)
			id, _, err := ReadTLSPublic(public)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(string(run(t, certtool, "--key-id", "--hash=sha256", "--infile", public)))
			if got := strings.ToLower(id.String()); got != want {
				t.Errorf("key ID %s, certtool says %s", got, want)
			}
			sum := sha256.Sum256(run(t, openssl, "pkey", "-in", private, "-pubout", "-outform", "DER"))
			if got := hex.EncodeToString(sum[:]); got != want {
				t.Errorf("openssl makes %s of the private key, want %s", got, want)
			}
			run(t, certtool, "--key-info", "--infile", private)
			if _, err := ReadTLSPair(public, private); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadTLSPairOfOthers(t *testing.T) {
	certtool, openssl := testenv.Program(t, "certtool", "gnutls-bin"), testenv.Program(t, "openssl", "openssl")
	for name, private := range map[string][]string{
		"certtool ed25519":        {certtool, "--generate-privkey", "--key-type=ed25519"},
		"certtool ecdsa":          {certtool, "--generate-privkey", "--key-type=ecdsa", "--no-text"},
		"certtool ecdsa, text":    {certtool, "--generate-privkey", "--key-type=ecdsa"},
		"certtool rsa":            {certtool, "--generate-privkey", "--key-type=rsa", "--bits=2048"},
		"openssl pkcs8 p384":      {openssl, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"openssl ed25519":         {openssl, "genpkey", "-algorithm", "ED25519"},
		"openssl p521":            {openssl, "ecparam", "-genkey", "-name", "secp521r1"},
		"openssl rsa traditional": {openssl, "genrsa", "-traditional", "2048"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			priv, pub := filepath.Join(dir, "priv"), filepath.Join(dir, "pub")
			if err := os.WriteFile(priv, run(t, private[0], private[1:]...), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, openssl, "pkey", "-in", priv, "-pubout", "-out", pub)
			if _, err := ReadTLSPair(pub, priv); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadTLSPairRefuses(t *testing.T) {
	pub, priv := write(t, "ed25519")
	otherPub, _ := write(t, "ed25519")
	ecPub, _ := write(t, "ecdsa")
	dir := t.TempDir()
	file := func(name, contents string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	x25519 := file("x25519", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n")
	for _, tt := range []struct{ name, pub, priv, want string }{
		{"pair of two", otherPub, priv, "isn't the public half of"},
		{"two types", ecPub, priv, "isn't the public half of"},
		{"swapped", priv, pub, `no PEM block "PUBLIC KEY"`},
		{"no file", filepath.Join(dir, "none"), priv, "mandos-keygen makes it"},
		{"empty", file("empty", " \n"), priv, "it is empty"},
		{"rubbish", pub, file("rubbish", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "no Ed25519, ECDSA or RSA private key"},
		{"can't sign", pub, x25519, "can't sign"},
		{"huge", file("huge", strings.Repeat("x", maxFile+1)), priv, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ReadTLSPair(tt.pub, tt.priv); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := NewTLSKey("ed448"); err == nil || !strings.Contains(err.Error(), TLSKeyTypes) {
		t.Errorf("ed448: error %v, want one that lists the types", err)
	}
}

func TestKeyIDIsOfTheFileAsItIs(t *testing.T) {
	pub, _ := write(t, "rsa")
	id, key, err := ReadTLSPublic(pub)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if id != keyid.OfSPKI(spki) {
		t.Errorf("key ID %v, want %v", id, keyid.OfSPKI(spki))
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	names := func() []string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range entries {
			all = append(all, e.Name())
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
			}
		}
		return all
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for i := range 3 {
		if err := Install(dir, []File{{"a", []byte{'a', byte('0' + i)}}, {"b", []byte{'b', byte('0' + i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := names(), []string{"a", "a.~1~", "a.~2~", "b", "b.~1~", "b.~2~"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	for name, want := range map[string]string{"a": "a2", "a.~1~": "a0", "a.~2~": "a1", "b": "b2", "b.~1~": "b0"} {
		if got := read(name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}

	// A gap in the numbers isn't filled: the highest number is the newest.
	if err := os.Remove(filepath.Join(dir, "a.~1~")); err != nil {
		t.Fatal(err)
	}
	if err := Install(dir, []File{{"a", []byte("a3")}}); err != nil {
		t.Fatal(err)
	}
	if got := read("a.~3~"); got != "a2" {
		t.Errorf("a.~3~ holds %q, want a2", got)
	}

	there, err := Existing(dir, "b", "c", "a")
	if err != nil || !slices.Equal(there, []string{"b", "a"}) {
		t.Errorf("Existing: %q, %v", there, err)
	}
}

// If one of the files can't be written, all old ones stay and nothing is
// left over.
func TestInstallAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	if err := Install(dir, []File{{"a", []byte("old")}}); err != nil {
		t.Fatal(err)
	}
	tooLong := strings.Repeat("x", 300)
	if err := Install(dir, []File{{"a", []byte("new")}, {tooLong, nil}}); err == nil {
		t.Fatal("no error for a name that is too long")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, "a")); len(entries) != 1 || string(data) != "old" {
		t.Errorf("%v left, a holds %q; want the old a alone", entries, data)
	}
	if err := Install(filepath.Join(dir, "none"), []File{{"a", nil}}); err == nil {
		t.Error("no error for a missing folder")
	}
}
