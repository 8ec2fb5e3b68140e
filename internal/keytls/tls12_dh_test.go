package keytls

import (
	"errors"
	"math/big"
	"os"
	"testing"

	"mandos/internal/keytls/wire"
)

func bigHex(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("not a number: " + s)
	}
	return n
}

// modp2048 is group 14 of RFC 3526, a safe prime that isn't one of RFC 7919's.
var modp2048 = bigHex("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74" +
	"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
	"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
	"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
	"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB" +
	"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
	"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718" +
	"3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF")

// TestFFDHE checks the formula of RFC 7919 by its results: safe primes. (With a
// wrong digit of e or a wrong constant there would hardly be any.)
func TestFFDHE(t *testing.T) {
	sizes := []int{2048, 3072, 4096, 6144, 8192}
	for i, p := range ffdhe() {
		if p.BitLen() != sizes[i] {
			t.Errorf("group %d has %d bits, want %d", i, p.BitLen(), sizes[i])
		}
		if i >= 3 && testing.Short() {
			continue // slow
		}
		if v := judgeDH(p); v != dhSafe {
			t.Errorf("the prime of %d bits isn't safe", sizes[i])
		}
	}
	if got, want := new(big.Int).Rsh(ffdhe()[0], 2048-128), bigHex("FFFFFFFFFFFFFFFFADF85458A2BB4A9A"); got.Cmp(want) != 0 {
		t.Errorf("ffdhe2048 begins with %X, want %X", got, want)
	}
}

// recordedPrime is the modulus that GnuTLS 3.5.19 made for itself: prime, but
// not safe.
func recordedPrime(t testing.TB) *big.Int {
	t.Helper()
	recorded, err := os.ReadFile("testdata/openpgp-tls/dsa2048-dhedss-gnutls3.5.19/server_key_exchange.hs.bin")
	if err != nil {
		t.Fatal(err)
	}
	kex, err := wire.ParseServerKeyExchange(recorded, true)
	if err != nil {
		t.Fatal(err)
	}
	return new(big.Int).SetBytes(kex.P)
}

func TestCheckDHGroup(t *testing.T) {
	gnutls := recordedPrime(t)
	two := big.NewInt(2)
	for name, tt := range map[string]struct {
		p     *big.Int
		least int
		lax   bool
		want  error
	}{
		"ffdhe2048":                 {p: ffdhe()[0]},
		"ffdhe8192":                 {p: ffdhe()[4]},
		"RFC 3526":                  {p: modp2048},
		"small":                     {p: new(big.Int).Rsh(modp2048, 1024), want: errDHSmall},
		"one bit short":             {p: new(big.Int).Rsh(modp2048, 1), want: errDHSmall},
		"small for the policy":      {p: modp2048, least: 3072, want: errDHSmall},
		"composite":                 {p: new(big.Int).Sub(modp2048, two), want: errDHPrime},
		"composite, lax":            {p: new(big.Int).Sub(modp2048, two), lax: true, want: errDHPrime},
		"even":                      {p: new(big.Int).Lsh(big.NewInt(1), 2048), want: errDHPrime},
		"GnuTLS's own":              {p: gnutls, want: errDHUnsafe},
		"GnuTLS's own, lax":         {p: gnutls, lax: true},
		"large":                     {p: new(big.Int).Add(ffdhe()[4], two), want: errDHLarge},
		"larger than the checked":   {p: new(big.Int).Lsh(big.NewInt(1), 4096), want: errDHLarge},
		"larger than the checked l": {p: new(big.Int).Lsh(big.NewInt(1), 4096), lax: true, want: errDHLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkDHGroup(tt.p, max(tt.least, leastDHBits), tt.lax); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if err := checkDHGroup(tt.p, max(tt.least, leastDHBits), tt.lax); !errors.Is(err, tt.want) {
				t.Errorf("asked again: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestDHCacheIsBounded(t *testing.T) {
	var c dhCache
	for i := range 3 * maxDHVerdicts {
		c.of(big.NewInt(int64(2 * i)))
	}
	if len(c.verdicts) > maxDHVerdicts {
		t.Errorf("%d verdicts are kept", len(c.verdicts))
	}
}

// TestDHE agrees on a secret, and refuses degenerate values.
func TestDHE(t *testing.T) {
	p := ffdhe()[0]
	x := big.NewInt(0x1234567)
	y := new(big.Int).Exp(big.NewInt(2), x, p)
	number := func(n int64) *big.Int { return new(big.Int).Add(p, big.NewInt(n)) }
	public, shared, err := dhe12(&wire.ServerKeyExchange{P: p.Bytes(), G: []byte{2}, Y: y.Bytes()}, 2048, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := new(big.Int).Exp(new(big.Int).SetBytes(public), x, p).Bytes(); string(want) != string(shared) {
		t.Error("the two sides don't agree")
	}
	for name, v := range map[string]*big.Int{
		"0": big.NewInt(0), "1": big.NewInt(1), "p-1": number(-1), "p": number(0), "p+1": number(1), "p+2": number(2),
	} {
		bytes := v.FillBytes(make([]byte, 257))
		if _, _, err := dhe12(&wire.ServerKeyExchange{P: p.Bytes(), G: []byte{2}, Y: bytes}, 2048, false); !errors.Is(err, errDHValue) {
			t.Errorf("public value %s: %v", name, err)
		}
		if _, _, err := dhe12(&wire.ServerKeyExchange{P: p.Bytes(), G: bytes, Y: y.Bytes()}, 2048, false); !errors.Is(err, errDHValue) {
			t.Errorf("generator %s: %v", name, err)
		}
	}
}

func BenchmarkCheckDHGroup(b *testing.B) {
	for b.Loop() {
		if judgeDH(ffdhe()[2]) != dhSafe {
			b.Fatal("not safe")
		}
	}
}
