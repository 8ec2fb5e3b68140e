package oldstate

import (
	"bytes"
	"encoding/hex"

	"mandos/internal/pgp"
	"mandos/internal/secret"
)

// SecretChanged reports whether the secret was changed at run time to another
// one than configured, the one of clients.conf. It isn't if clients.conf has
// had another one since: then that counts, as it does for the old server. The
// work takes some tenths of a second.
func (c *Client) SecretChanged(configured secret.Secret) bool {
	saved, err := pgp.OpenSymmetric(c.sealedSecret, passphrase(configured.Reveal()))
	defer clear(saved)
	return err == nil && !bytes.Equal(saved, configured.Reveal())
}

// passphrase is what the old server seals a secret with, if the one in
// clients.conf is configured.
func passphrase(configured []byte) []byte {
	const prefix, longest = "mandos", 2048
	if len(prefix)+hex.EncodedLen(len(configured)) <= longest {
		return hex.AppendEncode([]byte(prefix), configured)
	}
	p := []byte(prefix)
	for _, c := range configured {
		switch c {
		case '\\':
			p = append(p, `\\`...)
		case '\n':
			p = append(p, `\n`...)
		case 0:
			p = append(p, `\x00`...)
		default:
			p = append(p, c)
		}
	}
	return p
}
