// Package wire turns TLS messages into bytes and back: records' headers,
// handshake messages and the bodies of extensions, of TLS 1.3 (RFC 8446) and
// of what TLS 1.2 shares with it. It is pure: no I/O, no clock, no state.
//
// Every parser consumes its whole input: a truncated message is an error, and
// so are trailing bytes. Parsed values hold slices of the input.
package wire

import (
	"errors"
	"fmt"
)

// A Version is a TLS version in its form on the wire.
type Version uint16

const (
	VersionTLS10 Version = 0x0301
	VersionTLS11 Version = 0x0302
	VersionTLS12 Version = 0x0303
	VersionTLS13 Version = 0x0304
)

func (v Version) String() string {
	if v >= VersionTLS10 && v <= VersionTLS13 {
		return fmt.Sprintf("TLS 1.%d", v-VersionTLS10)
	}
	return fmt.Sprintf("version %#04x", uint16(v))
}

// A ContentType is what a record holds (RFC 8446, section 5.1).
type ContentType uint8

const (
	TypeChangeCipherSpec ContentType = 20
	TypeAlert            ContentType = 21
	TypeHandshake        ContentType = 22
	TypeApplicationData  ContentType = 23
)

func (t ContentType) String() string {
	switch t {
	case TypeChangeCipherSpec:
		return "change_cipher_spec"
	case TypeAlert:
		return "alert"
	case TypeHandshake:
		return "handshake"
	case TypeApplicationData:
		return "application_data"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// A Suite is a cipher suite (RFC 8446, appendix B.4, and for TLS 1.2 RFC 5288,
// 5289 and 7905).
type Suite uint16

const (
	AES128GCM        Suite = 0x1301 // TLS_AES_128_GCM_SHA256
	AES256GCM        Suite = 0x1302 // TLS_AES_256_GCM_SHA384
	ChaCha20Poly1305 Suite = 0x1303 // TLS_CHACHA20_POLY1305_SHA256

	DHERSAAES256GCM            Suite = 0x009F
	ECDHEECDSAAES256GCM        Suite = 0xC02C
	ECDHERSAAES128GCM          Suite = 0xC02F
	ECDHERSAAES256GCM          Suite = 0xC030
	ECDHERSAChaCha20Poly1305   Suite = 0xCCA8
	ECDHEECDSAChaCha20Poly1305 Suite = 0xCCA9
	DHERSAChaCha20Poly1305     Suite = 0xCCAA
	EmptyRenegotiationInfoSCSV Suite = 0x00FF // RFC 5746, section 3.3
)

// IsTLS13 reports whether s is a suite of TLS 1.3.
func (s Suite) IsTLS13() bool { return s>>8 == 0x13 }

func (s Suite) String() string {
	switch s {
	case AES128GCM:
		return "TLS_AES_128_GCM_SHA256"
	case AES256GCM:
		return "TLS_AES_256_GCM_SHA384"
	case ChaCha20Poly1305:
		return "TLS_CHACHA20_POLY1305_SHA256"
	case DHERSAAES256GCM:
		return "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"
	case ECDHEECDSAAES256GCM:
		return "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
	case ECDHERSAAES128GCM:
		return "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	case ECDHERSAAES256GCM:
		return "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
	case ECDHERSAChaCha20Poly1305:
		return "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
	case ECDHEECDSAChaCha20Poly1305:
		return "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
	case DHERSAAES128GCM:
		return "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"
	case DHEDSSAES128GCM:
		return "TLS_DHE_DSS_WITH_AES_128_GCM_SHA256"
	case DHEDSSAES256GCM:
		return "TLS_DHE_DSS_WITH_AES_256_GCM_SHA384"
	case ECDHEECDSAAES128GCM:
		return "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	case DHERSAChaCha20Poly1305:
		return "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
	}
	return fmt.Sprintf("suite %#04x", uint16(s))
}

// A Group is a way to agree on a shared secret (RFC 8446, section 4.2.7).
type Group uint16

const (
	P256           Group = 0x0017
	P384           Group = 0x0018
	P521           Group = 0x0019
	X25519         Group = 0x001D
	X25519MLKEM768 Group = 0x11EC // draft-ietf-tls-ecdhe-mlkem
)

func (g Group) String() string {
	switch g {
	case P256:
		return "secp256r1"
	case P384:
		return "secp384r1"
	case P521:
		return "secp521r1"
	case X25519:
		return "x25519"
	case X25519MLKEM768:
		return "X25519MLKEM768"
	}
	return fmt.Sprintf("group %#04x", uint16(g))
}

// A SignatureScheme is a signature algorithm with its hash and, in TLS 1.3,
// its curve (RFC 8446, section 4.2.3).
type SignatureScheme uint16

const (
	RSAPKCS1SHA256  SignatureScheme = 0x0401 // TLS 1.2 only
	RSAPKCS1SHA384  SignatureScheme = 0x0501 // TLS 1.2 only
	RSAPKCS1SHA512  SignatureScheme = 0x0601 // TLS 1.2 only
	ECDSAP256SHA256 SignatureScheme = 0x0403
	ECDSAP384SHA384 SignatureScheme = 0x0503
	ECDSAP521SHA512 SignatureScheme = 0x0603
	RSAPSSSHA256    SignatureScheme = 0x0804 // rsa_pss_rsae_sha256
	RSAPSSSHA384    SignatureScheme = 0x0805
	RSAPSSSHA512    SignatureScheme = 0x0806
	Ed25519         SignatureScheme = 0x0807
)

func (s SignatureScheme) String() string {
	switch s {
	case RSAPKCS1SHA256:
		return "rsa_pkcs1_sha256"
	case RSAPKCS1SHA384:
		return "rsa_pkcs1_sha384"
	case RSAPKCS1SHA512:
		return "rsa_pkcs1_sha512"
	case ECDSAP256SHA256:
		return "ecdsa_secp256r1_sha256"
	case ECDSAP384SHA384:
		return "ecdsa_secp384r1_sha384"
	case ECDSAP521SHA512:
		return "ecdsa_secp521r1_sha512"
	case DSASHA256:
		return "dsa_sha256"
	case RSAPSSSHA256:
		return "rsa_pss_rsae_sha256"
	case RSAPSSSHA384:
		return "rsa_pss_rsae_sha384"
	case RSAPSSSHA512:
		return "rsa_pss_rsae_sha512"
	case Ed25519:
		return "ed25519"
	}
	return fmt.Sprintf("signature scheme %#04x", uint16(s))
}

// A CertificateType is how a peer presents its public key (RFC 7250, section 3,
// and RFC 6091, section 3.1).
type CertificateType uint8

const (
	X509         CertificateType = 0
	OpenPGP      CertificateType = 1
	RawPublicKey CertificateType = 2
)

func (t CertificateType) String() string {
	switch t {
	case X509:
		return "X.509"
	case OpenPGP:
		return "OpenPGP"
	case RawPublicKey:
		return "raw public key"
	}
	return fmt.Sprintf("certificate type %d", uint8(t))
}

// A HandshakeType says which handshake message follows (RFC 8446, section 4).
type HandshakeType uint8

const (
	TypeClientHello         HandshakeType = 1
	TypeServerHello         HandshakeType = 2
	TypeNewSessionTicket    HandshakeType = 4
	TypeEncryptedExtensions HandshakeType = 8
	TypeCertificate         HandshakeType = 11
	TypeServerKeyExchange   HandshakeType = 12 // TLS 1.2
	TypeCertificateRequest  HandshakeType = 13
	TypeServerHelloDone     HandshakeType = 14 // TLS 1.2
	TypeCertificateVerify   HandshakeType = 15
	TypeClientKeyExchange   HandshakeType = 16 // TLS 1.2
	TypeFinished            HandshakeType = 20
	TypeKeyUpdate           HandshakeType = 24
	TypeMessageHash         HandshakeType = 254
)

func (t HandshakeType) String() string {
	switch t {
	case TypeClientHello:
		return "ClientHello"
	case TypeServerHello:
		return "ServerHello"
	case TypeNewSessionTicket:
		return "NewSessionTicket"
	case TypeEncryptedExtensions:
		return "EncryptedExtensions"
	case TypeCertificate:
		return "Certificate"
	case TypeServerKeyExchange:
		return "ServerKeyExchange"
	case TypeCertificateRequest:
		return "CertificateRequest"
	case TypeServerHelloDone:
		return "ServerHelloDone"
	case TypeCertificateVerify:
		return "CertificateVerify"
	case TypeClientKeyExchange:
		return "ClientKeyExchange"
	case TypeFinished:
		return "Finished"
	case TypeKeyUpdate:
		return "KeyUpdate"
	case TypeMessageHash:
		return "message_hash"
	}
	return fmt.Sprintf("handshake message %d", uint8(t))
}

// ErrMalformed is what every parse error wraps; the alert for it is
// decode_error (RFC 8446, section 6.2).
var ErrMalformed = errors.New("malformed")

// ErrDuplicate is wrapped by the error for a list that holds something twice
// that it may hold only once; the alert for it is illegal_parameter.
var ErrDuplicate = errors.New("duplicate")

func malformed(what string) error { return malformedError(what) }

// A malformedError says what is malformed. Its text is built only if it is
// read: parsers create the error before they know whether there is one.
type malformedError string

func (e malformedError) Error() string { return string(e) + " is " + ErrMalformed.Error() }
func (malformedError) Unwrap() error   { return ErrMalformed }
