// Package keytls is TLS between two peers that know each other by key: one side
// authenticates with a raw public key (RFC 7250) or an OpenPGP certificate (RFC
// 6091), and there is no certificate authority.
//
// It implements what Mandos needs of TLS 1.3 (RFC 8446) and TLS 1.2 (RFC 5246),
// and nothing else. The cryptographic primitives are those of the standard
// library and of golang.org/x/crypto.
package keytls

import (
	"crypto"
	"fmt"
	"io"
	"net"
)

// A Config says what a connection offers and expects. It must not be changed
// after its first use, and may be used by many connections at once.
type Config struct {
	Policy Policy // what is offered or accepted; the zero Policy is the default

	// For the TLS server's role: the private key with which it authenticates
	// (Ed25519, ECDSA or RSA); the public half is sent as a raw public key.
	Key crypto.Signer

	// For the TLS client's role in TLS 1.3: the last flight of the handshake is
	// held back until the first Write, Read or CloseWrite, and sent together
	// with its data if possible. Until one of these is called, the peer doesn't
	// learn that the handshake is over.
	HoldFinished bool

	certificates certificateType // for tests; nil: raw public keys
	random       *counting       // for self-tests, in the TLS client's role; nil: random numbers
}

// Format keeps the key from being printed.
func (cfg Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[TLS configuration]") }

// Client returns a connection that takes the TLS client's role over conn:
// that of a Mandos server.
func Client(conn net.Conn, cfg *Config) *Conn { return newConn(conn, cfg, roleClient) }

// Server returns a connection that takes the TLS server's role over conn:
// that of a Mandos client.
func Server(conn net.Conn, cfg *Config) *Conn { return newConn(conn, cfg, roleServer) }
