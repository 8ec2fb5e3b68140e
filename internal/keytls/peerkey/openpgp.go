package peerkey

import (
	"bytes"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 keys that mandos-keygen made before 2013 are DSA; off unless the policy asks
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" // the fingerprint of a version 4 key is SHA-1 by definition
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"time"

	pgpecdsa "github.com/ProtonMail/go-crypto/openpgp/ecdsa"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/keyid"
)

// Limits on an OpenPGP certificate. mandos-keygen's has five packets in 2 to
// 3 KiB; a key that signatures by others have been added to, or a photograph,
// is bigger. Every one is checked before anything is allocated for it.
const (
	MaxOpenPGP          = 32 << 10 // bytes of a certificate
	maxOpenPGPPackets   = 128
	maxOpenPGPVerified  = 32 // self-signatures: each costs a public-key operation
	maxOpenPGPSignature = 4 << 10
	maxOpenPGPKey       = 2 << 10
)

// Packet tags (RFC 4880, section 4.3) that a certificate may hold.
const (
	tagSignature     = 2
	tagPrimaryKey    = 6
	tagUserID        = 13
	tagSubkey        = 14
	tagUserAttribute = 17
)

// ParseOpenPGP reads cert, the packets of one certificate as "gpg --export"
// writes them.
//
// It requires one version 4 primary key (RSA or DSA of at least 2048 bits, or
// ECDSA over P-256, P-384 or P-521), at least one user ID with a
// self-signature, and a binding signature for each subkey. Every signature that
// claims to be made by the primary key must verify: a certificate with one good
// and one broken self-signature is refused. Signatures by others are skipped:
// they decide nothing here.
//
// The key's identity is the fingerprint of the primary key. ParseOpenPGP
// doesn't look at the clock: Key.Validity is the time for which the certificate
// claims to be valid.
func ParseOpenPGP(cert []byte) (*Key, error) {
	packets, err := splitOpenPGP(cert)
	if err != nil {
		return nil, err
	}
	c := certificate{}
	if err := c.readPrimary(packets[0]); err != nil {
		return nil, err
	}
	for i, p := range packets[1:] {
		if err := c.readPacket(p); err != nil {
			return nil, fmt.Errorf("packet %d: %v", i+2, err)
		}
	}
	return c.finish()
}

// A rawPacket is one packet without its header.
type rawPacket struct {
	tag  byte
	body []byte
	raw  []byte // with its header
}

// splitOpenPGP splits cert into packets (RFC 4880, section 4.2). It refuses
// partial and indeterminate lengths, which are for data only.
func splitOpenPGP(cert []byte) ([]rawPacket, error) {
	if len(cert) == 0 {
		return nil, errors.New("an empty certificate")
	}
	if len(cert) > MaxOpenPGP {
		return nil, fmt.Errorf("a certificate of %d bytes; at most %d are read", len(cert), MaxOpenPGP)
	}
	var packets []rawPacket
	for rest := cert; len(rest) > 0; {
		n := len(packets) + 1
		if n > maxOpenPGPPackets {
			return nil, fmt.Errorf("a certificate of more than %d packets", maxOpenPGPPackets)
		}
		tag, header, length, err := packetHeader(rest)
		if err != nil {
			return nil, fmt.Errorf("packet %d: %v", n, err)
		}
		limit := maxOpenPGPSignature
		switch tag {
		case tagPrimaryKey:
			limit = maxOpenPGPKey
			if n > 1 {
				return nil, fmt.Errorf("packet %d: a second primary key", n)
			}
		case tagSubkey:
			limit = maxOpenPGPKey
		case tagUserID, tagUserAttribute:
			limit = MaxOpenPGP
		case tagSignature:
		case 5, 7:
			return nil, fmt.Errorf("packet %d is a secret key, which has no place in a certificate", n)
		default:
			return nil, fmt.Errorf("packet %d has tag %d, which has no place in a certificate", n, tag)
		}
		if n == 1 && tag != tagPrimaryKey {
			return nil, fmt.Errorf("the first packet has tag %d; a certificate starts with its primary key", tag)
		}
		if length > limit {
			return nil, fmt.Errorf("packet %d (tag %d) of %d bytes; at most %d are read", n, tag, length, limit)
		}
		if length > len(rest)-header {
			return nil, fmt.Errorf("packet %d (tag %d) is cut short", n, tag)
		}
		packets = append(packets, rawPacket{tag, rest[header : header+length], rest[:header+length]})
		rest = rest[header+length:]
	}
	return packets, nil
}

// packetHeader reads a packet's header in the old or the new format (RFC
// 4880, sections 4.2.1 and 4.2.2).
func packetHeader(b []byte) (tag byte, header, length int, err error) {
	if b[0]&0x80 == 0 {
		return 0, 0, 0, errors.New("not an OpenPGP packet")
	}
	size := 1 // bytes of the length
	at := 1   // where they start
	if b[0]&0x40 == 0 {
		tag = b[0] >> 2 & 0xf
		if b[0]&3 == 3 {
			return 0, 0, 0, errors.New("a packet of indeterminate length")
		}
		size <<= b[0] & 3
	} else {
		tag = b[0] & 0x3f
		if len(b) < 2 {
			return 0, 0, 0, errors.New("a packet's header is cut short")
		}
		switch l := b[1]; {
		case l < 192:
		case l < 224:
			if len(b) < 3 {
				return 0, 0, 0, errors.New("a packet's header is cut short")
			}
			return tag, 3, int(l-192)<<8 + int(b[2]) + 192, nil
		case l < 255:
			return 0, 0, 0, errors.New("a packet of partial length")
		default:
			size, at = 4, 2
		}
	}
	if len(b) < at+size {
		return 0, 0, 0, errors.New("a packet's header is cut short")
	}
	var n uint64
	for _, x := range b[at : at+size] {
		n = n<<8 | uint64(x)
	}
	if n > MaxOpenPGP {
		return 0, 0, 0, fmt.Errorf("a packet of %d bytes; at most %d are read", n, MaxOpenPGP)
	}
	return tag, at + size, int(n), nil
}

// A certificate is the state of reading one.
type certificate struct {
	key Key
	pgp *packet.PublicKey // the primary key, to verify with
	raw []byte            // the primary key's packet without header

	subject  subject // what the signatures that follow are about
	verified int     // signatures checked so far
	users    int     // user IDs with a valid self-signature
	selfs    []*packet.Signature
}

// A subject is one component of a certificate with its self-signatures.
type subject struct {
	tag     byte
	body    []byte
	newest  *packet.Signature // the newest self-signature or binding
	revoked time.Time         // by the newest revocation of this component
	name    string            // for errors
}

func (c *certificate) readPrimary(p rawPacket) error {
	if len(p.body) < 6 {
		return errors.New("a primary key that is cut short")
	}
	if v := p.body[0]; v != 4 {
		return fmt.Errorf("a primary key of version %d; only version 4 is read", v)
	}
	parsed, err := packet.Read(bytes.NewReader(p.raw))
	if err != nil {
		return fmt.Errorf("a primary key that can't be read: %v", err)
	}
	pgp, ok := parsed.(*packet.PublicKey)
	if !ok {
		return errors.New("a primary key that isn't one")
	}
	h := sha1.New()
	hashKey(h, p.body)
	fingerprint := keyid.Fingerprint(h.Sum(nil))
	if !bytes.Equal(pgp.Fingerprint, fingerprint[:]) {
		// go-crypto computes the fingerprint from what it has parsed: there was
		// more.
		return errors.New("a primary key with trailing bytes")
	}
	c.key.Identity.Fingerprint = fingerprint
	c.key.Validity.NotBefore = pgp.CreationTime
	if c.key.Public, err = publicKey(pgp); err != nil {
		return err
	}
	c.pgp, c.raw = pgp, p.body
	c.subject = subject{tag: tagPrimaryKey, body: p.body, name: "primary key"}
	return nil
}

// publicKey returns the key that go-crypto has read as one of the standard
// library's types, and checks its size and parameters.
func publicKey(pgp *packet.PublicKey) (crypto.PublicKey, error) {
	switch k := pgp.PublicKey.(type) {
	case *rsa.PublicKey:
		if pgp.PubKeyAlgo == packet.PubKeyAlgoRSAEncryptOnly {
			return nil, errors.New("an RSA primary key that may only encrypt")
		}
		return k, Check(k)
	case *dsa.PublicKey:
		return k, checkDSA(k)
	case *pgpecdsa.PublicKey:
		curve, err := pgp.Curve()
		if err != nil {
			return nil, err
		}
		var c elliptic.Curve
		switch curve {
		case packet.CurveNistP256:
			c = elliptic.P256()
		case packet.CurveNistP384:
			c = elliptic.P384()
		case packet.CurveNistP521:
			c = elliptic.P521()
		default:
			return nil, fmt.Errorf("an ECDSA key over %s; P-256, P-384 and P-521 are known", curve)
		}
		return ecdsa.ParseUncompressedPublicKey(c, k.MarshalPoint())
	}
	return nil, fmt.Errorf("a primary key of OpenPGP's algorithm %d; RSA, DSA and ECDSA are known", pgp.PubKeyAlgo)
}

// checkDSA checks k against FIPS 186-4, section 4.2 (sizes) and appendix A.2
// (that generator and value are in range). Primality isn't checked: those who
// make a bad key for themselves harm only themselves.
func checkDSA(k *dsa.PublicKey) error {
	one := big.NewInt(1)
	l, n := k.P.BitLen(), k.Q.BitLen()
	switch {
	case l < 2048:
		return fmt.Errorf("a DSA key of %d bits; at least 2048 are wanted", l)
	case l > 4096 || n < 224 || n > 256:
		return fmt.Errorf("a DSA key of %d bits with a subgroup of %d bits; 2048 to 4096 and 224 to 256 are known", l, n)
	case k.G.Cmp(one) <= 0 || k.G.Cmp(k.P) >= 0 || k.Y.Cmp(one) <= 0 || k.Y.Cmp(k.P) >= 0:
		return errors.New("a DSA key whose numbers are out of range")
	}
	return nil
}

// readPacket handles the next packet after the primary key.
func (c *certificate) readPacket(p rawPacket) error {
	switch p.tag {
	case tagSignature:
		return c.readSignature(p)
	case tagUserID:
		return c.next(subject{tag: p.tag, body: p.body, name: fmt.Sprintf("user ID %.64q", p.body)})
	case tagUserAttribute:
		return c.next(subject{tag: p.tag, body: p.body, name: "user attribute"})
	default: // a subkey: splitOpenPGP lets nothing else through
		if len(p.body) == 0 || p.body[0] != 4 {
			return errors.New("a subkey that isn't of version 4")
		}
		return c.next(subject{tag: p.tag, body: p.body, name: "subkey"})
	}
}

// next judges the component that ends here, and begins the next one.
func (c *certificate) next(s subject) error {
	done := c.subject
	c.subject = s
	switch done.tag {
	case tagSubkey:
		if done.newest == nil {
			return errors.New("a subkey without a binding signature")
		}
		// Subkeys don't sign here: their flags, expiry and revocation say
		// nothing about the primary key.
		return nil
	case tagUserID, tagUserAttribute:
		if done.newest == nil || !done.revoked.Before(done.newest.CreationTime) && !done.revoked.IsZero() {
			return nil // only signed by others, or withdrawn
		}
		if done.tag == tagUserID {
			c.users++
		}
	}
	if done.newest != nil {
		c.selfs = append(c.selfs, done.newest)
	}
	return nil
}

// Signature types (RFC 4880, section 5.2.1) that concern a certificate.
const (
	sigGeneric       = 0x10 // to 0x13: certifications of a user ID
	sigPositive      = 0x13
	sigBinding       = 0x18
	sigDirect        = 0x1f
	sigRevokesKey    = 0x20
	sigRevokesSubkey = 0x28
	sigRevokesUser   = 0x30
)

func (c *certificate) readSignature(p rawPacket) error {
	typ, ok := signatureType(p.body)
	if !ok {
		return errors.New("a signature that is cut short")
	}
	parsed, err := packet.Read(bytes.NewReader(p.raw))
	if err != nil {
		if _, unsupported := errors.AsType[pgperrors.UnsupportedError](err); unsupported && typ != sigRevokesKey {
			return nil // by an unknown key or in an unknown way: it vouches for nothing
		}
		return fmt.Errorf("a signature (type 0x%02x) that can't be read: %v", typ, err)
	}
	sig, ok := parsed.(*packet.Signature)
	if !ok || sig.Version != 4 && typ != sigRevokesKey {
		return nil
	}
	if !c.claimedSelf(sig) {
		if typ == sigRevokesKey {
			// By a designated revoker (RFC 4880, section 5.2.3.15), whose key
			// we don't have. As the peer itself sends it, it counts.
			c.revoke(sig.CreationTime)
		}
		return nil
	}

	s := &c.subject
	h, err := signatureHash(sig)
	if err != nil {
		return err
	}
	hashKey(h, c.raw)
	// What is hashed: RFC 4880, section 5.2.4.
	switch {
	case s.tag == tagPrimaryKey && (typ == sigDirect || typ == sigRevokesKey):
	case (s.tag == tagUserID || s.tag == tagUserAttribute) && (typ >= sigGeneric && typ <= sigPositive || typ == sigRevokesUser):
		prefix := byte(0xb4)
		if s.tag == tagUserAttribute {
			prefix = 0xd1
		}
		h.Write(binary.BigEndian.AppendUint32([]byte{prefix}, uint32(len(s.body))))
		h.Write(s.body)
	case s.tag == tagSubkey && (typ == sigBinding || typ == sigRevokesSubkey):
		hashKey(h, s.body)
	default:
		return fmt.Errorf("a self-signature of type 0x%02x after a %s", typ, s.name)
	}
	if c.verified++; c.verified > maxOpenPGPVerified {
		return fmt.Errorf("more than %d self-signatures", maxOpenPGPVerified)
	}
	if err := c.pgp.VerifySignature(h, sig); err != nil {
		return fmt.Errorf("the self-signature (type 0x%02x) on the %s is wrong", typ, s.name)
	}

	switch typ {
	case sigRevokesKey:
		c.revoke(sig.CreationTime)
	case sigRevokesSubkey, sigRevokesUser:
		if sig.CreationTime.After(s.revoked) {
			s.revoked = sig.CreationTime
		}
	default:
		if s.newest == nil || !sig.CreationTime.Before(s.newest.CreationTime) {
			s.newest = sig
		}
	}
	return nil
}

// signatureType returns the type of a signature packet of version 3 or later
// (RFC 4880, sections 5.2.2 and 5.2.3) before the rest of it is read.
func signatureType(body []byte) (byte, bool) {
	at := 1
	if len(body) > 0 && body[0] < 4 {
		at = 2
	}
	if len(body) <= at {
		return 0, false
	}
	return body[at], true
}

// claimedSelf reports whether sig says that the primary key made it, or
// doesn't say who did.
func (c *certificate) claimedSelf(sig *packet.Signature) bool {
	if sig.IssuerKeyId == nil && sig.IssuerFingerprint == nil {
		return true
	}
	return sig.CheckKeyIdOrFingerprint(c.pgp)
}

// signatureHash returns the hash that a self-signature uses. SHA-1 is good
// enough here and nowhere else: old versions of gpg signed keys with it, and a
// collision gains nothing, as the key that matters is looked up by its
// fingerprint.
func signatureHash(sig *packet.Signature) (hash.Hash, error) {
	switch sig.Hash {
	case crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512:
		return sig.Hash.New(), nil
	}
	return nil, fmt.Errorf("a self-signature with %v", sig.Hash)
}

// hashKey hashes a version 4 key in the way of signatures and fingerprints (RFC
// 4880, sections 5.2.4 and 12.2), from the bytes that were sent.
func hashKey(h hash.Hash, body []byte) {
	h.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
	h.Write(body)
}

// revoke notes a revocation of the key; the earliest counts.
func (c *certificate) revoke(t time.Time) {
	if r := &c.key.Validity.Revoked; r.IsZero() || t.Before(*r) {
		*r = t
	}
}

// finish judges the last component, and combines what the valid self-signatures
// say about time. The strictest counts: the key is valid from when the last of
// them was made until the first of them expires.
func (c *certificate) finish() (*Key, error) {
	if err := c.next(subject{}); err != nil {
		return nil, err
	}
	if c.users == 0 {
		return nil, errors.New("no user ID has a self-signature that stands")
	}
	v := &c.key.Validity
	for _, sig := range c.selfs {
		if sig.CreationTime.After(v.NotBefore) {
			v.NotBefore = sig.CreationTime
		}
		end := func(from time.Time, secs *uint32) { // RFC 4880, sections 5.2.3.6 and 5.2.3.10
			if secs == nil || *secs == 0 {
				return
			}
			t := from.Add(time.Duration(*secs) * time.Second)
			if v.NotAfter.IsZero() || t.Before(v.NotAfter) {
				v.NotAfter = t
			}
		}
		end(c.pgp.CreationTime, sig.KeyLifetimeSecs)
		end(sig.CreationTime, sig.SigLifetimeSecs)
	}
	return &c.key, nil
}
