package peerkey

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"

	"mandos/internal/keytls/wire"
)

// ed25519SPKI is the public key of RFC 8410, section 10.1.
const ed25519SPKI = "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func spki(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ks := map[string]crypto.Signer{"Ed25519": ed}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		if ks[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if ks["RSA"], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	return ks
}

// fits is RFC 8446, section 4.2.3, for TLS 1.3.
var fits = map[string][]wire.SignatureScheme{
	"Ed25519": {wire.Ed25519},
	"P-256":   {wire.ECDSAP256SHA256},
	"P-384":   {wire.ECDSAP384SHA384},
	"P-521":   {wire.ECDSAP521SHA512},
	"RSA":     {wire.RSAPSSSHA256, wire.RSAPSSSHA384, wire.RSAPSSSHA512},
}

var allSchemes = []wire.SignatureScheme{
	wire.Ed25519, wire.ECDSAP256SHA256, wire.ECDSAP384SHA384, wire.ECDSAP521SHA512,
	wire.RSAPSSSHA256, wire.RSAPSSSHA384, wire.RSAPSSSHA512,
	wire.RSAPKCS1SHA256, wire.RSAPKCS1SHA384, wire.RSAPKCS1SHA512, 0x0201, 0x0402, 0xFEFE,
}

func TestParseSPKI(t *testing.T) {
	for name, key := range keys(t) {
		der, err := MarshalSPKI(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseSPKI(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !k.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: another key came out", name)
		}
		for n := range der {
			if _, err := ParseSPKI(der[:n:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes were taken", name, n, len(der))
			}
		}
		if _, err := ParseSPKI(append(bytes.Clone(der), 0)); err == nil {
			t.Errorf("%s: a trailing byte was taken", name)
		}
	}
}

// TestIdentity compares with the output of `openssl sha256` for the same bytes.
func TestIdentity(t *testing.T) {
	k, err := ParseSPKI(unhex(t, ed25519SPKI))
	if err != nil {
		t.Fatal(err)
	}
	const want = "A1E9156054E04FAC899AE9F275132CDC07A5DBC4EA2C2AD3A1FFC6E0D253681F"
	if got := k.Identity.String(); got != want {
		t.Errorf("the identity is %s, want %s", got, want)
	}
	if !k.Identity.Fingerprint.IsZero() {
		t.Error("a raw public key has a fingerprint")
	}
}

func TestParseRefuses(t *testing.T) {
	odd := func(bits uint) *rsa.PublicKey {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	offCurve := spki(t, &p256.PublicKey)
	offCurve[len(offCurve)-1] ^= 1
	for name, tt := range map[string]struct {
		der  []byte
		want string
	}{
		"nothing":               {nil, "empty"},
		"not DER":               {[]byte("ssh-ed25519"), "can't be read"},
		"far too long":          {make([]byte, maxSPKI+1), "more than"},
		"Ed448":                 {unhex(t, "3043300506032b6571033a00"+strings.Repeat("07", 57)), "unknown public key algorithm"},
		"X25519":                {spki(t, x.PublicKey()), "isn't one of Ed25519, ECDSA and RSA"},
		"Ed25519, 31 bytes":     {unhex(t, "3029300506032b6570032000"+strings.Repeat("07", 31)), "can't be read"},
		"ECDSA P-224":           {spki(t, &p224.PublicKey), "P-224 isn't one of"},
		"a point off the curve": {offCurve, "can't be read"},
		"RSA 2047":              {spki(t, odd(2047)), "2047 bits, not 2048 to 8192"},
		"RSA 8193":              {spki(t, odd(8193)), "8193 bits"},
		"an empty SEQUENCE":     {[]byte{0x30, 0}, "can't be read"},
		"an empty algorithm":    {[]byte{0x30, 4, 0x30, 0, 3, 0}, "can't be read"},
	} {
		k, err := ParseSPKI(tt.der)
		if err == nil || k != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, error %v, want one with %q", name, k, err, tt.want)
		}
	}
	for _, bits := range []uint{MinRSABits, MaxRSABits} {
		if _, err := ParseSPKI(spki(t, odd(bits))); err != nil {
			t.Errorf("RSA %d: %v", bits, err)
		}
	}
}

// TestSignVerify signs with each key under each scheme that fits, and tries
// all others.
func TestSignVerify(t *testing.T) {
	message := []byte("a message")
	for name, key := range keys(t) {
		fitting := map[wire.SignatureScheme]bool{}
		for _, s := range fits[name] {
			fitting[s] = true
		}
		for _, s := range allSchemes {
			if got := Fits(key.Public(), s); got != fitting[s] {
				t.Errorf("%s: %v fits: %v", name, s, got)
			}
			sig, err := Sign(key, s, message)
			if !fitting[s] {
				if err == nil {
					t.Errorf("%s: signed under %v", name, s)
				}
				if err := Verify(key.Public(), s, message, []byte("sig")); err == nil {
					t.Errorf("%s: %v verifies", name, s)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := Verify(key.Public(), s, message, sig); err != nil {
				t.Errorf("%s under %v: %v", name, s, err)
			}
			for what, bad := range map[string]error{
				"another message": Verify(key.Public(), s, []byte("another"), sig),
				"a byte changed":  Verify(key.Public(), s, message, append([]byte{sig[0] ^ 1}, sig[1:]...)),
				"a byte less":     Verify(key.Public(), s, message, sig[:len(sig)-1]),
				"a byte more":     Verify(key.Public(), s, message, append(bytes.Clone(sig), 0)),
				"an empty one":    Verify(key.Public(), s, message, nil),
			} {
				if !errors.Is(bad, ErrSignature) {
					t.Errorf("%s under %v, %s: %v", name, s, what, bad)
				}
			}
		}
	}
}

// TestPKCS1 is for TLS 1.2, where RSA may sign the old way.
func TestPKCS1(t *testing.T) {
	key := keys(t)["RSA"]
	for s, h := range map[wire.SignatureScheme]crypto.Hash{
		wire.RSAPKCS1SHA256: crypto.SHA256, wire.RSAPKCS1SHA384: crypto.SHA384, wire.RSAPKCS1SHA512: crypto.SHA512,
	} {
		sig, err := crypto.SignMessage(key, rand.Reader, []byte("message"), h)
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(key.Public(), s, []byte("message"), sig); err != nil {
			t.Errorf("%v: %v", s, err)
		}
		if err := Verify(key.Public(), s, []byte("another"), sig); !errors.Is(err, ErrSignature) {
			t.Errorf("%v of another message: %v", s, err)
		}
	}
}

// FuzzParseSPKI: what is accepted is a key that can be marshalled again.
func FuzzParseSPKI(f *testing.F) {
	f.Add(unhex(f, ed25519SPKI))
	for _, key := range keys(f) {
		f.Add(spki(f, key.Public()))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := ParseSPKI(der)
		if err != nil {
			return
		}
		if _, err := MarshalSPKI(k.Public); err != nil {
			t.Errorf("%x: %v", der, err)
		}
		if _, err := ParseSPKI(der[:len(der)-1]); err == nil {
			t.Errorf("%x: taken without its last byte as well", der)
		}
	})
}
