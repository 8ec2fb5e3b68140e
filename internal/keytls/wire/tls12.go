package wire

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// What is only in TLS 1.2 (RFC 5246), and what OpenPGP certificates add to it
// (RFC 6091).

// TypeHelloRequest asks for a renegotiation (RFC 5246, section 7.4.1.1).
const TypeHelloRequest HandshakeType = 0

// Suites of TLS 1.2 that aren't offered by default.
const (
	DHERSAAES128GCM     Suite = 0x009E // RFC 5288
	DHEDSSAES128GCM     Suite = 0x00A2 // RFC 5288
	DHEDSSAES256GCM     Suite = 0x00A3 // RFC 5288
	ECDHEECDSAAES128GCM Suite = 0xC02B // RFC 5289
)

// DSASHA256 is hash sha256 with signature dsa (RFC 5246, section 7.4.1.4.1).
const DSASHA256 SignatureScheme = 0x0402

// An OpenPGPCertificate is the Certificate message of a peer with an OpenPGP
// key (RFC 6091, section 3.3, and RFC 5081, section 3.3). The RFCs' content is
// preceded by a length, as X.509's list is: GnuTLS does it that way, and
// nothing else ever implemented this.
type OpenPGPCertificate struct {
	// KeyID is the OpenPGP key ID of the key that signs. RFC 5081 has none:
	// there it is the primary key, and HasKeyID is false.
	KeyID    [8]byte
	HasKeyID bool
	Data     []byte // the certificate: OpenPGP packets; at least one byte
}

// Descriptor types of an OpenPGP Certificate message.
const (
	descriptorKey               = 1 // RFC 5081's cert; with no data, RFC 6091's empty_cert
	descriptorSubkey            = 2 // RFC 6091's subkey_cert
	descriptorSubkeyFingerprint = 3 // RFC 6091's subkey_cert_fingerprint
	descriptorFingerprint       = 0 // RFC 5081's cert_fingerprint
)

// Marshal returns the message with its header, in RFC 6091's form if m has a
// key ID, otherwise in RFC 5081's.
func (m *OpenPGPCertificate) Marshal() ([]byte, error) {
	return marshal(TypeCertificate, 16+len(m.Data), func(b *cryptobyte.Builder) {
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			if m.HasKeyID {
				b.AddUint8(descriptorSubkey)
				addBytes8(b, m.KeyID[:])
			} else {
				b.AddUint8(descriptorKey)
			}
			b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Data) })
		})
	})
}

// gnutlsShort is by how much the outer length of RFC 6091's form is too small
// in GnuTLS 3.0 to 3.5, which forget part of what precedes the certificate.
const gnutlsShort = 7

// ParseOpenPGPCertificate reads the message msg, with its header, in any of
// its forms: RFC 6091's, the same with GnuTLS's wrong outer length, and RFC
// 5081's. A fingerprint in place of the certificate, and no certificate at
// all, are errors that don't wrap ErrMalformed.
func ParseOpenPGPCertificate(msg []byte) (*OpenPGPCertificate, error) {
	s, err := open(msg, TypeCertificate)
	if err != nil {
		return nil, err
	}
	bad := malformed("the OpenPGP Certificate message")
	var outer uint32
	var descriptor uint8
	if !s.ReadUint24(&outer) {
		return nil, bad
	}
	if outer == 0 && s.Empty() {
		return nil, ErrNoCertificate
	}
	rest := len(s)
	if !s.ReadUint8(&descriptor) {
		return nil, bad
	}
	m := new(OpenPGPCertificate)
	switch descriptor {
	case descriptorKey:
	case descriptorSubkey:
		var id cryptobyte.String
		if !s.ReadUint8LengthPrefixed(&id) || len(id) != len(m.KeyID) {
			return nil, bad
		}
		m.KeyID, m.HasKeyID = [8]byte(id), true
	case descriptorFingerprint, descriptorSubkeyFingerprint:
		return nil, ErrOnlyFingerprint
	default:
		return nil, fmt.Errorf("%w: descriptor type %d", bad, descriptor)
	}
	var data cryptobyte.String
	if !s.ReadUint24LengthPrefixed(&data) || !s.Empty() {
		return nil, bad
	}
	if int(outer) != rest && !(m.HasKeyID && int(outer) == rest-gnutlsShort) {
		return nil, bad
	}
	if len(data) == 0 {
		return nil, ErrNoCertificate
	}
	m.Data = data
	return m, nil
}

// What an OpenPGP Certificate message may lack. The alerts are
// handshake_failure for none and unsupported_certificate for a fingerprint:
// RFC 6091, section 3.3, would have the peer fetch the key from a key server.
var (
	ErrNoCertificate   = errors.New("the Certificate message holds no certificate")
	ErrOnlyFingerprint = errors.New("the Certificate message holds only a fingerprint")
)

// A ServerKeyExchange holds the server's half of a key exchange, signed (RFC
// 5246, section 7.4.3, and RFC 8422, section 5.4). Of ECDHE and DHE only the
// chosen one's fields are set.
type ServerKeyExchange struct {
	Group Group  // ECDHE: the named curve
	Point []byte // ECDHE: the public value, 1 to 255 bytes

	P, G, Y []byte // DHE: prime, generator and public value, big-endian, at least one byte each

	Params    []byte // what is signed, after both randoms
	Scheme    SignatureScheme
	Signature []byte
}

// MaxDH is the most bytes that a number in a ServerKeyExchange may have:
// 8192 bits.
const MaxDH = 1024

// curveNamed is ECCurveType named_curve (RFC 8422, section 5.4); the others
// describe a curve, and are deprecated.
const curveNamed = 3

// Marshal returns the message with its header. It makes Params from the other
// fields, unless they are given.
func (m *ServerKeyExchange) Marshal() ([]byte, error) {
	if m.Params == nil {
		if err := m.MakeParams(); err != nil {
			return nil, err
		}
	}
	return marshal(TypeServerKeyExchange, 4+len(m.Params)+len(m.Signature), func(b *cryptobyte.Builder) {
		b.AddBytes(m.Params)
		b.AddUint16(uint16(m.Scheme))
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Signature) })
	})
}

// MakeParams sets Params from the fields of ECDHE, or of DHE where P is set.
func (m *ServerKeyExchange) MakeParams() (err error) {
	b := cryptobyte.NewBuilder(nil)
	if m.P == nil {
		b.AddUint8(curveNamed)
		b.AddUint16(uint16(m.Group))
		addBytes8(b, m.Point)
	}
	for _, n := range [][]byte{m.P, m.G, m.Y} {
		if m.P != nil {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(n) })
		}
	}
	m.Params, err = b.Bytes()
	return err
}

// ParseServerKeyExchange reads the message msg, with its header, of ECDHE, or
// of DHE where dhe is true.
func ParseServerKeyExchange(msg []byte, dhe bool) (*ServerKeyExchange, error) {
	s, err := open(msg, TypeServerKeyExchange)
	if err != nil {
		return nil, err
	}
	bad := malformed("the ServerKeyExchange")
	m := new(ServerKeyExchange)
	body := []byte(s)
	if dhe {
		for _, n := range []*[]byte{&m.P, &m.G, &m.Y} {
			var v cryptobyte.String
			if !s.ReadUint16LengthPrefixed(&v) || len(v) == 0 {
				return nil, bad
			}
			if len(v) > MaxDH+1 { // one more for a leading zero
				return nil, fmt.Errorf("%w: a number of %d bytes", bad, len(v))
			}
			*n = v
		}
	} else {
		var kind uint8
		var point cryptobyte.String
		if !s.ReadUint8(&kind) {
			return nil, bad
		}
		if kind != curveNamed {
			return nil, fmt.Errorf("%w: curve type %d", ErrExplicitCurve, kind)
		}
		if !s.ReadUint16((*uint16)(&m.Group)) || !s.ReadUint8LengthPrefixed(&point) || len(point) == 0 {
			return nil, bad
		}
		m.Point = point
	}
	m.Params = body[:len(body)-len(s)]
	var sig cryptobyte.String
	if !s.ReadUint16((*uint16)(&m.Scheme)) || !s.ReadUint16LengthPrefixed(&sig) || !s.Empty() {
		return nil, bad
	}
	m.Signature = sig
	return m, nil
}

// ErrExplicitCurve is the error for a curve that isn't named; alert
// handshake_failure (RFC 8422, section 5.4).
var ErrExplicitCurve = errors.New("the ServerKeyExchange describes a curve of its own")

// A ClientKeyExchange holds the client's public value: a point of 1 to 255
// bytes of ECDHE (RFC 8422, section 5.7), or a big-endian number of DHE (RFC
// 5246, section 7.4.7.2).
type ClientKeyExchange struct{ Public []byte }

// Marshal returns the message with its header, of ECDHE or of DHE.
func (m *ClientKeyExchange) Marshal(dhe bool) ([]byte, error) {
	return marshal(TypeClientKeyExchange, 2+len(m.Public), func(b *cryptobyte.Builder) {
		add := b.AddUint8LengthPrefixed
		if dhe {
			add = b.AddUint16LengthPrefixed
		}
		add(func(b *cryptobyte.Builder) { b.AddBytes(m.Public) })
	})
}

// ParseClientKeyExchange reads the message msg, with its header, of ECDHE or
// of DHE.
func ParseClientKeyExchange(msg []byte, dhe bool) (*ClientKeyExchange, error) {
	s, err := open(msg, TypeClientKeyExchange)
	if err != nil {
		return nil, err
	}
	var v cryptobyte.String
	read := s.ReadUint8LengthPrefixed
	if dhe {
		read = s.ReadUint16LengthPrefixed
	}
	if !read(&v) || len(v) == 0 || !s.Empty() {
		return nil, malformed("the ClientKeyExchange")
	}
	return &ClientKeyExchange{Public: v}, nil
}

// MarshalServerHelloDone returns the message with its header: it is empty
// (RFC 5246, section 7.4.5).
func MarshalServerHelloDone() []byte { return []byte{byte(TypeServerHelloDone), 0, 0, 0} }

// ParseServerHelloDone reads the message msg, with its header.
func ParseServerHelloDone(msg []byte) error {
	s, err := open(msg, TypeServerHelloDone)
	if err == nil && !s.Empty() {
		err = malformed("the ServerHelloDone")
	}
	return err
}

// Bodies of extensions that TLS 1.2 needs. The first three are empty or fixed.

// ExtendedMasterSecret is empty on both sides (RFC 7627, section 5.1).
func ExtendedMasterSecret() Extension { return Extension{ExtExtendedMasterSecret, nil} }

// RenegotiationInfo is renegotiation_info in a first handshake (RFC 5746,
// section 3.4).
func RenegotiationInfo() Extension { return Extension{ExtRenegotiationInfo, []byte{0}} }

// ParseRenegotiationInfo reads renegotiation_info: a list of bytes, empty in a
// first handshake.
func ParseRenegotiationInfo(b []byte) ([]byte, error) {
	s, v := cryptobyte.String(b), cryptobyte.String(nil)
	if !s.ReadUint8LengthPrefixed(&v) || !s.Empty() {
		return nil, malformed("the " + ExtRenegotiationInfo.String() + " extension")
	}
	return v, nil
}

// UncompressedPoints is ec_point_formats with the only format there is (RFC
// 8422, section 5.1.2).
func UncompressedPoints() Extension { return Extension{ExtECPointFormats, []byte{1, 0}} }

// ParseECPointFormats reads ec_point_formats and reports whether uncompressed
// is among them.
func ParseECPointFormats(b []byte) (uncompressed bool, err error) {
	s, list := cryptobyte.String(b), cryptobyte.String(nil)
	if !s.ReadUint8LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return false, malformed("the " + ExtECPointFormats.String() + " extension")
	}
	for _, f := range list {
		uncompressed = uncompressed || f == 0
	}
	return uncompressed, nil
}

// CertificateTypes lists the types that a TLS 1.2 client accepts (RFC 6091,
// section 3.1).
func CertificateTypes(ts ...CertificateType) Extension { return certificateTypes(ExtCertType, ts) }

// ParseCertificateTypes reads a client's cert_type.
func ParseCertificateTypes(b []byte) ([]CertificateType, error) {
	return parseCertificateTypes(ExtCertType, b)
}

// ChosenCertificateType is the server's choice (RFC 6091, section 3.2).
func ChosenCertificateType(t CertificateType) Extension {
	return Extension{ExtCertType, []byte{byte(t)}}
}

// ParseChosenCertificateType reads a server's cert_type.
func ParseChosenCertificateType(b []byte) (CertificateType, error) {
	if len(b) != 1 {
		return 0, malformed("the " + ExtCertType.String() + " extension")
	}
	return CertificateType(b[0]), nil
}
