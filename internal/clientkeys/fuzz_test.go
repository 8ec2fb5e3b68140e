package clientkeys

import (
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzTLSPair: two files are taken as a pair only if they are one; no error
// quotes a private key.
func FuzzTLSPair(f *testing.F) {
	for _, kind := range []string{"ed25519", "ecdsa"} {
		key, err := NewTLSKey(kind)
		if err != nil {
			f.Fatal(err)
		}
		private, public, err := EncodeTLSKey(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(public, private)
		f.Add(private, public)
	}
	dir := f.TempDir()
	pub, priv := filepath.Join(dir, TLSPubKey), filepath.Join(dir, TLSPrivKey)
	f.Fuzz(func(t *testing.T, public, private []byte) {
		for path, b := range map[string][]byte{pub: public, priv: private} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		key, err := ReadTLSPair(pub, priv)
		if err != nil {
			for line := range strings.Lines(string(private)) {
				if line = strings.TrimSpace(line); len(line) > 32 && !strings.Contains(line, "---") && strings.Contains(err.Error(), line) {
					t.Errorf("%v", err)
				}
			}
			return
		}
		id, again, err := ReadTLSPublic(pub)
		if err != nil || id.IsZero() || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(again) {
			t.Errorf("%v, %v, %v", id, again, err)
		}
	})
}
