// Package keytls is TLS between two peers that know each other by key: one
// side authenticates with a raw public key (RFC 7250) or an OpenPGP
// certificate (RFC 6091), and no certificate authority is asked.
//
// It holds what Mandos needs of TLS 1.3 (RFC 8446) and TLS 1.2 (RFC 5246),
// and nothing else. The primitives are those of the standard library and of
// golang.org/x/crypto.
package keytls

import (
	"crypto"
	"fmt"
	"io"
	"net"
)

// A Config says what a connection offers and expects. It isn't changed
// after its first use and may serve many connections at once.
type Config struct {
	Policy Policy // what is offered or accepted; the zero Policy is the default

	// For the TLS server's role: the key that it proves to hold (Ed25519,
	// ECDSA or RSA); its public half is sent as a raw public key.
	Key crypto.Signer

	// For the TLS client's role in TLS 1.3: the end of the handshake waits for
	// the first Write, Read or CloseWrite after it, and goes with that if it
	// can. Without any of these the peer never learns that it is over.
	HoldFinished bool

	certificates certificateType // for tests; nil: raw public keys
	random       *counting       // for self-tests, in the TLS client's role; nil: random numbers
}

// Format prints nothing of the key.
func (cfg Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[TLS configuration]") }

// Client returns a connection that takes the TLS client's role over conn:
// that of a Mandos server.
func Client(conn net.Conn, cfg *Config) *Conn { return newConn(conn, cfg, roleClient) }

// Server returns a connection that takes the TLS server's role over conn:
// that of a Mandos client.
func Server(conn net.Conn, cfg *Config) *Conn { return newConn(conn, cfg, roleServer) }
