package schedule

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"mandos/internal/keytls/wire"
	"mandos/internal/secret"
)

// The stages of TLS 1.2 (RFC 5246, section 8.1, and RFC 7627, section 4):
//
//	Premaster --hash of ClientHello..ClientKeyExchange--> Master
//	Premaster --both randoms-----------------------------> Master, without RFC 7627
//	Master    --both randoms-----------------------------> two Protection12

// FinishedLen12 is how many bytes of verify_data a Finished has (RFC 5246,
// section 7.4.9).
const FinishedLen12 = 12

// A Suite12 is a cipher suite of TLS 1.2: a hash for the PRF and the
// transcript, and an AEAD.
type Suite12 struct {
	ID      wire.Suite
	DHE     bool // else ECDHE
	Signer  Signer
	newHash func() hash.Hash
	keyLen  int
	fixed   int // bytes of the nonce that come from the key block
	aead    func(key []byte) (cipher.AEAD, error)
	records uint64 // how many one key may protect; 0: as many as can be counted
}

// A Signer is the kind of key that a suite of TLS 1.2 requires of the server.
type Signer uint8

// The kinds of keys.
const (
	SignerRSA Signer = iota + 1
	SignerECDSA
	SignerDSA
)

func (s Signer) String() string { return [...]string{"no", "RSA", "ECDSA", "DSA"}[s] }

var suites12 = map[wire.Suite]*Suite12{}

func init() {
	const dhe = true
	gcm := func(id wire.Suite, dhe bool, signer Signer, keyLen int) {
		s := &Suite12{ID: id, DHE: dhe, Signer: signer, newHash: sha256.New, keyLen: keyLen, fixed: 4, aead: aesGCM, records: gcmRecords}
		if keyLen == 32 {
			s.newHash = sha512.New384
		}
		suites12[id] = s
	}
	chacha := func(id wire.Suite, dhe bool, signer Signer) {
		suites12[id] = &Suite12{ID: id, DHE: dhe, Signer: signer, newHash: sha256.New,
			keyLen: chacha20poly1305.KeySize, fixed: nonceLen, aead: chacha20poly1305.New}
	}
	// RFC 5288 and RFC 5289
	gcm(wire.ECDHEECDSAAES256GCM, !dhe, SignerECDSA, 32)
	gcm(wire.ECDHEECDSAAES128GCM, !dhe, SignerECDSA, 16)
	gcm(wire.ECDHERSAAES256GCM, !dhe, SignerRSA, 32)
	gcm(wire.ECDHERSAAES128GCM, !dhe, SignerRSA, 16)
	gcm(wire.DHERSAAES256GCM, dhe, SignerRSA, 32)
	gcm(wire.DHERSAAES128GCM, dhe, SignerRSA, 16)
	gcm(wire.DHEDSSAES256GCM, dhe, SignerDSA, 32)
	gcm(wire.DHEDSSAES128GCM, dhe, SignerDSA, 16)
	// RFC 7905
	chacha(wire.ECDHEECDSAChaCha20Poly1305, !dhe, SignerECDSA)
	chacha(wire.ECDHERSAChaCha20Poly1305, !dhe, SignerRSA)
	chacha(wire.DHERSAChaCha20Poly1305, dhe, SignerRSA)
}

// ForSuite12 returns the suite of TLS 1.2 with the given code point, or an
// error if it isn't known.
func ForSuite12(id wire.Suite) (*Suite12, error) {
	if s, ok := suites12[id]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("%v is no known suite of TLS 1.2", id)
}

// NewHash returns the suite's hash, as the transcript uses it.
func (s *Suite12) NewHash() hash.Hash { return s.newHash() }

// Premaster is the first stage: what the key exchange gave.
type Premaster struct {
	suite  *Suite12
	secret secret.Secret
}

// NewPremaster starts the schedule from the shared secret of the key exchange,
// which it owns from then on. Leading zero bytes of a DHE secret must have been
// removed (RFC 5246, section 8.1.2); those of an ECDHE secret stay (RFC 8422,
// section 5.10).
func NewPremaster(s *Suite12, shared []byte) *Premaster { return &Premaster{s, secret.New(shared)} }

// Extended makes the master secret from the hash of ClientHello up to and
// including ClientKeyExchange (RFC 7627, section 4). It wipes p.
func (p *Premaster) Extended(session []byte) *Master {
	return p.master("extended master secret", session)
}

// Plain makes the master secret of a peer that doesn't know RFC 7627 (RFC 5246,
// section 8.1). It wipes p.
func (p *Premaster) Plain(client, server [32]byte) *Master {
	return p.master("master secret", append(client[:], server[:]...))
}

func (p *Premaster) master(label string, seed []byte) *Master {
	var out []byte
	secret.Do(func() {
		out = make([]byte, 48)
		prf(p.suite, out, p.secret.Reveal(), label, seed)
	})
	p.secret.Wipe()
	return &Master{p.suite, secret.New(out)}
}

// Wipe overwrites the secret.
func (p *Premaster) Wipe() { p.secret.Wipe() }

// Master is the second stage.
type Master struct {
	suite  *Suite12
	secret secret.Secret
}

// Finished returns the verify_data of the client's or the server's Finished for
// a transcript's hash (RFC 5246, section 7.4.9).
func (m *Master) Finished(client bool, transcript []byte) []byte {
	label := "server finished"
	if client {
		label = "client finished"
	}
	out := make([]byte, FinishedLen12)
	secret.Do(func() { prf(m.suite, out, m.secret.Reveal(), label, transcript) })
	return out
}

// Protections returns the protection of the records that the client and the
// server send (RFC 5246, section 6.3), both at sequence number 0.
func (m *Master) Protections(client, server [32]byte) (fromClient, fromServer *Protection12) {
	secret.Do(func() { fromClient, fromServer = m.protections(client, server) })
	return fromClient, fromServer
}

func (m *Master) protections(client, server [32]byte) (fromClient, fromServer *Protection12) {
	s := m.suite
	block := make([]byte, 2*(s.keyLen+s.fixed))
	defer clear(block)
	prf(s, block, m.secret.Reveal(), "key expansion", append(server[:], client[:]...))
	rest := block
	cut := func(n int) []byte {
		part := rest[:n]
		rest = rest[n:]
		return part
	}
	clientKey, serverKey := cut(s.keyLen), cut(s.keyLen)
	clientIV, serverIV := cut(s.fixed), cut(s.fixed)
	return newProtection12(s, clientKey, clientIV), newProtection12(s, serverKey, serverIV)
}

// Wipe overwrites the secret.
func (m *Master) Wipe() { m.secret.Wipe() }

// Format prints no key.
func (p Premaster) Format(f fmt.State, _ rune) { redact(f, "premaster secret") }

// Format prints no key.
func (m Master) Format(f fmt.State, _ rune) { redact(f, "master secret") }

// prf fills out with the PRF of TLS 1.2, P_hash (RFC 5246, section 5).
func prf(s *Suite12, out, key []byte, label string, seed []byte) {
	seed = append([]byte(label), seed...)
	mac := hmac.New(s.newHash, key)
	mac.Write(seed)
	a := mac.Sum(nil) // A(1)
	for len(out) > 0 {
		mac.Reset()
		mac.Write(a)
		mac.Write(seed)
		out = out[copy(out, mac.Sum(nil)):]
		mac.Reset()
		mac.Write(a)
		a = mac.Sum(a[:0])
	}
}

// Protection12 is the record protection of TLS 1.2 with an AEAD (RFC 5246,
// section 6.2.3.3) for one direction. It isn't safe for concurrent use.
type Protection12 struct {
	seq      uint64
	limit    uint64 // the first sequence number that may not be used
	explicit int    // bytes of the nonce that travel with the record: 8 (RFC 5288, section 3) or 0 (RFC 7905, section 2)
	// A closure, as fmt would print what a field holds.
	keys func() (cipher.AEAD, *[nonceLen]byte)
}

var _ Records = (*Protection12)(nil)

func newProtection12(s *Suite12, key, iv []byte) *Protection12 {
	aead, err := s.aead(key)
	if err != nil {
		panic("keytls/schedule: " + err.Error()) // the key's length is the suite's own
	}
	var fixed [nonceLen]byte
	copy(fixed[:], iv)
	limit := s.records
	if limit == 0 {
		limit = 1 << 62
	}
	return &Protection12{limit: limit, explicit: nonceLen - s.fixed,
		keys: func() (cipher.AEAD, *[nonceLen]byte) { return aead, &fixed }}
}

// Format prints no key.
func (p *Protection12) Format(f fmt.State, _ rune) { redact(f, "record protection") }

// Exhausted implements Records. TLS 1.2 without renegotiation can't renew its
// keys: the connection has to end.
func (p *Protection12) Exhausted() bool { return p.seq >= p.limit-2 }

// additional returns the additional data of a record (RFC 5246, section
// 6.2.3.3).
func (p *Protection12) additional(t wire.ContentType, v wire.Version, n int) (a [13]byte) {
	binary.BigEndian.PutUint64(a[:8], p.seq)
	a[8] = byte(t)
	binary.BigEndian.PutUint16(a[9:], uint16(v))
	binary.BigEndian.PutUint16(a[11:], uint16(n))
	return a
}

// Seal implements Records.
func (p *Protection12) Seal(dst []byte, t wire.ContentType, payload []byte) (record []byte, err error) {
	secret.Do(func() { record, err = p.seal(dst, t, payload) })
	return record, err
}

func (p *Protection12) seal(dst []byte, t wire.ContentType, payload []byte) ([]byte, error) {
	if len(payload) > wire.MaxPlaintext {
		return nil, ErrOverflow
	}
	if p.seq >= p.limit {
		return nil, ErrExhausted
	}
	aead, fixed := p.keys()
	nonce := *fixed
	// The nonce is the sequence number after the fixed part (RFC 5288,
	// section 3), or xored into it (RFC 7905, section 2).
	low := binary.BigEndian.Uint64(nonce[4:])
	binary.BigEndian.PutUint64(nonce[4:], low^p.seq)
	dst = wire.AppendHeader(dst, wire.Header{
		Type: t, Version: wire.VersionTLS12, Length: p.explicit + len(payload) + aead.Overhead(),
	})
	dst = append(dst, nonce[nonceLen-p.explicit:]...)
	additional := p.additional(t, wire.VersionTLS12, len(payload))
	p.seq++
	body := len(dst)
	dst = append(dst, payload...)
	return aead.Seal(dst[:body], nonce[:], dst[body:], additional[:]), nil
}

// Open implements Records.
func (p *Protection12) Open(h wire.Header, fragment []byte) (t wire.ContentType, payload []byte, err error) {
	secret.Do(func() { t, payload, err = p.open(h, fragment) })
	return t, payload, err
}

func (p *Protection12) open(h wire.Header, fragment []byte) (wire.ContentType, []byte, error) {
	if len(fragment) > wire.MaxCiphertext12 {
		return 0, nil, ErrOverflow
	}
	if p.seq >= p.limit {
		return 0, nil, ErrExhausted
	}
	aead, fixed := p.keys()
	if len(fragment) < p.explicit+aead.Overhead() {
		return 0, nil, ErrMAC
	}
	nonce := *fixed
	if p.explicit > 0 {
		copy(nonce[nonceLen-p.explicit:], fragment)
	} else {
		low := binary.BigEndian.Uint64(nonce[4:])
		binary.BigEndian.PutUint64(nonce[4:], low^p.seq)
	}
	sealed := fragment[p.explicit:]
	additional := p.additional(h.Type, h.Version, len(sealed)-aead.Overhead())
	p.seq++
	payload, err := aead.Open(sealed[:0], nonce[:], sealed, additional[:])
	if err != nil {
		return 0, nil, ErrMAC
	}
	if len(payload) > wire.MaxPlaintext {
		return 0, nil, ErrOverflow
	}
	return h.Type, payload, nil
}
