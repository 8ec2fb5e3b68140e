package keytls

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mandos/internal/keytls/wire"
)

// A priority is the state of reading a priority string: what is on, in order.
type priority struct {
	versions []wire.Version
	ciphers  []cipherName
	kx       []kxName
	groups   []wire.Group
	schemes  []wire.SignatureScheme
	types    []wire.CertificateType

	typesNamed bool // a type was named; before that, both are on
	aead       bool
	minDHBits  int
	anyPrime   bool
}

type (
	cipherName string
	kxName     string
)

const (
	aes256   cipherName = "AES-256-GCM"
	aes128   cipherName = "AES-128-GCM"
	chacha20 cipherName = "CHACHA20-POLY1305"

	ecdheECDSA kxName = "ECDHE-ECDSA"
	ecdheRSA   kxName = "ECDHE-RSA"
	dheRSA     kxName = "DHE-RSA"
	dheDSS     kxName = "DHE-DSS"
)

// suitesOf maps a cipher and a key exchange to their suite; the empty key
// exchange stands for TLS 1.3.
var suitesOf = map[cipherName]map[kxName]wire.Suite{
	aes256: {
		"": wire.AES256GCM, ecdheECDSA: wire.ECDHEECDSAAES256GCM, ecdheRSA: wire.ECDHERSAAES256GCM,
		dheRSA: wire.DHERSAAES256GCM, dheDSS: wire.DHEDSSAES256GCM,
	},
	aes128: {
		"": wire.AES128GCM, ecdheECDSA: wire.ECDHEECDSAAES128GCM, ecdheRSA: wire.ECDHERSAAES128GCM,
		dheRSA: wire.DHERSAAES128GCM, dheDSS: wire.DHEDSSAES128GCM,
	},
	chacha20: {
		"": wire.ChaCha20Poly1305, ecdheECDSA: wire.ECDHEECDSAChaCha20Poly1305,
		ecdheRSA: wire.ECDHERSAChaCha20Poly1305, dheRSA: wire.DHERSAChaCha20Poly1305,
	},
}

// normal is GnuTLS's NORMAL, as far as it is supported here.
func normal() priority {
	return priority{
		versions: []wire.Version{wire.VersionTLS13, wire.VersionTLS12},
		ciphers:  []cipherName{aes256, chacha20, aes128},
		kx:       []kxName{ecdheECDSA, ecdheRSA, dheRSA},
		groups:   slices.Clone(defaultPolicy.Groups),
		schemes:  slices.Clone(defaultPolicy.SignatureSchemes),
		types:    slices.Clone(defaultPolicy.CertificateTypes),
		aead:     true,
	}
}

// levels are the words that stand for a whole set. Certificate types aren't
// part of them.
var levels = map[string]func() priority{
	"NORMAL":      normal,
	"LEGACY":      normal,
	"PFS":         normal, // everything here has it
	"SECURE128":   normal,
	"SECURE192":   strong,
	"SECURE256":   strong,
	"PERFORMANCE": quick,
	"SUITEB128":   func() priority { return suiteB(wire.P256, wire.P384) },
	"SUITEB192":   func() priority { return suiteB(wire.P384) },
	"NONE":        func() priority { return priority{typesNamed: true} },
}

func quick() priority {
	p := normal()
	p.ciphers = []cipherName{aes128, chacha20, aes256}
	return p
}

func strong() priority {
	p := normal()
	p.ciphers = []cipherName{aes256, chacha20}
	p.groups = []wire.Group{wire.P384, wire.P521}
	p.schemes = []wire.SignatureScheme{
		wire.ECDSAP384SHA384, wire.ECDSAP521SHA512, wire.RSAPSSSHA384, wire.RSAPSSSHA512, wire.RSAPKCS1SHA384, wire.RSAPKCS1SHA512,
	}
	return p
}

// suiteB is RFC 6460's profile.
func suiteB(groups ...wire.Group) priority {
	p := normal()
	p.kx, p.groups = []kxName{ecdheECDSA}, groups
	p.ciphers, p.schemes = []cipherName{aes256}, []wire.SignatureScheme{wire.ECDSAP384SHA384}
	if slices.Contains(groups, wire.P256) {
		p.ciphers = []cipherName{aes128, aes256}
		p.schemes = []wire.SignatureScheme{wire.ECDSAP256SHA256, wire.ECDSAP384SHA384}
	}
	return p
}

// The words after +, - and ! for what is supported here.
var (
	versionWords = map[string]wire.Version{"VERS-TLS1.3": wire.VersionTLS13, "VERS-TLS1.2": wire.VersionTLS12}
	groupWords   = map[string]wire.Group{
		"SECP256R1": wire.P256, "SECP384R1": wire.P384, "SECP521R1": wire.P521,
		"X25519": wire.X25519, "X25519-MLKEM768": wire.X25519MLKEM768,
	}
	schemeWords = map[string][]wire.SignatureScheme{
		"RSA-SHA256": {wire.RSAPKCS1SHA256}, "RSA-SHA384": {wire.RSAPKCS1SHA384}, "RSA-SHA512": {wire.RSAPKCS1SHA512},
		"RSA-PSS-RSAE-SHA256": {wire.RSAPSSSHA256}, "RSA-PSS-RSAE-SHA384": {wire.RSAPSSSHA384}, "RSA-PSS-RSAE-SHA512": {wire.RSAPSSSHA512},
		"ECDSA-SHA256": {wire.ECDSAP256SHA256}, "ECDSA-SHA384": {wire.ECDSAP384SHA384}, "ECDSA-SHA512": {wire.ECDSAP521SHA512},
		"ECDSA-SECP256R1-SHA256": {wire.ECDSAP256SHA256}, "ECDSA-SECP384R1-SHA384": {wire.ECDSAP384SHA384}, "ECDSA-SECP521R1-SHA512": {wire.ECDSAP521SHA512},
		"EDDSA-ED25519": {wire.Ed25519}, "DSA-SHA256": {wire.DSASHA256},
	}
	typeWords = map[string]wire.CertificateType{"RAWPK": wire.RawPublicKey, "OPENPGP": wire.OpenPGP}
)

// absent are words of GnuTLS for things that aren't supported here. Removing or
// adding them has no effect.
var absent = wordSet(`
	VERS-TLS1.1 VERS-TLS1.0 VERS-SSL3.0 VERS-DTLS1.2 VERS-DTLS1.0 VERS-DTLS0.9 VERS-DTLS-ALL
	AES-256-CCM AES-128-CCM AES-256-CCM-8 AES-128-CCM-8 AES-256-CBC AES-192-CBC AES-128-CBC
	CAMELLIA-256-GCM CAMELLIA-128-GCM CAMELLIA-256-CBC CAMELLIA-192-CBC CAMELLIA-128-CBC
	3DES-CBC DES-CBC ARCFOUR-128 ARCFOUR-40 RC2-40 SALSA20-256 ESTREAM-SALSA20-256 NULL
	RSA RSA-EXPORT PSK RSA-PSK DHE-PSK ECDHE-PSK SRP SRP-RSA SRP-DSS ANON-DH ANON-ECDH
	SHA1 SHA256 SHA384 SHA512 MD5 UMAC-96 UMAC-128
	COMP-ALL COMP-NULL COMP-DEFLATE COMP-LZO
	GROUP-SECP192R1 GROUP-SECP224R1 GROUP-X448 GROUP-DH-ALL GROUP-SECP256R1-MLKEM768 GROUP-SECP384R1-MLKEM1024
	GROUP-FFDHE2048 GROUP-FFDHE3072 GROUP-FFDHE4096 GROUP-FFDHE6144 GROUP-FFDHE8192
	CURVE-SECP192R1 CURVE-SECP224R1 CURVE-X448
	SIGN-RSA-MD5 SIGN-RSA-SHA1 SIGN-RSA-SHA224 SIGN-ECDSA-SHA1 SIGN-ECDSA-SHA224
	SIGN-DSA-SHA1 SIGN-DSA-SHA224 SIGN-DSA-SHA384 SIGN-DSA-SHA512 SIGN-EDDSA-ED448
	SIGN-RSA-PSS-SHA256 SIGN-RSA-PSS-SHA384 SIGN-RSA-PSS-SHA512
	CTYPE-X.509 CTYPE-X509 CTYPE-SRV-X.509 CTYPE-SRV-X509
	CTYPE-CLI-X.509 CTYPE-CLI-X509 CTYPE-CLI-RAWPK CTYPE-CLI-OPENPGP CTYPE-CLI-ALL`)

// options are GnuTLS's options that make no difference here: secure
// renegotiation is always required and no renegotiation ever done, the extended
// master secret is always offered, and there are no tickets, no CBC and no
// X.509.
var options = wordSet(`
	DUMBFW NO_EXTENSIONS NO_STATUS_REQUEST NO_TICKETS NO_TICKETS_TLS12 NO_SESSION_HASH FORCE_SESSION_HASH
	NO_ETM FORCE_ETM SERVER_PRECEDENCE SAFE_RENEGOTIATION PARTIAL_RENEGOTIATION UNSAFE_RENEGOTIATION
	DISABLE_SAFE_RENEGOTIATION FALLBACK_SCSV DISABLE_WILDCARDS DISABLE_TLS13_COMPAT_MODE
	VERIFY_ALLOW_BROKEN VERIFY_ALLOW_SIGN_RSA_MD5 VERIFY_ALLOW_SIGN_WITH_SHA1 VERIFY_DISABLE_CRL_CHECKS
	VERIFY_ALLOW_X509_V1_CA_CRT SSL3_RECORD_VERSION LATEST_RECORD_VERSION NEW_PADDING STATELESS_COMPRESSION
	ALLOW_SMALL_RECORDS KTLS`)

// profiles say how many bits a DHE group must have (GnuTLS's manual, "Selecting
// cryptographic key sizes"). They don't apply to keys, which are known one by
// one; GnuTLS doesn't apply them to raw public keys either.
var profiles = map[string]int{
	"VERY_WEAK": 0, "LOW": 0, "LEGACY": 0, "MEDIUM": 2048, "HIGH": 3072, "ULTRA": 8192, "FUTURE": 15360,
	"SUITEB128": 3072, "SUITEB192": 8192,
}

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// ParsePriority reads a priority string in the syntax of GnuTLS: words
// separated by colons, in upper or lower case. The empty string stands for the
// default, which serves both generations.
//
// TLS 1.3 goes with CTYPE-RAWPK and TLS 1.2 with CTYPE-OPENPGP; where a string
// names no certificate type, both are on. A word that GnuTLS doesn't know is an
// error, and so is a string that leaves nothing to connect with.
func ParsePriority(s string) (Policy, error) {
	if strings.TrimSpace(s) == "" {
		return Policy{}.complete(), nil
	}
	p := normal() // as in GnuTLS, also the start of a string that begins with + or -
	for word := range strings.SplitSeq(s, ":") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		if err := p.apply(strings.ToUpper(word)); err != nil {
			return Policy{}, fmt.Errorf("the priority string's word %q %w", word, err)
		}
	}
	policy, err := p.policy()
	if err != nil {
		return Policy{}, fmt.Errorf("the priority string %q %w", s, err)
	}
	return policy, nil
}

var errWord = errors.New("isn't known")

// apply applies one word, in upper case.
func (p *priority) apply(word string) error {
	if level, ok := levels[word]; ok {
		l := level()
		if !l.typesNamed { // types aren't part of a level
			l.types, l.typesNamed = p.types, p.typesNamed
		}
		l.minDHBits, l.anyPrime = p.minDHBits, p.anyPrime
		*p = l
		return nil
	}
	switch word[0] {
	case '%':
		return p.option(word[1:])
	case '@':
		return errors.New("stands for a string that the system's GnuTLS configuration has, which mandos doesn't read: write it out")
	case '+':
		return p.change(word[1:], true)
	case '-', '!':
		return p.change(word[1:], false)
	}
	if known := (&priority{}).change(word, true); known == nil {
		return errors.New("needs a + or a - in front")
	}
	return errWord
}

func (p *priority) option(word string) error {
	if name, ok := strings.CutPrefix(word, "PROFILE_"); ok {
		bits, ok := profiles[name]
		if !ok {
			return errWord
		}
		p.minDHBits = bits
		return nil
	}
	if word == "COMPAT" {
		p.anyPrime = true
		return nil
	}
	if !options[word] {
		return errWord
	}
	return nil
}

// set appends vs to list, or removes them.
func set[T comparable](list *[]T, on bool, vs ...T) error {
	for _, v := range vs {
		i := slices.Index(*list, v)
		switch {
		case on && i < 0:
			*list = append(*list, v)
		case !on && i >= 0:
			*list = slices.Delete(*list, i, i+1)
		}
	}
	return nil
}

// change turns on or off what word stands for.
func (p *priority) change(word string, on bool) error {
	all := normal()
	switch word {
	case "VERS-ALL", "VERS-TLS-ALL":
		return set(&p.versions, on, all.versions...)
	case "CIPHER-ALL":
		return set(&p.ciphers, on, all.ciphers...)
	case "KX-ALL":
		if !on {
			p.kx = nil
		}
		return set(&p.kx, on, all.kx...)
	case "GROUP-ALL", "GROUP-EC-ALL", "CURVE-ALL":
		return set(&p.groups, on, all.groups...)
	case "SIGN-ALL":
		if !on {
			p.schemes = nil
		}
		return set(&p.schemes, on, all.schemes...)
	case "CTYPE-ALL", "CTYPE-SRV-ALL":
		p.typesNamed = true
		return set(&p.types, on, all.types...)
	case "MAC-ALL", "AEAD":
		p.aead = on
		return nil
	}
	if level, ok := levels[word]; ok {
		l := level()
		p.aead = p.aead || on && l.aead
		return errors.Join(
			set(&p.versions, on, l.versions...), set(&p.ciphers, on, l.ciphers...), set(&p.kx, on, l.kx...),
			set(&p.groups, on, l.groups...), set(&p.schemes, on, l.schemes...))
	}
	if v, ok := versionWords[word]; ok {
		return set(&p.versions, on, v)
	}
	if _, ok := suitesOf[cipherName(word)]; ok {
		return set(&p.ciphers, on, cipherName(word))
	}
	if _, ok := suitesOf[aes256][kxName(word)]; ok && word != "" {
		return set(&p.kx, on, kxName(word))
	}
	prefix, name, _ := strings.Cut(word, "-")
	switch prefix {
	case "GROUP", "CURVE":
		if g, ok := groupWords[name]; ok {
			return set(&p.groups, on, g)
		}
	case "SIGN":
		if s, ok := schemeWords[name]; ok {
			return set(&p.schemes, on, s...)
		}
	case "CTYPE":
		if t, ok := typeWords[strings.TrimPrefix(name, "SRV-")]; ok {
			if on && !p.typesNamed {
				p.types, p.typesNamed = nil, true
			}
			return set(&p.types, on, t)
		}
	}
	if !absent[word] {
		return errWord
	}
	return nil
}

// policy combines what can be used together, and drops the rest.
func (p *priority) policy() (Policy, error) {
	out := Policy{
		Groups: p.groups, SignatureSchemes: p.schemes, CertificateTypes: p.types,
		MinDHBits: max(p.minDHBits, leastDHBits), AnyPrime: p.anyPrime,
	}
	switch {
	case len(p.types) == 0:
		return out, errors.New("leaves no certificate type: +CTYPE-RAWPK is for new clients, +CTYPE-OPENPGP for old ones")
	case len(p.schemes) == 0:
		return out, errors.New("leaves no signature algorithm")
	case len(p.ciphers) == 0 || !p.aead:
		return out, errors.New("leaves no cipher: AES-256-GCM, AES-128-GCM and CHACHA20-POLY1305 with the MAC AEAD are known")
	case len(p.groups) == 0:
		return out, errors.New("leaves no group")
	}
	suites := map[wire.Version][]wire.Suite{}
	if slices.Contains(p.types, wire.RawPublicKey) && p.signs(func(s wire.SignatureScheme) bool { return s == wire.Ed25519 || isECDSA(s) || isPSS(s) }) {
		for _, c := range p.ciphers {
			suites[wire.VersionTLS13] = append(suites[wire.VersionTLS13], suitesOf[c][""])
		}
	}
	if slices.Contains(p.types, wire.OpenPGP) {
		for _, kx := range p.kx {
			if !p.usable(kx) {
				continue
			}
			for _, c := range p.ciphers {
				if s, ok := suitesOf[c][kx]; ok {
					suites[wire.VersionTLS12] = append(suites[wire.VersionTLS12], s)
				}
			}
		}
	}
	// Versions by preference in TLS itself, whatever their order here.
	for _, v := range []wire.Version{wire.VersionTLS13, wire.VersionTLS12} {
		if slices.Contains(p.versions, v) && len(suites[v]) > 0 {
			out.Versions = append(out.Versions, v)
			out.Suites = append(out.Suites, suites[v]...)
		}
	}
	if len(out.Versions) == 0 {
		return out, errors.New("leaves no version of TLS: 1.3 goes with CTYPE-RAWPK, 1.2 with CTYPE-OPENPGP, and each needs a key exchange and a signature algorithm that it knows")
	}
	return out.complete(), nil
}

// usable reports whether groups and signature schemes for kx are on.
func (p *priority) usable(kx kxName) bool {
	curve := slices.ContainsFunc(p.groups, func(g wire.Group) bool { return curves[g] != nil })
	dhe := p.minDHBits <= 8192 // the largest group of RFC 7919
	switch kx {
	case ecdheECDSA:
		return curve && p.signs(isECDSA)
	case ecdheRSA:
		return curve && p.signs(isRSA)
	case dheRSA:
		return dhe && p.signs(isRSA)
	default:
		return dhe && p.signs(func(s wire.SignatureScheme) bool { return s == wire.DSASHA256 })
	}
}

func (p *priority) signs(is func(wire.SignatureScheme) bool) bool {
	return slices.ContainsFunc(p.schemes, is)
}

func isECDSA(s wire.SignatureScheme) bool {
	return s == wire.ECDSAP256SHA256 || s == wire.ECDSAP384SHA384 || s == wire.ECDSAP521SHA512
}
func isPSS(s wire.SignatureScheme) bool {
	return s == wire.RSAPSSSHA256 || s == wire.RSAPSSSHA384 || s == wire.RSAPSSSHA512
}
func isRSA(s wire.SignatureScheme) bool {
	return isPSS(s) || s == wire.RSAPKCS1SHA256 || s == wire.RSAPKCS1SHA384 || s == wire.RSAPKCS1SHA512
}

// String describes p in one line, for people.
func (p Policy) String() string {
	p = p.complete()
	var b strings.Builder
	for _, part := range []struct {
		name  string
		items string
	}{
		{"versions", names(p.Versions)},
		{"cipher suites", names(p.Suites)},
		{"groups", names(p.Groups)},
		{"signatures", names(p.SignatureSchemes)},
		{"certificates", names(p.CertificateTypes)},
	} {
		fmt.Fprintf(&b, "%s: %s; ", part.name, part.items)
	}
	fmt.Fprintf(&b, "DHE: at least %d bits", p.minDHBits())
	if p.AnyPrime {
		b.WriteString(", also where the prime isn't known to be safe")
	}
	return b.String()
}

func names[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, ", ")
}
