package pgp

import (
	"os"
	"testing"
	"time"
)

// FuzzRead: a key that is read has a fingerprint, and can be written, sealed
// to and opened with, or refuses; nothing panics.
func FuzzRead(f *testing.F) {
	f.Add(must(os.ReadFile("testdata/dsa2048/pubkey.txt")), false)
	f.Add(must(os.ReadFile("testdata/dsa2048/seckey.txt")), true)
	f.Add(must(os.ReadFile("testdata/rsa2048/seckey.txt")), true)
	message := must(os.ReadFile("testdata/rsa2048/secret.gpg"))
	f.Fuzz(func(t *testing.T, armoured []byte, secret bool) {
		read := ReadPublic
		if secret {
			read = ReadSecret
		}
		k, err := read(armoured)
		if (k == nil) == (err == nil) {
			t.Fatalf("%v, %v", k, err)
		}
		if err != nil {
			return
		}
		public, err := k.ArmouredPublic("")
		if err != nil {
			return
		}
		if again, err := ReadPublic(public); err == nil && again.Fingerprint() != k.Fingerprint() {
			t.Errorf("its fingerprint %v became %v", k.Fingerprint(), again.Fingerprint())
		}
		if secret {
			_, _, _ = k.Open(message, created)
		}
	})
}

// FuzzSymmetric: what gpg --symmetric never made is refused.
func FuzzSymmetric(f *testing.F) {
	f.Add([]byte("\x8c\x0d\x04\x09\x03\x02abcdefgh\x60\xd2\x30"))
	f.Add([]byte("\x8c\x0d\x04\x09\x00\x02"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if plain, err := OpenSymmetric(message, []byte("passphrase")); err != nil && plain != nil {
			t.Errorf("%q beside the error %v", plain, err)
		}
	})
}

// FuzzLifetime: a lifetime that is taken fits into a signature.
func FuzzLifetime(f *testing.F) {
	for _, s := range []string{"0", "never", "1", "2w", "3m", "4y", "seconds=5", "2030-12-31", "20301231T235959", "-1", "137y"} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseLifetime(s, now); err == nil && (d < 0 || d > maxLifetime) {
			t.Errorf("%q is %v", s, d)
		}
	})
}
