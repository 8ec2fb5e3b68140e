package pgp

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/testenv"
)

var created = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func makeKey(t testing.TB, name string) *Key {
	t.Helper()
	k, err := Generate(Request{
		Name: name, Email: "root@example.org", Comment: "test", Bits: 2048, SubBits: 2048, Created: created,
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var oneKey, otherKey = sync.OnceValue(func() *Key { return must(generate("one")) }),
	sync.OnceValue(func() *Key { return must(generate("other")) })

func generate(name string) (*Key, error) {
	return Generate(Request{Name: name, Bits: 2048, SubBits: 2048, Created: created})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A gnupg is a private GnuPG home.
type gnupg struct {
	t    testing.TB
	home string
}

func newGnuPG(t testing.TB) gnupg {
	t.Helper()
	testenv.Program(t, "gpg", "gnupg")
	home, err := os.MkdirTemp("", "gpg") // its sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	return gnupg{t, home}
}

// run returns gpg's output and its status lines.
func (g gnupg) run(stdin []byte, args ...string) (out []byte, status string) {
	g.t.Helper()
	statusFile := filepath.Join(g.home, "status")
	cmd := exec.Command("gpg", append([]string{"--homedir", g.home, "--batch", "--no-tty", "--yes", "--quiet",
		"--trust-model", "always", "--status-file", statusFile}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		g.t.Fatalf("gpg %v: %v\n%s", args, err, &stderr)
	}
	lines, err := os.ReadFile(statusFile)
	if err != nil {
		g.t.Fatal(err)
	}
	return out, string(lines)
}

func TestGnuPGReadsOurs(t *testing.T) {
	g := newGnuPG(t)
	key := makeKey(t, "client.example.org")
	secret, err := key.ArmouredSecret("a comment")
	if err != nil {
		t.Fatal(err)
	}
	g.run(secret, "--import")
	listing, _ := g.run(nil, "--with-colons", "--list-secret-keys")
	fpr := key.Fingerprint().String()
	for _, want := range []string{
		"fpr:::::::::" + fpr + ":",
		":client.example.org (test) <root@example.org>:",
	} {
		if !strings.Contains(string(listing), want) {
			t.Errorf("gpg doesn't list %q:\n%s", want, listing)
		}
	}
	for line := range strings.Lines(string(listing)) {
		// Field 12 holds the capabilities of the key (man gpg: DETAILS).
		switch f := strings.Split(line, ":"); f[0] {
		case "sec":
			if !strings.HasPrefix(f[11], "sca") && !strings.HasPrefix(f[11], "csa") && !strings.HasPrefix(f[11], "scaESCA") {
				t.Errorf("primary key: capabilities %q, want sign, certify, authenticate", f[11])
			}
		case "ssb":
			if f[11] != "e" {
				t.Errorf("subkey: capabilities %q, want only encrypt", f[11])
			}
		}
	}

	for _, password := range [][]byte{[]byte("x"), []byte(" white space\n\n"), bytes.Repeat([]byte{0, 1, 2, 255}, 1<<16)} {
		message, err := key.Seal(password, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		plain, status := g.run(message, "--decrypt")
		if !bytes.Equal(plain, password) {
			t.Errorf("gpg decrypts %d bytes, want the %d of the password", len(plain), len(password))
		}
		if !strings.Contains(status, "VALIDSIG "+fpr) {
			t.Errorf("gpg finds no valid signature:\n%s", status)
		}
		if !strings.Contains(status, "DECRYPTION_INFO 2 9 ") {
			t.Errorf("gpg doesn't see AES-256 with integrity protection:\n%s", status)
		}
	}

	// The public half alone must carry the subkey with its binding.
	h := newGnuPG(t)
	public, err := key.ArmouredPublic("")
	if err != nil {
		t.Fatal(err)
	}
	h.run(public, "--import")
	message, _ := h.run([]byte("by hand"), "--encrypt", "--recipient", fpr)
	password, signed, err := key.Open(message, time.Now())
	if err != nil || string(password) != "by hand" || signed {
		t.Errorf("Open of an unsigned message: %q, signed %v, %v", password, signed, err)
	}
}

func TestOpenWhatGnuPGSends(t *testing.T) {
	g := newGnuPG(t)
	key := oneKey()
	g.run(must(key.ArmouredSecret("")), "--import")
	fpr := key.Fingerprint().String()
	password := []byte(strings.Repeat("pass word\r\n", 30))
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"defaults", nil},
		{"AES-128", []string{"--cipher-algo", "AES"}},
		{"AES-192", []string{"--cipher-algo", "AES192"}},
		{"AES-256", []string{"--cipher-algo", "AES256"}},
		{"Triple DES", []string{"--cipher-algo", "3DES"}},
		{"CAST5", []string{"--cipher-algo", "CAST5"}},
		{"ZIP", []string{"--compress-algo", "zip"}},
		{"ZLIB", []string{"--compress-algo", "zlib"}},
		{"BZIP2", []string{"--compress-algo", "bzip2"}},
		{"text mode", []string{"--textmode"}},
		{"no key ID", []string{"--throw-keyids"}},
		{"SHA-256", []string{"--digest-algo", "SHA256"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			message, _ := g.run(password, append(tt.args, "--sign", "--encrypt", "--recipient", fpr, "--local-user", fpr)...)
			got, signed, err := key.Open(message, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, password) {
				t.Errorf("got %q", got)
			}
			if !signed {
				t.Error("the signature wasn't found good")
			}
		})
	}
}

// The keys that mandos-keygen made before 2013: DSA and ElGamal.
func TestOpenOldKey(t *testing.T) {
	read := func(name string) []byte { return must(os.ReadFile(filepath.Join("testdata/dsa2048", name))) }
	key, err := ReadSecret(read("seckey.txt"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ReadPublic(read("pubkey.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if public.Fingerprint() != key.Fingerprint() {
		t.Errorf("fingerprints differ: %v, %v", public.Fingerprint(), key.Fingerprint())
	}
	password, signed, err := key.Open(read("secret.gpg"), time.Now())
	if err != nil || signed { // it was made by hand, unsigned
		t.Errorf("Open: signed %v, %v", signed, err)
	}
	if want := string(must(os.ReadFile("testdata/dsa2048/password"))); string(password) != want {
		t.Errorf("got %q, want %q", password, want)
	}
}

func TestRoundTrip(t *testing.T) {
	key := oneKey()
	again, err := ReadSecret(must(key.ArmouredSecret("c")))
	if err != nil {
		t.Fatal(err)
	}
	message := must(key.Seal([]byte("password"), created.Add(time.Hour)))
	for _, now := range []time.Time{time.Unix(0, 0), created.Add(-day), created, created.AddDate(50, 0, 0)} {
		password, signed, err := again.Open(message, now)
		if err != nil || !signed || string(password) != "password" {
			t.Errorf("at %v: %q, signed %v, %v", now, password, signed, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	key := must(Generate(Request{Name: "short", Bits: 2048, SubBits: 2048, Created: created, Lifetime: 30 * day}))
	message, err := key.Seal([]byte("p"), created.Add(29*day))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Seal([]byte("p"), created.Add(31*day)); err == nil || !strings.Contains(err.Error(), "expired at 2026-03-31 12:00:00") {
		t.Errorf("sealing with an expired key: %v", err)
	}
	if password, _, err := key.Open(message, created.Add(31*day)); err != nil || string(password) != "p" {
		t.Errorf("a host whose key expired must still boot: %q, %v", password, err)
	}

	g := newGnuPG(t)
	g.run(must(key.ArmouredSecret("")), "--import")
	listing, _ := g.run(nil, "--with-colons", "--list-secret-keys")
	for line := range strings.Lines(string(listing)) {
		f := strings.Split(line, ":")
		if (f[0] == "sec" || f[0] == "ssb") && f[6] != "1774958400" { // 2026-03-31 12:00:00 UTC
			t.Errorf("gpg sees expiry %q in %s", f[6], line)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	key := oneKey()
	good := must(key.Seal([]byte("password-b"), created))
	if _, _, err := key.Open(good, created); err != nil {
		t.Fatal(err) // the cases below would prove nothing
	}

	var plain bytes.Buffer
	w := must(openpgp.Sign(nopCloser{&plain}, key.entity, &openpgp.FileHints{IsBinary: true}, &packet.Config{Time: func() time.Time { return created }}))
	must(w.Write([]byte("password-b")))
	w.Close()
	forged := bytes.Replace(plain.Bytes(), []byte("password-b"), []byte("password-a"), 1)
	truncated := plain.Bytes()[:bytes.Index(plain.Bytes(), []byte("password-b"))+len("password-b")]

	var bomb bytes.Buffer
	cw := must(packet.SerializeCompressed(nopCloser{&bomb}, packet.CompressionZIP, nil))
	lw := must(packet.SerializeLiteral(nopCloser{cw}, true, "", 0))
	zeros := make([]byte, 1<<20)
	for range MaxPassword>>20 + 1 {
		must(lw.Write(zeros))
	}
	lw.Close()
	cw.Close()

	for _, tt := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"empty", nil, "can't be decrypted"},
		{"text", []byte("hello, world"), "can't be decrypted"},
		{"to another key", must(otherKey().Seal([]byte("p"), created)), "isn't encrypted to this key"},
		{"not encrypted", plain.Bytes(), "isn't encrypted"},
		{"another text under the signature", encrypt(t, key, forged), "signature in the OpenPGP message is bad"},
		{"signature cut off", encrypt(t, key, truncated), "signature in the OpenPGP message is bad"},
		{"no integrity protection", encryptPlainly(t, key, plain.Bytes()), "not integrity protected"},
		{"a compressed bomb", encrypt(t, key, bomb.Bytes()), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			password, signed, err := key.Open(tt.message, created)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if password != nil || signed {
				t.Errorf("%q came out (signed: %v)", password, signed)
			}
		})
	}

	t.Run("any flipped bit", func(t *testing.T) {
		// Where the two packets end and begin: the session key's is a byte
		// shorter in one message of a hundred.
		r := bytes.NewReader(good)
		at := func() int { return len(good) - r.Len() }
		must(packet.Read(r))
		header := at()
		must(packet.Read(r)) // the header, and the version of what follows
		encrypted := at()
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			if password, _, err := key.Open(bad, created); err == nil && string(password) != "password-b" {
				t.Fatalf("byte %d: %q came out", i, password)
			} else if err == nil && i > 12 && (i < header || i >= encrypted) {
				// The headers may be written in other ways, and the last one
				// may promise more than there is; what is encrypted may not
				// change.
				t.Errorf("byte %d of %d: not noticed", i, len(good))
			}
		}
	})
	t.Run("any prefix", func(t *testing.T) {
		for i := range good {
			if password, _, err := key.Open(good[:i], created); err == nil {
				t.Fatalf("%d of %d bytes: %q came out", i, len(good), password)
			}
		}
	})
}

func TestSignedByAnother(t *testing.T) {
	key, other := oneKey(), otherKey()
	var out bytes.Buffer
	w := must(openpgp.Encrypt(&out, []*openpgp.Entity{key.entity}, other.entity, nil, &packet.Config{Time: func() time.Time { return created }}))
	must(w.Write([]byte("p")))
	w.Close()
	if password, signed, err := key.Open(out.Bytes(), created); err != nil || signed || string(password) != "p" {
		t.Errorf("got %q, signed %v, %v; want it unsigned", password, signed, err)
	}
}

func TestReadRefuses(t *testing.T) {
	sec := must(oneKey().ArmouredSecret(""))
	pub := must(oneKey().ArmouredPublic(""))
	for _, tt := range []struct {
		name string
		read func([]byte) (*Key, error)
		data []byte
		want string
	}{
		{"nothing", ReadPublic, nil, "no armoured OpenPGP key"},
		{"secret as public", ReadPublic, sec, `holds a "PGP PRIVATE KEY BLOCK"`},
		{"public as secret", ReadSecret, pub, `holds a "PGP PUBLIC KEY BLOCK"`},
		{"cut", ReadSecret, sec[:len(sec)/2], "reading the OpenPGP"},
		{"huge", ReadPublic, make([]byte, maxKeyFile+1), "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.read(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}

	t.Run("passphrase", func(t *testing.T) {
		key := must(generate("locked"))
		if err := key.entity.EncryptPrivateKeys([]byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecret(must(key.ArmouredSecret(""))); err == nil || !strings.Contains(err.Error(), "passphrase") {
			t.Errorf("error %v, want one about the passphrase", err)
		}
	})
}

func TestGenerateRefuses(t *testing.T) {
	ok := Request{Name: "n", Bits: 2048, SubBits: 2048}
	for name, change := range map[string]func(*Request){
		"no name":              func(r *Request) { r.Name = "" },
		"short":                func(r *Request) { r.Bits = 1024 },
		"long":                 func(r *Request) { r.Bits = 16384 },
		"short subkey":         func(r *Request) { r.SubBits = 2047 },
		"long subkey":          func(r *Request) { r.SubBits = 8193 },
		"line break in email":  func(r *Request) { r.Email = "a\nb" },
		"bracket in comment":   func(r *Request) { r.Comment = "a)b" },
		"not UTF-8":            func(r *Request) { r.Name = "\xff" },
		"negative lifetime":    func(r *Request) { r.Lifetime = -1 },
		"more than 136 years":  func(r *Request) { r.Lifetime = maxLifetime + time.Second },
		"zero bits":            func(r *Request) { r.Bits = 0 },
		"control char in name": func(r *Request) { r.Name = "a\x1bb" },
	} {
		r := ok
		change(&r)
		if _, err := Generate(r); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

func TestParseLifetime(t *testing.T) {
	now := created
	for s, want := range map[string]time.Duration{
		"0": 0, "": 0, "never": 0, "none": 0, "-": 0,
		"1": day, "30": 30 * day, "30d": 30 * day, "2w": 14 * day, "3m": 90 * day, "1y": 365 * day,
		"seconds=90": 90 * time.Second,
		"2026-03-02": day, "20260301T130000": time.Hour,
	} {
		if got, err := ParseLifetime(s, now); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"x", "1x", "-1", "1.5y", "d", "2026-02-28", "20260301T110000", "137y", "4294967296", "seconds=", "2026-13-01", "2500-01-01"} {
		if got, err := ParseLifetime(s, now); err == nil {
			t.Errorf("%q: %v, want an error", s, got)
		}
	}
}

// FuzzOpen: a message that is refused gives no password.
func FuzzOpen(f *testing.F) {
	key, err := ReadSecret(must(os.ReadFile("testdata/rsa2048/seckey.txt")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(must(os.ReadFile("testdata/rsa2048/secret.gpg")))
	f.Add([]byte{0x85, 1, 0x0e, 3})
	f.Fuzz(func(t *testing.T, message []byte) {
		if password, signed, err := key.Open(message, created); err != nil && (password != nil || signed) {
			t.Errorf("a password beside the error %v", err)
		}
	})
}

// encrypt encrypts a series of packets to key.
func encrypt(t *testing.T, key *Key, packets []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	session := bytes.Repeat([]byte{7}, 32)
	if err := packet.SerializeEncryptedKey(&out, key.entity.Subkeys[0].PublicKey, packet.CipherAES256, session, nil); err != nil {
		t.Fatal(err)
	}
	w, err := packet.SerializeSymmetricallyEncrypted(&out, packet.CipherAES256, false, packet.CipherSuite{}, session, nil)
	if err != nil {
		t.Fatal(err)
	}
	must(w.Write(packets))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// encryptPlainly does the same without integrity protection (RFC 4880,
// section 5.7).
func encryptPlainly(t *testing.T, key *Key, packets []byte) []byte {
	t.Helper()
	protected := encrypt(t, key, packets)
	// The session key's packet is the same; after it comes tag 9.
	n := 3 + int(protected[1]-192)<<8 + int(protected[2]) + 192
	return append(bytes.Clone(protected[:n]), append([]byte{0xc0 | 9, 200}, make([]byte, 200)...)...)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
