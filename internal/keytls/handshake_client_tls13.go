package keytls

import (
	"crypto/hmac"
	"hash"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// A clientState13 is the state of the TLS client's handshake from the
// ServerHello of TLS 1.3 on.
type clientState13 struct {
	*clientState

	suite       *schedule.Suite
	transcript  hash.Hash
	keys        *schedule.Handshake
	application *schedule.Application
	peer        *peerkey.Key
}

// clientHandshakeTLS13 continues from a ServerHello that chose TLS 1.3.
func (c *Conn) clientHandshakeTLS13(hello *clientState) error {
	hs := &clientState13{clientState: hello}
	defer hs.wipe()
	for _, step := range []func() error{
		hs.checkHelloFields,
		hs.startTranscript,
		hs.agreeOnKeys,
		hs.readEncryptedExtensions,
		hs.readCertificate,
		hs.readCertificateVerify,
		hs.readFinished,
		hs.sendFinished,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	c.suite = hs.suite.ID
	c.identity = hs.peer.Identity
	c.in.setTraffic(&hs.application.Server)
	c.out.setTraffic(&hs.application.Client)
	return nil
}

func (hs *clientState13) wipe() {
	if hs.keys != nil {
		hs.keys.Wipe()
	}
}

// startTranscript hashes the messages so far (RFC 8446, section 4.4.1).
func (hs *clientState13) startTranscript() error {
	suite, err := schedule.ForSuite(hs.serverHello.Suite)
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	hs.suite = suite
	hs.transcript = newTranscript(suite, hs.messages, hs.retry != nil)
	hs.messages = nil
	return nil
}

// newTranscript starts the transcript's hash. After a HelloRetryRequest, the
// first ClientHello is replaced by its hash.
func newTranscript(suite *schedule.Suite, messages [][]byte, retried bool) hash.Hash {
	h := suite.NewHash()
	for i, msg := range messages {
		h.Write(msg)
		if i == 0 && retried {
			sum := h.Sum(nil)
			h.Reset()
			h.Write(wire.MessageHash(sum))
		}
	}
	return h
}

// agreeOnKeys turns the server's key share into the handshake's keys.
func (hs *clientState13) agreeOnKeys() error {
	c := hs.c
	body, ok := hs.serverHello.Extensions.Get(wire.ExtKeyShare)
	if !ok {
		return fault(wire.MissingExtension, "the TLS server sent no key share")
	}
	share, err := wire.ParseServerKeyShare(body)
	if err != nil {
		return c.malformed(err)
	}
	ex := hs.exchange(share.Group)
	if ex == nil {
		return fault(wire.IllegalParameter, "the TLS server sent a share in %v, for which it got none", share.Group)
	}
	var shared []byte
	handshakes.pass(c.number, func() { shared, err = ex.agree(share.Data) })
	if err != nil {
		return fault(wire.IllegalParameter, "the TLS server sent an invalid share in %v: %w", share.Group, err)
	}
	hs.exchanges = nil
	if err := c.atRecordEnd(wire.TypeServerHello); err != nil {
		return err
	}
	c.group = share.Group
	hs.keys = schedule.NewEarly(hs.suite).Handshake(shared, hs.transcript.Sum(nil))
	c.in.setTraffic(&hs.keys.Server)
	// At the latest before the first protected record, but only once (RFC 8446,
	// appendix D.4). It is sent with the rest of its flight, or an alert.
	if hs.retry == nil {
		if err := c.queue(wire.TypeChangeCipherSpec, []byte{1}); err != nil {
			return err
		}
	}
	c.out.setTraffic(&hs.keys.Client)
	return nil
}

func (hs *clientState13) readEncryptedExtensions() error {
	c := hs.c
	msg, err := c.readMessage(wire.TypeEncryptedExtensions)
	if err != nil {
		return err
	}
	ee, err := wire.ParseEncryptedExtensions(msg)
	if err != nil {
		return c.malformed(err)
	}
	hs.transcript.Write(msg)
	err = hs.checkExtensions(ee.Extensions, "EncryptedExtensions", wire.ExtServerCertificateType, wire.ExtSupportedGroups)
	if err != nil {
		return err
	}
	if body, ok := ee.Extensions.Get(wire.ExtSupportedGroups); ok {
		// For a later connection only (RFC 8446, section 4.2.7).
		if _, err := wire.ParseSupportedGroups(body); err != nil {
			return c.malformed(err)
		}
	}
	// RFC 7250, section 4.2: without an answer, it is X.509.
	got, want := wire.X509, c.certificateType().code()
	if body, ok := ee.Extensions.Get(wire.ExtServerCertificateType); ok {
		if got, err = wire.ParseServerCertificateType(body); err != nil {
			return c.malformed(err)
		}
		if got != want {
			return fault(wire.IllegalParameter, "the TLS server chose the certificate type %v, which wasn't offered", got)
		}
	}
	if got != want {
		return fault(wire.UnsupportedCertificate, "the TLS server doesn't know the certificate type %v", want)
	}
	return nil
}

func (hs *clientState13) readCertificate() error {
	c := hs.c
	msg, err := c.readMessage(wire.TypeCertificate)
	if err != nil {
		return err
	}
	m, err := wire.ParseCertificate(msg)
	if err != nil {
		return c.malformed(err)
	}
	hs.transcript.Write(msg)
	// RFC 8446, sections 4.4.2 and 4.4.2.4.
	if len(m.Context) != 0 {
		return fault(wire.IllegalParameter, "the TLS server sent a certificate for a request that it didn't get")
	}
	if len(m.Entries) == 0 {
		return fault(wire.DecodeError, "the TLS server sent no certificate")
	}
	var entries [][]byte
	for _, e := range m.Entries {
		if err := hs.checkExtensions(e.Extensions, "certificate"); err != nil {
			return err
		}
		entries = append(entries, e.Data)
	}
	if hs.peer, err = c.certificateType().parse(entries); err != nil {
		return fault(wire.BadCertificate, "the TLS server sent a certificate that can't be used: %w", err)
	}
	return nil
}

// readCertificateVerify checks the server's proof that it holds its key (RFC
// 8446, section 4.4.3).
func (hs *clientState13) readCertificateVerify() error {
	c := hs.c
	msg, err := c.readMessage(wire.TypeCertificateVerify)
	if err != nil {
		return err
	}
	m, err := wire.ParseCertificateVerify(msg)
	if err != nil {
		return c.malformed(err)
	}
	if !c.policy.signs(m.Scheme) || !peerkey.Fits(hs.peer.Public, m.Scheme) {
		return fault(wire.IllegalParameter, "the TLS server signed with %v, which wasn't offered or doesn't go with its key", m.Scheme)
	}
	signed := signedContent(hs.transcript.Sum(nil))
	if err := peerkey.Verify(hs.peer.Public, m.Scheme, signed, m.Signature); err != nil {
		return fault(wire.DecryptError, "the TLS server doesn't prove that it holds its key: %w", err)
	}
	hs.transcript.Write(msg)
	return nil
}

// readFinished reads and checks the server's Finished (RFC 8446, section
// 4.4.4).
func (hs *clientState13) readFinished() error {
	c := hs.c
	msg, err := c.readMessage(wire.TypeFinished)
	if err != nil {
		return err
	}
	m, err := wire.ParseFinished(msg, hs.transcript.Size())
	if err != nil {
		return c.malformed(err)
	}
	if !hmac.Equal(m.VerifyData, hs.keys.Server.Finished(hs.transcript.Sum(nil))) {
		return fault(wire.DecryptError, "the TLS server sent a wrong Finished")
	}
	if err := c.atRecordEnd(wire.TypeFinished); err != nil {
		return err
	}
	hs.transcript.Write(msg)
	hs.application = hs.keys.Application(hs.transcript.Sum(nil))
	c.in.noCCS = true // RFC 8446, section 5
	return nil
}

func (hs *clientState13) sendFinished() error {
	m := wire.Finished{VerifyData: hs.keys.Client.Finished(hs.transcript.Sum(nil))}
	msg, err := m.Marshal()
	if err != nil {
		return fault(wire.InternalError, "%w", err)
	}
	if err := hs.c.queue(wire.TypeHandshake, msg); err != nil {
		return err
	}
	if hs.c.config().HoldFinished {
		hs.c.out.held.Store(true)
		return nil
	}
	return hs.c.flush()
}
