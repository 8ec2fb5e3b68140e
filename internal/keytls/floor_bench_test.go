package keytls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"mandos/internal/keytls/wire"
)

// BenchmarkFloor is the cryptography that no hand-out can do without, each part
// alone and all together for each group: a key pair, an agreement, the
// verification of a signature, and the protection of a secret's record.
// BenchmarkClientHandshake shows how far above that a handshake is.
func BenchmarkFloor(b *testing.B) {
	for _, g := range []wire.Group{wire.X25519, wire.P256, wire.P384, wire.X25519MLKEM768} {
		b.Run("key pair/"+g.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := startExchange(g); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("verify/Ed25519", func(b *testing.B) {
		verify := verifyEd25519()
		for b.Loop() {
			verify()
		}
	})
	for _, g := range []wire.Group{wire.X25519, wire.X25519MLKEM768} {
		b.Run("all/"+g.String(), func(b *testing.B) {
			all := floor(b, g)
			for b.Loop() {
				all()
			}
		})
	}
}

// floor returns the least work of a hand-out to a peer with an Ed25519 key.
func floor(b *testing.B, g wire.Group) func() {
	b.Helper()
	ex, err := startExchange(g)
	if err != nil {
		b.Fatal(err)
	}
	verify := verifyEd25519()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	secret := make([]byte, 1190)
	record := make([]byte, 0, len(secret)+aead.Overhead())
	theirs, _, err := answerExchange(g, ex.share)
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		// The peer's answer to the first share serves for all; the cost of
		// making it is the peer's.
		ours, err := startExchange(g)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ours.agree(theirs); err != nil {
			b.Fatal(err)
		}
		verify()
		aead.Seal(record, make([]byte, 12), secret, nil)
	}
}

// floorTime returns the CPU time that floor takes of this thread, in
// nanoseconds.
func floorTime(b *testing.B, g wire.Group) float64 {
	const times = 200
	all := floor(b, g)
	start := threadTime(b)
	for range times {
		all()
	}
	return float64(threadTime(b)-start) / times
}

func verifyEd25519() func() {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	message := make([]byte, 64+33+1+48) // RFC 8446, section 4.4.3, with SHA-384
	signature := ed25519.Sign(private, message)
	return func() {
		if !ed25519.Verify(public, message, signature) {
			panic("a signature doesn't verify")
		}
	}
}
