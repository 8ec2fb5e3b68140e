package wire

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// An ExtensionType names an extension (RFC 8446, section 4.2).
type ExtensionType uint16

const (
	ExtServerName            ExtensionType = 0
	ExtStatusRequest         ExtensionType = 5
	ExtCertType              ExtensionType = 9 // RFC 6091, section 3.1
	ExtSupportedGroups       ExtensionType = 10
	ExtECPointFormats        ExtensionType = 11
	ExtSignatureAlgorithms   ExtensionType = 13
	ExtALPN                  ExtensionType = 16
	ExtClientCertificateType ExtensionType = 19 // RFC 7250, section 3
	ExtServerCertificateType ExtensionType = 20 // RFC 7250, section 3
	ExtExtendedMasterSecret  ExtensionType = 23 // RFC 7627, section 5.1
	ExtRecordSizeLimit       ExtensionType = 28 // RFC 8449
	ExtPreSharedKey          ExtensionType = 41
	ExtEarlyData             ExtensionType = 42
	ExtSupportedVersions     ExtensionType = 43
	ExtCookie                ExtensionType = 44
	ExtPSKModes              ExtensionType = 45
	ExtCertAuthorities       ExtensionType = 47
	ExtOIDFilters            ExtensionType = 48
	ExtPostHandshakeAuth     ExtensionType = 49
	ExtSignatureAlgsCert     ExtensionType = 50
	ExtKeyShare              ExtensionType = 51
	ExtRenegotiationInfo     ExtensionType = 0xFF01 // RFC 5746, section 3.2
)

var extensionNames = map[ExtensionType]string{
	ExtServerName:            "server_name",
	ExtStatusRequest:         "status_request",
	ExtCertType:              "cert_type",
	ExtSupportedGroups:       "supported_groups",
	ExtECPointFormats:        "ec_point_formats",
	ExtSignatureAlgorithms:   "signature_algorithms",
	ExtALPN:                  "application_layer_protocol_negotiation",
	ExtClientCertificateType: "client_certificate_type",
	ExtServerCertificateType: "server_certificate_type",
	ExtExtendedMasterSecret:  "extended_master_secret",
	ExtRecordSizeLimit:       "record_size_limit",
	ExtPreSharedKey:          "pre_shared_key",
	ExtEarlyData:             "early_data",
	ExtSupportedVersions:     "supported_versions",
	ExtCookie:                "cookie",
	ExtPSKModes:              "psk_key_exchange_modes",
	ExtCertAuthorities:       "certificate_authorities",
	ExtOIDFilters:            "oid_filters",
	ExtPostHandshakeAuth:     "post_handshake_auth",
	ExtSignatureAlgsCert:     "signature_algorithms_cert",
	ExtKeyShare:              "key_share",
	ExtRenegotiationInfo:     "renegotiation_info",
}

func (t ExtensionType) String() string {
	if name, ok := extensionNames[t]; ok {
		return name
	}
	return fmt.Sprintf("extension %d", uint16(t))
}

// An Extension is one extension with its body as on the wire.
type Extension struct {
	Type ExtensionType
	Data []byte
}

// Extensions is a block of extensions, in wire order, each type at most once.
type Extensions []Extension

// Get returns the body of the extension t and whether it is there.
func (es Extensions) Get(t ExtensionType) ([]byte, bool) {
	for _, e := range es {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

func (es Extensions) size() int {
	n := 2
	for _, e := range es {
		n += 4 + len(e.Data)
	}
	return n
}

// orEmpty makes a missing block an empty one, where a block must be.
func (es Extensions) orEmpty() Extensions {
	if es == nil {
		return Extensions{}
	}
	return es
}

// add writes the block; none at all where es is nil.
func (es Extensions) add(b *cryptobyte.Builder) {
	if es == nil {
		return
	}
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, e := range es {
			// Not AddUint16LengthPrefixed: it costs as much as all the rest.
			if len(e.Data) > math.MaxUint16 {
				b.SetError(fmt.Errorf("the extension %v has %d bytes", e.Type, len(e.Data)))
				return
			}
			b.AddUint16(uint16(e.Type))
			b.AddUint16(uint16(len(e.Data)))
			b.AddBytes(e.Data)
		}
	})
}

// readExtensions reads a block from the start of s. Where s is empty there is
// none, and it returns nil.
func readExtensions(s *cryptobyte.String, where string) (Extensions, error) {
	if s.Empty() {
		return nil, nil
	}
	var block cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&block) {
		return nil, malformed(where)
	}
	es := make(Extensions, 0, min(maxList, len(block)/4))
	for !block.Empty() {
		var t uint16
		var data cryptobyte.String
		if len(es) == maxList || !block.ReadUint16(&t) || !block.ReadUint16LengthPrefixed(&data) {
			return nil, malformed(where)
		}
		// RFC 8446, section 4.2: one of each type at most.
		if _, ok := es.Get(ExtensionType(t)); ok {
			return nil, fmt.Errorf("%s has a %w extension %v", where, ErrDuplicate, ExtensionType(t))
		}
		es = append(es, Extension{ExtensionType(t), data})
	}
	return es, nil
}

// The bodies. For each there is a function that makes the extension and one
// that parses its body.

// list16 makes an extension whose body is a list of 16-bit values, the list's
// length written with prefix bytes (1 or 2).
func list16[T ~uint16](t ExtensionType, prefix int, vs []T) Extension {
	data := make([]byte, prefix, prefix+2*len(vs))
	for _, v := range vs {
		data = append(data, byte(v>>8), byte(v))
	}
	n := 2 * len(vs)
	data[prefix-1] = byte(n)
	if prefix == 2 {
		data[0] = byte(n >> 8)
	}
	return Extension{t, data}
}

func parseList16[T ~uint16](t ExtensionType, prefix int, b []byte) ([]T, error) {
	s, list := cryptobyte.String(b), cryptobyte.String(nil)
	ok := false
	if prefix == 1 {
		ok = s.ReadUint8LengthPrefixed(&list)
	} else {
		ok = s.ReadUint16LengthPrefixed(&list)
	}
	if !ok || !s.Empty() || len(list) == 0 || len(list)%2 != 0 {
		return nil, malformed("the " + t.String() + " extension")
	}
	vs := make([]T, 0, len(list)/2)
	for !list.Empty() {
		var v uint16
		list.ReadUint16(&v)
		vs = append(vs, T(v))
	}
	return vs, nil
}

func parseOne16[T ~uint16](t ExtensionType, b []byte) (T, error) {
	if len(b) != 2 {
		return 0, malformed("the " + t.String() + " extension")
	}
	return T(b[0])<<8 | T(b[1]), nil
}

// SupportedVersions lists what a client offers (RFC 8446, section 4.2.1); at
// most 127 versions.
func SupportedVersions(vs ...Version) Extension { return list16(ExtSupportedVersions, 1, vs) }

// ParseSupportedVersions reads a client's supported_versions.
func ParseSupportedVersions(b []byte) ([]Version, error) {
	return parseList16[Version](ExtSupportedVersions, 1, b)
}

// SelectedVersion is the server's choice (RFC 8446, section 4.2.1).
func SelectedVersion(v Version) Extension {
	return Extension{ExtSupportedVersions, []byte{byte(v >> 8), byte(v)}}
}

// ParseSelectedVersion reads a server's supported_versions.
func ParseSelectedVersion(b []byte) (Version, error) {
	return parseOne16[Version](ExtSupportedVersions, b)
}

// SupportedGroups lists groups (RFC 8446, section 4.2.7).
func SupportedGroups(gs ...Group) Extension { return list16(ExtSupportedGroups, 2, gs) }

// ParseSupportedGroups reads supported_groups.
func ParseSupportedGroups(b []byte) ([]Group, error) {
	return parseList16[Group](ExtSupportedGroups, 2, b)
}

// SignatureAlgorithms lists signature schemes (RFC 8446, section 4.2.3).
func SignatureAlgorithms(ss ...SignatureScheme) Extension {
	return list16(ExtSignatureAlgorithms, 2, ss)
}

// ParseSignatureAlgorithms reads signature_algorithms.
func ParseSignatureAlgorithms(b []byte) ([]SignatureScheme, error) {
	return parseList16[SignatureScheme](ExtSignatureAlgorithms, 2, b)
}

// ServerCertificateTypes lists the types that a client takes from the server
// (RFC 7250, section 3).
func ServerCertificateTypes(ts ...CertificateType) Extension {
	return certificateTypes(ExtServerCertificateType, ts)
}

// ParseServerCertificateTypes reads a client's server_certificate_type.
func ParseServerCertificateTypes(b []byte) ([]CertificateType, error) {
	return parseCertificateTypes(ExtServerCertificateType, b)
}

// ServerCertificateType is the server's choice (RFC 7250, section 3).
func ServerCertificateType(t CertificateType) Extension {
	return Extension{ExtServerCertificateType, []byte{byte(t)}}
}

// ParseServerCertificateType reads a server's server_certificate_type.
func ParseServerCertificateType(b []byte) (CertificateType, error) {
	if len(b) != 1 {
		return 0, malformed("the server_certificate_type extension")
	}
	return CertificateType(b[0]), nil
}

func certificateTypes(t ExtensionType, ts []CertificateType) Extension {
	data := []byte{byte(len(ts))}
	for _, t := range ts {
		data = append(data, byte(t))
	}
	return Extension{t, data}
}

func parseCertificateTypes(t ExtensionType, b []byte) ([]CertificateType, error) {
	if len(b) < 2 || int(b[0]) != len(b)-1 {
		return nil, malformed("the " + t.String() + " extension")
	}
	var ts []CertificateType
	for _, v := range b[1:] {
		ts = append(ts, CertificateType(v))
	}
	return ts, nil
}

// A KeyShare is one side's public value in a group (RFC 8446, section 4.2.8).
type KeyShare struct {
	Group Group
	Data  []byte // at least one byte
}

// ClientKeyShares lists a client's shares.
func ClientKeyShares(ks ...KeyShare) Extension {
	n := 2
	for _, k := range ks {
		n += 4 + len(k.Data)
	}
	data := append(make([]byte, 0, n), byte((n-2)>>8), byte(n-2))
	for _, k := range ks {
		data = appendKeyShare(data, k)
	}
	return Extension{ExtKeyShare, data}
}

// ParseClientKeyShares reads a client's key_share; it may be empty, and holds
// no group twice.
func ParseClientKeyShares(b []byte) ([]KeyShare, error) {
	s, list := cryptobyte.String(b), cryptobyte.String(nil)
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() {
		return nil, malformed("the key_share extension")
	}
	var ks []KeyShare
	for !list.Empty() {
		k, ok := readKeyShare(&list)
		if !ok || len(ks) == maxList {
			return nil, malformed("the key_share extension")
		}
		if slices.ContainsFunc(ks, func(o KeyShare) bool { return o.Group == k.Group }) {
			return nil, fmt.Errorf("the key_share extension has a %w share for %v", ErrDuplicate, k.Group)
		}
		ks = append(ks, k)
	}
	return ks, nil
}

// ServerKeyShare is the server's share.
func ServerKeyShare(k KeyShare) Extension {
	return Extension{ExtKeyShare, appendKeyShare(make([]byte, 0, 4+len(k.Data)), k)}
}

// ParseServerKeyShare reads a ServerHello's key_share.
func ParseServerKeyShare(b []byte) (KeyShare, error) {
	s := cryptobyte.String(b)
	k, ok := readKeyShare(&s)
	if !ok || !s.Empty() {
		return KeyShare{}, malformed("the key_share extension")
	}
	return k, nil
}

// RetryGroup is the group that a HelloRetryRequest asks for.
func RetryGroup(g Group) Extension { return Extension{ExtKeyShare, []byte{byte(g >> 8), byte(g)}} }

// ParseRetryGroup reads a HelloRetryRequest's key_share.
func ParseRetryGroup(b []byte) (Group, error) { return parseOne16[Group](ExtKeyShare, b) }

func appendKeyShare(dst []byte, k KeyShare) []byte {
	dst = append(dst, byte(k.Group>>8), byte(k.Group), byte(len(k.Data)>>8), byte(len(k.Data)))
	return append(dst, k.Data...)
}

func readKeyShare(s *cryptobyte.String) (KeyShare, bool) {
	var k KeyShare
	var data cryptobyte.String
	if !s.ReadUint16((*uint16)(&k.Group)) || !s.ReadUint16LengthPrefixed(&data) || len(data) == 0 {
		return KeyShare{}, false
	}
	k.Data = data
	return k, true
}

// Cookie is a HelloRetryRequest's cookie and its echo (RFC 8446, section
// 4.2.2).
func Cookie(c []byte) Extension {
	return Extension{ExtCookie, append([]byte{byte(len(c) >> 8), byte(len(c))}, c...)}
}

// ParseCookie reads a cookie: at least one byte.
func ParseCookie(b []byte) ([]byte, error) {
	s, c := cryptobyte.String(b), cryptobyte.String(nil)
	if !s.ReadUint16LengthPrefixed(&c) || !s.Empty() || len(c) == 0 {
		return nil, malformed("the cookie extension")
	}
	return c, nil
}
