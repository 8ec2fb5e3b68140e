package pgp

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// OpenSymmetric decrypts a binary OpenPGP message that gpg --symmetric made
// with passphrase: one session key, made from the passphrase by the iterated
// and salted method (RFC 4880, sections 3.7.1.3 and 5.3), and nothing else,
// because the other methods can be made to take any amount of memory.
func OpenSymmetric(message, passphrase []byte) (plain []byte, err error) {
	defer func() {
		if r := recover(); r != nil { // a stranger may have written the message
			plain, err = nil, errors.New("the OpenPGP message is malformed")
		}
	}()
	const header, version, iterated = 0x8c, 4, 3
	if len(message) < 5 || message[0] != header || message[1] != 13 || message[2] != version || message[4] != iterated {
		return nil, errors.New("the OpenPGP message isn't one of gpg --symmetric")
	}
	asked := false
	prompt := func([]openpgp.Key, bool) ([]byte, error) {
		if asked {
			return nil, errors.New("the passphrase is another one")
		}
		asked = true
		return passphrase, nil
	}
	cfg := &packet.Config{MaxDecompressedMessageSize: new(int64(MaxPassword + 4096))}
	md, err := openpgp.ReadMessage(bytes.NewReader(message), nil, prompt, cfg)
	if err != nil {
		return nil, fmt.Errorf("the OpenPGP message can't be decrypted: %w", err)
	}
	plain, err = io.ReadAll(io.LimitReader(md.UnverifiedBody, MaxPassword+1))
	if err == nil && len(plain) > MaxPassword {
		err = fmt.Errorf("it holds more than %d bytes", MaxPassword)
	}
	if err != nil {
		clear(plain)
		return nil, fmt.Errorf("the OpenPGP message can't be decrypted: %w", err)
	}
	return plain, nil
}
