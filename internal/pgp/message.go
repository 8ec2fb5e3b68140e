package pgp

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/secret"
)

// MaxPassword is the size in bytes up to which a password is decrypted. Key
// files of several MiB are in use; a compressed message must not fill the
// memory of an initramfs.
const MaxPassword = 16 << 20

// Seal encrypts password to the key and signs it with the key (both of its
// halves are needed). It returns a binary OpenPGP message (RFC 4880, section
// 11.3). now decides whether the key has expired.
func (k *Key) Seal(password []byte, now time.Time) ([]byte, error) {
	// A key that was made on a machine whose clock is a bit ahead isn't a
	// key that has expired.
	now = latest(now, k.entity.PrimaryKey.CreationTime)
	cfg := &packet.Config{
		DefaultCipher: packet.CipherAES256,
		DefaultHash:   crypto.SHA512,
		Time:          func() time.Time { return now },
	}
	self, _ := k.entity.PrimarySelfSignature()
	if self == nil {
		return nil, errors.New("the OpenPGP key has no valid self-signature")
	}
	if k.entity.PrimaryKey.KeyExpired(self, now) {
		return nil, fmt.Errorf("the OpenPGP key expired at %v: make a new one",
			k.entity.PrimaryKey.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs)*time.Second).UTC())
	}
	if k.entity.Revoked(now) {
		return nil, errors.New("the OpenPGP key is revoked: make a new one")
	}
	var out bytes.Buffer
	w, err := openpgp.Encrypt(&out, []*openpgp.Entity{k.entity}, k.entity, &openpgp.FileHints{IsBinary: true}, cfg)
	if err != nil {
		return nil, fmt.Errorf("encrypting to the OpenPGP key: %w", err)
	}
	if _, err := w.Write(password); err != nil {
		return nil, fmt.Errorf("encrypting to the OpenPGP key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("signing with the OpenPGP key: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts a binary OpenPGP message with the key's secret half. Without
// integrity protection, or with a bad signature by this key, the message is
// refused. signed is true when this key signed the message; false means that
// there is no signature, or one by another key, as with messages that were
// made by hand: whoever has the public key can make such a message.
//
// now is used for nothing but signatures with a lifetime. A clock that stands
// at 1970 does no harm, and neither does a key that has expired: refusing
// here would keep a host from booting.
func (k *Key) Open(message []byte, now time.Time) (password []byte, signed bool, err error) {
	secret.Do(func() { password, signed, err = k.open(message, now) })
	return password, signed, err
}

func (k *Key) open(message []byte, now time.Time) (password []byte, signed bool, err error) {
	defer func() {
		if r := recover(); r != nil { // a stranger wrote the message
			password, signed, err = nil, false, errors.New("the OpenPGP message is malformed")
		}
	}()
	now = latest(now, k.entity.PrimaryKey.CreationTime)
	cfg := &packet.Config{
		Time:                       func() time.Time { return now },
		MaxDecompressedMessageSize: new(int64(MaxPassword + 4096)), // with the packets around it
	}
	md, err := openpgp.ReadMessage(bytes.NewReader(message), openpgp.EntityList{k.entity}, nil, cfg)
	switch {
	case err == pgperrors.ErrKeyIncorrect:
		return nil, false, errors.New("the OpenPGP message isn't encrypted to this key")
	case err != nil:
		return nil, false, fmt.Errorf("the OpenPGP message can't be decrypted: %w", err)
	case !md.IsEncrypted || md.DecryptedWith.PrivateKey == nil:
		return nil, false, errors.New("the OpenPGP message isn't encrypted")
	}
	password, err = io.ReadAll(io.LimitReader(md.UnverifiedBody, MaxPassword+1))
	if err != nil {
		clear(password)
		return nil, false, fmt.Errorf("the OpenPGP message can't be decrypted: %w", err)
	}
	if len(password) > MaxPassword {
		clear(password)
		return nil, false, fmt.Errorf("the OpenPGP message holds more than %d bytes", MaxPassword)
	}
	if !md.IsSigned || md.SignedBy == nil {
		return password, false, nil
	}
	switch md.SignatureError {
	case nil, pgperrors.ErrSignatureExpired, pgperrors.ErrKeyExpired:
		return password, true, nil
	}
	clear(password)
	return nil, false, fmt.Errorf("the signature in the OpenPGP message is bad: %w", md.SignatureError)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
