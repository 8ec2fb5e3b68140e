package schedule

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"mandos/internal/keytls/wire"
	"mandos/internal/secret"
)

const nonceLen = 12

// Records protects or opens the records of one direction, in their order.
type Records interface {
	// Seal appends to dst the whole protected record of the given type that
	// holds payload, at most wire.MaxPlaintext bytes. payload must not
	// overlap dst's free space.
	Seal(dst []byte, t wire.ContentType, payload []byte) ([]byte, error)
	// Open opens the record with the given header and fragment, in place,
	// and returns its type and payload, a part of fragment.
	Open(h wire.Header, fragment []byte) (wire.ContentType, []byte, error)
	// Exhausted reports whether keys have to be renewed before the next
	// record.
	Exhausted() bool
}

var (
	// ErrMAC is the error for a record that fails authentication; alert
	// bad_record_mac.
	ErrMAC = errors.New("a record fails authentication")
	// ErrOverflow is the error for a record that is too long; alert
	// record_overflow.
	ErrOverflow = errors.New("a record is too long")
	// ErrUnexpected is the error for a record that must not come at this point;
	// alert unexpected_message.
	ErrUnexpected = errors.New("a record of an unexpected type")
	// ErrExhausted is the error for a key that has protected as many records as
	// it may.
	ErrExhausted = errors.New("the traffic keys have protected as many records as they may")
)

// Protection is the record protection of TLS 1.3 (RFC 8446, section 5.2) for
// one direction. It isn't safe for concurrent use.
type Protection struct {
	seq   uint64
	limit uint64 // the first sequence number that may not be used
	// A closure, as fmt would print what a field holds.
	keys func() (cipher.AEAD, *[nonceLen]byte)
}

var _ Records = (*Protection)(nil)

// newProtection keeps no reference to key.
func newProtection(s *Suite, key []byte, iv [nonceLen]byte) *Protection {
	aead, err := s.aead(key)
	if err != nil {
		panic("keytls/schedule: " + err.Error()) // the key's length is the suite's own
	}
	limit := s.records
	if limit == 0 {
		limit = math.MaxUint64
	}
	return &Protection{limit: limit, keys: func() (cipher.AEAD, *[nonceLen]byte) { return aead, &iv }}
}

// Format prints no key.
func (p *Protection) Format(f fmt.State, _ rune) { redact(f, "record protection") }

// Exhausted reports whether the next record needs a KeyUpdate first. Two
// records are reserved: the KeyUpdate itself, and an alert.
func (p *Protection) Exhausted() bool { return p.seq >= p.limit-2 }

// nonce returns the next record's nonce (RFC 8446, section 5.3) and counts it.
func (p *Protection) nonce(iv *[nonceLen]byte) ([nonceLen]byte, error) {
	if p.seq >= p.limit {
		return [nonceLen]byte{}, ErrExhausted
	}
	n := *iv
	low := binary.BigEndian.Uint64(n[4:]) ^ p.seq
	binary.BigEndian.PutUint64(n[4:], low)
	p.seq++
	return n, nil
}

// Seal implements Records.
func (p *Protection) Seal(dst []byte, t wire.ContentType, payload []byte) (record []byte, err error) {
	secret.Do(func() { record, err = p.seal(dst, t, payload) })
	return record, err
}

func (p *Protection) seal(dst []byte, t wire.ContentType, payload []byte) ([]byte, error) {
	if len(payload) > wire.MaxPlaintext {
		return nil, ErrOverflow
	}
	aead, iv := p.keys()
	nonce, err := p.nonce(iv)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	// RFC 8446, section 5.2: the record shows as application_data of TLS 1.2.
	dst = wire.AppendHeader(dst, wire.Header{
		Type: wire.TypeApplicationData, Version: wire.VersionTLS12, Length: len(payload) + 1 + aead.Overhead(),
	})
	body := len(dst)
	dst = append(dst, payload...)
	dst = append(dst, byte(t))
	return aead.Seal(dst[:body], nonce[:], dst[body:], dst[start:body]), nil
}

// Open implements Records.
func (p *Protection) Open(h wire.Header, fragment []byte) (t wire.ContentType, payload []byte, err error) {
	secret.Do(func() { t, payload, err = p.open(h, fragment) })
	return t, payload, err
}

func (p *Protection) open(h wire.Header, fragment []byte) (wire.ContentType, []byte, error) {
	if h.Type != wire.TypeApplicationData {
		return 0, nil, fmt.Errorf("%w: %v, unprotected", ErrUnexpected, h.Type)
	}
	if len(fragment) > wire.MaxCiphertext13 {
		return 0, nil, ErrOverflow
	}
	aead, iv := p.keys()
	nonce, err := p.nonce(iv)
	if err != nil {
		return 0, nil, err
	}
	var header [wire.HeaderLen]byte
	inner, err := aead.Open(fragment[:0], nonce[:], fragment, wire.AppendHeader(header[:0], h))
	if err != nil {
		return 0, nil, ErrMAC
	}
	if len(inner) > wire.MaxPlaintext+1 {
		return 0, nil, ErrOverflow
	}
	// The type is the last byte that isn't padding (RFC 8446, section 5.4).
	for i := len(inner) - 1; i >= 0; i-- {
		if inner[i] != 0 {
			return wire.ContentType(inner[i]), inner[:i], nil
		}
	}
	return 0, nil, fmt.Errorf("%w: padding only", ErrUnexpected)
}
