package keytls

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"sync"

	"mandos/internal/keytls/wire"
	"mandos/internal/secret"
)

const (
	leastDHBits = 2048 // under any policy
	// maxDHBits limits groups whose prime has to be checked for being safe;
	// those of RFC 7919 may be larger.
	maxDHBits = 4096
	// dhExponent is the size in bits of our secret exponent: twice the strength
	// of the largest group, as RFC 7919, section 5.2, requires.
	dhExponent = 512
)

var (
	errDHSmall  = errors.New("a Diffie-Hellman group that is too small")
	errDHLarge  = fmt.Errorf("a Diffie-Hellman group of more than %d bits that isn't of RFC 7919", maxDHBits)
	errDHPrime  = errors.New("a Diffie-Hellman group whose modulus is composite")
	errDHUnsafe = errors.New("a Diffie-Hellman group whose prime isn't safe (an old mandos-client that makes its own group needs %COMPAT in the priority string)")
	errDHValue  = errors.New("a degenerate Diffie-Hellman value")
)

// dhe12 makes our half of a DHE key exchange (RFC 5246, section 8.1.2). The
// prime must be one of RFC 7919's or a safe prime. If lax is true, any prime
// will do: then the order of the generator can't be known, and the group is
// only as good as the server that signed it. least is how many bits the prime
// must have. math/big isn't constant-time, but the exponent is used only once.
func dhe12(k *wire.ServerKeyExchange, least int, lax bool) (public, shared []byte, err error) {
	secret.Do(func() { public, shared, err = agreeDH(k, least, lax) })
	return public, shared, err
}

func agreeDH(k *wire.ServerKeyExchange, least int, lax bool) (public, shared []byte, err error) {
	p, g, y := new(big.Int).SetBytes(k.P), new(big.Int).SetBytes(k.G), new(big.Int).SetBytes(k.Y)
	if err := checkDHGroup(p, least, lax); err != nil {
		return nil, nil, err
	}
	// In a safe-prime group, all elements but 1 and p-1 generate a large
	// subgroup.
	top := new(big.Int).Sub(p, big.NewInt(1))
	for _, v := range []*big.Int{g, y} {
		if v.Cmp(big.NewInt(1)) <= 0 || v.Cmp(top) >= 0 {
			return nil, nil, errDHValue
		}
	}
	exponent := make([]byte, dhExponent/8)
	defer clear(exponent)
	if _, err := rand.Read(exponent); err != nil {
		return nil, nil, err
	}
	exponent[0] |= 0x80
	x := new(big.Int).SetBytes(exponent)
	z := new(big.Int).Exp(y, x, p)
	if z.Cmp(big.NewInt(1)) <= 0 || z.Cmp(top) == 0 {
		return nil, nil, errDHValue
	}
	public = new(big.Int).Exp(g, x, p).FillBytes(make([]byte, (p.BitLen()+7)/8))
	return public, z.Bytes(), nil // without leading zeros, RFC 5246, section 8.1.2
}

// checkDHGroup checks that the modulus p is as dhe12 requires.
func checkDHGroup(p *big.Int, least int, lax bool) error {
	bits := p.BitLen()
	switch {
	case bits < least:
		return fmt.Errorf("%w: %d bits, %d are wanted", errDHSmall, bits, least)
	case isFFDHE(p):
		return nil
	case bits > maxDHBits:
		return errDHLarge
	}
	switch dhVerdicts.of(p) {
	case dhComposite:
		return errDHPrime
	case dhPrime:
		if !lax {
			return errDHUnsafe
		}
	}
	return nil
}

// ffdhe are the primes of RFC 7919, appendix A, made by its formula:
// 2^b - 2^(b-64) + (floor(2^(b-130) * e) + X) * 2^64 - 1.
var ffdhe = sync.OnceValue(func() []*big.Int {
	one := big.NewInt(1)
	// e * 2^n: the sum of 1/k!, with 64 bits more for the rounding.
	const n = 8192 + 64
	term := new(big.Int).Lsh(one, n)
	e := new(big.Int).Set(term)
	for k := int64(1); term.Sign() > 0; k++ {
		term.Div(term, big.NewInt(k))
		e.Add(e, term)
	}
	var primes []*big.Int
	for _, c := range []struct {
		bits uint
		x    int64
	}{{2048, 560316}, {3072, 2625351}, {4096, 5736041}, {6144, 15705020}, {8192, 10965728}} {
		p := new(big.Int).Rsh(e, n-(c.bits-130))
		p.Add(p, big.NewInt(c.x))
		p.Lsh(p, 64)
		p.Add(p, new(big.Int).Lsh(one, c.bits))
		p.Sub(p, new(big.Int).Lsh(one, c.bits-64))
		p.Sub(p, one)
		primes = append(primes, p)
	}
	return primes
})

func isFFDHE(p *big.Int) bool {
	for _, q := range ffdhe() {
		if p.Cmp(q) == 0 {
			return true
		}
	}
	return false
}

type dhVerdict uint8

const (
	dhComposite dhVerdict = iota + 1
	dhPrime
	dhSafe
)

// A dhCache remembers the verdicts on moduli: a client keeps using its group,
// and checking 4096 bits takes some tenths of a second. Its lock is held during
// a check: see old.
type dhCache struct {
	mu       sync.Mutex
	verdicts map[[sha256.Size]byte]dhVerdict
}

var dhVerdicts dhCache

// maxDHVerdicts is how many moduli are remembered.
const maxDHVerdicts = 256

func (c *dhCache) of(p *big.Int) dhVerdict {
	key := sha256.Sum256(p.Bytes())
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.verdicts[key]; ok {
		return v
	}
	v := judgeDH(p)
	if len(c.verdicts) >= maxDHVerdicts {
		clear(c.verdicts)
	}
	if c.verdicts == nil {
		c.verdicts = make(map[[sha256.Size]byte]dhVerdict)
	}
	c.verdicts[key] = v
	return v
}

// judgeDH uses the Baillie-PSW test alone: no composite is known to pass it,
// and a peer that found one would only weaken the secrecy of what is sent to
// itself.
func judgeDH(p *big.Int) dhVerdict {
	if !p.ProbablyPrime(0) {
		return dhComposite
	}
	if q := new(big.Int).Rsh(p, 1); !q.ProbablyPrime(0) {
		return dhPrime
	}
	return dhSafe
}
