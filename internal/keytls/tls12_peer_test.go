package keytls

import (
	"bytes"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 see peerkey
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgpecdsa "github.com/ProtonMail/go-crypto/openpgp/ecdsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// This file is a mandos-client of the old generation: a TLS 1.2 server with an
// OpenPGP certificate, that can be told to misbehave at each step.

// A pgpKey is an OpenPGP certificate with its private primary key, and the
// private key of its subkey if that can sign.
type pgpKey struct {
	cert    []byte
	primary any // *rsa.PrivateKey, *dsa.PrivateKey or *ecdsa.PrivateKey
	subkey  any
	subID   [8]byte
}

func unarmor(t testing.TB, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"testdata/openpgp-tls/keys"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	block, err := armor.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(block.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pgpVector loads keys/NAME of the vectors.
func pgpVector(t testing.TB, name string) pgpKey {
	t.Helper()
	k := pgpKey{cert: unarmor(t, name, "pubkey.txt")}
	r := bytes.NewReader(unarmor(t, name, "seckey.txt"))
	for {
		p, err := packet.Read(r)
		if errors.Is(err, io.EOF) {
			return k
		}
		if err != nil {
			t.Fatal(err)
		}
		if private, ok := p.(*packet.PrivateKey); ok {
			if private.IsSubkey {
				k.subkey, k.subID = private.PrivateKey, [8]byte(private.Fingerprint[12:])
			} else {
				k.primary = private.PrivateKey
			}
		}
	}
}

// pgpECDSA makes a key over a curve, as gpg since 2.1 can.
var pgpECDSA = sync.OnceValue(func() pgpKey {
	e, err := openpgp.NewEntity("host", "", "", &packet.Config{
		Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256,
		Time: func() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		panic(err)
	}
	var cert bytes.Buffer
	if err := e.Serialize(&cert); err != nil {
		panic(err)
	}
	d := e.PrivateKey.PrivateKey.(*pgpecdsa.PrivateKey).D
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
	if err != nil {
		panic(err)
	}
	return pgpKey{cert: cert.Bytes(), primary: k}
})

// A script is what the peer does. Its zero fields mean an honest peer.
type script struct {
	key    pgpKey
	suite  wire.Suite           // ECDHE_RSA_WITH_AES_256_GCM_SHA384
	group  wire.Group           // P-384
	scheme wire.SignatureScheme // what old GnuTLS picks for the key
	prime  *big.Int             // of DHE; ffdhe2048
	plain  bool                 // no extended master secret: GnuTLS 3.3
	old    bool                 // the Certificate message of RFC 5081
	wrong  bool                 // GnuTLS's wrong length in it
	chunk  int                  // bytes of handshake in a record; 0: as many as fit

	// The steps, each of which may change what the peer is about to do.
	hello       func(*wire.ServerHello)
	certificate func(msg []byte) []byte
	params      func(*wire.ServerKeyExchange) // before it is signed
	signed      func([]byte) []byte           // what is signed
	signer      any                           // other than key.primary
	keyExchange func(*wire.ServerKeyExchange) // after it is signed
	messages    func([][]byte) [][]byte       // all of the first flight
	flight      func(*peer12)                 // after the first flight
	beforeCCS   func(*peer12)
	ccs         func(*peer12) // in place of ChangeCipherSpec
	finished    func([]byte) []byte
	record      func([]byte) []byte // the protected record of Finished
	after       func(*peer12)       // after the handshake
}

type peer12 struct {
	script
	conn        net.Conn
	hello       *wire.ClientHello
	in, out     *schedule.Protection12
	master      *schedule.Master
	transcript  hash.Hash
	messagesIn  []byte
	transmitted []byte // application data received
	alert       wire.Alert
	alerted     bool
}

var errAlert = errors.New("the TLS client sent an alert")

func (p *peer12) write(b []byte) {
	_, _ = p.conn.Write(b) // who hung up is seen at reading
}

func (p *peer12) send(t wire.ContentType, b []byte) {
	if p.out != nil {
		raw, err := p.out.Seal(nil, t, b)
		if err != nil {
			panic(err)
		}
		p.write(raw)
		return
	}
	p.write(append(wire.AppendHeader(nil, wire.Header{Type: t, Version: wire.VersionTLS12, Length: len(b)}), b...))
}

func (p *peer12) sendMessages(msgs ...[]byte) {
	for _, msg := range msgs {
		n := p.chunk
		if n == 0 {
			n = wire.MaxPlaintext
		}
		for c := range slices.Chunk(msg, n) {
			p.send(wire.TypeHandshake, c)
		}
	}
}

func (p *peer12) read() (wire.ContentType, []byte, error) {
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(p.conn, header[:]); err != nil {
		return 0, nil, err
	}
	h, err := wire.ParseHeader(header[:])
	if err != nil {
		return 0, nil, err
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return 0, nil, err
	}
	t := h.Type
	if p.in != nil {
		if t, b, err = p.in.Open(h, b); err != nil {
			return 0, nil, err
		}
	}
	if t == wire.TypeAlert {
		if _, p.alert, err = wire.ParseAlert(b); err != nil {
			return 0, nil, err
		}
		p.alerted = true
		return t, b, errAlert
	}
	return t, b, nil
}

func (p *peer12) message(want wire.HandshakeType) ([]byte, error) {
	for {
		if b := p.messagesIn; len(b) >= wire.MessageHeaderLen {
			t, n, err := wire.ParseMessageHeader(b)
			if err != nil {
				return nil, err
			}
			if n += wire.MessageHeaderLen; len(b) >= n {
				p.messagesIn = b[n:]
				if t != want {
					return nil, fmt.Errorf("%v in place of %v", t, want)
				}
				return b[:n], nil
			}
		}
		t, b, err := p.read()
		if err != nil {
			return nil, err
		}
		if t != wire.TypeHandshake {
			return nil, fmt.Errorf("%v in place of %v", t, want)
		}
		p.messagesIn = append(p.messagesIn, b...)
	}
}

// serve runs the script up to close_notify, both ways. Its error matters only
// if the peer is honest.
func (p *peer12) serve() error {
	defer p.conn.Close()
	err := p.handshake()
	if err == nil && p.after != nil {
		p.after(p)
	}
	for err == nil {
		var t wire.ContentType
		var b []byte
		if t, b, err = p.read(); err == nil && t == wire.TypeApplicationData {
			p.transmitted = append(p.transmitted, b...)
		}
	}
	if errors.Is(err, errAlert) && p.alert == wire.CloseNotify {
		p.send(wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify))
		return nil
	}
	if errors.Is(err, schedule.ErrMAC) {
		p.send(wire.TypeAlert, wire.MarshalAlert(wire.BadRecordMAC))
		return err
	}
	for err != nil && !p.alerted { // what the client has to say
		if _, _, e := p.read(); e != nil {
			break
		}
	}
	return err
}

func (p *peer12) handshake() error {
	msg, err := p.message(wire.TypeClientHello)
	if err != nil {
		return err
	}
	if p.hello, err = wire.ParseClientHello(msg); err != nil {
		return err
	}
	if p.suite == 0 {
		p.suite = wire.ECDHERSAAES256GCM
	}
	if p.group == 0 {
		p.group = wire.P384
	}
	suite, err := schedule.ForSuite12(p.suite)
	if err != nil {
		return err
	}
	sh := &wire.ServerHello{Version: wire.VersionTLS12, SessionID: make([]byte, 32), Suite: p.suite}
	_, _ = rand.Read(sh.Random[:])
	_, _ = rand.Read(sh.SessionID)
	if !p.plain {
		sh.Extensions = append(sh.Extensions, wire.ExtendedMasterSecret())
	}
	sh.Extensions = append(sh.Extensions, wire.ChosenCertificateType(wire.OpenPGP), wire.RenegotiationInfo(), wire.UncompressedPoints())
	if p.script.hello != nil {
		p.script.hello(sh)
	}
	kex, agree, err := p.keyExchange12(suite, sh)
	if err != nil {
		return err
	}
	flight := [][]byte{must(sh.Marshal()), p.certificateMessage(), must(kex.Marshal()), wire.MarshalServerHelloDone()}
	if p.messages != nil {
		flight = p.messages(flight)
	}
	p.transcript = suite.NewHash()
	p.transcript.Write(msg)
	for _, m := range flight {
		p.transcript.Write(m)
	}
	p.sendMessages(flight...)
	if p.script.flight != nil {
		p.script.flight(p)
	}

	if msg, err = p.message(wire.TypeClientKeyExchange); err != nil {
		return err
	}
	p.transcript.Write(msg)
	cke, err := wire.ParseClientKeyExchange(msg, suite.DHE)
	if err != nil {
		return err
	}
	shared, err := agree(cke.Public)
	if err != nil {
		return err
	}
	pre := schedule.NewPremaster(suite, shared)
	if p.plain {
		p.master = pre.Plain(p.hello.Random, sh.Random)
	} else {
		p.master = pre.Extended(p.transcript.Sum(nil))
	}
	fromClient, fromServer := p.master.Protections(p.hello.Random, sh.Random)
	if t, b, err := p.read(); err != nil || t != wire.TypeChangeCipherSpec || !bytes.Equal(b, []byte{1}) {
		return errors.Join(err, fmt.Errorf("%v in place of ChangeCipherSpec", t))
	}
	p.in = fromClient
	want := p.master.Finished(true, p.transcript.Sum(nil))
	if msg, err = p.message(wire.TypeFinished); err != nil {
		return err
	}
	fin, err := wire.ParseFinished(msg, schedule.FinishedLen12)
	if err != nil || !bytes.Equal(fin.VerifyData, want) {
		return errors.Join(err, errors.New("a wrong Finished"))
	}
	p.transcript.Write(msg)

	if p.beforeCCS != nil {
		p.beforeCCS(p)
	}
	if p.ccs != nil {
		p.ccs(p)
	} else {
		p.send(wire.TypeChangeCipherSpec, []byte{1})
	}
	p.out = fromServer
	msg = must((&wire.Finished{VerifyData: p.master.Finished(false, p.transcript.Sum(nil))}).Marshal())
	if p.script.finished != nil {
		msg = p.script.finished(msg)
	}
	if p.record == nil {
		p.sendMessages(msg)
		return nil
	}
	raw, err := p.out.Seal(nil, wire.TypeHandshake, msg)
	if err != nil {
		return err
	}
	p.write(p.record(raw))
	return nil
}

func (p *peer12) certificateMessage() []byte {
	m := wire.OpenPGPCertificate{Data: p.key.cert, HasKeyID: !p.old}
	if key, err := (openPGP{}).parse12(must((&wire.OpenPGPCertificate{Data: p.key.cert}).Marshal())); err == nil {
		m.KeyID = key.Identity.Fingerprint.OpenPGPKeyID()
	}
	msg := must(m.Marshal())
	if p.wrong {
		n := int(msg[4])<<16 + int(msg[5])<<8 + int(msg[6]) - 7
		msg[4], msg[5], msg[6] = byte(n>>16), byte(n>>8), byte(n)
	}
	if p.certificate != nil {
		msg = p.certificate(msg)
	}
	return msg
}

// keyExchange12 makes the ServerKeyExchange, and a function that makes the
// shared secret from the client's public value.
func (p *peer12) keyExchange12(suite *schedule.Suite12, sh *wire.ServerHello) (*wire.ServerKeyExchange, func([]byte) ([]byte, error), error) {
	kex := &wire.ServerKeyExchange{Scheme: p.scheme}
	var agreeWith func([]byte) ([]byte, error)
	if suite.DHE {
		prime := p.prime
		if prime == nil {
			prime = ffdhe()[0]
		}
		x, err := rand.Int(rand.Reader, prime)
		if err != nil {
			return nil, nil, err
		}
		g := big.NewInt(2)
		kex.P, kex.G, kex.Y = prime.Bytes(), g.Bytes(), new(big.Int).Exp(g, x, prime).Bytes()
		agreeWith = func(public []byte) ([]byte, error) {
			return new(big.Int).Exp(new(big.Int).SetBytes(public), x, prime).Bytes(), nil
		}
	} else {
		ex, err := startExchange(p.group)
		if err != nil {
			return nil, nil, err
		}
		kex.Group, kex.Point, agreeWith = p.group, ex.share, ex.agree
	}
	if p.params != nil {
		p.params(kex)
	}
	if kex.Params == nil {
		if err := kex.MakeParams(); err != nil {
			return nil, nil, err
		}
	}
	signed := slices.Concat(p.hello.Random[:], sh.Random[:], kex.Params)
	if p.signed != nil {
		signed = p.signed(signed)
	}
	signer := p.signer
	if signer == nil {
		signer = p.key.primary
	}
	var err error
	kex.Scheme, kex.Signature, err = sign12(signer, kex.Scheme, signed)
	if p.keyExchange != nil {
		p.keyExchange(kex)
	}
	return kex, agreeWith, err
}

// sign12 signs by the rules of TLS 1.2, with the given scheme or the one that
// old GnuTLS picks.
func sign12(key any, s wire.SignatureScheme, message []byte) (wire.SignatureScheme, []byte, error) {
	var pick wire.SignatureScheme
	switch key.(type) {
	case *rsa.PrivateKey:
		pick = wire.RSAPKCS1SHA384
	case *ecdsa.PrivateKey:
		pick = wire.ECDSAP384SHA384
	case *dsa.PrivateKey:
		pick = wire.DSASHA256
	}
	if s == 0 {
		s = pick
	}
	h := map[wire.SignatureScheme]crypto.Hash{4: crypto.SHA256, 5: crypto.SHA384, 6: crypto.SHA512, 2: crypto.SHA1, 1: crypto.MD5}[s>>8]
	var digest []byte
	if h.Available() {
		sum := h.New()
		sum.Write(message)
		digest = sum.Sum(nil)
	} else { // the schemes that nobody may use; what is signed doesn't matter
		h, digest = crypto.SHA256, make([]byte, 32)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		sig, err := rsa.SignPKCS1v15(nil, k, h, digest)
		return s, sig, err
	case *ecdsa.PrivateKey:
		sig, err := ecdsa.SignASN1(rand.Reader, k, digest)
		return s, sig, err
	case *dsa.PrivateKey:
		digest = digest[:min(len(digest), (k.Q.BitLen()+7)/8)]
		r, v, err := dsa.Sign(rand.Reader, k, digest)
		if err != nil {
			return s, nil, err
		}
		sig, err := asn1.Marshal(struct{ R, S *big.Int }{r, v})
		return s, sig, err
	}
	return 0, nil, fmt.Errorf("a key of type %T", key)
}

func must[T any](b T, err error) T {
	if err != nil {
		panic(err)
	}
	return b
}

// startPeer12 starts the peer on one end of a connection, and returns our
// client on the other. wait ends the connection and waits for the peer.
func startPeer12(t testing.TB, policy Policy, s script) (client *Conn, peer *peer12, wait func() error) {
	t.Helper()
	a, b := transports(t)
	peer = &peer12{script: s, conn: b}
	done := make(chan error, 1)
	go func() { done <- peer.serve() }()
	client = Client(a, &Config{Policy: policy})
	return client, peer, func() error {
		client.Close()
		return <-done
	}
}
