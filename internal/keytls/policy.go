package keytls

import (
	"slices"

	"mandos/internal/keytls/wire"
)

// A Policy says which versions, cipher suites, groups, signature schemes and
// certificate types may be used, each list with the most preferred first. A
// nil list stands for the default's.
type Policy struct {
	Versions         []wire.Version
	Suites           []wire.Suite // of all versions
	Groups           []wire.Group
	KeyShares        []wire.Group // for which a ClientHello includes a share; a subset of Groups
	SignatureSchemes []wire.SignatureScheme
	CertificateTypes []wire.CertificateType // raw public keys for TLS 1.3, OpenPGP for TLS 1.2

	// For DHE, in TLS 1.2 only.
	MinDHBits int  // of the modulus; values below 2048, such as 0, mean 2048
	AnyPrime  bool // accept a prime modulus that isn't known to be a safe prime, as old GnuTLS makes them
}

// minDHBits returns the smallest acceptable size of a modulus, in bits.
func (p *Policy) minDHBits() int { return max(p.MinDHBits, leastDHBits) }

// defaultPolicy serves both generations with one ClientHello. It needs no
// second round trip with the GnuTLS of Debian 12 and 13, which accept X25519
// unless told otherwise, and GnuTLS 3.3 to 3.5 find their TLS 1.2 in it. A peer
// that wants another group asks for it in a HelloRetryRequest.
var defaultPolicy = Policy{
	Versions: []wire.Version{wire.VersionTLS13, wire.VersionTLS12},
	Suites: []wire.Suite{
		wire.AES256GCM, wire.ChaCha20Poly1305, wire.AES128GCM,
		wire.ECDHEECDSAAES256GCM, wire.ECDHEECDSAChaCha20Poly1305,
		wire.ECDHERSAAES256GCM, wire.ECDHERSAChaCha20Poly1305, wire.ECDHERSAAES128GCM,
		wire.DHERSAAES256GCM, wire.DHERSAChaCha20Poly1305,
	},
	Groups:    []wire.Group{wire.X25519MLKEM768, wire.X25519, wire.P256, wire.P384, wire.P521},
	KeyShares: []wire.Group{wire.X25519},
	SignatureSchemes: []wire.SignatureScheme{
		wire.Ed25519, wire.ECDSAP256SHA256, wire.ECDSAP384SHA384, wire.ECDSAP521SHA512,
		wire.RSAPSSSHA256, wire.RSAPSSSHA384, wire.RSAPSSSHA512,
		wire.RSAPKCS1SHA256, wire.RSAPKCS1SHA384, wire.RSAPKCS1SHA512,
	},
	CertificateTypes: []wire.CertificateType{wire.RawPublicKey, wire.OpenPGP},
}

// complete returns p with the default's lists where p has none. A version whose
// certificate type p lacks is removed.
func (p Policy) complete() Policy {
	if p.Versions == nil {
		p.Versions = defaultPolicy.Versions
	}
	if p.Suites == nil {
		p.Suites = defaultPolicy.Suites
	}
	if p.Groups == nil {
		p.Groups = defaultPolicy.Groups
	}
	if p.KeyShares == nil {
		for _, g := range defaultPolicy.KeyShares {
			if slices.Contains(p.Groups, g) {
				p.KeyShares = append(p.KeyShares, g)
			}
		}
		if p.KeyShares == nil { // at least one, to need no second round trip
			p.KeyShares = p.Groups[:min(1, len(p.Groups))]
		}
	}
	if p.SignatureSchemes == nil {
		p.SignatureSchemes = defaultPolicy.SignatureSchemes
	}
	if p.CertificateTypes == nil {
		p.CertificateTypes = defaultPolicy.CertificateTypes
	}
	p.Versions = slices.DeleteFunc(slices.Clone(p.Versions), func(v wire.Version) bool {
		t := wire.OpenPGP
		if v == wire.VersionTLS13 {
			t = wire.RawPublicKey
		}
		return !slices.Contains(p.CertificateTypes, t)
	})
	return p
}

func (p *Policy) has(v wire.Version) bool { return slices.Contains(p.Versions, v) }

func (p *Policy) signs(s wire.SignatureScheme) bool { return slices.Contains(p.SignatureSchemes, s) }
