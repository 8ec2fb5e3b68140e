package keytls

import (
	"cmp"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 see peerkey
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"errors"
	"fmt"
	"hash"
	"slices"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// A clientState12 is the state of the TLS client's handshake from the
// ServerHello of TLS 1.2 on (RFC 5246, section 7.3). There is no session to
// resume, so it is always a full handshake.
type clientState12 struct {
	*clientState

	suite      *schedule.Suite12
	transcript hash.Hash
	extended   bool // RFC 7627
	peer       *peerkey.Key
	kex        *wire.ServerKeyExchange
	public     []byte // ours
	premaster  *schedule.Premaster
	master     *schedule.Master
	fromServer *schedule.Protection12
}

// clientHandshakeTLS12 continues from a ServerHello that chose TLS 1.2.
// hs.checkVersion has checked the version and the downgrade sentinel; the rest
// of the ServerHello is unchecked.
func (c *Conn) clientHandshakeTLS12(hello *clientState) error {
	hs := &clientState12{clientState: hello}
	hs.exchanges = nil // of TLS 1.3
	defer hs.wipe()
	for _, step := range []func() error{
		hs.checkHelloFields,
		hs.checkHelloExtensions,
		hs.startTranscript,
		hs.readCertificate,
		hs.readServerKeyExchange,
		hs.agreeOnKeys,
		hs.readServerHelloDone,
		hs.sendKeyExchange,
		hs.sendFinished,
		hs.readChangeCipherSpec,
		hs.readFinished,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	c.suite = hs.suite.ID
	c.group = hs.kex.Group
	c.identity = hs.peer.Identity
	c.validity = hs.peer.Validity
	return nil
}

func (hs *clientState12) wipe() {
	if hs.premaster != nil {
		hs.premaster.Wipe()
	}
	if hs.master != nil {
		hs.master.Wipe()
	}
}

// checkHelloFields checks what the server chose (RFC 5246, section 7.4.1.3).
func (hs *clientState12) checkHelloFields() error {
	sh := hs.serverHello
	switch {
	case len(sh.SessionID) > 0 && slices.Equal(sh.SessionID, hs.hello.SessionID):
		// RFC 8446, section 4.1.3, has TLS 1.3 echo it; in TLS 1.2 it means
		// that a session is resumed, and there was none.
		return fault(wire.IllegalParameter, "the TLS server wants to go on with a session that never was")
	case sh.Compression != 0:
		return fault(wire.IllegalParameter, "the TLS server chose a compression method")
	case sh.Suite.IsTLS13() || !slices.Contains(hs.hello.Suites, sh.Suite):
		return fault(wire.IllegalParameter, "the TLS server chose %v, which wasn't offered for TLS 1.2", sh.Suite)
	}
	var err error
	if hs.suite, err = schedule.ForSuite12(sh.Suite); err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	return nil
}

// checkHelloExtensions settles the certificate's type, secure renegotiation
// and the extended master secret.
func (hs *clientState12) checkHelloExtensions() error {
	c, es := hs.c, hs.serverHello.Extensions
	err := hs.checkExtensions(es, "ServerHello",
		wire.ExtExtendedMasterSecret, wire.ExtCertType, wire.ExtRenegotiationInfo, wire.ExtECPointFormats)
	if err != nil {
		return err
	}
	// RFC 6091, section 3.2: without an answer, it is X.509.
	got, want := wire.X509, c.certificateType12().code()
	if body, ok := es.Get(wire.ExtCertType); ok {
		if got, err = wire.ParseChosenCertificateType(body); err != nil {
			return c.malformed(err)
		}
		if got != want {
			return fault(wire.IllegalParameter, "the TLS server chose the certificate type %v, which wasn't offered", got)
		}
	}
	if got != want {
		return fault(wire.UnsupportedCertificate, "the TLS server chose TLS 1.2 but has no certificate of the type %v", want)
	}
	// RFC 5746, section 3.4: every GnuTLS with OpenPGP since 2010 has it.
	body, ok := es.Get(wire.ExtRenegotiationInfo)
	if !ok {
		return fault(wire.HandshakeFailure, "the TLS server doesn't know secure renegotiation (RFC 5746)")
	}
	switch info, err := wire.ParseRenegotiationInfo(body); {
	case err != nil:
		return c.malformed(err)
	case len(info) > 0:
		return fault(wire.HandshakeFailure, "the TLS server takes this handshake for a renegotiation")
	}
	// RFC 7627, section 5.2. GnuTLS 3.3 doesn't have it and is accepted
	// without: its lack does harm only where sessions are resumed or
	// renegotiated or channels bound, which is never done here. An attacker who
	// strips it on the way makes Finished fail.
	if body, hs.extended = es.Get(wire.ExtExtendedMasterSecret); len(body) > 0 {
		return fault(wire.DecodeError, "the TLS server sent an extended_master_secret that isn't empty")
	}
	if body, ok := es.Get(wire.ExtECPointFormats); ok {
		uncompressed, err := wire.ParseECPointFormats(body)
		if err != nil {
			return c.malformed(err)
		}
		if !uncompressed && !hs.suite.DHE { // RFC 8422, section 5.2
			return fault(wire.IllegalParameter, "the TLS server doesn't take uncompressed points")
		}
	}
	return nil
}

func (hs *clientState12) startTranscript() error {
	hs.transcript = hs.suite.NewHash()
	for _, msg := range hs.messages {
		hs.transcript.Write(msg)
	}
	hs.messages = nil
	return nil
}

// read reads the next message, which has to be of type t, into the
// transcript.
func (hs *clientState12) read(t wire.HandshakeType) ([]byte, error) {
	msg, err := hs.c.readMessage(t)
	if err == nil {
		hs.transcript.Write(msg)
	}
	return msg, err
}

func (hs *clientState12) readCertificate() error {
	c := hs.c
	msg, err := hs.read(wire.TypeCertificate)
	if err != nil {
		return err
	}
	if crowd := old.pass(func() { hs.peer, err = c.certificateType12().parse12(msg) }); crowd != nil {
		return fault(wire.InternalError, "%w", crowd)
	}
	if err != nil {
		switch {
		case errors.Is(err, wire.ErrMalformed):
			return c.malformed(err)
		case errors.Is(err, wire.ErrNoCertificate):
			return fault(wire.HandshakeFailure, "the TLS server sent no certificate")
		case errors.Is(err, wire.ErrOnlyFingerprint):
			return fault(wire.UnsupportedCertificate, "the TLS server sent a fingerprint in place of its OpenPGP certificate")
		}
		return fault(wire.BadCertificate, "the TLS server sent a certificate that can't be used: %w", err)
	}
	if have := signerOf(hs.peer.Public); have != hs.suite.Signer {
		return fault(wire.UnsupportedCertificate, "the TLS server chose %v, which doesn't go with its %v key", hs.suite.ID, have)
	}
	return nil
}

// signerOf returns the kind of key that public is, as cipher suites tell keys
// apart (RFC 5246, section 7.4.2; RFC 8422, section 5.3, for Ed25519).
func signerOf(public crypto.PublicKey) schedule.Signer {
	switch public.(type) {
	case *rsa.PublicKey:
		return schedule.SignerRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return schedule.SignerECDSA
	case *dsa.PublicKey:
		return schedule.SignerDSA
	}
	return 0
}

// readServerKeyExchange checks the server's proof that it holds its key (RFC
// 5246, section 7.4.3).
func (hs *clientState12) readServerKeyExchange() error {
	c := hs.c
	msg, err := hs.read(wire.TypeServerKeyExchange)
	if err != nil {
		return err
	}
	if hs.kex, err = wire.ParseServerKeyExchange(msg, hs.suite.DHE); err != nil {
		if errors.Is(err, wire.ErrExplicitCurve) {
			return fault(wire.HandshakeFailure, "the TLS server didn't choose a group: %w", err)
		}
		return c.malformed(err)
	}
	if !c.policy.signs(hs.kex.Scheme) {
		return fault(wire.IllegalParameter, "the TLS server signed with %v, which wasn't offered", hs.kex.Scheme)
	}
	signed := slices.Concat(hs.hello.Random[:], hs.serverHello.Random[:], hs.kex.Params)
	crowd := old.pass(func() { err = peerkey.Verify12(hs.peer.Public, hs.kex.Scheme, signed, hs.kex.Signature) })
	switch err := cmp.Or(crowd, err); {
	case err == errCrowd:
		return fault(wire.InternalError, "%w", err)
	case errors.Is(err, peerkey.ErrSignature):
		return fault(wire.DecryptError, "the TLS server doesn't prove that it holds its key: %w", err)
	case err != nil:
		return fault(wire.IllegalParameter, "the TLS server signed its key exchange wrongly: %w", err)
	}
	return nil
}

// agreeOnKeys makes the shared secret from the server's public value.
func (hs *clientState12) agreeOnKeys() (err error) {
	if crowd := old.pass(func() { err = hs.agree() }); crowd != nil {
		return fault(wire.InternalError, "%w", crowd)
	}
	return err
}

func (hs *clientState12) agree() error {
	c, kex := hs.c, hs.kex
	if !hs.suite.DHE {
		if _, ok := curves[kex.Group]; !ok || !slices.Contains(c.policy.Groups, kex.Group) {
			return fault(wire.IllegalParameter, "the TLS server chose %v, which wasn't offered", kex.Group)
		}
		ex, err := hs.c.startExchange(kex.Group)
		if err != nil {
			return fault(wire.InternalError, "%w", err)
		}
		shared, err := ex.agree(kex.Point)
		if err != nil {
			return fault(wire.IllegalParameter, "the TLS server sent an invalid public value in %v: %w", kex.Group, err)
		}
		hs.public, hs.premaster = ex.share, schedule.NewPremaster(hs.suite, shared)
		return nil
	}
	public, shared, err := dhe12(kex, c.policy.minDHBits(), c.policy.AnyPrime)
	if err != nil {
		alert := wire.IllegalParameter
		if errors.Is(err, errDHSmall) || errors.Is(err, errDHLarge) || errors.Is(err, errDHUnsafe) {
			alert = wire.InsufficientSecurity
		}
		return fault(alert, "the TLS server chose %w", err)
	}
	hs.public, hs.premaster = public, schedule.NewPremaster(hs.suite, shared)
	return nil
}

func (hs *clientState12) readServerHelloDone() error {
	msg, err := hs.read(wire.TypeServerHelloDone)
	if err != nil {
		return err
	}
	if err := wire.ParseServerHelloDone(msg); err != nil {
		return hs.c.malformed(err)
	}
	return hs.c.atRecordEnd(wire.TypeServerHelloDone)
}

// sendKeyExchange queues our public value, and makes the keys (RFC 5246,
// section 7.4.7, and RFC 7627, section 4).
func (hs *clientState12) sendKeyExchange() error {
	c := hs.c
	msg, err := (&wire.ClientKeyExchange{Public: hs.public}).Marshal(hs.suite.DHE)
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	hs.transcript.Write(msg)
	if err := c.queue(wire.TypeHandshake, msg); err != nil {
		return err
	}
	client, server := hs.hello.Random, hs.serverHello.Random
	if hs.extended {
		hs.master = hs.premaster.Extended(hs.transcript.Sum(nil))
	} else {
		hs.master = hs.premaster.Plain(client, server)
	}
	if err := c.queue(wire.TypeChangeCipherSpec, []byte{1}); err != nil {
		return err
	}
	c.out.protection, hs.fromServer = hs.master.Protections(client, server)
	return nil
}

// sendFinished sends Finished with the rest of the flight.
func (hs *clientState12) sendFinished() error {
	m := wire.Finished{VerifyData: hs.master.Finished(true, hs.transcript.Sum(nil))}
	msg, err := m.Marshal()
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	hs.transcript.Write(msg)
	if err := hs.c.queue(wire.TypeHandshake, msg); err != nil {
		return err
	}
	return hs.c.flush()
}

// readChangeCipherSpec changes the keys for reading (RFC 5246, section 7.1).
func (hs *clientState12) readChangeCipherSpec() error {
	c := hs.c
	t, fragment, err := c.readRecord()
	switch {
	case err != nil:
		return err
	case t != wire.TypeChangeCipherSpec:
		return fault(wire.UnexpectedMessage, "the TLS server sent a record of %v where ChangeCipherSpec belongs", t)
	case len(fragment) != 1 || fragment[0] != 1:
		return fault(wire.DecodeError, "the TLS server sent a malformed ChangeCipherSpec")
	}
	c.in.protection = hs.fromServer
	return nil
}

// readFinished reads and checks the server's Finished (RFC 5246, section
// 7.4.9).
func (hs *clientState12) readFinished() error {
	c := hs.c
	want := hs.master.Finished(false, hs.transcript.Sum(nil))
	msg, err := c.readMessage(wire.TypeFinished)
	if err != nil {
		return err
	}
	m, err := wire.ParseFinished(msg, schedule.FinishedLen12)
	if err != nil {
		return c.malformed(err)
	}
	if !hmac.Equal(m.VerifyData, want) {
		return fault(wire.DecryptError, "the TLS server sent a wrong Finished")
	}
	return c.atRecordEnd(wire.TypeFinished)
}

// A certificateType12 is how a TLS server presents its key in TLS 1.2. Outside
// of tests there are only OpenPGP certificates.
type certificateType12 interface {
	// code is the type's code point (RFC 6091, section 3.1).
	code() wire.CertificateType
	// parse12 reads a Certificate message.
	parse12(msg []byte) (*peerkey.Key, error)
}

// openPGP is RFC 6091's.
type openPGP struct{}

func (openPGP) code() wire.CertificateType { return wire.OpenPGP }

func (openPGP) parse12(msg []byte) (*peerkey.Key, error) {
	m, err := wire.ParseOpenPGPCertificate(msg)
	if err != nil {
		return nil, err
	}
	key, err := peerkey.ParseOpenPGP(m.Data)
	if err != nil {
		return nil, err
	}
	// Clients are known by their primary key, and that key has to sign: no
	// mandos-client ever signed with a subkey.
	if own := key.Identity.Fingerprint.OpenPGPKeyID(); m.HasKeyID && m.KeyID != own {
		return nil, fmt.Errorf("it says that the key %X signs, and the primary key is %X: subkeys can't", m.KeyID, own)
	}
	return key, nil
}

func (c *Conn) certificateType12() certificateType12 {
	if t, ok := c.config().certificates.(certificateType12); ok {
		return t
	}
	return openPGP{}
}
