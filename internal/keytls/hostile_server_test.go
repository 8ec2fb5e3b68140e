package keytls

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/keytls/wire"
)

type replaced = map[wire.HandshakeType]func(good []byte) []byte

// replace makes the script of a good server up to one message of its flight,
// which f changes; if f returns nil, it has sent its own data.
func replace(t wire.HandshakeType, f func(p *puppet, good []byte) []byte) func(*puppet) {
	return func(p *puppet) {
		p.readHello()
		p.sayHello(p.answer())
		p.flight(replaced{t: func(good []byte) []byte { return f(p, good) }})
	}
}

// hello makes a script that changes the ServerHello, and sends nothing more.
func hello(f func(p *puppet, sh *wire.ServerHello)) func(*puppet) {
	return func(p *puppet) {
		p.readHello()
		sh, shared := p.answer()
		f(p, sh)
		p.sayHello(sh, shared)
	}
}

// after makes a script that continues after a good handshake.
func after(f func(p *puppet)) func(*puppet) {
	return func(p *puppet) {
		p.handshake()
		f(p)
	}
}

func put(es wire.Extensions, e wire.Extension) {
	for i := range es {
		if es[i].Type == e.Type {
			es[i] = e
		}
	}
}

// longer adds a byte to a message, and to the length in its header.
func longer(_ *puppet, msg []byte) []byte {
	msg = append(bytes.Clone(msg), 0)
	n := len(msg) - wire.MessageHeaderLen
	msg[1], msg[2], msg[3] = byte(n>>16), byte(n>>8), byte(n)
	return msg
}

func flipped(_ *puppet, msg []byte) []byte {
	msg = bytes.Clone(msg)
	msg[len(msg)-1] ^= 1
	return msg
}

func times(n int, f func(p *puppet)) func(*puppet) {
	return func(p *puppet) {
		for range n {
			f(p)
		}
	}
}

func keyUpdate(p *puppet, requested bool) {
	update := wire.KeyUpdate{Requested: requested}
	p.send(wire.TypeHandshake, update.Marshal())
	p.app.Server.Update()
	p.out = p.app.Server.Protection()
}

var ticket = []byte{4, 0, 0, 14, 0, 0, 1, 0, 1, 2, 3, 4, 0, 0, 1, 7, 0, 0}

// TestHostileServer is the TLS client, the role of a Mandos server, against
// TLS servers that break one rule each.
func TestHostileServer(t *testing.T) {
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	only13 := Policy{Versions: []wire.Version{wire.VersionTLS13}}
	big := make([]byte, wire.MaxPlaintext+1)
	finished, verify, certificate, extensions := wire.TypeFinished, wire.TypeCertificateVerify, wire.TypeCertificate, wire.TypeEncryptedExtensions

	for name, tt := range map[string]struct {
		policy Policy
		script func(*puppet)
		alert  wire.Alert
		want   string // in the error
	}{
		// Proof of the key.
		"wrong Finished":             {script: replace(finished, flipped), alert: wire.DecryptError, want: "wrong Finished"},
		"Finished of another length": {script: replace(finished, longer), alert: wire.DecodeError, want: "Finished is malformed"},
		"the client's own Finished": {script: replace(finished, func(p *puppet, _ []byte) []byte {
			return must((&wire.Finished{VerifyData: p.keys.Client.Finished(p.transcript.Sum(nil))}).Marshal())
		}), alert: wire.DecryptError, want: "wrong Finished"},
		"wrong CertificateVerify": {script: replace(verify, flipped), alert: wire.DecryptError, want: "doesn't prove that it holds its key"},
		"CertificateVerify of another key": {script: replace(verify, func(p *puppet, _ []byte) []byte {
			return p.signed(otherKey, wire.Ed25519, signedContent(p.transcript.Sum(nil)))
		}), alert: wire.DecryptError, want: "doesn't prove that it holds its key"},
		"CertificateVerify of another context": {script: replace(verify, func(p *puppet, _ []byte) []byte {
			content := bytes.Replace(signedContent(p.transcript.Sum(nil)), []byte("server"), []byte("client"), 1)
			return p.signed(p.key, wire.Ed25519, content)
		}), alert: wire.DecryptError, want: "doesn't prove that it holds its key"},
		"CertificateVerify of another transcript": {script: replace(verify, func(p *puppet, _ []byte) []byte {
			return p.signed(p.key, wire.Ed25519, signedContent(make([]byte, 48)))
		}), alert: wire.DecryptError, want: "doesn't prove that it holds its key"},
		"CertificateVerify with an empty signature": {script: replace(verify, func(p *puppet, _ []byte) []byte {
			return must((&wire.CertificateVerify{Scheme: wire.Ed25519}).Marshal())
		}), alert: wire.DecryptError, want: "doesn't prove that it holds its key"},
		"a scheme that doesn't go with the key": {script: replace(verify, func(p *puppet, good []byte) []byte {
			return must((&wire.CertificateVerify{Scheme: wire.ECDSAP256SHA256, Signature: good}).Marshal())
		}), alert: wire.IllegalParameter, want: "signed with ecdsa_secp256r1_sha256"},
		"a scheme that wasn't offered": {policy: Policy{SignatureSchemes: []wire.SignatureScheme{wire.ECDSAP256SHA256}},
			script: replace(verify, func(_ *puppet, good []byte) []byte { return good }), alert: wire.IllegalParameter, want: "signed with ed25519"},
		"no CertificateVerify": {script: replace(verify, func(p *puppet, _ []byte) []byte { return p.serverFinished() }), alert: wire.UnexpectedMessage, want: "sent Finished where CertificateVerify belongs"},

		// The certificate.
		"certificate type not echoed": {script: replace(extensions, func(*puppet, []byte) []byte { return must((&wire.EncryptedExtensions{}).Marshal()) }), alert: wire.UnsupportedCertificate, want: "doesn't know the certificate type raw public key"},
		"certificate type X.509":      {script: replace(extensions, certType(wire.X509)), alert: wire.IllegalParameter, want: "chose the certificate type X.509"},
		"certificate type OpenPGP":    {script: replace(extensions, certType(wire.OpenPGP)), alert: wire.IllegalParameter, want: "chose the certificate type OpenPGP"},
		"certificate type of 2 bytes": {script: replace(extensions, func(*puppet, []byte) []byte {
			return must((&wire.EncryptedExtensions{Extensions: wire.Extensions{{Type: wire.ExtServerCertificateType, Data: []byte{2, 2}}}}).Marshal())
		}), alert: wire.DecodeError, want: "malformed"},
		"two entries":          {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate(p.spki(), p.spki()) }), alert: wire.BadCertificate, want: "more than one raw public key"},
		"no entry":             {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate() }), alert: wire.DecodeError, want: "sent no certificate"},
		"an empty key":         {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate(nil) }), alert: wire.DecodeError, want: "Certificate message is malformed"},
		"a key that is none":   {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate([]byte("key")) }), alert: wire.BadCertificate, want: "can't be read"},
		"a key and a byte":     {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate(append(p.spki(), 0)) }), alert: wire.BadCertificate, want: "can't be read"},
		"a key of Ed448":       {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate(ed448) }), alert: wire.BadCertificate, want: "unknown public key algorithm"},
		"an X.509 certificate": {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.certificate(must(selfSigned(p.key))) }), alert: wire.BadCertificate, want: "can't be read"},
		"a request context": {script: replace(certificate, func(p *puppet, _ []byte) []byte {
			return must((&wire.Certificate{Context: []byte{1}, Entries: []wire.CertificateEntry{{Data: p.spki()}}}).Marshal())
		}), alert: wire.IllegalParameter, want: "for a request that it didn't get"},
		"an entry's extension": {script: replace(certificate, func(p *puppet, _ []byte) []byte {
			return must((&wire.Certificate{Entries: []wire.CertificateEntry{{Data: p.spki(), Extensions: wire.Extensions{{Type: wire.ExtStatusRequest}}}}}).Marshal())
		}), alert: wire.UnsupportedExtension, want: "status_request in its certificate"},
		"no certificate at all": {script: replace(certificate, func(p *puppet, _ []byte) []byte { return p.serverFinished() }), alert: wire.UnexpectedMessage, want: "sent Finished where Certificate belongs"},
		"a certificate request": {script: replace(certificate, func(p *puppet, _ []byte) []byte { return []byte{13, 0, 0, 3, 0, 0, 0} }), alert: wire.UnexpectedMessage, want: "sent CertificateRequest where Certificate belongs"},
		"straight to Finished":  {script: replace(extensions, func(p *puppet, _ []byte) []byte { return p.serverFinished() }), alert: wire.UnexpectedMessage, want: "sent Finished where EncryptedExtensions belongs"},
		"a ticket too early":    {script: replace(extensions, func(p *puppet, _ []byte) []byte { return ticket }), alert: wire.UnexpectedMessage, want: "sent NewSessionTicket where EncryptedExtensions belongs"},
		"a KeyUpdate too early": {script: replace(extensions, func(p *puppet, _ []byte) []byte { return (&wire.KeyUpdate{}).Marshal() }), alert: wire.UnexpectedMessage, want: "sent KeyUpdate where EncryptedExtensions belongs"},
		"a second ServerHello":  {script: replace(extensions, func(p *puppet, _ []byte) []byte { sh, _ := p.answer(); return must(sh.Marshal()) }), alert: wire.UnexpectedMessage, want: "sent ServerHello where EncryptedExtensions belongs"},

		// Trailing bytes.
		"a byte after ServerHello":         {script: func(p *puppet) { p.readHello(); sh, _ := p.answer(); p.say(longer(p, must(sh.Marshal()))) }, alert: wire.DecodeError, want: "ServerHello is malformed"},
		"a byte after EncryptedExtensions": {script: replace(extensions, longer), alert: wire.DecodeError, want: "EncryptedExtensions is malformed"},
		"a byte after Certificate":         {script: replace(certificate, longer), alert: wire.DecodeError, want: "Certificate message is malformed"},
		"a byte after CertificateVerify":   {script: replace(verify, longer), alert: wire.DecodeError, want: "CertificateVerify is malformed"},

		// Extensions.
		"an extension that wasn't offered": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			sh.Extensions = append(sh.Extensions, wire.Extension{Type: wire.ExtALPN})
		}), alert: wire.UnsupportedExtension, want: "wasn't offered"},
		"a PSK that wasn't offered": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			sh.Extensions = append(sh.Extensions, wire.Extension{Type: wire.ExtPreSharedKey, Data: []byte{0, 0}})
		}), alert: wire.UnsupportedExtension, want: "pre_shared_key"},
		"a cookie in ServerHello": {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Extensions = append(sh.Extensions, wire.Cookie([]byte{1})) }), alert: wire.UnsupportedExtension, want: "cookie"},
		"an extension in the wrong place": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			sh.Extensions = append(sh.Extensions, wire.SupportedGroups(wire.P256))
		}), alert: wire.IllegalParameter, want: "where it can't stand"},
		"an extension twice": {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Extensions = append(sh.Extensions, sh.Extensions[0]) }), alert: wire.IllegalParameter, want: "duplicate extension"},
		"a key share in EncryptedExtensions": {script: replace(extensions, func(p *puppet, _ []byte) []byte {
			return must((&wire.EncryptedExtensions{Extensions: wire.Extensions{wire.RetryGroup(wire.P256)}}).Marshal())
		}), alert: wire.IllegalParameter, want: "where it can't stand"},
		"record_size_limit, not offered": {script: replace(extensions, func(p *puppet, _ []byte) []byte {
			return must((&wire.EncryptedExtensions{Extensions: wire.Extensions{{Type: wire.ExtRecordSizeLimit, Data: []byte{64, 1}}}}).Marshal())
		}), alert: wire.UnsupportedExtension, want: "record_size_limit"},
		"no key share":           {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Extensions = sh.Extensions[:1] }), alert: wire.MissingExtension, want: "no key share"},
		"another session ID":     {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.SessionID = make([]byte, 32) }), alert: wire.IllegalParameter, want: "session ID"},
		"compression":            {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Compression = 1 }), alert: wire.IllegalParameter, want: "compression"},
		"another legacy_version": {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Version = wire.VersionTLS13 }), alert: wire.IllegalParameter, want: "legacy_version"},

		// What wasn't offered.
		"a suite that is unknown":     {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Suite = 0x1304 }), alert: wire.IllegalParameter, want: "chose suite 0x1304"},
		"a suite of TLS 1.2":          {script: hello(func(_ *puppet, sh *wire.ServerHello) { sh.Suite = wire.ECDHERSAAES256GCM }), alert: wire.IllegalParameter, want: "chose TLS_ECDHE_RSA"},
		"a suite that wasn't offered": {policy: Policy{Suites: []wire.Suite{wire.AES128GCM}}, script: hello(func(*puppet, *wire.ServerHello) {}), alert: wire.IllegalParameter, want: "chose TLS_AES_256_GCM"},
		"a group without a share": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.ServerKeyShare(wire.KeyShare{Group: wire.P384, Data: make([]byte, 97)}))
		}), alert: wire.IllegalParameter, want: "share in secp384r1, for which it got none"},
		"a group that is unknown": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.ServerKeyShare(wire.KeyShare{Group: 0x100, Data: make([]byte, 256)}))
		}), alert: wire.IllegalParameter, want: "group 0x0100"},
		"a share of zeros": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.ServerKeyShare(wire.KeyShare{Group: wire.X25519, Data: make([]byte, 32)}))
		}), alert: wire.IllegalParameter, want: "invalid share in x25519"},
		"a share that is too short": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.ServerKeyShare(wire.KeyShare{Group: wire.X25519, Data: make([]byte, 31)}))
		}), alert: wire.IllegalParameter, want: "invalid share in x25519"},
		"a share that is no point": {policy: Policy{KeyShares: []wire.Group{wire.X25519, wire.P256}}, script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.ServerKeyShare(wire.KeyShare{Group: wire.P256, Data: append([]byte{4}, make([]byte, 64)...)}))
		}), alert: wire.IllegalParameter, want: "invalid share in secp256r1"},
		"a hybrid share, too short": {policy: Policy{KeyShares: []wire.Group{wire.X25519MLKEM768, wire.X25519}}, script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.ServerKeyShare(wire.KeyShare{Group: wire.X25519MLKEM768, Data: make([]byte, 1119)}))
		}), alert: wire.IllegalParameter, want: "invalid share in X25519MLKEM768"},
		"TLS 1.4": {script: hello(func(_ *puppet, sh *wire.ServerHello) { put(sh.Extensions, wire.SelectedVersion(0x0305)) }), alert: wire.IllegalParameter, want: "selected version 0x0305"},
		"TLS 1.2 by the extension": {script: hello(func(_ *puppet, sh *wire.ServerHello) {
			put(sh.Extensions, wire.SelectedVersion(wire.VersionTLS12))
		}), alert: wire.IllegalParameter, want: "selected TLS 1.2"},
		"TLS 1.2":                          {policy: only13, script: downgrade(wire.VersionTLS12, ""), alert: wire.ProtocolVersion, want: "chose TLS 1.2, which wasn't offered"},
		"TLS 1.1":                          {script: downgrade(wire.VersionTLS11, ""), alert: wire.ProtocolVersion, want: "chose TLS 1.1, which wasn't offered"},
		"TLS 1.0":                          {script: downgrade(wire.VersionTLS10, ""), alert: wire.ProtocolVersion, want: "chose TLS 1.0, which wasn't offered"},
		"SSL 3":                            {script: downgrade(0x0300, ""), alert: wire.ProtocolVersion, want: "wasn't offered"},
		"sentinel, one offered":            {policy: only13, script: downgrade(wire.VersionTLS12, "DOWNGRD\x01"), alert: wire.IllegalParameter, want: "talked down to TLS 1.2"},
		"TLS 1.1 with the sentinel":        {script: downgrade(wire.VersionTLS11, "DOWNGRD\x00"), alert: wire.IllegalParameter, want: "talked down to TLS 1.1"},
		"TLS 1.2 with the sentinel":        {script: downgrade(wire.VersionTLS12, "DOWNGRD\x01"), alert: wire.IllegalParameter, want: "talked down to TLS 1.2"},
		"TLS 1.2 with the sentinel of 1.1": {script: downgrade(wire.VersionTLS12, "DOWNGRD\x00"), alert: wire.IllegalParameter, want: "talked down to TLS 1.2"},

		"TLS 1.3, 1.2 offered": {policy: Policy{Versions: []wire.Version{wire.VersionTLS12}}, script: func(p *puppet) {
			p.readHello()
			p.say(must((&wire.ServerHello{Version: wire.VersionTLS12, Suite: wire.AES256GCM, Extensions: wire.Extensions{wire.SelectedVersion(wire.VersionTLS13)}}).Marshal()))
		}, alert: wire.UnsupportedExtension, want: "answered supported_versions"},

		// HelloRetryRequest.
		"a retry that changes nothing":    {script: func(p *puppet) { p.readHello(); p.retry() }, alert: wire.IllegalParameter, want: "changes nothing"},
		"a retry for a group that it has": {script: func(p *puppet) { p.readHello(); p.retry(wire.RetryGroup(wire.X25519)) }, alert: wire.IllegalParameter, want: "which it has"},
		"a retry for a group not offered": {script: func(p *puppet) { p.readHello(); p.retry(wire.RetryGroup(0x1E)) }, alert: wire.IllegalParameter, want: "wasn't offered"},
		"a retry with an empty cookie":    {script: func(p *puppet) { p.readHello(); p.retry(wire.Cookie(nil)) }, alert: wire.DecodeError, want: "cookie extension is malformed"},
		"a retry with another extension":  {script: func(p *puppet) { p.readHello(); p.retry(wire.SupportedGroups(wire.P384)) }, alert: wire.IllegalParameter, want: "where it can't stand"},
		"a retry without a version": {script: func(p *puppet) {
			p.readHello()
			m := &wire.ServerHello{Version: wire.VersionTLS12}
			m.SetHelloRetryRequest()
			p.say(must(m.Marshal()))
		}, alert: wire.IllegalParameter, want: "without a version"},
		"a second retry": {script: func(p *puppet) {
			p.readHello()
			p.retry(wire.RetryGroup(wire.P384))
			p.readHello()
			p.retry(wire.RetryGroup(wire.P521))
		}, alert: wire.UnexpectedMessage, want: "second HelloRetryRequest"},
		"a second retry, the same": {script: func(p *puppet) {
			p.readHello()
			p.retry(wire.Cookie([]byte{1}))
			p.readHello()
			p.retry(wire.Cookie([]byte{1}))
		}, alert: wire.UnexpectedMessage, want: "second HelloRetryRequest"},
		"another suite after a retry": {script: func(p *puppet) {
			p.readHello()
			p.retry(wire.Cookie([]byte{1}))
			p.readHello()
			sh, _ := p.answer()
			sh.Suite = wire.AES128GCM
			p.say(must(sh.Marshal()))
		}, alert: wire.IllegalParameter, want: "changed its cipher suite"},
		"TLS 1.2 after a retry": {script: func(p *puppet) {
			p.readHello()
			p.retry(wire.Cookie([]byte{1}))
			p.readHello()
			sh, _ := p.answer()
			sh.Extensions = nil
			p.say(must(sh.Marshal()))
		}, alert: wire.IllegalParameter, want: "changed to TLS 1.2 after"},
		"an old share after a retry": {script: func(p *puppet) {
			p.readHello()
			sh, shared := p.answer()
			p.retry(wire.RetryGroup(wire.P384))
			p.readHello()
			p.sayHello(sh, shared)
		}, alert: wire.IllegalParameter, want: "for which it got none"},
		"more in the record of a retry": {script: func(p *puppet) {
			p.readHello()
			m := &wire.ServerHello{Version: wire.VersionTLS12, SessionID: p.hello.SessionID, Suite: wire.AES256GCM, Extensions: wire.Extensions{wire.SelectedVersion(wire.VersionTLS13), wire.Cookie([]byte{1})}}
			m.SetHelloRetryRequest()
			msg := must(m.Marshal())
			p.say(append(msg, msg...))
		}, alert: wire.UnexpectedMessage, want: "more in the record"},

		// Records.
		"a plaintext record that is too long":     {script: func(p *puppet) { p.readHello(); p.raw(append([]byte{22, 3, 3, 0x40, 1}, big...)...) }, alert: wire.RecordOverflow, want: "more than 16384"},
		"a length only, far too long":             {script: func(p *puppet) { p.readHello(); p.raw(22, 3, 3, 0xFF, 0xFF) }, alert: wire.RecordOverflow, want: "65535 bytes"},
		"a protected record that is too long":     {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.raw(23, 3, 3, 0x41, 1); return nil }), alert: wire.RecordOverflow, want: "more than 16640"},
		"an empty handshake record":               {script: func(p *puppet) { p.readHello(); p.send(wire.TypeHandshake, nil) }, alert: wire.UnexpectedMessage, want: "empty handshake record"},
		"an empty protected handshake record":     {script: replace(extensions, func(p *puppet, _ []byte) []byte { return []byte{} }), alert: wire.UnexpectedMessage, want: "empty handshake record"},
		"an empty alert":                          {script: func(p *puppet) { p.readHello(); p.send(wire.TypeAlert, nil) }, alert: wire.DecodeError, want: "alert is malformed"},
		"two alerts in a record":                  {script: func(p *puppet) { p.readHello(); p.send(wire.TypeAlert, []byte{2, 40, 2, 40}) }, alert: wire.DecodeError, want: "alert is malformed"},
		"application data in the handshake":       {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.send(wire.TypeApplicationData, []byte("hi")); return nil }), alert: wire.UnexpectedMessage, want: "application_data where EncryptedExtensions belongs"},
		"empty application data in the handshake": {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.send(wire.TypeApplicationData, nil); return nil }), alert: wire.UnexpectedMessage, want: "application_data where EncryptedExtensions belongs"},
		"application data before keys":            {script: func(p *puppet) { p.readHello(); p.plain(wire.TypeApplicationData, []byte("hi")) }, alert: wire.UnexpectedMessage, want: "unprotected application data"},
		"plaintext after keys":                    {script: replace(extensions, func(p *puppet, good []byte) []byte { p.plain(wire.TypeHandshake, good); return nil }), alert: wire.UnexpectedMessage, want: "unprotected"},
		"a plaintext alert after keys":            {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.plain(wire.TypeAlert, []byte{2, 40}); return nil }), alert: wire.UnexpectedMessage, want: "unprotected"},
		"plaintext after the handshake":           {script: after(func(p *puppet) { p.plain(wire.TypeHandshake, ticket) }), alert: wire.UnexpectedMessage, want: "unprotected"},
		"a record of noise":                       {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.plain(wire.TypeApplicationData, make([]byte, 64)); return nil }), alert: wire.BadRecordMAC, want: "fails authentication"},
		"a record that is too short":              {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.plain(wire.TypeApplicationData, make([]byte, 3)); return nil }), alert: wire.BadRecordMAC, want: "fails authentication"},
		"a record twice":                          {script: after(func(p *puppet) { r := must(p.out.Seal(nil, wire.TypeHandshake, ticket)); p.raw(r...); p.raw(r...) }), alert: wire.BadRecordMAC, want: "fails authentication"},
		"handshake keys for data": {script: func(p *puppet) {
			p.readHello()
			p.sayHello(p.answer())
			hs := p.out
			p.flight(nil)
			p.message()
			p.out = hs
			p.send(wire.TypeApplicationData, []byte("hi"))
		}, alert: wire.BadRecordMAC, want: "fails authentication"},
		"a record of an unknown type":           {script: func(p *puppet) { p.readHello(); p.plain(24, []byte{1}) }, alert: wire.UnexpectedMessage, want: "isn't TLS"},
		"a protected record of an unknown type": {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.send(24, []byte{1}); return nil }), alert: wire.UnexpectedMessage, want: "a record of type 24"},
		"HTTP":                                  {script: func(p *puppet) { p.readHello(); p.raw([]byte("HTTP/1.0 400 Bad Request\r\n")...) }, alert: wire.UnexpectedMessage, want: "isn't TLS"},
		"SSH":                                   {script: func(p *puppet) { p.readHello(); p.raw([]byte("SSH-2.0-OpenSSH_9.2\r\n")...) }, alert: wire.UnexpectedMessage, want: "isn't TLS"},

		// Messages and records.
		"a message that is too long":     {script: func(p *puppet) { p.readHello(); p.send(wire.TypeHandshake, []byte{2, 0xFF, 0xFF, 0xFF}) }, alert: wire.DecodeError, want: "ServerHello of 16777215 bytes"},
		"a certificate that is too long": {script: replace(certificate, func(p *puppet, _ []byte) []byte { return []byte{11, 1, 0, 1, 0} }), alert: wire.DecodeError, want: "Certificate of 65537 bytes"},
		"a CCS inside a message": {script: replace(certificate, func(p *puppet, good []byte) []byte {
			p.send(wire.TypeHandshake, good[:9])
			p.plain(wire.TypeChangeCipherSpec, []byte{1})
			return nil
		}), alert: wire.UnexpectedMessage, want: "ChangeCipherSpec inside a handshake message"},
		"close_notify inside a message": {script: replace(certificate, func(p *puppet, good []byte) []byte {
			p.send(wire.TypeHandshake, good[:9])
			p.send(wire.TypeAlert, []byte{1, 0})
			return nil
		}), alert: wire.UnexpectedMessage, want: "close_notify inside a handshake message"},
		"data inside a message": {script: after(func(p *puppet) {
			p.send(wire.TypeHandshake, ticket[:9])
			p.send(wire.TypeApplicationData, []byte("hi"))
		}), alert: wire.UnexpectedMessage, want: "application data inside a handshake message"},
		"more in the record of ServerHello": {script: func(p *puppet) {
			p.readHello()
			sh, _ := p.answer()
			p.say(append(must(sh.Marshal()), p.encryptedExtensions()...))
		}, alert: wire.UnexpectedMessage, want: "more in the record that ends with ServerHello"},
		"a begun message after ServerHello": {script: func(p *puppet) { p.readHello(); sh, _ := p.answer(); p.say(append(must(sh.Marshal()), 8)) }, alert: wire.UnexpectedMessage, want: "more in the record that ends with ServerHello"},
		"more in the record of Finished":    {script: replace(finished, func(p *puppet, good []byte) []byte { return append(bytes.Clone(good), ticket...) }), alert: wire.UnexpectedMessage, want: "more in the record that ends with Finished"},
		"more in the record of a KeyUpdate": {script: after(func(p *puppet) { p.send(wire.TypeHandshake, append((&wire.KeyUpdate{}).Marshal(), ticket...)) }), alert: wire.UnexpectedMessage, want: "doesn't end its record"},

		// ChangeCipherSpec.
		"a CCS of another value":    {script: func(p *puppet) { p.readHello(); p.plain(wire.TypeChangeCipherSpec, []byte{2}) }, alert: wire.UnexpectedMessage, want: "malformed ChangeCipherSpec"},
		"a CCS of two bytes":        {script: func(p *puppet) { p.readHello(); p.plain(wire.TypeChangeCipherSpec, []byte{1, 1}) }, alert: wire.UnexpectedMessage, want: "malformed ChangeCipherSpec"},
		"an empty CCS":              {script: func(p *puppet) { p.readHello(); p.plain(wire.TypeChangeCipherSpec, nil) }, alert: wire.UnexpectedMessage, want: "malformed ChangeCipherSpec"},
		"a protected CCS":           {script: replace(extensions, func(p *puppet, _ []byte) []byte { p.send(wire.TypeChangeCipherSpec, []byte{1}); return nil }), alert: wire.UnexpectedMessage, want: "protected ChangeCipherSpec"},
		"a CCS after the handshake": {script: after(func(p *puppet) { p.plain(wire.TypeChangeCipherSpec, []byte{1}) }), alert: wire.UnexpectedMessage, want: "outside of the handshake"},
		"endless CCS": {script: func(p *puppet) {
			p.readHello()
			times(100, func(p *puppet) { p.plain(wire.TypeChangeCipherSpec, []byte{1}) })(p)
		}, alert: wire.UnexpectedMessage, want: "too many ChangeCipherSpecs"},

		// After the handshake.
		"endless KeyUpdates":           {script: after(times(100, func(p *puppet) { keyUpdate(p, false) })), alert: wire.UnexpectedMessage, want: "too many KeyUpdates"},
		"endless KeyUpdates, asking":   {script: after(times(100, func(p *puppet) { keyUpdate(p, true) })), alert: wire.UnexpectedMessage, want: "too many KeyUpdates"},
		"a KeyUpdate of another value": {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{24, 0, 0, 1, 2}) }), alert: wire.IllegalParameter, want: "neither 0 nor 1"},
		"a KeyUpdate of two bytes":     {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{24, 0, 0, 2, 0, 0}) }), alert: wire.DecodeError, want: "KeyUpdate of 2 bytes"},
		"old keys after a KeyUpdate": {script: after(func(p *puppet) {
			old := p.out
			keyUpdate(p, false)
			p.out = old
			p.send(wire.TypeApplicationData, []byte("hi"))
		}), alert: wire.BadRecordMAC, want: "fails authentication"},
		"endless empty records":           {script: after(times(100, func(p *puppet) { p.send(wire.TypeApplicationData, nil) })), alert: wire.UnexpectedMessage, want: "too many empty records"},
		"endless tickets":                 {script: after(times(100, func(p *puppet) { p.send(wire.TypeHandshake, ticket) })), alert: wire.UnexpectedMessage, want: "too many session tickets"},
		"endless user_canceled":           {script: after(times(100, func(p *puppet) { p.send(wire.TypeAlert, []byte{1, 90}) })), alert: wire.UnexpectedMessage, want: "too many warnings"},
		"a malformed ticket":              {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{4, 0, 0, 1, 0}) }), alert: wire.DecodeError, want: "NewSessionTicket is malformed"},
		"a long ticket":                   {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{4, 0, 0x10, 1}) }), alert: wire.DecodeError, want: "NewSessionTicket of 4097 bytes, more than 4096"},
		"half a Certificate after":        {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{11, 0, 0x10, 0}) }), alert: wire.UnexpectedMessage, want: "sent Certificate after the handshake"},
		"an empty handshake record after": {script: after(func(p *puppet) { p.send(wire.TypeHandshake, nil) }), alert: wire.UnexpectedMessage, want: "empty handshake record"},
		"a certificate request after":     {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{13, 0, 0, 3, 0, 0, 0}) }), alert: wire.UnexpectedMessage, want: "sent CertificateRequest after the handshake"},
		"a ClientHello after":             {script: after(func(p *puppet) { p.send(wire.TypeHandshake, must(p.hello.Marshal())) }), alert: wire.UnexpectedMessage, want: "sent ClientHello after the handshake"},
		"a Finished after":                {script: after(func(p *puppet) { p.send(wire.TypeHandshake, []byte{20, 0, 0, 0}) }), alert: wire.UnexpectedMessage, want: "sent Finished after the handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			o := against(t, clientSide(&Config{Policy: tt.policy}), tt.script)
			checkRefusal(t, o, tt.alert, "the TLS server", tt.want)
		})
	}
}

// TestHeldAfterHandshake: a TLS server that has proved its key may stay
// connected for as long as an operator takes to decide. SECURITY.md says how
// much memory it can take up by sending half of something.
func TestHeldAfterHandshake(t *testing.T) {
	testKey("Ed25519") // outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c := Client(ours, &Config{})
		defer c.Close()
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		p := newPuppet(t, theirs)
		p.handshake()
		most := wire.MaxMessage(wire.TypeNewSessionTicket)
		tickets := bytes.Repeat(must((&wire.NewSessionTicket{Ticket: make([]byte, most-13)}).Marshal()), 5)
		whole := wire.MessageHeaderLen + most
		p.send(wire.TypeHandshake, tickets[:whole-1])
		p.send(wire.TypeHandshake, tickets[whole-1:][:wire.MaxPlaintext])
		p.raw(wire.AppendHeader(nil, wire.Header{Type: wire.TypeApplicationData, Version: wire.VersionTLS12, Length: wire.MaxCiphertext13})...)
		p.raw(1)
		synctest.Wait()
		_ = ours.SetReadDeadline(time.Now())
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if record, message := cap(c.in.buf), cap(c.in.messages); record < wire.MaxCiphertext13 || record > 17<<10 || message < 1000 || message > 5<<10 {
			t.Errorf("%d and %d bytes are held, want at most 17 and 5 KiB", record, message)
		}
	})
}

// checkRefusal checks what every refusal has in common.
func checkRefusal(t *testing.T, o outcome, alert wire.Alert, who, want string) {
	t.Helper()
	if o.err == nil || !strings.Contains(o.err.Error(), who) || !strings.Contains(o.err.Error(), want) {
		t.Errorf("the error is %q, want one with %q and %q", o.err, who, want)
	}
	if ae, ok := errors.AsType[*AlertError](o.err); !ok || ae.Alert != alert || ae.Remote {
		t.Errorf("the error is %#v, want an AlertError for %v", o.err, alert)
	}
	if len(o.alerts) != 1 || o.alerts[0] != alert {
		t.Errorf("the alerts sent are %v, want %v", o.alerts, alert)
	}
	if len(o.data) != 0 {
		t.Errorf("%q was sent", o.data)
	}
	if o.elapsed >= sessionDeadline {
		t.Errorf("it took %v", o.elapsed)
	}
}

// ed448 is a SubjectPublicKeyInfo (RFC 8410) of an algorithm that isn't
// supported.
var ed448 = append([]byte{0x30, 0x43, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x71, 0x03, 0x3a, 0x00}, make([]byte, 57)...)

func certType(ct wire.CertificateType) func(*puppet, []byte) []byte {
	return func(*puppet, []byte) []byte {
		return must((&wire.EncryptedExtensions{Extensions: wire.Extensions{wire.ServerCertificateType(ct)}}).Marshal())
	}
}

// downgrade answers with an old version, the random ending as given.
func downgrade(v wire.Version, sentinel string) func(*puppet) {
	return func(p *puppet) {
		p.readHello()
		sh := &wire.ServerHello{Version: v, Suite: wire.ECDHERSAAES256GCM}
		copy(sh.Random[32-len(sentinel):], sentinel)
		p.say(must(sh.Marshal()))
	}
}

// boundaries are scripts that end at each message boundary of the server's
// side; after the last one the handshake is complete.
func boundaries() map[string]func(*puppet) {
	nothing := func(*puppet, []byte) []byte { return nil }
	return map[string]func(*puppet){
		"at once":                   func(p *puppet) {},
		"after ClientHello":         (*puppet).readHello,
		"after HelloRetryRequest":   func(p *puppet) { p.readHello(); p.retry(wire.RetryGroup(wire.P384)); p.readHello() },
		"after ServerHello":         replace(wire.TypeEncryptedExtensions, nothing),
		"after EncryptedExtensions": replace(wire.TypeCertificate, nothing),
		"after Certificate":         replace(wire.TypeCertificateVerify, nothing),
		"after CertificateVerify":   replace(wire.TypeFinished, nothing),
		"after Finished":            (*puppet).handshake,
	}
}

// TestServerHangsUp closes the connection at each message boundary, and within
// a record.
func TestServerHangsUp(t *testing.T) {
	for name, script := range boundaries() {
		for inside, want := range map[bool]string{false: "the TLS server closed the connection", true: "inside a record"} {
			t.Run(fmt.Sprintf("%s/inside a record: %v", name, inside), func(t *testing.T) {
				o := against(t, clientSide(&Config{}), func(p *puppet) {
					script(p)
					if inside {
						p.raw(22, 3, 3, 0, 9, 1)
					}
					p.conn.Close()
				})
				if !errors.Is(o.err, io.ErrUnexpectedEOF) && !errors.Is(o.err, io.ErrClosedPipe) || !strings.Contains(o.err.Error(), "the TLS server") ||
					errors.Is(o.err, io.ErrUnexpectedEOF) && !strings.Contains(o.err.Error(), want) {
					t.Errorf("the error is %q", o.err)
				}
				if o.elapsed != 0 {
					t.Errorf("it took %v", o.elapsed)
				}
			})
		}
	}
}

// TestServerSaysGoodbye sends close_notify at each message boundary: an error
// during the handshake, the end after it.
func TestServerSaysGoodbye(t *testing.T) {
	for name, script := range boundaries() {
		t.Run(name, func(t *testing.T) {
			o := against(t, clientSide(&Config{}), func(p *puppet) {
				script(p)
				p.send(wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify))
			})
			if name == "after Finished" {
				if o.err != io.EOF {
					t.Errorf("the error is %v, want io.EOF", o.err)
				}
			} else if !errors.Is(o.err, io.ErrUnexpectedEOF) || !strings.Contains(o.err.Error(), "the TLS server ended the handshake") {
				t.Errorf("the error is %q", o.err)
			}
			if len(o.alerts)+len(o.data) != 0 || o.elapsed != 0 {
				t.Errorf("it took %v and sent %v, %q", o.elapsed, o.alerts, o.data)
			}
		})
	}
}

// TestServerIsSilent falls silent at each message boundary: the deadline ends
// the session.
func TestServerIsSilent(t *testing.T) {
	for name, script := range boundaries() {
		t.Run(name, func(t *testing.T) {
			o := against(t, clientSide(&Config{}), script)
			if !errors.Is(o.err, os.ErrDeadlineExceeded) || !strings.Contains(o.err.Error(), "the TLS server") {
				t.Errorf("the error is %v", o.err)
			}
			if o.elapsed != sessionDeadline || len(o.data) != 0 {
				t.Errorf("it took %v and sent %q", o.elapsed, o.data)
			}
		})
	}
}

// TestServerRefuses sends an alert at each message boundary: it is reported,
// and not answered.
func TestServerRefuses(t *testing.T) {
	for name, script := range boundaries() {
		for _, level := range []byte{1, 2} { // RFC 8446, section 6: the level doesn't count
			t.Run(fmt.Sprintf("%s/level %d", name, level), func(t *testing.T) {
				o := against(t, clientSide(&Config{}), func(p *puppet) {
					script(p)
					p.send(wire.TypeAlert, []byte{level, byte(wire.HandshakeFailure)})
				})
				ae, ok := errors.AsType[*AlertError](o.err)
				if !ok || !ae.Remote || ae.Alert != wire.HandshakeFailure || !strings.Contains(o.err.Error(), "the TLS server refused with the alert handshake_failure") {
					t.Errorf("the error is %v", o.err)
				}
				if len(o.alerts)+len(o.data) != 0 || o.elapsed != 0 {
					t.Errorf("it took %v and sent %v, %q", o.elapsed, o.alerts, o.data)
				}
			})
		}
	}
}

// TestGoodServers checks what must be accepted: unusual, but correct.
func TestGoodServers(t *testing.T) {
	finish := func(p *puppet) { p.send(wire.TypeApplicationData, []byte("x")) }
	for name, script := range map[string]func(*puppet){
		"the simplest": func(p *puppet) { p.handshake(); finish(p) },
		"all in records of one byte": func(p *puppet) {
			p.readHello()
			sh, shared := p.answer()
			msg := must(sh.Marshal())
			for i := range msg[1:] {
				p.send(wire.TypeHandshake, msg[i:i+1])
			}
			p.messages = append(p.messages, msg)
			p.send(wire.TypeHandshake, msg[len(msg)-1:])
			p.startKeys(sh.Suite, shared, false)
			p.out = p.keys.Server.Protection()
			p.in = append(p.in, p.keys.Client.Protection())
			for _, f := range []func() []byte{p.encryptedExtensions, func() []byte { return p.certificate(p.spki()) }, p.certificateVerify, p.serverFinished} {
				msg := f()
				p.note(msg)
				for i := range msg {
					p.send(wire.TypeHandshake, msg[i:i+1])
				}
			}
			p.app = p.keys.Application(p.transcript.Sum(nil))
			p.out = p.app.Server.Protection()
			p.in = append(p.in, p.app.Client.Protection())
			p.message()
			finish(p)
		},
		"the flight in one record": func(p *puppet) {
			p.readHello()
			p.sayHello(p.answer())
			var flight []byte
			for _, f := range []func() []byte{p.encryptedExtensions, func() []byte { return p.certificate(p.spki()) }, p.certificateVerify, p.serverFinished} {
				msg := f()
				p.note(msg)
				flight = append(flight, msg...)
			}
			p.send(wire.TypeHandshake, flight)
			p.app = p.keys.Application(p.transcript.Sum(nil))
			p.out = p.app.Server.Protection()
			p.in = append(p.in, p.app.Client.Protection())
			p.message()
			finish(p)
		},
		"ChangeCipherSpecs between messages": func(p *puppet) {
			ccs := func() { p.plain(wire.TypeChangeCipherSpec, []byte{1}) }
			p.readHello()
			ccs()
			p.sayHello(p.answer())
			ccs()
			p.flight(replaced{wire.TypeFinished: func(good []byte) []byte { ccs(); return good }})
			p.message()
			finish(p)
		},
		"a cookie": func(p *puppet) {
			p.readHello()
			p.retry(wire.Cookie([]byte("biscuit")))
			p.readHello()
			if body, _ := p.hello.Extensions.Get(wire.ExtCookie); string(body) != "\x00\x07biscuit" {
				p.t.Errorf("the cookie came back as %q", body)
			}
			p.sayHello(p.answer())
			p.flight(nil)
			p.message()
			finish(p)
		},
		"tickets, KeyUpdates and user_canceled": func(p *puppet) {
			p.handshake()
			p.send(wire.TypeHandshake, append(bytes.Clone(ticket), ticket...))
			for range 10 {
				keyUpdate(p, false)
				p.send(wire.TypeAlert, []byte{1, 90})
			}
			finish(p)
		},
		"a ticket in two records": func(p *puppet) {
			p.handshake()
			p.send(wire.TypeHandshake, ticket[:2])
			p.send(wire.TypeHandshake, ticket[2:])
			finish(p)
		},
		"groups in EncryptedExtensions": func(p *puppet) {
			p.readHello()
			p.sayHello(p.answer())
			p.flight(replaced{wire.TypeEncryptedExtensions: func([]byte) []byte {
				return must((&wire.EncryptedExtensions{Extensions: wire.Extensions{
					wire.SupportedGroups(wire.P384), wire.ServerCertificateType(wire.RawPublicKey)}}).Marshal())
			}})
			p.message()
			finish(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := against(t, clientSide(&Config{}), script)
			if o.err != nil || string(o.data) != "the secret" {
				t.Errorf("error %v, and %q was sent", o.err, o.data)
			}
		})
	}
}

// TestKeyUpdateAnswered has the server ask for new keys: what the client writes
// next comes after a KeyUpdate of its own, under the new keys.
func TestKeyUpdateAnswered(t *testing.T) {
	o := against(t, clientSide(&Config{}), func(p *puppet) {
		p.handshake()
		keyUpdate(p, true)
		keyUpdate(p, true)
		p.send(wire.TypeApplicationData, []byte("x"))
		msg := p.message()
		if update, err := wire.ParseKeyUpdate(msg); err != nil || update.Requested {
			p.t.Errorf("the client sent %x, want one KeyUpdate that asks for nothing", msg)
		}
		p.app.Client.Update()
		p.in = append(p.in, p.app.Client.Protection())
	})
	if o.err != nil || string(o.data) != "the secret" {
		t.Errorf("error %v, and %q was sent", o.err, o.data)
	}
}
