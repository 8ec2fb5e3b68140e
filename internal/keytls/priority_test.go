package keytls

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"mandos/internal/keytls/wire"
)

// The defaults of Mandos 1.8.16, as people have them in mandos.conf.
const (
	priorityRawPK   = "SECURE128:!CTYPE-X.509:+CTYPE-RAWPK:!RSA:!VERS-ALL:+VERS-TLS1.3:%PROFILE_ULTRA"
	priorityOpenPGP = "SECURE256:!CTYPE-X.509:+CTYPE-OPENPGP:!RSA:+SIGN-DSA-SHA256"
)

var (
	suitesTLS13 = []wire.Suite{wire.AES256GCM, wire.ChaCha20Poly1305, wire.AES128GCM}
	only12      = []wire.Version{wire.VersionTLS12}
	only13      = []wire.Version{wire.VersionTLS13}
	both        = []wire.Version{wire.VersionTLS13, wire.VersionTLS12}
	oldType     = []wire.CertificateType{wire.OpenPGP}
	newType     = []wire.CertificateType{wire.RawPublicKey}
)

func TestParsePriority(t *testing.T) {
	// Only the fields that are set are compared.
	for in, want := range map[string]Policy{
		"":    defaultPolicy,
		"   ": defaultPolicy,
		"NORMAL": {
			Versions: both, Groups: defaultPolicy.Groups, CertificateTypes: defaultPolicy.CertificateTypes,
			Suites: slices.Concat(suitesTLS13, []wire.Suite{
				wire.ECDHEECDSAAES256GCM, wire.ECDHEECDSAChaCha20Poly1305, wire.ECDHEECDSAAES128GCM,
				wire.ECDHERSAAES256GCM, wire.ECDHERSAChaCha20Poly1305, wire.ECDHERSAAES128GCM,
				wire.DHERSAAES256GCM, wire.DHERSAChaCha20Poly1305, wire.DHERSAAES128GCM,
			}),
			SignatureSchemes: defaultPolicy.SignatureSchemes, MinDHBits: 2048,
		},
		priorityRawPK: {
			Versions: only13, Suites: suitesTLS13, Groups: defaultPolicy.Groups,
			SignatureSchemes: defaultPolicy.SignatureSchemes, CertificateTypes: newType,
		},
		priorityOpenPGP: {
			Versions: only12, CertificateTypes: oldType,
			Suites: []wire.Suite{
				wire.ECDHEECDSAAES256GCM, wire.ECDHEECDSAChaCha20Poly1305,
				wire.ECDHERSAAES256GCM, wire.ECDHERSAChaCha20Poly1305,
				wire.DHERSAAES256GCM, wire.DHERSAChaCha20Poly1305,
			},
			Groups: []wire.Group{wire.P384, wire.P521},
			SignatureSchemes: []wire.SignatureScheme{
				wire.ECDSAP384SHA384, wire.ECDSAP521SHA512, wire.RSAPSSSHA384, wire.RSAPSSSHA512,
				wire.RSAPKCS1SHA384, wire.RSAPKCS1SHA512, wire.DSASHA256,
			},
		},
		priorityOpenPGP + ":+DHE-DSS": {Suites: []wire.Suite{
			wire.ECDHEECDSAAES256GCM, wire.ECDHEECDSAChaCha20Poly1305,
			wire.ECDHERSAAES256GCM, wire.ECDHERSAChaCha20Poly1305,
			wire.DHERSAAES256GCM, wire.DHERSAChaCha20Poly1305, wire.DHEDSSAES256GCM,
		}},
		"SECURE128:+CTYPE-OPENPGP:+CTYPE-RAWPK":               {Versions: both, CertificateTypes: []wire.CertificateType{wire.OpenPGP, wire.RawPublicKey}},
		"secure128:!ctype-x.509:+ctype-rawpk":                 {Versions: only13, CertificateTypes: newType},
		"NORMAL:!CTYPE-OPENPGP":                               {Versions: only13, CertificateTypes: newType},
		"NORMAL:-CTYPE-ALL:+CTYPE-SRV-OPENPGP":                {Versions: only12, CertificateTypes: oldType},
		"NORMAL:-VERS-TLS1.3":                                 {Versions: only12, CertificateTypes: defaultPolicy.CertificateTypes},
		"NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.3":          {Versions: both},
		"-VERS-TLS1.2":                                        {Versions: only13, Suites: suitesTLS13},
		"SECURE192":                                           {Groups: []wire.Group{wire.P384, wire.P521}},
		"SECURE256:+GROUP-X25519":                             {Groups: []wire.Group{wire.P384, wire.P521, wire.X25519}},
		"PFS:-GROUP-ALL:+GROUP-SECP256R1":                     {Groups: []wire.Group{wire.P256}, KeyShares: []wire.Group{wire.P256}},
		"NORMAL:-CURVE-ALL:+CURVE-SECP521R1":                  {Groups: []wire.Group{wire.P521}, KeyShares: []wire.Group{wire.P521}},
		"NORMAL:-GROUP-X25519-MLKEM768":                       {Groups: []wire.Group{wire.X25519, wire.P256, wire.P384, wire.P521}},
		"PERFORMANCE:-VERS-TLS1.2":                            {Suites: []wire.Suite{wire.AES128GCM, wire.ChaCha20Poly1305, wire.AES256GCM}},
		"SUITEB192:+CTYPE-OPENPGP":                            {Suites: []wire.Suite{wire.ECDHEECDSAAES256GCM}, Groups: []wire.Group{wire.P384}},
		"SUITEB128:+CTYPE-OPENPGP":                            {Suites: []wire.Suite{wire.ECDHEECDSAAES128GCM, wire.ECDHEECDSAAES256GCM}},
		"NORMAL:-CIPHER-ALL:+AES-128-GCM:-VERS-TLS1.2":        {Suites: []wire.Suite{wire.AES128GCM}},
		"NORMAL:-KX-ALL:+DHE-RSA:+CTYPE-OPENPGP:-AES-128-GCM": {Suites: []wire.Suite{wire.DHERSAAES256GCM, wire.DHERSAChaCha20Poly1305}},
		"NORMAL:-SIGN-ALL:+SIGN-EDDSA-ED25519":                {Versions: only13, SignatureSchemes: []wire.SignatureScheme{wire.Ed25519}},
		"NORMAL:-SIGN-ALL:+SIGN-RSA-SHA256":                   {Versions: only12, SignatureSchemes: []wire.SignatureScheme{wire.RSAPKCS1SHA256}},
		"NONE:+VERS-TLS1.3:+AEAD:+AES-256-GCM:+GROUP-X25519:+SIGN-ALL:+CTYPE-RAWPK": {
			Versions: only13, Suites: []wire.Suite{wire.AES256GCM}, Groups: []wire.Group{wire.X25519}, CertificateTypes: newType,
		},
		"NONE:+NORMAL:+CTYPE-RAWPK":                      {Versions: only13, Suites: suitesTLS13},
		"NORMAL:%PROFILE_HIGH":                           {Versions: both, MinDHBits: 3072},
		"NORMAL:%PROFILE_LOW":                            {MinDHBits: 2048},
		"NORMAL:%COMPAT":                                 {AnyPrime: true},
		"%COMPAT:NORMAL":                                 {AnyPrime: true},
		"NORMAL:%PROFILE_FUTURE:-ECDHE-ECDSA:-ECDHE-RSA": {Versions: only13},
		// What GnuTLS knows and we don't have changes nothing.
		"NORMAL:+AES-256-CBC:+SHA1:+MAC-ALL:+COMP-ALL:-VERS-SSL3.0:+ANON-DH:%SAFE_RENEGOTIATION": {Versions: both, Groups: defaultPolicy.Groups},
		"NORMAL:": {Versions: both},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParsePriority(in)
			if err != nil {
				t.Fatal(err)
			}
			g, w := reflect.ValueOf(got), reflect.ValueOf(want)
			for i := range w.NumField() {
				if name := w.Type().Field(i).Name; !w.Field(i).IsZero() && !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
					t.Errorf("%s: %v, want %v", name, g.Field(i), w.Field(i))
				}
			}
		})
	}
}

func TestParsePriorityErrors(t *testing.T) {
	for in, want := range map[string]string{
		"NORMALL":                            `word "NORMALL" isn't known`,
		"NORMAL:+CTYPE-FOO":                  `word "+CTYPE-FOO" isn't known`,
		"NORMAL:+GROUP-":                     `word "+GROUP-" isn't known`,
		"NORMAL:+SIGN-RSA":                   `word "+SIGN-RSA" isn't known`,
		"NORMAL:+":                           `word "+" isn't known`,
		"NORMAL:-":                           `word "-" isn't known`,
		"NORMAL:%":                           `word "%" isn't known`,
		"NORMAL:%FOO":                        `word "%FOO" isn't known`,
		"NORMAL:%PROFILE_FOO":                `word "%PROFILE_FOO" isn't known`,
		"normal:+vers-tls1.4":                `word "+vers-tls1.4" isn't known`,
		"NORMAL,+AES-256-GCM":                `word "NORMAL,+AES-256-GCM" isn't known`,
		"NORMAL:AES-256-GCM":                 `word "AES-256-GCM" needs a + or a -`,
		"NORMAL:CTYPE-RAWPK":                 `word "CTYPE-RAWPK" needs a + or a -`,
		"@SYSTEM":                            `word "@SYSTEM" stands for`,
		"NONE":                               "leaves no certificate type",
		"NORMAL:-CTYPE-ALL":                  "leaves no certificate type",
		"NORMAL:!CTYPE-RAWPK:!CTYPE-OPENPGP": "leaves no certificate type",
		"NORMAL:-CTYPE-ALL:+CTYPE-X.509":     "leaves no certificate type",
		"NORMAL:-CIPHER-ALL":                 "leaves no cipher",
		"NORMAL:-CIPHER-ALL:+AES-256-CBC":    "leaves no cipher",
		"NORMAL:-MAC-ALL:+SHA256":            "leaves no cipher",
		"NORMAL:-GROUP-ALL":                  "leaves no group",
		"NORMAL:-SIGN-ALL":                   "leaves no signature algorithm",
		"NORMAL:-VERS-ALL":                   "leaves no version",
		"NORMAL:-VERS-ALL:+VERS-TLS1.1":      "leaves no version",
		"NORMAL:-VERS-TLS1.3:+CTYPE-RAWPK":   "leaves no version",
		"NORMAL:-VERS-TLS1.2:+CTYPE-OPENPGP": "leaves no version",
		"NORMAL:-KX-ALL:+CTYPE-OPENPGP":      "leaves no version",
		"NORMAL:-SIGN-ALL:+SIGN-DSA-SHA256":  "leaves no version",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := ParsePriority(in)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
		})
	}
}

// TestPriorityHandshakes uses each of the two defaults against a client of its
// generation, and has the other refused.
func TestPriorityHandshakes(t *testing.T) {
	old := script{key: pgpVector(t, "rsa2048")}
	for in, takesOld := range map[string]bool{
		"": true, "NORMAL": true, "SECURE128": true, "SECURE256": true, "PFS": true,
		priorityOpenPGP: true, priorityRawPK: false,
	} {
		policy, err := ParsePriority(in)
		if err != nil {
			t.Fatal(err)
		}
		client, _, wait := startPeer12(t, policy, old)
		if err := client.Handshake(); (err == nil) != takesOld {
			t.Errorf("%q and an old client: %v", in, err)
		}
		_ = wait()

		a, b := transports(t)
		server := Server(b, &Config{Key: testKey("ECDSA P-384")})
		go func() {
			_ = server.Handshake()
			server.Close()
		}()
		if err := Client(a, &Config{Policy: policy}).Handshake(); (err == nil) != (in != priorityOpenPGP) {
			t.Errorf("%q and a new client: %v", in, err)
		}
	}
}

// TestPriorityRecordedDSA uses the group that GnuTLS 3.5.19 made, for which
// +DHE-DSS and %COMPAT are needed.
func TestPriorityRecordedDSA(t *testing.T) {
	key := pgpVector(t, "dsa2048")
	prime := recordedPrime(t)
	for in, want := range map[string]string{
		priorityOpenPGP:                       "wasn't offered",
		priorityOpenPGP + ":+DHE-DSS":         "isn't safe",
		priorityOpenPGP + ":+DHE-DSS:%COMPAT": "",
	} {
		policy, err := ParsePriority(in)
		if err != nil {
			t.Fatal(err)
		}
		client, _, wait := startPeer12(t, policy, script{key: key, suite: wire.DHEDSSAES256GCM, prime: prime})
		err = client.Handshake()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
		_ = wait()
	}
}

func TestPolicyString(t *testing.T) {
	for in, want := range map[string][]string{
		"":                             {"TLS 1.3, TLS 1.2", "TLS_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "X25519MLKEM768", "ed25519", "raw public key, OpenPGP", "2048 bits"},
		priorityRawPK:                  {"versions: TLS 1.3;", "raw public key;"},
		priorityOpenPGP:                {"versions: TLS 1.2;", "OpenPGP;", "dsa_sha256"},
		"NORMAL:%COMPAT:%PROFILE_HIGH": {"3072 bits", "isn't known to be safe"},
	} {
		p, err := ParsePriority(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(p.String(), w) {
				t.Errorf("%q comes to %q, without %q", in, p, w)
			}
		}
	}
}

// FuzzParsePriority: a string that is accepted leaves enough for a ClientHello.
func FuzzParsePriority(f *testing.F) {
	for _, s := range []string{"", "NORMAL", priorityRawPK, priorityOpenPGP, "NONE:+NORMAL", "SUITEB128:%COMPAT", "@SYSTEM"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePriority(s)
		if err != nil {
			return
		}
		if len(p.Versions) == 0 || len(p.Suites) == 0 || len(p.Groups) == 0 || len(p.KeyShares) == 0 || len(p.SignatureSchemes) == 0 || len(p.CertificateTypes) == 0 {
			t.Fatalf("%q leaves %+v", s, p)
		}
		for _, v := range p.Versions {
			if !slices.ContainsFunc(p.Suites, func(s wire.Suite) bool { return s.IsTLS13() == (v == wire.VersionTLS13) }) {
				t.Fatalf("%q leaves no suite for %v: %v", s, v, p)
			}
		}
		hs := &clientState{c: newConn(nil, &Config{Policy: p}, roleClient)}
		if err := hs.makeClientHello(); err != nil {
			t.Fatalf("%q: no hello: %v", s, err)
		}
	})
}
