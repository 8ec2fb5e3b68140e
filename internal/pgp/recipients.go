package pgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// What keeps bytes from being a message that a client can decrypt. Each is
// worded to follow "the secret".
var (
	errNoMessage  = errors.New("is no OpenPGP message")
	errCutOff     = errors.New("is an OpenPGP message that is cut off")
	errPlain      = errors.New("is an OpenPGP message, but not encrypted")
	errKey        = errors.New("is an OpenPGP key, not a message")
	errNobody     = errors.New("is an OpenPGP message that doesn't say to whom it is encrypted")
	errPassphrase = errors.New("is encrypted with a passphrase, which no client knows, and to no key")
)

// Tags of packets (RFC 9580, section 5), as far as Recipients tells them apart.
const (
	tagPKESK      = 1
	tagSignature  = 2
	tagSKESK      = 3
	tagOnePass    = 4
	tagSecretKey  = 5
	tagPublicKey  = 6
	tagCompressed = 8
	tagEncrypted  = 9
	tagMarker     = 10
	tagLiteral    = 11
	tagProtected  = 18
	tagAEAD       = 20
	tagPadding    = 21
)

// Recipients returns the key IDs to which message, binary or armoured, is
// encrypted: as a rule those of subkeys. Recipients that the message doesn't
// name (RFC 9580, section 5.1.8), and those of forms that are not known here,
// are left out. The error says why no client could decrypt the message.
func Recipients(message []byte) ([]uint64, error) {
	if bytes.HasPrefix(bytes.TrimSpace(message), []byte("-----BEGIN PGP ")) {
		block, err := armor.Decode(bytes.NewReader(message))
		if err != nil {
			return nil, errNoMessage
		}
		if message, err = io.ReadAll(block.Body); err != nil {
			return nil, errCutOff
		}
	}
	if len(message) == 0 || message[0]&0x80 == 0 {
		return nil, errNoMessage
	}
	var ids []uint64
	keys, passphrases := 0, 0
	packets := packet.NewOpaqueReader(bytes.NewReader(message))
	for first := true; ; first = false {
		p, err := packets.Next()
		switch {
		case err == io.EOF && first:
			return nil, errNoMessage
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return nil, errCutOff
		case err != nil:
			return nil, errNoMessage
		}
		switch p.Tag {
		case tagPKESK:
			keys++
			// Version 3: the key ID, and zero for one that isn't named.
			if len(p.Contents) >= 9 && p.Contents[0] == 3 {
				if id := binary.BigEndian.Uint64(p.Contents[1:]); id != 0 {
					ids = append(ids, id)
				}
			}
		case tagSKESK:
			passphrases++
		case tagMarker, tagPadding:
		case tagEncrypted, tagProtected, tagAEAD:
			switch {
			case keys > 0:
				return ids, nil
			case passphrases > 0:
				return nil, errPassphrase
			}
			return nil, errNobody
		case tagSignature, tagOnePass, tagCompressed, tagLiteral:
			return nil, errPlain
		case tagSecretKey, tagPublicKey:
			return nil, errKey
		default:
			return nil, errNoMessage
		}
	}
}
