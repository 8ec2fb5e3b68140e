package keytls

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// The puppet as a TLS client:

// offer makes a good ClientHello with a share in X25519.
func (p *puppet) offer() (*wire.ClientHello, *exchange) {
	ex, err := startExchange(wire.X25519)
	if err != nil {
		p.t.Error(err)
	}
	m := &wire.ClientHello{
		Version: wire.VersionTLS12, SessionID: make([]byte, 32), Compression: []byte{0},
		Suites: []wire.Suite{wire.AES256GCM, wire.AES128GCM},
		Extensions: wire.Extensions{
			wire.ServerCertificateTypes(wire.X509, wire.RawPublicKey),
			wire.SupportedGroups(wire.X25519, wire.P384),
			wire.SignatureAlgorithms(wire.ECDSAP256SHA256, wire.Ed25519),
			wire.SupportedVersions(wire.VersionTLS13),
			wire.ClientKeyShares(wire.KeyShare{Group: wire.X25519, Data: ex.share}),
		},
	}
	_, _ = rand.Read(m.Random[:])
	return m, ex
}

// hearServer reads the server's flight and makes the keys, unchecked.
func (p *puppet) hearServer(ex *exchange) {
	msg := p.message()
	p.note(msg)
	sh, err := wire.ParseServerHello(msg)
	if err != nil {
		p.t.Errorf("the ServerHello: %v", err)
		return
	}
	body, _ := sh.Extensions.Get(wire.ExtKeyShare)
	share, _ := wire.ParseServerKeyShare(body)
	shared, err := ex.agree(share.Data)
	if err != nil {
		p.t.Errorf("the server's share: %v", err)
		return
	}
	p.startKeys(sh.Suite, shared, len(p.messages) > 2)
	p.in = []schedule.Records{p.keys.Server.Protection()}
	for range 4 {
		p.note(p.message())
	}
	p.out = p.keys.Client.Protection()
	p.app = p.keys.Application(p.transcript.Sum(nil))
	p.in = append(p.in, p.app.Server.Protection())
}

func (p *puppet) clientFinished() []byte {
	m := wire.Finished{VerifyData: p.keys.Client.Finished(p.transcript.Sum(nil))}
	return must(m.Marshal())
}

func (p *puppet) handshakeAsClient() {
	p.untilFinished()
	p.send(wire.TypeHandshake, p.clientFinished())
	p.out = p.app.Client.Protection()
}

func (p *puppet) untilFinished() {
	m, ex := p.offer()
	p.say(must(m.Marshal()))
	p.hearServer(ex)
}

// offering makes a script that changes the ClientHello, and sends no more.
func offering(f func(m *wire.ClientHello)) func(*puppet) {
	return func(p *puppet) {
		m, _ := p.offer()
		f(m)
		p.say(must(m.Marshal()))
	}
}

// retried makes a script that gets a HelloRetryRequest for P-384 and changes
// the second hello.
func retried(f func(m *wire.ClientHello)) func(*puppet) {
	return func(p *puppet) {
		m, _ := p.offer()
		put(m.Extensions, wire.ClientKeyShares())
		m.Extensions = m.Extensions[:len(m.Extensions):len(m.Extensions)]
		put(m.Extensions, wire.SupportedGroups(wire.P384))
		p.say(must(m.Marshal()))
		p.message()
		ex, _ := startExchange(wire.P384)
		put(m.Extensions, wire.ClientKeyShares(wire.KeyShare{Group: wire.P384, Data: ex.share}))
		f(m)
		p.say(must(m.Marshal()))
	}
}

func without(t wire.ExtensionType) func(*puppet) {
	return offering(func(m *wire.ClientHello) {
		for i, e := range m.Extensions {
			if e.Type == t {
				m.Extensions = append(m.Extensions[:i:i], m.Extensions[i+1:]...)
				return
			}
		}
	})
}

func with(e wire.Extension) func(*puppet) {
	return offering(func(m *wire.ClientHello) { put(m.Extensions, e) })
}

// TestHostileClient is the TLS server, the role of a Mandos client, against
// TLS clients that break one rule each.
func TestHostileClient(t *testing.T) {
	share := func(g wire.Group, n int) wire.KeyShare { return wire.KeyShare{Group: g, Data: make([]byte, n)} }
	for name, tt := range map[string]struct {
		script func(*puppet)
		alert  wire.Alert
		want   string
	}{
		"wrong Finished":             {func(p *puppet) { p.untilFinished(); p.send(wire.TypeHandshake, flipped(p, p.clientFinished())) }, wire.DecryptError, "wrong Finished"},
		"Finished of another length": {func(p *puppet) { p.untilFinished(); p.send(wire.TypeHandshake, longer(p, p.clientFinished())) }, wire.DecodeError, "Finished is malformed"},
		"the server's own Finished":  {func(p *puppet) { p.untilFinished(); p.send(wire.TypeHandshake, p.serverFinished()) }, wire.DecryptError, "wrong Finished"},
		"Finished in plaintext":      {func(p *puppet) { p.untilFinished(); p.plain(wire.TypeHandshake, p.clientFinished()) }, wire.UnexpectedMessage, "unprotected"},
		"Finished in application keys": {func(p *puppet) {
			p.untilFinished()
			p.out = p.app.Client.Protection()
			p.send(wire.TypeHandshake, p.clientFinished())
		}, wire.BadRecordMAC, "fails authentication"},
		"data before Finished": {func(p *puppet) { p.untilFinished(); p.send(wire.TypeApplicationData, []byte("hi")) }, wire.UnexpectedMessage, "application_data where Finished belongs"},
		"more after Finished":  {func(p *puppet) { p.untilFinished(); p.send(wire.TypeHandshake, append(p.clientFinished(), 24)) }, wire.UnexpectedMessage, "more in the record"},
		"a certificate":        {func(p *puppet) { p.untilFinished(); p.send(wire.TypeHandshake, p.certificate(p.spki())) }, wire.UnexpectedMessage, "sent Certificate where Finished belongs"},

		"no versions":          {without(wire.ExtSupportedVersions), wire.ProtocolVersion, "offers TLS 1.2 at most"},
		"TLS 1.2 only":         {with(wire.SupportedVersions(wire.VersionTLS12)), wire.ProtocolVersion, "none is taken"},
		"half a version":       {with(wire.Extension{Type: wire.ExtSupportedVersions, Data: []byte{1, 3}}), wire.DecodeError, "malformed"},
		"no groups":            {without(wire.ExtSupportedGroups), wire.MissingExtension, "no supported_groups"},
		"no signature schemes": {without(wire.ExtSignatureAlgorithms), wire.MissingExtension, "no signature_algorithms"},
		"no key shares":        {without(wire.ExtKeyShare), wire.MissingExtension, "no key_share"},
		"no certificate types": {without(wire.ExtServerCertificateType), wire.UnsupportedCertificate, "no certificate of the type raw public key"},
		"X.509 only":           {with(wire.ServerCertificateTypes(wire.X509)), wire.UnsupportedCertificate, "no certificate of the type raw public key"},
		"no common suite":      {offering(func(m *wire.ClientHello) { m.Suites = []wire.Suite{0x1304, wire.ECDHERSAAES256GCM} }), wire.HandshakeFailure, "no cipher suite"},
		"no common group":      {with(wire.SupportedGroups(0x1E)), wire.IllegalParameter, "isn't among its groups"},
		"no common scheme":     {with(wire.SignatureAlgorithms(wire.ECDSAP256SHA256, wire.RSAPSSSHA256)), wire.HandshakeFailure, "no signature scheme"},
		"no group known": {func(p *puppet) {
			m, _ := p.offer()
			put(m.Extensions, wire.SupportedGroups(0x1E))
			put(m.Extensions, wire.ClientKeyShares())
			p.say(must(m.Marshal()))
		}, wire.HandshakeFailure, "no group of"},
		"compression":           {offering(func(m *wire.ClientHello) { m.Compression = []byte{1, 0} }), wire.IllegalParameter, "compression"},
		"two shares of a group": {with(wire.ClientKeyShares(share(wire.X25519, 32), share(wire.X25519, 32))), wire.IllegalParameter, "duplicate share"},
		"a share in no group":   {with(wire.ClientKeyShares(share(wire.P256, 65))), wire.IllegalParameter, "isn't among its groups"},
		"a share of zeros":      {with(wire.ClientKeyShares(share(wire.X25519, 32))), wire.IllegalParameter, "invalid share in x25519"},
		"a share too short":     {with(wire.ClientKeyShares(share(wire.X25519, 31))), wire.IllegalParameter, "invalid share in x25519"},
		"a share off the curve": {with(wire.ClientKeyShares(share(wire.P384, 97))), wire.IllegalParameter, "invalid share in secp384r1"},
		"an extension twice":    {offering(func(m *wire.ClientHello) { m.Extensions = append(m.Extensions, m.Extensions[0]) }), wire.IllegalParameter, "duplicate extension"},
		"a PSK that isn't last": {offering(func(m *wire.ClientHello) {
			m.Extensions = append(wire.Extensions{{Type: wire.ExtPreSharedKey}}, m.Extensions...)
		}), wire.IllegalParameter, "after pre_shared_key"},
		"a byte after the hello": {func(p *puppet) { m, _ := p.offer(); p.say(longer(p, must(m.Marshal()))) }, wire.DecodeError, "ClientHello is malformed"},
		"more after the hello":   {func(p *puppet) { m, _ := p.offer(); p.say(append(must(m.Marshal()), 1)) }, wire.UnexpectedMessage, "more in the record"},
		"a hello far too long":   {func(p *puppet) { p.send(wire.TypeHandshake, []byte{1, 1, 0, 1}) }, wire.DecodeError, "ClientHello of 65537 bytes"},
		"no hello":               {func(p *puppet) { p.send(wire.TypeHandshake, (&wire.KeyUpdate{}).Marshal()) }, wire.UnexpectedMessage, "sent KeyUpdate where ClientHello belongs"},
		"a CCS before the hello": {func(p *puppet) { p.plain(wire.TypeChangeCipherSpec, []byte{1}) }, wire.UnexpectedMessage, "outside of the handshake"},
		"data before the hello":  {func(p *puppet) { p.plain(wire.TypeApplicationData, []byte("hi")) }, wire.UnexpectedMessage, "unprotected application data"},
		"HTTP":                   {func(p *puppet) { p.raw([]byte("GET / HTTP/1.0\r\n\r\n")...) }, wire.UnexpectedMessage, "isn't TLS"},
		"a record too long":      {func(p *puppet) { p.raw(22, 3, 1, 0x40, 1) }, wire.RecordOverflow, "more than 16384"},

		"the retry's share isn't there": {retried(func(m *wire.ClientHello) { put(m.Extensions, wire.ClientKeyShares()) }), wire.IllegalParameter, "doesn't send the share in secp384r1"},
		"two shares after the retry": {retried(func(m *wire.ClientHello) {
			put(m.Extensions, wire.ClientKeyShares(share(wire.P384, 97), share(wire.X25519, 32)))
		}), wire.IllegalParameter, "doesn't send the share"},
		"another random after the retry": {retried(func(m *wire.ClientHello) { m.Random[0] ^= 1 }), wire.IllegalParameter, "changed its ClientHello"},
		"other suites after the retry":   {retried(func(m *wire.ClientHello) { m.Suites = m.Suites[:1] }), wire.IllegalParameter, "changed its ClientHello"},
		"other groups after the retry":   {retried(func(m *wire.ClientHello) { put(m.Extensions, wire.SupportedGroups(wire.P384, wire.X25519)) }), wire.IllegalParameter, "changed its supported_groups"},
		"early data after the retry": {retried(func(m *wire.ClientHello) {
			m.Extensions = append(m.Extensions, wire.Extension{Type: wire.ExtEarlyData})
		}), wire.IllegalParameter, "early data"},

		"a CCS after the handshake": {func(p *puppet) { p.handshakeAsClient(); p.plain(wire.TypeChangeCipherSpec, []byte{1}) }, wire.UnexpectedMessage, "outside of the handshake"},
		"endless KeyUpdates": {func(p *puppet) {
			p.handshakeAsClient()
			for range 100 {
				p.send(wire.TypeHandshake, (&wire.KeyUpdate{Requested: true}).Marshal())
				p.app.Client.Update()
				p.out = p.app.Client.Protection()
			}
		}, wire.UnexpectedMessage, "too many KeyUpdates"},
		"endless empty records": {func(p *puppet) {
			p.handshakeAsClient()
			times(100, func(p *puppet) { p.send(wire.TypeApplicationData, nil) })(p)
		}, wire.UnexpectedMessage, "too many empty records"},
		"a ticket": {func(p *puppet) { p.handshakeAsClient(); p.send(wire.TypeHandshake, ticket) }, wire.UnexpectedMessage, "sent NewSessionTicket after the handshake"},
		"a second ClientHello": {func(p *puppet) {
			p.handshakeAsClient()
			m, _ := p.offer()
			p.send(wire.TypeHandshake, must(m.Marshal()))
		}, wire.UnexpectedMessage, "sent ClientHello after the handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			o := against(t, serverSide(&Config{Key: testKey("Ed25519")}), tt.script)
			checkRefusal(t, o, tt.alert, "the TLS client", tt.want)
		})
	}
}

// clientBoundaries are scripts that end at each message boundary of the
// client's side.
func clientBoundaries() map[string]func(*puppet) {
	return map[string]func(*puppet){
		"at once":           func(*puppet) {},
		"after ClientHello": (*puppet).untilFinished,
		"after HelloRetryRequest": func(p *puppet) {
			m, _ := p.offer()
			put(m.Extensions, wire.ClientKeyShares())
			p.say(must(m.Marshal()))
			p.message()
			_, _, _ = p.next() // the ChangeCipherSpec
		},
		"after Finished": (*puppet).handshakeAsClient,
	}
}

func TestClientHangsUpOrIsSilent(t *testing.T) {
	cfg := &Config{Key: testKey("Ed25519")}
	for name, script := range clientBoundaries() {
		t.Run(name+"/hangs up", func(t *testing.T) {
			o := against(t, serverSide(cfg), func(p *puppet) { script(p); p.conn.Close() })
			if !errors.Is(o.err, io.ErrUnexpectedEOF) || !strings.Contains(o.err.Error(), "the TLS client closed the connection") || o.elapsed != 0 {
				t.Errorf("the error is %v, after %v", o.err, o.elapsed)
			}
		})
		t.Run(name+"/is silent", func(t *testing.T) {
			o := against(t, serverSide(cfg), script)
			if !errors.Is(o.err, os.ErrDeadlineExceeded) || o.elapsed != sessionDeadline || len(o.data) != 0 {
				t.Errorf("the error is %v, after %v", o.err, o.elapsed)
			}
		})
	}
	// A client that can't use the ServerHello has no keys to protect its
	// alert with.
	t.Run("plaintext alert after ServerHello", func(t *testing.T) {
		o := against(t, serverSide(cfg), func(p *puppet) { p.untilFinished(); p.plain(wire.TypeAlert, []byte{2, 47}) })
		ae, ok := errors.AsType[*AlertError](o.err)
		if !ok || !ae.Remote || ae.Alert != wire.IllegalParameter || len(o.alerts) != 0 {
			t.Errorf("the error is %v", o.err)
		}
	})
}

func TestGoodClients(t *testing.T) {
	for name, script := range map[string]func(*puppet){
		"the simplest": (*puppet).handshakeAsClient,
		"no compatibility mode": func(p *puppet) {
			m, ex := p.offer()
			m.SessionID = nil
			p.say(must(m.Marshal()))
			p.hearServer(ex)
			p.send(wire.TypeHandshake, p.clientFinished())
			p.out = p.app.Client.Protection()
		},
		"ChangeCipherSpecs": func(p *puppet) {
			m, ex := p.offer()
			p.say(must(m.Marshal()))
			p.plain(wire.TypeChangeCipherSpec, []byte{1})
			p.hearServer(ex)
			p.plain(wire.TypeChangeCipherSpec, []byte{1})
			p.send(wire.TypeHandshake, p.clientFinished())
			p.out = p.app.Client.Protection()
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := against(t, serverSide(&Config{Key: testKey("Ed25519")}), func(p *puppet) {
				script(p)
				p.send(wire.TypeApplicationData, []byte("x"))
			})
			if o.err != nil || string(o.data) != "the secret" {
				t.Errorf("error %v, and %q was sent", o.err, o.data)
			}
		})
	}
}
