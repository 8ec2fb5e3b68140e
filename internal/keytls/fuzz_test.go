package keytls

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"mandos/internal/keyid"
	"mandos/internal/keytls/wire"
)

// A talk is the transport between a Conn and a puppet that takes its steps from
// a fuzzer's bytes: each time the Conn reads and there is nothing to read, the
// puppet takes its next step.
type talk struct {
	net.Conn // nil: nothing else is called
	p        *puppet
	steps    []byte
	take     func(step byte, payload []byte)

	toPuppet []byte // not yet a whole record
	toConn   bytes.Buffer
}

// puppetsEnd is the puppet's end of the transport.
type puppetsEnd struct {
	net.Conn
	k *talk
}

func (e puppetsEnd) Write(b []byte) (int, error) { return e.k.toConn.Write(b) }

func newTalk(t *testing.T, steps []byte) *talk {
	k := &talk{steps: steps}
	k.p = &puppet{t: t, conn: puppetsEnd{k: k}, key: testKey("Ed25519"), records: make(chan []byte, 10_000)}
	return k
}

func (k *talk) Read(b []byte) (int, error) {
	for k.toConn.Len() == 0 {
		if len(k.steps) < 2 {
			return 0, io.EOF
		}
		step, n := k.steps[0], min(int(k.steps[1]), len(k.steps)-2)
		payload := k.steps[2:][:n]
		k.steps = k.steps[2+n:]
		k.take(step, payload)
	}
	return k.toConn.Read(b)
}

func (k *talk) Write(b []byte) (int, error) {
	k.toPuppet = append(k.toPuppet, b...)
	for len(k.toPuppet) >= wire.HeaderLen {
		h, _ := wire.ParseHeader(k.toPuppet)
		if len(k.toPuppet) < wire.HeaderLen+h.Length {
			break
		}
		k.p.records <- bytes.Clone(k.toPuppet[:wire.HeaderLen+h.Length])
		k.toPuppet = k.toPuppet[wire.HeaderLen+h.Length:]
	}
	return len(b), nil
}

func (k *talk) Close() error                    { return nil }
func (k *talk) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (k *talk) SetReadDeadline(time.Time) error { return nil }

// The steps that both sides have.
const (
	stepHandshake = iota + 8 // protected, if there are keys
	stepAlert
	stepData
	stepChangeCipherSpec
	stepAnyRecord
	stepRaw
	stepPlain
	stepKeyUpdate
	stepCloseNotify
	steps
)

// common takes a step that both sides have. data is what the Conn is to get.
func (k *talk) common(step byte, payload []byte, data *[]byte, closed *bool) {
	p := k.p
	switch step % steps {
	case stepHandshake:
		p.send(wire.TypeHandshake, payload)
	case stepAlert:
		p.send(wire.TypeAlert, payload)
		*closed = *closed || len(payload) == 2 && payload[1] == byte(wire.CloseNotify)
	case stepData:
		p.send(wire.TypeApplicationData, payload)
		*data = append(*data, payload...)
	case stepChangeCipherSpec:
		p.plain(wire.TypeChangeCipherSpec, payload)
	case stepAnyRecord:
		if len(payload) > 0 {
			p.send(wire.ContentType(payload[0]), payload[1:])
			// It may be any of the others.
			if payload[0] == byte(wire.TypeApplicationData) {
				*data = append(*data, payload[1:]...)
			}
			*closed = *closed || len(payload) == 3 && payload[2] == byte(wire.CloseNotify)
		}
	case stepRaw:
		p.raw(payload...)
	case stepPlain:
		p.plain(wire.TypeHandshake, payload)
	case stepCloseNotify:
		p.send(wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify))
		*closed = true
	}
}

// finish reads everything that a Conn receives after its handshake.
func finish(t *testing.T, c *Conn, sent *[]byte, closed *bool) {
	got, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err == nil && !*closed {
		t.Error("the end, without close_notify")
	}
	if !bytes.HasPrefix(*sent, got) {
		t.Errorf("got %x, %x was sent", got, *sent)
	}
	_ = c.CloseNotify()
}

// FuzzServer: against a TLS server that says anything at any time, protected
// where it has keys, a handshake succeeds only if each of its messages came,
// unchanged and in order, and what is read is what was sent.
func FuzzServer(f *testing.F) {
	const hello, extensions, certificate, verify, finished, retry = 0, 1, 2, 3, 4, 5
	whole := []byte{hello, 0, extensions, 0, certificate, 0, verify, 0, finished, 0}
	f.Add(whole)
	f.Add(append(bytes.Clone(whole), stepData, 3, 'a', 'b', 'c', stepKeyUpdate, 1, 1, stepData, 1, 'd', stepCloseNotify, 0))
	f.Add(append([]byte{retry, 1, 0x18}, whole...))
	f.Add(append([]byte{stepChangeCipherSpec, 1, 1}, whole...))
	f.Add([]byte{hello, 0, extensions, 0, certificate, 0, finished, 0})
	f.Add([]byte{hello, 0, stepAlert, 2, 2, 40})
	f.Add([]byte{stepRaw, 7, 21, 3, 3, 0, 2, 2, 40})
	f.Fuzz(func(t *testing.T, in []byte) {
		k := newTalk(t, in)
		p := k.p
		var order, sent []byte
		closed := false
		group, retries := wire.X25519, 0
		k.take = func(step byte, payload []byte) {
			if p.hello == nil || len(p.records) > 0 && p.keys == nil {
				p.readHello()
			}
			switch step %= steps; {
			case step == hello && p.keys == nil && p.clientShare(group) != nil:
				p.sayHello(p.answerIn(group))
			case step == retry && p.keys == nil && len(payload) > 0:
				group = wire.Group(payload[0])
				p.retry(wire.RetryGroup(group))
				if retries++; retries > 1 || group != wire.P384 && group != wire.P521 {
					order = append(order, '!')
				}
			case p.keys == nil, p.app != nil && step < stepHandshake:
				k.common(step, payload, &sent, &closed)
				return
			case step == extensions:
				p.say(p.encryptedExtensions())
			case step == certificate:
				p.say(p.certificate(p.spki()))
			case step == verify:
				p.say(p.certificateVerify())
			case step == finished:
				p.say(p.serverFinished())
				p.app = p.keys.Application(p.transcript.Sum(nil))
				p.out = p.app.Server.Protection()
			case step == stepKeyUpdate && p.app != nil:
				update := wire.KeyUpdate{Requested: len(payload) > 0}
				p.send(wire.TypeHandshake, update.Marshal())
				p.app.Server.Update()
				p.out = p.app.Server.Protection()
			default:
				k.common(step, payload, &sent, &closed)
				return
			}
			if step <= finished {
				order = append(order, '0'+step)
			}
		}
		c := Client(k, &Config{})
		err := c.Handshake()
		if ok := string(order) == "01234"; err == nil && !ok {
			t.Errorf("the handshake succeeded with the messages %s", order)
		}
		if err != nil {
			if c.PeerIdentity() != (keyid.Identity{}) || c.Handshake() == nil {
				t.Error("a failed handshake proved something")
			}
			return
		}
		if c.PeerIdentity() != identity(t, p.key) {
			t.Errorf("proved %v", c.PeerIdentity())
		}
		finish(t, c, &sent, &closed)
	})
}

// FuzzClient: the same against a TLS client.
func FuzzClient(f *testing.F) {
	const hello, finished = 0, 1
	f.Add([]byte{hello, 0, finished, 0})
	f.Add([]byte{hello, 0, finished, 0, stepData, 3, 'a', 'b', 'c', stepKeyUpdate, 1, 1, stepData, 1, 'd', stepCloseNotify, 0})
	f.Add([]byte{hello, 0, stepChangeCipherSpec, 1, 1, finished, 0, stepAlert, 2, 1, 0})
	f.Add([]byte{hello, 0, stepAlert, 2, 2, 40})
	f.Fuzz(func(t *testing.T, in []byte) {
		k := newTalk(t, in)
		p := k.p
		var ex *exchange
		var sent []byte
		helloSent, finishedSent, closed := false, false, false
		k.take = func(step byte, payload []byte) {
			switch step %= steps; {
			case step == hello && !helloSent:
				var m *wire.ClientHello
				m, ex = p.offer()
				p.say(must(m.Marshal()))
				helloSent = true
			case step == finished && helloSent && p.keys == nil && len(p.records) >= 5:
				p.hearServer(ex)
				p.send(wire.TypeHandshake, p.clientFinished())
				p.out = p.app.Client.Protection()
				finishedSent = true
			case step == stepKeyUpdate && finishedSent:
				update := wire.KeyUpdate{Requested: len(payload) > 0}
				p.send(wire.TypeHandshake, update.Marshal())
				p.app.Client.Update()
				p.out = p.app.Client.Protection()
			default:
				k.common(step, payload, &sent, &closed)
			}
		}
		c := Server(k, &Config{Key: p.key})
		err := c.Handshake()
		switch {
		case err == nil && !finishedSent:
			t.Error("the handshake succeeded without Finished")
		case err == nil:
			finish(t, c, &sent, &closed)
		case errors.Is(err, io.EOF):
			t.Errorf("a handshake that ended like data: %v", err)
		}
	})
}
