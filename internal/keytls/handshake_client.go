package keytls

import (
	"bytes"
	"crypto/rand"
	"slices"

	"mandos/internal/keytls/wire"
)

// A clientState is the state of the TLS client's handshake until the
// ServerHello has settled the version. It lives as long as the handshake.
type clientState struct {
	c *Conn

	hello       *wire.ClientHello
	exchanges   []*exchange
	retry       *wire.ServerHello // the HelloRetryRequest, if one came
	serverHello *wire.ServerHello

	// The messages so far, with their headers: ClientHello,
	// [HelloRetryRequest, ClientHello,] ServerHello.
	messages [][]byte
}

// clientHandshake runs the TLS client's handshake of either version.
func (c *Conn) clientHandshake() error {
	hs := &clientState{c: c}
	for _, step := range []func() error{
		hs.makeClientHello,
		hs.sendClientHello,
		hs.readServerHello,
		hs.checkVersion,
		hs.retryIfAsked,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if c.version == wire.VersionTLS12 {
		return c.clientHandshakeTLS12(hs)
	}
	return c.clientHandshakeTLS13(hs)
}

// makeClientHello makes one hello for all versions of the policy. The order of
// its extensions is one that GnuTLS from 3.5 to 3.8 was seen to accept.
func (hs *clientState) makeClientHello() error {
	c, p := hs.c, &hs.c.policy
	h := &wire.ClientHello{
		Version:     wire.VersionTLS12, // RFC 8446, section 4.1.2
		Suites:      hs.offeredSuites(),
		Compression: []byte{0},
	}
	c.random(h.Random[:])
	tls13, tls12 := p.has(wire.VersionTLS13), p.has(wire.VersionTLS12)
	if !tls13 && !tls12 || len(h.Suites) == 0 || len(p.Groups) == 0 || len(p.SignatureSchemes) == 0 {
		return fault(wire.InternalError, "the policy leaves no version, cipher suite, group or signature scheme to offer")
	}

	h.Extensions = make(wire.Extensions, 0, 12)
	add := func(e wire.Extension) { h.Extensions = append(h.Extensions, e) }
	if tls12 {
		add(wire.ExtendedMasterSecret())
		if t := c.certificateType12().code(); t != wire.X509 {
			add(wire.CertificateTypes(t))
		}
	}
	if t := c.certificateType().code(); tls13 && t != wire.X509 {
		add(wire.ServerCertificateTypes(t))
	}
	if tls12 {
		add(wire.RenegotiationInfo())
	}
	add(wire.SupportedGroups(p.Groups...))
	if tls12 {
		add(wire.UncompressedPoints())
	}
	add(wire.SignatureAlgorithms(p.SignatureSchemes...))
	if tls13 {
		h.SessionID = make([]byte, 32) // compatibility mode: RFC 8446, appendix D.4
		c.random(h.SessionID)
		add(wire.SupportedVersions(p.Versions...))
		share, err := hs.newShares(p.KeyShares...)
		if err != nil {
			return err
		}
		add(share)
	}
	hs.hello = h
	return nil
}

// random fills b with random bytes.
func (c *Conn) random(b []byte) {
	if fixed := c.config().random; fixed != nil {
		fixed.read(b)
		return
	}
	_, _ = rand.Read(b) // never fails
}

func (hs *clientState) offeredSuites() []wire.Suite {
	p := &hs.c.policy
	suites := make([]wire.Suite, 0, len(p.Suites))
	for _, s := range p.Suites {
		if s.IsTLS13() && p.has(wire.VersionTLS13) || !s.IsTLS13() && p.has(wire.VersionTLS12) {
			suites = append(suites, s)
		}
	}
	return suites
}

// newShares starts a key exchange for each group, and makes the extension.
func (hs *clientState) newShares(groups ...wire.Group) (wire.Extension, error) {
	hs.exchanges = nil
	var shares []wire.KeyShare
	for _, g := range groups {
		var ex *exchange
		var err error
		handshakes.pass(hs.c.number, func() { ex, err = hs.c.startExchange(g) })
		if err != nil {
			return wire.Extension{}, fault(wire.InternalError, "making a key share: %w", err)
		}
		hs.exchanges = append(hs.exchanges, ex)
		shares = append(shares, wire.KeyShare{Group: g, Data: ex.share})
	}
	return wire.ClientKeyShares(shares...), nil
}

func (hs *clientState) sendClientHello() error {
	msg, err := hs.hello.Marshal()
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	hs.messages = append(hs.messages, msg)
	if err := hs.c.queue(wire.TypeHandshake, msg); err != nil {
		return err
	}
	return hs.c.flush()
}

func (hs *clientState) readServerHello() error {
	msg, err := hs.c.readMessage(wire.TypeServerHello)
	if err != nil {
		return err
	}
	if hs.serverHello, err = wire.ParseServerHello(msg); err != nil {
		return hs.c.malformed(err)
	}
	hs.messages = append(hs.messages, msg)
	return nil
}

// checkVersion settles the version (RFC 8446, sections 4.1.3 and 4.2.1).
func (hs *clientState) checkVersion() error {
	c, sh := hs.c, hs.serverHello
	body, ok := sh.Extensions.Get(wire.ExtSupportedVersions)
	if !ok {
		return hs.checkOldVersion()
	}
	if !c.policy.has(wire.VersionTLS13) {
		return fault(wire.UnsupportedExtension, "the TLS server answered supported_versions, which wasn't offered")
	}
	v, err := wire.ParseSelectedVersion(body)
	if err != nil {
		return c.malformed(err)
	}
	if v != wire.VersionTLS13 || sh.Version != wire.VersionTLS12 {
		return fault(wire.IllegalParameter, "the TLS server selected %v in supported_versions, with %v as legacy_version", v, sh.Version)
	}
	c.version = v
	return nil
}

// checkOldVersion settles the version of a ServerHello that doesn't select one
// by the extension: TLS 1.2 at most.
func (hs *clientState) checkOldVersion() error {
	c, sh := hs.c, hs.serverHello
	switch {
	// RFC 8446, section 4.1.3: whoever offers TLS 1.3 checks the sentinels.
	case c.policy.has(wire.VersionTLS13) && sh.Version <= wire.VersionTLS12 && sh.Downgrade() != 0,
		sh.Version < wire.VersionTLS12 && sh.Downgrade() == wire.VersionTLS11:
		return fault(wire.IllegalParameter, "the TLS server says that it was talked down to %v: somebody changes the messages on their way", sh.Version)
	case sh.IsHelloRetryRequest():
		return fault(wire.IllegalParameter, "the TLS server sent a HelloRetryRequest without a version")
	case sh.Version != wire.VersionTLS12 || !c.policy.has(wire.VersionTLS12):
		return fault(wire.ProtocolVersion, "the TLS server chose %v, which wasn't offered", sh.Version)
	}
	c.version = wire.VersionTLS12
	return nil
}

// retryIfAsked answers a HelloRetryRequest with a second ClientHello and reads
// the ServerHello that follows (RFC 8446, section 4.1.4).
func (hs *clientState) retryIfAsked() error {
	if !hs.serverHello.IsHelloRetryRequest() {
		return nil
	}
	hs.retry = hs.serverHello
	for _, step := range []func() error{
		hs.checkHelloFields,
		hs.checkRetry,
		hs.sendSecondHello,
		hs.readServerHello,
		hs.checkVersion,
		hs.checkSecondAnswer,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checkHelloFields checks what ServerHello and HelloRetryRequest of TLS 1.3
// have in common (RFC 8446, section 4.1.3).
func (hs *clientState) checkHelloFields() error {
	sh := hs.serverHello
	switch {
	case !bytes.Equal(sh.SessionID, hs.hello.SessionID):
		return fault(wire.IllegalParameter, "the TLS server doesn't echo the session ID")
	case sh.Compression != 0:
		return fault(wire.IllegalParameter, "the TLS server chose a compression method")
	case !sh.Suite.IsTLS13() || !slices.Contains(hs.hello.Suites, sh.Suite):
		return fault(wire.IllegalParameter, "the TLS server chose %v, which wasn't offered for TLS 1.3", sh.Suite)
	}
	allowed := []wire.ExtensionType{wire.ExtSupportedVersions, wire.ExtKeyShare}
	if sh.IsHelloRetryRequest() {
		allowed = append(allowed, wire.ExtCookie)
	}
	return hs.checkExtensions(sh.Extensions, "ServerHello", allowed...)
}

// checkExtensions refuses extensions that weren't offered, and those that must
// not be in this message (RFC 8446, section 4.2). A cookie needs no offer.
func (hs *clientState) checkExtensions(es wire.Extensions, where string, allowed ...wire.ExtensionType) error {
	for _, e := range es {
		if slices.Contains(allowed, e.Type) && e.Type == wire.ExtCookie {
			continue
		}
		if _, offered := hs.hello.Extensions.Get(e.Type); !offered {
			return fault(wire.UnsupportedExtension, "the TLS server sent the extension %v in its %s, which wasn't offered", e.Type, where)
		}
		if !slices.Contains(allowed, e.Type) {
			return fault(wire.IllegalParameter, "the TLS server sent the extension %v in its %s, where it can't stand", e.Type, where)
		}
	}
	return nil
}

// checkRetry checks what a HelloRetryRequest asks for, and changes the hello
// accordingly.
func (hs *clientState) checkRetry() error {
	c := hs.c
	cookie, hasCookie := hs.retry.Extensions.Get(wire.ExtCookie)
	share, hasShare := hs.retry.Extensions.Get(wire.ExtKeyShare)
	if !hasCookie && !hasShare {
		return fault(wire.IllegalParameter, "the TLS server sent a HelloRetryRequest that changes nothing")
	}
	if hasShare {
		g, err := wire.ParseRetryGroup(share)
		if err != nil {
			return c.malformed(err)
		}
		if !slices.Contains(c.policy.Groups, g) {
			return fault(wire.IllegalParameter, "the TLS server asked for a share in %v, which wasn't offered", g)
		}
		if hs.exchange(g) != nil {
			return fault(wire.IllegalParameter, "the TLS server asked for a share in %v, which it has", g)
		}
		e, err := hs.newShares(g)
		if err != nil {
			return err
		}
		for i := range hs.hello.Extensions {
			if hs.hello.Extensions[i].Type == wire.ExtKeyShare {
				hs.hello.Extensions[i] = e
			}
		}
	}
	if hasCookie {
		value, err := wire.ParseCookie(cookie)
		if err != nil {
			return c.malformed(err)
		}
		hs.hello.Extensions = append(hs.hello.Extensions, wire.Cookie(value))
	}
	return c.atRecordEnd(wire.TypeServerHello)
}

func (hs *clientState) exchange(g wire.Group) *exchange {
	for _, ex := range hs.exchanges {
		if ex.group == g {
			return ex
		}
	}
	return nil
}

// sendSecondHello sends the ChangeCipherSpec of the compatibility mode before
// the client's second flight (RFC 8446, appendix D.4).
func (hs *clientState) sendSecondHello() error {
	if err := hs.c.queue(wire.TypeChangeCipherSpec, []byte{1}); err != nil {
		return err
	}
	return hs.sendClientHello()
}

func (hs *clientState) checkSecondAnswer() error {
	switch {
	case hs.serverHello.IsHelloRetryRequest():
		return fault(wire.UnexpectedMessage, "the TLS server sent a second HelloRetryRequest")
	case hs.c.version != wire.VersionTLS13:
		return fault(wire.IllegalParameter, "the TLS server changed to %v after its HelloRetryRequest", hs.c.version)
	case hs.serverHello.Suite != hs.retry.Suite:
		return fault(wire.IllegalParameter, "the TLS server changed its cipher suite after its HelloRetryRequest")
	}
	return nil
}
