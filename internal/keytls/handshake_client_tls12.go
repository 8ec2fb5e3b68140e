package keytls

import "mandos/internal/keytls/wire"

// clientHandshakeTLS12 goes on from a ServerHello that chose TLS 1.2.
// hs.checkVersion has seen to the version and the downgrade sentinel; all else
// of the ServerHello is unchecked.
func (c *Conn) clientHandshakeTLS12(hs *clientState) error {
	return fault(wire.ProtocolVersion, "the TLS server chose TLS 1.2, which isn't there yet")
}
