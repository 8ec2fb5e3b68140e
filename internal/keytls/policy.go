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
	KeyShares        []wire.Group // for which a ClientHello brings a share; each one of Groups
	SignatureSchemes []wire.SignatureScheme
	CertificateTypes []wire.CertificateType
}

// defaultPolicy needs no second round trip with the GnuTLS of Debian 12 and
// 13, and takes the post-quantum hybrid where the peer has it.
var defaultPolicy = Policy{
	Versions:  []wire.Version{wire.VersionTLS13},
	Suites:    []wire.Suite{wire.AES256GCM, wire.ChaCha20Poly1305, wire.AES128GCM},
	Groups:    []wire.Group{wire.X25519MLKEM768, wire.X25519, wire.P256, wire.P384, wire.P521},
	KeyShares: []wire.Group{wire.X25519, wire.P256},
	SignatureSchemes: []wire.SignatureScheme{
		wire.Ed25519, wire.ECDSAP256SHA256, wire.ECDSAP384SHA384, wire.ECDSAP521SHA512,
		wire.RSAPSSSHA256, wire.RSAPSSSHA384, wire.RSAPSSSHA512,
	},
	CertificateTypes: []wire.CertificateType{wire.RawPublicKey},
}

// complete returns p with the default's lists where p has none.
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
		if p.KeyShares == nil { // one at least, to need no second round trip
			p.KeyShares = p.Groups[:min(1, len(p.Groups))]
		}
	}
	if p.SignatureSchemes == nil {
		p.SignatureSchemes = defaultPolicy.SignatureSchemes
	}
	if p.CertificateTypes == nil {
		p.CertificateTypes = defaultPolicy.CertificateTypes
	}
	return p
}

func (p *Policy) has(v wire.Version) bool { return slices.Contains(p.Versions, v) }

func (p *Policy) signs(s wire.SignatureScheme) bool { return slices.Contains(p.SignatureSchemes, s) }
