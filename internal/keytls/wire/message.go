package wire

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// MessageHeaderLen is the length in bytes of a handshake message's header:
// type (1) and length (3).
const MessageHeaderLen = 4

// maxList is the most entries that a list in a message may have, where the
// message's own limit would allow for thousands.
const maxList = 64

// MaxMessage returns how many bytes the body of a handshake message of type t
// may have. It is checked before anything is allocated for the message.
func MaxMessage(t HandshakeType) int {
	switch t {
	case TypeKeyUpdate:
		return 1
	case TypeFinished:
		return 64
	case TypeServerHelloDone:
		return 0
	case TypeCertificate:
		return 1 << 16 // an OpenPGP certificate may hold many user IDs
	case TypeClientHello:
		return 1 << 16
	case TypeNewSessionTicket:
		// Nobody asks for one here (RFC 8446, section 4.2.9), and a peer that
		// sends one may stay connected for long.
		return 1 << 12
	}
	return 1 << 14
}

// ParseMessageHeader reads the first four bytes of b: a handshake message's
// type and the length in bytes of the body that follows.
func ParseMessageHeader(b []byte) (t HandshakeType, length int, err error) {
	if len(b) < MessageHeaderLen {
		return 0, 0, malformed("a handshake message's header")
	}
	return HandshakeType(b[0]), int(b[1])<<16 | int(b[2])<<8 | int(b[3]), nil
}

// open checks the header of msg and returns its body.
func open(msg []byte, want HandshakeType) (cryptobyte.String, error) {
	t, n, err := ParseMessageHeader(msg)
	if err != nil || t != want || n != len(msg)-MessageHeaderLen || n > MaxMessage(t) {
		return nil, malformed("the " + want.String())
	}
	return cryptobyte.String(msg[MessageHeaderLen:]), nil
}

func marshal(t HandshakeType, size int, body func(*cryptobyte.Builder)) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, MessageHeaderLen+size))
	b.AddUint8(uint8(t))
	b.AddUint24LengthPrefixed(body)
	msg, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("writing the %v: %w", t, err)
	}
	return msg, nil
}

// A ClientHello is the first message (RFC 8446, section 4.1.2).
type ClientHello struct {
	Version     Version // legacy_version
	Random      [32]byte
	SessionID   []byte // legacy_session_id, at most 32 bytes
	Suites      []Suite
	Compression []byte // legacy_compression_methods, at least one byte
	Extensions  Extensions
}

// Marshal returns the message with its header.
func (m *ClientHello) Marshal() ([]byte, error) {
	return marshal(TypeClientHello, 128+2*len(m.Suites)+m.Extensions.size(), func(b *cryptobyte.Builder) {
		b.AddUint16(uint16(m.Version))
		b.AddBytes(m.Random[:])
		addBytes8(b, m.SessionID)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, s := range m.Suites {
				b.AddUint16(uint16(s))
			}
		})
		addBytes8(b, m.Compression)
		m.Extensions.add(b)
	})
}

// ParseClientHello reads the message msg, with its header.
func ParseClientHello(msg []byte) (*ClientHello, error) {
	s, err := open(msg, TypeClientHello)
	if err != nil {
		return nil, err
	}
	bad := malformed("the ClientHello")
	m := new(ClientHello)
	var session, suites, compression cryptobyte.String
	if !s.ReadUint16((*uint16)(&m.Version)) ||
		!s.CopyBytes(m.Random[:]) ||
		!s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || len(suites) < 2 || len(suites)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compression) || len(compression) < 1 {
		return nil, bad
	}
	m.SessionID, m.Compression = session, compression
	m.Suites = make([]Suite, 0, len(suites)/2)
	for !suites.Empty() {
		var v uint16
		suites.ReadUint16(&v)
		m.Suites = append(m.Suites, Suite(v))
	}
	if m.Extensions, err = readExtensions(&s, "the ClientHello"); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, bad
	}
	return m, nil
}

// A ServerHello answers a ClientHello, in TLS 1.3 and 1.2, and is the
// HelloRetryRequest too (RFC 8446, section 4.1.3).
type ServerHello struct {
	Version     Version // legacy_version
	Random      [32]byte
	SessionID   []byte // legacy_session_id_echo, at most 32 bytes
	Suite       Suite
	Compression uint8
	Extensions  Extensions // nil: no extensions block, as TLS 1.2 allows
}

// retryRandom is the SHA-256 of "HelloRetryRequest" (RFC 8446, section 4.1.3).
var retryRandom = [32]byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

// IsHelloRetryRequest reports whether m's random is that of a
// HelloRetryRequest.
func (m *ServerHello) IsHelloRetryRequest() bool { return m.Random == retryRandom }

// SetHelloRetryRequest makes m a HelloRetryRequest.
func (m *ServerHello) SetHelloRetryRequest() { m.Random = retryRandom }

// Downgrade returns the version to which a TLS 1.3 server was downgraded, by
// the last eight bytes of the random: TLS 1.2, TLS 1.1 (which stands for
// anything below as well), or 0 for none (RFC 8446, section 4.1.3).
func (m *ServerHello) Downgrade() Version {
	switch string(m.Random[24:]) {
	case "DOWNGRD\x01":
		return VersionTLS12
	case "DOWNGRD\x00":
		return VersionTLS11
	}
	return 0
}

// Marshal returns the message with its header.
func (m *ServerHello) Marshal() ([]byte, error) {
	return marshal(TypeServerHello, 128+m.Extensions.size(), func(b *cryptobyte.Builder) {
		b.AddUint16(uint16(m.Version))
		b.AddBytes(m.Random[:])
		addBytes8(b, m.SessionID)
		b.AddUint16(uint16(m.Suite))
		b.AddUint8(m.Compression)
		m.Extensions.add(b)
	})
}

// ParseServerHello reads the message msg, with its header.
func ParseServerHello(msg []byte) (*ServerHello, error) {
	s, err := open(msg, TypeServerHello)
	if err != nil {
		return nil, err
	}
	m := new(ServerHello)
	var session cryptobyte.String
	if !s.ReadUint16((*uint16)(&m.Version)) ||
		!s.CopyBytes(m.Random[:]) ||
		!s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16((*uint16)(&m.Suite)) ||
		!s.ReadUint8(&m.Compression) {
		return nil, malformed("the ServerHello")
	}
	m.SessionID = session
	if m.Extensions, err = readExtensions(&s, "the ServerHello"); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("the ServerHello")
	}
	return m, nil
}

// EncryptedExtensions are the server's answers that need secrecy (RFC 8446,
// section 4.3.1).
type EncryptedExtensions struct{ Extensions Extensions }

// Marshal returns the message with its header.
func (m *EncryptedExtensions) Marshal() ([]byte, error) {
	return marshal(TypeEncryptedExtensions, 2+m.Extensions.size(), func(b *cryptobyte.Builder) {
		m.Extensions.orEmpty().add(b)
	})
}

// ParseEncryptedExtensions reads the message msg, with its header.
func ParseEncryptedExtensions(msg []byte) (*EncryptedExtensions, error) {
	s, err := open(msg, TypeEncryptedExtensions)
	if err != nil {
		return nil, err
	}
	if s.Empty() { // the block isn't optional here
		return nil, malformed("the EncryptedExtensions")
	}
	m := new(EncryptedExtensions)
	if m.Extensions, err = readExtensions(&s, "the EncryptedExtensions"); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("the EncryptedExtensions")
	}
	return m, nil
}

// A Certificate is the message of TLS 1.3 (RFC 8446, section 4.4.2).
type Certificate struct {
	Context []byte // certificate_request_context; empty from a server
	Entries []CertificateEntry
}

// A CertificateEntry holds one X.509 certificate or one SubjectPublicKeyInfo.
type CertificateEntry struct {
	Data       []byte // at least one byte
	Extensions Extensions
}

// Marshal returns the message with its header.
func (m *Certificate) Marshal() ([]byte, error) {
	size := 8
	for _, e := range m.Entries {
		size += 8 + len(e.Data) + e.Extensions.size()
	}
	return marshal(TypeCertificate, size, func(b *cryptobyte.Builder) {
		addBytes8(b, m.Context)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, e := range m.Entries {
				b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.Data) })
				e.Extensions.orEmpty().add(b)
			}
		})
	})
}

// ParseCertificate reads the message msg, with its header.
func ParseCertificate(msg []byte) (*Certificate, error) {
	s, err := open(msg, TypeCertificate)
	if err != nil {
		return nil, err
	}
	bad := malformed("the Certificate message")
	m := new(Certificate)
	var context, list cryptobyte.String
	if !s.ReadUint8LengthPrefixed(&context) || !s.ReadUint24LengthPrefixed(&list) || !s.Empty() {
		return nil, bad
	}
	m.Context = context
	for !list.Empty() {
		var data cryptobyte.String
		if len(m.Entries) == maxList || !list.ReadUint24LengthPrefixed(&data) || len(data) == 0 || list.Empty() {
			return nil, bad
		}
		exts, err := readExtensions(&list, "the Certificate message")
		if err != nil {
			return nil, err
		}
		m.Entries = append(m.Entries, CertificateEntry{Data: data, Extensions: exts})
	}
	return m, nil
}

// A CertificateVerify proves that its sender holds the key of the certificate
// (RFC 8446, section 4.4.3).
type CertificateVerify struct {
	Scheme    SignatureScheme
	Signature []byte
}

// Marshal returns the message with its header.
func (m *CertificateVerify) Marshal() ([]byte, error) {
	return marshal(TypeCertificateVerify, 4+len(m.Signature), func(b *cryptobyte.Builder) {
		b.AddUint16(uint16(m.Scheme))
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Signature) })
	})
}

// ParseCertificateVerify reads the message msg, with its header.
func ParseCertificateVerify(msg []byte) (*CertificateVerify, error) {
	s, err := open(msg, TypeCertificateVerify)
	if err != nil {
		return nil, err
	}
	m := new(CertificateVerify)
	var sig cryptobyte.String
	if !s.ReadUint16((*uint16)(&m.Scheme)) || !s.ReadUint16LengthPrefixed(&sig) || !s.Empty() {
		return nil, malformed("the CertificateVerify")
	}
	m.Signature = sig
	return m, nil
}

// A Finished closes one side's handshake (RFC 8446, section 4.4.4).
type Finished struct{ VerifyData []byte }

// Marshal returns the message with its header.
func (m *Finished) Marshal() ([]byte, error) {
	return marshal(TypeFinished, len(m.VerifyData), func(b *cryptobyte.Builder) { b.AddBytes(m.VerifyData) })
}

// ParseFinished reads the message msg, with its header. size is how many bytes
// of verify_data the negotiated hash, or TLS 1.2, requires.
func ParseFinished(msg []byte, size int) (*Finished, error) {
	s, err := open(msg, TypeFinished)
	if err != nil {
		return nil, err
	}
	if len(s) != size {
		return nil, malformed("the Finished")
	}
	return &Finished{VerifyData: s}, nil
}

// A KeyUpdate says that its sender's next records use new keys (RFC 8446,
// section 4.6.3).
type KeyUpdate struct{ Requested bool }

// Marshal returns the message with its header.
func (m *KeyUpdate) Marshal() []byte {
	msg := []byte{byte(TypeKeyUpdate), 0, 0, 1, 0}
	if m.Requested {
		msg[4] = 1
	}
	return msg
}

// ErrKeyUpdate is the error for a request_update that is neither 0 nor 1; the
// alert for it is illegal_parameter (RFC 8446, section 4.6.3).
var ErrKeyUpdate = errors.New("the KeyUpdate's request_update is neither 0 nor 1")

// ParseKeyUpdate reads the message msg, with its header.
func ParseKeyUpdate(msg []byte) (*KeyUpdate, error) {
	s, err := open(msg, TypeKeyUpdate)
	if err != nil {
		return nil, err
	}
	if len(s) != 1 {
		return nil, malformed("the KeyUpdate")
	}
	if s[0] > 1 {
		return nil, ErrKeyUpdate
	}
	return &KeyUpdate{Requested: s[0] == 1}, nil
}

// A NewSessionTicket is read and dropped (RFC 8446, section 4.6.1).
type NewSessionTicket struct {
	Lifetime   uint32 // seconds
	AgeAdd     uint32
	Nonce      []byte
	Ticket     []byte // at least one byte
	Extensions Extensions
}

// Marshal returns the message with its header.
func (m *NewSessionTicket) Marshal() ([]byte, error) {
	return marshal(TypeNewSessionTicket, 16+len(m.Ticket)+m.Extensions.size(), func(b *cryptobyte.Builder) {
		b.AddUint32(m.Lifetime)
		b.AddUint32(m.AgeAdd)
		addBytes8(b, m.Nonce)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Ticket) })
		m.Extensions.orEmpty().add(b)
	})
}

// ParseNewSessionTicket reads the message msg, with its header.
func ParseNewSessionTicket(msg []byte) (*NewSessionTicket, error) {
	s, err := open(msg, TypeNewSessionTicket)
	if err != nil {
		return nil, err
	}
	bad := malformed("the NewSessionTicket")
	m := new(NewSessionTicket)
	var nonce, ticket cryptobyte.String
	if !s.ReadUint32(&m.Lifetime) || !s.ReadUint32(&m.AgeAdd) ||
		!s.ReadUint8LengthPrefixed(&nonce) ||
		!s.ReadUint16LengthPrefixed(&ticket) || len(ticket) == 0 || s.Empty() {
		return nil, bad
	}
	m.Nonce, m.Ticket = nonce, ticket
	if m.Extensions, err = readExtensions(&s, "the NewSessionTicket"); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, bad
	}
	return m, nil
}

// MessageHash returns the message that stands for the first ClientHello in the
// transcript after a HelloRetryRequest (RFC 8446, section 4.4.1).
func MessageHash(hash []byte) []byte {
	return append([]byte{byte(TypeMessageHash), 0, 0, byte(len(hash))}, hash...)
}

func addBytes8(b *cryptobyte.Builder, v []byte) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
}
