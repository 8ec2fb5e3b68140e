package keytls

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"hash"
	"slices"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// A serverState is the state of the TLS server's handshake, which is TLS 1.3
// only.
type serverState struct {
	c *Conn

	hello    *wire.ClientHello
	messages [][]byte // ClientHello [, HelloRetryRequest, ClientHello]
	retried  bool

	suite  *schedule.Suite
	scheme wire.SignatureScheme
	group  wire.Group
	share  []byte // the client's, in group; nil: a HelloRetryRequest has to ask for it

	transcript  hash.Hash
	keys        *schedule.Handshake
	application *schedule.Application
}

// serverHandshake runs the TLS server's handshake.
func (c *Conn) serverHandshake() error {
	hs := &serverState{c: c}
	defer hs.wipe()
	c.in.noCCS = true // nothing comes before the ClientHello (RFC 8446, section 5)
	for _, step := range []func() error{
		hs.readClientHello,
		hs.checkVersion,
		hs.checkHello,
		hs.chooseSuite,
		hs.chooseCertificate,
		hs.chooseScheme,
		hs.chooseGroup,
		hs.retryIfNeeded,
		hs.sendServerHello,
		hs.sendEncryptedExtensions,
		hs.sendCertificate,
		hs.sendCertificateVerify,
		hs.sendFinished,
		c.flush,
		hs.readFinished,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	c.suite = hs.suite.ID
	c.group = hs.group
	c.in.setTraffic(&hs.application.Client)
	return nil
}

func (hs *serverState) wipe() {
	if hs.keys != nil {
		hs.keys.Wipe()
	}
}

func (hs *serverState) readClientHello() error {
	msg, err := hs.c.readMessage(wire.TypeClientHello)
	if err != nil {
		return err
	}
	if hs.hello, err = wire.ParseClientHello(msg); err != nil {
		return hs.c.malformed(err)
	}
	hs.messages = append(hs.messages, msg)
	hs.c.in.noCCS = false
	return hs.c.atRecordEnd(wire.TypeClientHello)
}

// extension returns a body that the ClientHello of TLS 1.3 without PSK must
// have (RFC 8446, section 9.2).
func (hs *serverState) extension(t wire.ExtensionType) ([]byte, error) {
	body, ok := hs.hello.Extensions.Get(t)
	if !ok {
		return nil, fault(wire.MissingExtension, "the TLS client sent no %v", t)
	}
	return body, nil
}

// checkVersion accepts only TLS 1.3 (RFC 8446, section 4.2.1).
func (hs *serverState) checkVersion() error {
	c := hs.c
	body, ok := hs.hello.Extensions.Get(wire.ExtSupportedVersions)
	if !ok {
		return fault(wire.ProtocolVersion, "the TLS client offers %v at most", hs.hello.Version)
	}
	versions, err := wire.ParseSupportedVersions(body)
	if err != nil {
		return c.malformed(err)
	}
	if !slices.Contains(versions, wire.VersionTLS13) || !c.policy.has(wire.VersionTLS13) {
		return fault(wire.ProtocolVersion, "the TLS client offers %v, and none is taken", versions)
	}
	c.version = wire.VersionTLS13
	return nil
}

// checkHello checks the fields that have only one valid value in TLS 1.3 (RFC
// 8446, section 4.1.2).
func (hs *serverState) checkHello() error {
	es := hs.hello.Extensions
	for i, e := range es {
		if e.Type == wire.ExtPreSharedKey && i != len(es)-1 { // RFC 8446, section 4.2.11
			return fault(wire.IllegalParameter, "the TLS client sent an extension after pre_shared_key")
		}
	}
	if !bytes.Equal(hs.hello.Compression, []byte{0}) {
		return fault(wire.IllegalParameter, "the TLS client offers compression")
	}
	return nil
}

func (hs *serverState) chooseSuite() error {
	for _, id := range hs.c.policy.Suites {
		if suite, err := schedule.ForSuite(id); err == nil && slices.Contains(hs.hello.Suites, id) {
			hs.suite = suite
			return nil
		}
	}
	return fault(wire.HandshakeFailure, "the TLS client offers no cipher suite of %v", hs.c.policy.Suites)
}

// chooseCertificate agrees on the certificate's type (RFC 7250, section 4.2).
func (hs *serverState) chooseCertificate() error {
	want := hs.c.certificateType().code()
	types := []wire.CertificateType{wire.X509}
	if body, ok := hs.hello.Extensions.Get(wire.ExtServerCertificateType); ok {
		var err error
		if types, err = wire.ParseServerCertificateTypes(body); err != nil {
			return hs.c.malformed(err)
		}
	}
	if !slices.Contains(types, want) {
		return fault(wire.UnsupportedCertificate, "the TLS client takes no certificate of the type %v", want)
	}
	return nil
}

// chooseScheme picks a signature scheme for the key (RFC 8446, section 4.4.3).
func (hs *serverState) chooseScheme() error {
	c := hs.c
	body, err := hs.extension(wire.ExtSignatureAlgorithms)
	if err != nil {
		return err
	}
	theirs, err := wire.ParseSignatureAlgorithms(body)
	if err != nil {
		return c.malformed(err)
	}
	key := c.config().Key
	if key == nil {
		return fault(wire.InternalError, "there is no key to authenticate with")
	}
	for _, s := range c.policy.SignatureSchemes {
		if slices.Contains(theirs, s) && peerkey.Fits(key.Public(), s) {
			hs.scheme = s
			return nil
		}
	}
	return fault(wire.HandshakeFailure, "the TLS client offers no signature scheme for a key of type %T", key.Public())
}

// chooseGroup picks a group and finds the client's share. The hybrid group is
// worth a second round trip if the policy prefers it; a preference among the
// others isn't.
func (hs *serverState) chooseGroup() error {
	c := hs.c
	body, err := hs.extension(wire.ExtSupportedGroups)
	if err != nil {
		return err
	}
	theirs, err := wire.ParseSupportedGroups(body)
	if err != nil {
		return c.malformed(err)
	}
	shares, err := hs.clientShares()
	if err != nil {
		return err
	}
	for _, s := range shares { // RFC 8446, section 4.2.8
		if !slices.Contains(theirs, s.Group) {
			return fault(wire.IllegalParameter, "the TLS client sent a share in %v, which isn't among its groups", s.Group)
		}
	}
	var common []wire.Group
	for _, g := range c.policy.Groups {
		if slices.Contains(theirs, g) {
			common = append(common, g)
		}
	}
	if len(common) == 0 {
		return fault(wire.HandshakeFailure, "the TLS client offers no group of %v", c.policy.Groups)
	}
	hs.group = common[0]
	if hs.group != wire.X25519MLKEM768 {
		for _, g := range slices.Backward(common) {
			if findShare(shares, g) != nil {
				hs.group = g
			}
		}
	}
	hs.share = findShare(shares, hs.group)
	return nil
}

func (hs *serverState) clientShares() ([]wire.KeyShare, error) {
	body, err := hs.extension(wire.ExtKeyShare)
	if err != nil {
		return nil, err
	}
	shares, err := wire.ParseClientKeyShares(body)
	if err != nil {
		return nil, hs.c.malformed(err)
	}
	return shares, nil
}

func findShare(shares []wire.KeyShare, g wire.Group) []byte {
	for _, s := range shares {
		if s.Group == g {
			return s.Data
		}
	}
	return nil
}

// retryIfNeeded asks for a share in the group chosen (RFC 8446, section
// 4.1.4).
func (hs *serverState) retryIfNeeded() error {
	c := hs.c
	if hs.share != nil {
		return nil
	}
	hs.retried = true
	retry := hs.answer(wire.RetryGroup(hs.group))
	retry.SetHelloRetryRequest()
	if err := hs.sendHello(retry); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	first := hs.hello
	if err := hs.readClientHello(); err != nil {
		return err
	}
	// RFC 8446, section 4.1.2: all but a few extensions stay as they were.
	second := hs.hello
	if first.Version != second.Version || first.Random != second.Random ||
		!bytes.Equal(first.SessionID, second.SessionID) ||
		!slices.Equal(first.Suites, second.Suites) ||
		!bytes.Equal(first.Compression, second.Compression) {
		return fault(wire.IllegalParameter, "the TLS client changed its ClientHello more than it was asked to")
	}
	for _, t := range []wire.ExtensionType{wire.ExtSupportedVersions, wire.ExtSupportedGroups, wire.ExtSignatureAlgorithms, wire.ExtServerCertificateType} {
		was, _ := first.Extensions.Get(t)
		if is, _ := second.Extensions.Get(t); !bytes.Equal(was, is) {
			return fault(wire.IllegalParameter, "the TLS client changed its %v after a HelloRetryRequest", t)
		}
	}
	if _, ok := second.Extensions.Get(wire.ExtEarlyData); ok {
		return fault(wire.IllegalParameter, "the TLS client offers early data after a HelloRetryRequest")
	}
	if err := hs.checkHello(); err != nil {
		return err
	}
	shares, err := hs.clientShares()
	if err != nil {
		return err
	}
	if len(shares) != 1 || shares[0].Group != hs.group {
		return fault(wire.IllegalParameter, "the TLS client doesn't send the share in %v that it was asked for", hs.group)
	}
	hs.share = shares[0].Data
	return nil
}

// answer makes a ServerHello or HelloRetryRequest, without its random.
func (hs *serverState) answer(share wire.Extension) *wire.ServerHello {
	return &wire.ServerHello{
		Version:    wire.VersionTLS12, // RFC 8446, section 4.1.3
		SessionID:  hs.hello.SessionID,
		Suite:      hs.suite.ID,
		Extensions: wire.Extensions{wire.SelectedVersion(wire.VersionTLS13), share},
	}
}

// sendHello queues a ServerHello or HelloRetryRequest, and after the first of
// them the compatibility mode's ChangeCipherSpec (RFC 8446, appendix D.4).
func (hs *serverState) sendHello(m *wire.ServerHello) error {
	msg, err := m.Marshal()
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	hs.messages = append(hs.messages, msg)
	if err := hs.c.queue(wire.TypeHandshake, msg); err != nil {
		return err
	}
	if len(hs.hello.SessionID) == 0 || hs.retried && !m.IsHelloRetryRequest() {
		return nil
	}
	return hs.c.queue(wire.TypeChangeCipherSpec, []byte{1})
}

func (hs *serverState) sendServerHello() error {
	c := hs.c
	share, shared, err := answerExchange(hs.group, hs.share)
	if err != nil {
		return fault(wire.IllegalParameter, "the TLS client sent an invalid share in %v: %w", hs.group, err)
	}
	m := hs.answer(wire.ServerKeyShare(wire.KeyShare{Group: hs.group, Data: share}))
	_, _ = rand.Read(m.Random[:]) // never fails
	if err := hs.sendHello(m); err != nil {
		return err
	}
	hs.transcript = newTranscript(hs.suite, hs.messages, hs.retried)
	hs.messages = nil
	hs.keys = schedule.NewEarly(hs.suite).Handshake(shared, hs.transcript.Sum(nil))
	c.in.setTraffic(&hs.keys.Client)
	c.out.setTraffic(&hs.keys.Server)
	return nil
}

// send adds a message to transcript and flight.
func (hs *serverState) send(msg []byte, err error) error {
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	hs.transcript.Write(msg)
	return hs.c.queue(wire.TypeHandshake, msg)
}

func (hs *serverState) sendEncryptedExtensions() error {
	m := wire.EncryptedExtensions{}
	if t := hs.c.certificateType().code(); t != wire.X509 {
		m.Extensions = wire.Extensions{wire.ServerCertificateType(t)}
	}
	return hs.send(m.Marshal())
}

func (hs *serverState) sendCertificate() error {
	entries, err := hs.c.certificateType().entries(hs.c.config().Key)
	if err != nil {
		return fault(wire.InternalError, "showing the public key: %w", err)
	}
	m := wire.Certificate{}
	for _, data := range entries {
		m.Entries = append(m.Entries, wire.CertificateEntry{Data: data})
	}
	return hs.send(m.Marshal())
}

func (hs *serverState) sendCertificateVerify() error {
	sig, err := peerkey.Sign(hs.c.config().Key, hs.scheme, signedContent(hs.transcript.Sum(nil)))
	if err != nil {
		return fault(wire.InternalError, "signing with %v: %w", hs.scheme, err)
	}
	m := wire.CertificateVerify{Scheme: hs.scheme, Signature: sig}
	return hs.send(m.Marshal())
}

func (hs *serverState) sendFinished() error {
	m := wire.Finished{VerifyData: hs.keys.Server.Finished(hs.transcript.Sum(nil))}
	if err := hs.send(m.Marshal()); err != nil {
		return err
	}
	hs.application = hs.keys.Application(hs.transcript.Sum(nil))
	hs.c.out.setTraffic(&hs.application.Server)
	return nil
}

// readFinished reads and checks the client's Finished (RFC 8446, section
// 4.4.4).
func (hs *serverState) readFinished() error {
	c := hs.c
	msg, err := c.readMessage(wire.TypeFinished)
	if err != nil {
		return err
	}
	m, err := wire.ParseFinished(msg, hs.transcript.Size())
	if err != nil {
		return c.malformed(err)
	}
	if !hmac.Equal(m.VerifyData, hs.keys.Client.Finished(hs.transcript.Sum(nil))) {
		return fault(wire.DecryptError, "the TLS client sent a wrong Finished")
	}
	c.in.noCCS = true // RFC 8446, section 5
	return c.atRecordEnd(wire.TypeFinished)
}
