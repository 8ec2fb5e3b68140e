// Package pgp makes and reads the OpenPGP key of a Mandos client, and the
// message that carries the client's password (RFC 4880 and RFC 9580). It is
// a thin layer over ProtonMail/go-crypto: an RSA primary key that signs, one
// RSA subkey that encrypts, one user ID, no passphrase.
package pgp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/keyid"
)

// The sizes of RSA keys that are made, in bits. Keys of other sizes are read.
const (
	MinBits = 2048
	MaxBits = 8192
)

// maxKeyFile bounds an armoured key. A key of two RSA-8192 halves has 20 KiB;
// the rest is room for signatures that others have added.
const maxKeyFile = 1 << 20

// maxLifetime is the longest lifetime that the 32-bit count of seconds in a
// signature holds (RFC 4880, section 5.2.3.6).
const maxLifetime = math.MaxUint32 * time.Second

// A Request says which key to make.
type Request struct {
	Name     string        // of the user ID; never empty
	Email    string        // of the user ID; may be empty
	Comment  string        // of the user ID; may be empty
	Bits     int           // of the primary key: MinBits to MaxBits
	SubBits  int           // of the encryption subkey: MinBits to MaxBits
	Created  time.Time     // the time of creation, in whole seconds
	Lifetime time.Duration // after which the key expires; 0 means never
}

// A Key is an OpenPGP key: the public half, or both halves.
type Key struct {
	entity *openpgp.Entity
}

// Generate makes the key that r asks for.
func Generate(r Request) (*Key, error) {
	switch {
	case r.Bits < MinBits || r.Bits > MaxBits:
		return nil, fmt.Errorf("an OpenPGP key of %d bits: from %d to %d are possible", r.Bits, MinBits, MaxBits)
	case r.SubBits < MinBits || r.SubBits > MaxBits:
		return nil, fmt.Errorf("an OpenPGP subkey of %d bits: from %d to %d are possible", r.SubBits, MinBits, MaxBits)
	case r.Lifetime < 0 || r.Lifetime > maxLifetime:
		return nil, fmt.Errorf("an OpenPGP key that lives %v: at most %v are possible", r.Lifetime, maxLifetime)
	case r.Name == "":
		return nil, errors.New("an OpenPGP key needs a name")
	}
	for _, part := range []string{r.Name, r.Email, r.Comment} {
		if err := checkUserID(part); err != nil {
			return nil, err
		}
	}
	uid := packet.NewUserId(r.Name, r.Comment, r.Email)
	if uid == nil {
		return nil, errors.New(`the user ID of an OpenPGP key can't hold any of "()<>"`)
	}

	created := r.Created.Truncate(time.Second)
	primary, err := newRSA(r.Bits, created)
	if err != nil {
		return nil, fmt.Errorf("making the OpenPGP key: %w", err)
	}
	sub, err := newRSA(r.SubBits, created)
	if err != nil {
		return nil, fmt.Errorf("making the OpenPGP subkey: %w", err)
	}
	sub.IsSubkey = true

	lifetime := uint32(r.Lifetime / time.Second)
	signature := func(kind packet.SignatureType) *packet.Signature {
		return &packet.Signature{
			Version:           primary.Version,
			SigType:           kind,
			PubKeyAlgo:        primary.PubKeyAlgo,
			Hash:              crypto.SHA512,
			CreationTime:      created,
			IssuerKeyId:       &primary.KeyId,
			IssuerKeyVersion:  uint8(primary.Version),
			IssuerFingerprint: primary.Fingerprint,
			KeyLifetimeSecs:   &lifetime,
			FlagsValid:        true,
		}
	}

	self := signature(packet.SigTypePositiveCert)
	self.FlagCertify, self.FlagSign, self.FlagAuthenticate = true, true, true
	self.IsPrimaryId = new(true)
	self.SEIPDv1 = true
	self.PreferredSymmetric = []uint8{uint8(packet.CipherAES256), uint8(packet.CipherAES192), uint8(packet.CipherAES128)}
	self.PreferredHash = []uint8{10, 9, 8} // SHA-512, SHA-384, SHA-256 (RFC 4880, section 9.4)
	self.PreferredCompression = []uint8{uint8(packet.CompressionNone)}
	if err := self.SignUserId(uid.Id, &primary.PublicKey, primary, nil); err != nil {
		return nil, fmt.Errorf("signing the OpenPGP user ID: %w", err)
	}

	binding := signature(packet.SigTypeSubkeyBinding)
	binding.FlagEncryptCommunications, binding.FlagEncryptStorage = true, true
	if err := binding.SignKey(&sub.PublicKey, primary, nil); err != nil {
		return nil, fmt.Errorf("signing the OpenPGP subkey: %w", err)
	}

	return &Key{&openpgp.Entity{
		PrimaryKey: &primary.PublicKey,
		PrivateKey: primary,
		Identities: map[string]*openpgp.Identity{uid.Id: {
			Name: uid.Id, UserId: uid, SelfSignature: self, Signatures: []*packet.Signature{self},
		}},
		Subkeys: []openpgp.Subkey{{PublicKey: &sub.PublicKey, PrivateKey: sub, Sig: binding}},
	}}, nil
}

func checkUserID(part string) error {
	if !utf8.ValidString(part) || strings.ContainsFunc(part, unicode.IsControl) {
		return fmt.Errorf("the user ID of an OpenPGP key can't hold %q: it must be UTF-8 without control characters", part)
	}
	return nil
}

// newRSA makes an RSA key in the form of RFC 4880, section 5.5.3: p is the
// smaller prime. The serializer writes Primes[1] as p.
func newRSA(bits int, created time.Time) (*packet.PrivateKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	if k.Primes[1].Cmp(k.Primes[0]) > 0 {
		k.Primes[0], k.Primes[1] = k.Primes[1], k.Primes[0]
		k.Precomputed = rsa.PrecomputedValues{}
		k.Precompute()
	}
	return packet.NewRSAPrivateKey(created, k), nil
}

// ReadPublic reads an armoured public key, as in pubkey.txt.
func ReadPublic(armoured []byte) (*Key, error) {
	return read(armoured, openpgp.PublicKeyType)
}

// ReadSecret reads an armoured secret key without passphrase, as in
// seckey.txt.
func ReadSecret(armoured []byte) (*Key, error) {
	k, err := read(armoured, openpgp.PrivateKeyType)
	if err != nil {
		return nil, err
	}
	if k.entity.PrivateKey == nil {
		return nil, errors.New("the OpenPGP key has no secret half")
	}
	for _, s := range k.secrets() {
		if s.Encrypted {
			return nil, errors.New("the OpenPGP secret key is protected by a passphrase, which nobody could type at boot")
		}
	}
	return k, nil
}

func read(armoured []byte, kind string) (*Key, error) {
	if len(armoured) > maxKeyFile {
		return nil, fmt.Errorf("an OpenPGP key of more than %d bytes", maxKeyFile)
	}
	block, err := armor.Decode(bytes.NewReader(armoured))
	if err == io.EOF {
		return nil, errors.New("no armoured OpenPGP key in it")
	} else if err != nil {
		return nil, fmt.Errorf("reading the OpenPGP armour: %w", err)
	}
	if block.Type != kind {
		return nil, fmt.Errorf("it holds a %q, not a %q", block.Type, kind)
	}
	list, err := openpgp.ReadKeyRing(block.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the OpenPGP key: %w", err)
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("it holds %d OpenPGP keys, not one", len(list))
	}
	if v := list[0].PrimaryKey.Version; v != 4 {
		return nil, fmt.Errorf("an OpenPGP key of version %d: Mandos knows keys by the fingerprint of version 4", v)
	}
	return &Key{list[0]}, nil
}

// secrets returns the secret halves of the primary key and the subkeys.
func (k *Key) secrets() []*packet.PrivateKey {
	var all []*packet.PrivateKey
	if k.entity.PrivateKey != nil && !k.entity.PrivateKey.Dummy() {
		all = append(all, k.entity.PrivateKey)
	}
	for _, s := range k.entity.Subkeys {
		if s.PrivateKey != nil {
			all = append(all, s.PrivateKey)
		}
	}
	return all
}

// Fingerprint returns that of the primary key.
func (k *Key) Fingerprint() keyid.Fingerprint {
	return keyid.Fingerprint(k.entity.PrimaryKey.Fingerprint)
}

// ArmouredPublic returns the contents of pubkey.txt, with a comment line in
// the armour.
func (k *Key) ArmouredPublic(comment string) ([]byte, error) {
	return armoured(openpgp.PublicKeyType, comment, k.entity.Serialize)
}

// ArmouredSecret returns the contents of seckey.txt.
func (k *Key) ArmouredSecret(comment string) ([]byte, error) {
	return armoured(openpgp.PrivateKeyType, comment, func(w io.Writer) error {
		return k.entity.SerializePrivateWithoutSigning(w, nil)
	})
}

func armoured(kind, comment string, body func(io.Writer) error) ([]byte, error) {
	var headers map[string]string
	if comment != "" {
		headers = map[string]string{"Comment": comment}
	}
	var out bytes.Buffer
	w, err := armor.Encode(&out, kind, headers)
	if err != nil {
		return nil, err
	}
	if err := body(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
