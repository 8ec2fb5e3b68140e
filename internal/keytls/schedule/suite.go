// Package schedule derives and uses TLS's keys: the key schedules of TLS 1.3
// (RFC 8446, section 7) and TLS 1.2 (RFC 5246, section 8.1), and the protection
// of records.
//
// Each stage of the schedule is a type of its own, and only the stage before
// can make it. Nothing here has a goroutine, a clock or I/O. No way of printing
// a value that holds a key prints the key.
package schedule

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"mandos/internal/keytls/wire"
)

// gcmRecords is how many records may be protected with one AES-GCM key: RFC
// 8446, section 5.5, allows 2^24.5; this is below it.
const gcmRecords = 1 << 24

// A Suite is a cipher suite of TLS 1.3: a hash and an AEAD.
type Suite struct {
	ID      wire.Suite
	newHash func() hash.Hash
	keyLen  int
	aead    func(key []byte) (cipher.AEAD, error)
	records uint64 // how many one key may protect; 0: as many as can be counted

	hashLen int // bytes

	// What the key schedule derives without any secret, so that it is the same
	// for all connections.
	zeros, emptyHash, earlySalt []byte
}

var suites = map[wire.Suite]*Suite{
	wire.AES128GCM:        newSuite(wire.AES128GCM, sha256.New, 16, aesGCM, gcmRecords),
	wire.AES256GCM:        newSuite(wire.AES256GCM, sha512.New384, 32, aesGCM, gcmRecords),
	wire.ChaCha20Poly1305: newSuite(wire.ChaCha20Poly1305, sha256.New, 32, chacha20poly1305.New, 0),
}

func newSuite(id wire.Suite, newHash func() hash.Hash, keyLen int, aead func([]byte) (cipher.AEAD, error), records uint64) *Suite {
	h := newHash()
	s := &Suite{ID: id, newHash: newHash, keyLen: keyLen, aead: aead, records: records,
		hashLen: h.Size(), zeros: make([]byte, h.Size()), emptyHash: h.Sum(nil)}
	// RFC 8446, section 7.1: without a PSK, the early secret is that of zeros.
	s.earlySalt = expandLabel(s, extract(s, s.zeros, nil), "derived", s.emptyHash, s.hashLen)
	return s
}

// ForSuite returns the suite of TLS 1.3 with the given code point, or an error
// if it isn't known.
func ForSuite(id wire.Suite) (*Suite, error) {
	if s, ok := suites[id]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("%v is no known suite of TLS 1.3", id)
}

// NewHash returns the suite's hash, as the transcript uses it.
func (s *Suite) NewHash() hash.Hash { return s.newHash() }

func aesGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
