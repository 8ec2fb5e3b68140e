package keytls

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"

	"mandos/internal/keytls/wire"
	"mandos/internal/secret"
)

// An exchange is the TLS client's half of a key exchange in progress.
type exchange struct {
	group wire.Group
	share []byte // sent to the server
	// agree makes the shared secret from the server's share. It is a closure
	// because it holds the private key.
	agree func(share []byte) ([]byte, error)
}

var curves = map[wire.Group]ecdh.Curve{
	wire.X25519: ecdh.X25519(),
	wire.P256:   ecdh.P256(),
	wire.P384:   ecdh.P384(),
	wire.P521:   ecdh.P521(),
}

var errShare = errors.New("the share has the wrong length")

// startExchange is startExchange with this connection's source of randomness.
func (c *Conn) startExchange(g wire.Group) (*exchange, error) {
	if fixed := c.config().random; fixed != nil {
		return fixed.exchange(g)
	}
	return startExchange(g)
}

// startExchange makes a new private key in group g.
func startExchange(g wire.Group) (ex *exchange, err error) {
	secret.Do(func() { ex, err = start(g) })
	if err != nil {
		return nil, err
	}
	agree := ex.agree
	ex.agree = func(share []byte) (shared []byte, err error) {
		secret.Do(func() { shared, err = agree(share) })
		return shared, err
	}
	return ex, nil
}

func start(g wire.Group) (*exchange, error) {
	if g == wire.X25519MLKEM768 {
		return startHybrid()
	}
	curve, ok := curves[g]
	if !ok {
		return nil, fmt.Errorf("%v is not a group that is known here", g)
	}
	key, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return exchangeWith(g, key), nil
}

func exchangeWith(g wire.Group, key *ecdh.PrivateKey) *exchange {
	return &exchange{g, key.PublicKey().Bytes(), func(share []byte) ([]byte, error) {
		return agree(key, share)
	}}
}

// answerExchange is the TLS server's half: from the client's share in group g
// it makes the server's share and the shared secret.
func answerExchange(g wire.Group, theirs []byte) (ours, shared []byte, err error) {
	secret.Do(func() { ours, shared, err = answer(g, theirs) })
	return ours, shared, err
}

func answer(g wire.Group, theirs []byte) (ours, shared []byte, err error) {
	if g == wire.X25519MLKEM768 {
		return answerHybrid(theirs)
	}
	key, err := curves[g].GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	shared, err = agree(key, theirs)
	return key.PublicKey().Bytes(), shared, err
}

// agree is (EC)DHE (RFC 8446, section 7.4.2). crypto/ecdh refuses points that
// aren't on the curve and X25519's all-zero result.
func agree(key *ecdh.PrivateKey, share []byte) ([]byte, error) {
	public, err := key.Curve().NewPublicKey(share)
	if err != nil {
		return nil, err
	}
	return key.ECDH(public)
}

// X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem, section 4): in shares and in the
// secret, ML-KEM's part comes first.

const x25519Len = 32

func startHybrid() (*exchange, error) {
	kem, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, err
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	share := append(kem.EncapsulationKey().Bytes(), key.PublicKey().Bytes()...)
	return &exchange{wire.X25519MLKEM768, share, func(share []byte) ([]byte, error) {
		if len(share) != mlkem.CiphertextSize768+x25519Len {
			return nil, errShare
		}
		first, err := kem.Decapsulate(share[:mlkem.CiphertextSize768])
		if err != nil {
			return nil, err
		}
		second, err := agree(key, share[mlkem.CiphertextSize768:])
		if err != nil {
			return nil, err
		}
		return join(first, second), nil
	}}, nil
}

func answerHybrid(theirs []byte) (ours, shared []byte, err error) {
	if len(theirs) != mlkem.EncapsulationKeySize768+x25519Len {
		return nil, nil, errShare
	}
	kem, err := mlkem.NewEncapsulationKey768(theirs[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return nil, nil, err
	}
	ours2, second, err := answer(wire.X25519, theirs[mlkem.EncapsulationKeySize768:])
	if err != nil {
		return nil, nil, err
	}
	first, ours1 := kem.Encapsulate()
	return append(ours1, ours2...), join(first, second), nil
}

// join concatenates two secrets, and wipes them.
func join(a, b []byte) []byte {
	both := append(append(make([]byte, 0, len(a)+len(b)), a...), b...)
	clear(a)
	clear(b)
	return both
}
