package keytls

import (
	"bytes"
	"crypto"
	"errors"
	"hash"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/keytls/peerkey"
	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// sessionDeadline is the deadline that the tests set for a whole session.
const sessionDeadline = 10 * time.Second

// A puppet is a peer that sends whatever a test makes it send. It has its own
// state, made with packages wire and schedule, and checks nothing.
type puppet struct {
	t    *testing.T
	conn net.Conn
	key  crypto.Signer

	records chan []byte // what came, in whole records

	hello      *wire.ClientHello // the last one
	transcript hash.Hash
	messages   [][]byte // until the transcript starts
	suite      *schedule.Suite
	keys       *schedule.Handshake
	app        *schedule.Application

	out    schedule.Records
	in     []schedule.Records // the keys that may open what comes, in their order
	alerts []wire.Alert       // what came
	data   []byte
}

func newPuppet(t *testing.T, conn net.Conn) *puppet {
	return newPuppetThatTakes(t, conn, 1<<30)
}

// newPuppetThatTakes returns a puppet that reads n records, and then nothing
// more from the transport.
func newPuppetThatTakes(t *testing.T, conn net.Conn, n int) *puppet {
	p := &puppet{t: t, conn: conn, key: testKey("Ed25519"), records: make(chan []byte, 1000)}
	go func() {
		defer close(p.records)
		for range n {
			record := make([]byte, wire.HeaderLen)
			if _, err := io.ReadFull(conn, record); err != nil {
				return
			}
			h, _ := wire.ParseHeader(record)
			record = append(record, make([]byte, h.Length)...)
			if _, err := io.ReadFull(conn, record[wire.HeaderLen:]); err != nil {
				return
			}
			p.records <- record
		}
	}()
	return p
}

// next returns the next record received, opened.
func (p *puppet) next() (wire.ContentType, []byte, error) {
	record, ok := <-p.records
	if !ok {
		return 0, nil, io.EOF
	}
	h, _ := wire.ParseHeader(record)
	if h.Type != wire.TypeApplicationData {
		return h.Type, record[wire.HeaderLen:], nil
	}
	for len(p.in) > 0 {
		t, payload, err := p.in[0].Open(h, slices.Clone(record[wire.HeaderLen:]))
		if err == nil {
			return t, payload, nil
		}
		p.in = p.in[1:]
	}
	return 0, nil, errors.New("a record that no key opens")
}

// drain reads whatever still comes until the connection ends.
func (p *puppet) drain() {
	for {
		t, payload, err := p.next()
		switch {
		case err == io.EOF:
			return
		case err != nil:
			p.t.Errorf("the puppet got %v", err)
			return
		case t == wire.TypeAlert:
			if _, a, err := wire.ParseAlert(payload); err == nil {
				p.alerts = append(p.alerts, a)
			}
		case t == wire.TypeApplicationData:
			p.data = append(p.data, payload...)
		}
	}
}

// message returns the next handshake message, dropping everything else. It
// expects each to be alone in its record.
func (p *puppet) message() []byte {
	for {
		t, payload, err := p.next()
		if err != nil {
			return nil
		}
		if t == wire.TypeHandshake {
			return bytes.Clone(payload)
		}
	}
}

// raw writes bytes as they are. A peer that has gone is no error.
func (p *puppet) raw(b ...byte) { _, _ = p.conn.Write(b) }

// plain writes an unprotected record.
func (p *puppet) plain(t wire.ContentType, payload []byte) {
	header := wire.AppendHeader(nil, wire.Header{Type: t, Version: wire.VersionTLS12, Length: len(payload)})
	p.raw(append(header, payload...)...)
}

// send writes a record, protected once there are keys.
func (p *puppet) send(t wire.ContentType, payload []byte) {
	if p.out == nil {
		p.plain(t, payload)
		return
	}
	record, err := p.out.Seal(nil, t, payload)
	if err != nil {
		p.t.Errorf("the puppet can't seal: %v", err)
		return
	}
	p.raw(record...)
}

// say sends a handshake message and adds it to the transcript.
func (p *puppet) say(msg []byte) {
	p.note(msg)
	p.send(wire.TypeHandshake, msg)
}

func (p *puppet) note(msg []byte) {
	if p.transcript == nil {
		p.messages = append(p.messages, msg)
		return
	}
	p.transcript.Write(msg)
}

// As a TLS server:

func (p *puppet) readHello() {
	msg := p.message()
	var err error
	if p.hello, err = wire.ParseClientHello(msg); err != nil {
		p.t.Errorf("the ClientHello: %v", err)
		p.hello = &wire.ClientHello{}
	}
	p.note(msg)
}

func (p *puppet) clientShare(g wire.Group) []byte {
	body, _ := p.hello.Extensions.Get(wire.ExtKeyShare)
	shares, _ := wire.ParseClientKeyShares(body)
	return findShare(shares, g)
}

// answer makes a good ServerHello for X25519 and the keys that go with it once
// it is sent by sayHello.
func (p *puppet) answer() (*wire.ServerHello, []byte) { return p.answerIn(wire.X25519) }

func (p *puppet) answerIn(g wire.Group) (*wire.ServerHello, []byte) {
	share, shared, err := answerExchange(g, p.clientShare(g))
	if err != nil {
		p.t.Errorf("the client's share: %v", err)
	}
	return &wire.ServerHello{
		Version: wire.VersionTLS12, SessionID: p.hello.SessionID, Suite: wire.AES256GCM,
		Extensions: wire.Extensions{
			wire.SelectedVersion(wire.VersionTLS13),
			wire.ServerKeyShare(wire.KeyShare{Group: g, Data: share}),
		},
	}, shared
}

// sayHello sends a ServerHello, and starts the keys with the secret.
func (p *puppet) sayHello(m *wire.ServerHello, shared []byte) {
	p.say(must(m.Marshal()))
	p.startKeys(m.Suite, shared, len(p.messages) > 2)
	p.out = p.keys.Server.Protection()
	p.in = []schedule.Records{p.keys.Client.Protection()}
}

func (p *puppet) startKeys(id wire.Suite, shared []byte, retried bool) {
	var err error
	if p.suite, err = schedule.ForSuite(id); err != nil {
		p.suite, _ = schedule.ForSuite(wire.AES256GCM)
	}
	p.transcript = newTranscript(p.suite, p.messages, retried)
	p.keys = schedule.NewEarly(p.suite).Handshake(shared, p.transcript.Sum(nil))
}

// retry sends a HelloRetryRequest and reads the second hello.
func (p *puppet) retry(es ...wire.Extension) {
	m := &wire.ServerHello{
		Version: wire.VersionTLS12, SessionID: p.hello.SessionID, Suite: wire.AES256GCM,
		Extensions: append(wire.Extensions{wire.SelectedVersion(wire.VersionTLS13)}, es...),
	}
	m.SetHelloRetryRequest()
	p.say(must(m.Marshal()))
}

func (p *puppet) encryptedExtensions() []byte {
	m := wire.EncryptedExtensions{Extensions: wire.Extensions{wire.ServerCertificateType(wire.RawPublicKey)}}
	return must(m.Marshal())
}

func (p *puppet) certificate(keys ...[]byte) []byte {
	var m wire.Certificate
	for _, k := range keys {
		m.Entries = append(m.Entries, wire.CertificateEntry{Data: k})
	}
	return must(m.Marshal())
}

func (p *puppet) spki() []byte { return must(peerkey.MarshalSPKI(p.key.Public())) }

func (p *puppet) certificateVerify() []byte {
	return p.signed(p.key, wire.Ed25519, signedContent(p.transcript.Sum(nil)))
}

func (p *puppet) signed(key crypto.Signer, s wire.SignatureScheme, content []byte) []byte {
	m := wire.CertificateVerify{Scheme: s, Signature: must(peerkey.Sign(key, s, content))}
	return must(m.Marshal())
}

func (p *puppet) serverFinished() []byte {
	m := wire.Finished{VerifyData: p.keys.Server.Finished(p.transcript.Sum(nil))}
	return must(m.Marshal())
}

// flight sends everything that follows a ServerHello, until a step is replaced
// by one of the given functions: then it sends what that returns, and stops.
// With no function, it goes to the end of the handshake and its keys.
func (p *puppet) flight(replace map[wire.HandshakeType]func(good []byte) []byte) {
	for _, step := range []struct {
		t wire.HandshakeType
		f func() []byte
	}{
		{wire.TypeEncryptedExtensions, p.encryptedExtensions},
		{wire.TypeCertificate, func() []byte { return p.certificate(p.spki()) }},
		{wire.TypeCertificateVerify, p.certificateVerify},
		{wire.TypeFinished, p.serverFinished},
	} {
		msg := step.f()
		if f := replace[step.t]; f != nil {
			if msg = f(msg); msg == nil {
				return
			}
		}
		p.say(msg)
	}
	p.app = p.keys.Application(p.transcript.Sum(nil))
	p.out = p.app.Server.Protection()
	p.in = append(p.in, p.app.Client.Protection())
}

// handshake goes through the whole handshake as a good server.
func (p *puppet) handshake() {
	p.readHello()
	p.sayHello(p.answer())
	p.flight(nil)
	p.message() // the client's Finished
}

// outcome is the outcome of a session with a puppet.
type outcome struct {
	err     error
	alerts  []wire.Alert
	data    []byte        // application data that reached the puppet
	elapsed time.Duration // of the tested side's session
}

// against runs a session of side with a puppet that follows script and then
// hangs up, in a bubble of fake time: goroutines that are left over make it
// fail. The tested side behaves like a Mandos server: after the handshake it
// waits for what the peer may send, as during an approval, and only then would
// write.
func against(t *testing.T, side func(net.Conn) *Conn, script func(*puppet)) (o outcome) {
	t.Helper()
	testKey("Ed25519") // outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		start := time.Now()
		_ = ours.SetDeadline(start.Add(sessionDeadline))
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer ours.Close()
			c := side(ours)
			defer c.Close()
			if o.err = c.Handshake(); o.err == nil {
				if _, o.err = c.Read(make([]byte, 1)); o.err == nil {
					_, o.err = c.Write([]byte("the secret"))
				}
			}
			o.elapsed = time.Since(start)
		}()
		p := newPuppet(t, theirs)
		script(p)
		p.drain()
		theirs.Close()
		<-done
		o.alerts, o.data = p.alerts, p.data
	})
	return o
}

func clientSide(cfg *Config) func(net.Conn) *Conn {
	return func(c net.Conn) *Conn { return Client(c, cfg) }
}

func serverSide(cfg *Config) func(net.Conn) *Conn {
	return func(c net.Conn) *Conn { return Server(c, cfg) }
}
