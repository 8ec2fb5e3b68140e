package interop

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// TestGenerations has one running server serve Debian's client with a raw
// public key and a client of the old generation with an OpenPGP certificate,
// all at once: by one section that has both keys, and by sections of their
// own. A client that is barred from the old protocol gets nothing by it.
func TestGenerations(t *testing.T) {
	debian, ours := Debian(t), Ours(t)
	password := []byte("one password for both")
	keys := map[string]Keys{}
	var sections []string
	section := func(maker Programs, name, without, with string) {
		keys[name] = maker.Keygen(t, "ed25519")
		s := maker.Section(t, keys[name], name, password)
		if without != "" {
			s = regexp.MustCompile(`(?m)^`+without+` = .*\n`).ReplaceAllString(s, "")
		}
		sections = append(sections, strings.Replace(s, "host = ", with+"host = ", 1))
	}
	section(debian, "both", "", "")
	section(ours, "onlynew", "fingerprint", "")
	section(ours, "onlyold", "key_id", "")
	section(ours, "barred", "", "generation = tls13\n")
	addr := ours.Server(t, sections...)

	var all sync.WaitGroup
	for name, k := range keys {
		if name != "onlyold" {
			all.Go(func() {
				if got := debian.Client(t, k, addr).Password(t); !bytes.Equal(got, password) {
					t.Errorf("%s, Debian's client: got %q", name, abbreviate(got))
				}
			})
		}
		all.Go(func() {
			got, err := oldClient(k, addr)
			var want []byte
			if name == "both" || name == "onlyold" {
				for _, s := range sections {
					if strings.HasPrefix(s, "["+name+"]") || strings.Contains(s, "\n["+name+"]") {
						want = secretOf(t, s)
					}
				}
			}
			if err != nil {
				t.Errorf("%s, old client: %v", name, err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s, old client: got %d bytes, want %d", name, len(got), len(want))
			}
		})
	}
	all.Wait()
}

// secretOf returns the secret of a section of clients.conf.
func secretOf(t *testing.T, section string) []byte {
	_, text, _ := strings.Cut(section, "secret =")
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Error(err)
	}
	return b
}

// oldClient does what mandos-client on GnuTLS 3.5 does, for its RSA key and
// with its defaults: ECDHE_RSA_WITH_AES_256_GCM_SHA384, P-384 and SHA-384, the
// wrong outer length in its Certificate message, and one record per message.
// It returns what the server sent up to its close_notify.
func oldClient(keys Keys, addr string) (secret []byte, err error) {
	key, keyID, err := pgpPrimary(keys.PGPSecret())
	if err != nil {
		return nil, err
	}
	cert, err := dearmor(keys.PGPPublic())
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	for _, part := range []string{"1", "\r\n"} {
		if _, err := conn.Write([]byte(part)); err != nil {
			return nil, err
		}
	}
	c := &oldConn{Conn: conn}

	msg, err := c.message(wire.TypeClientHello)
	if err != nil {
		return nil, err
	}
	hello, err := wire.ParseClientHello(msg)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(hello.Suites, wire.ECDHERSAAES256GCM) {
		return nil, errors.New("no suite in common")
	}
	if types, _ := hello.Extensions.Get(wire.ExtCertType); !bytes.Equal(types, []byte{1, byte(wire.OpenPGP)}) {
		return nil, fmt.Errorf("cert_type is %x", types)
	}
	suite, err := schedule.ForSuite12(wire.ECDHERSAAES256GCM)
	if err != nil {
		return nil, err
	}
	transcript := suite.NewHash()
	transcript.Write(msg)

	sh := &wire.ServerHello{Version: wire.VersionTLS12, SessionID: make([]byte, 32), Suite: suite.ID, Extensions: wire.Extensions{
		wire.ExtendedMasterSecret(), wire.ChosenCertificateType(wire.OpenPGP), wire.RenegotiationInfo(), wire.UncompressedPoints(),
	}}
	_, _ = rand.Read(sh.Random[:])
	_, _ = rand.Read(sh.SessionID)
	ours, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	kex := &wire.ServerKeyExchange{Group: wire.P384, Point: ours.PublicKey().Bytes(), Scheme: wire.RSAPKCS1SHA384}
	if err := kex.MakeParams(); err != nil {
		return nil, err
	}
	sum := crypto.SHA384.New()
	sum.Write(slices.Concat(hello.Random[:], sh.Random[:], kex.Params))
	if kex.Signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA384, sum.Sum(nil)); err != nil {
		return nil, err
	}
	m1, err1 := sh.Marshal()
	m2, err2 := (&wire.OpenPGPCertificate{KeyID: keyID, HasKeyID: true, Data: cert}).Marshal()
	m3, err3 := kex.Marshal()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	outer := len(cert) + 6 // 7 too small
	m2[4], m2[5], m2[6] = byte(outer>>16), byte(outer>>8), byte(outer)
	for _, m := range [][]byte{m1, m2, m3, wire.MarshalServerHelloDone()} {
		transcript.Write(m)
		if err := c.send(wire.TypeHandshake, m); err != nil {
			return nil, err
		}
	}

	if msg, err = c.message(wire.TypeClientKeyExchange); err != nil {
		return nil, err
	}
	transcript.Write(msg)
	cke, err := wire.ParseClientKeyExchange(msg, false)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.P384().NewPublicKey(cke.Public)
	if err != nil {
		return nil, err
	}
	shared, err := ours.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	master := schedule.NewPremaster(suite, shared).Extended(transcript.Sum(nil))
	fromClient, fromServer := master.Protections(hello.Random, sh.Random)
	if _, err := c.read(wire.TypeChangeCipherSpec); err != nil {
		return nil, err
	}
	c.in = fromClient
	want := master.Finished(true, transcript.Sum(nil))
	if msg, err = c.message(wire.TypeFinished); err != nil {
		return nil, err
	}
	if !bytes.Equal(msg[wire.MessageHeaderLen:], want) {
		return nil, errors.New("a wrong Finished")
	}
	transcript.Write(msg)
	fin, err := (&wire.Finished{VerifyData: master.Finished(false, transcript.Sum(nil))}).Marshal()
	if err != nil {
		return nil, err
	}
	if err := c.send(wire.TypeChangeCipherSpec, []byte{1}); err != nil {
		return nil, err
	}
	c.out = fromServer
	if err := c.send(wire.TypeHandshake, fin); err != nil {
		return nil, err
	}
	for {
		b, err := c.read(wire.TypeApplicationData)
		if errors.Is(err, io.EOF) {
			return secret, c.send(wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify))
		}
		if err != nil {
			return secret, err
		}
		secret = append(secret, b...)
	}
}

// An oldConn reads and writes records of TLS 1.2.
type oldConn struct {
	net.Conn
	in, out *schedule.Protection12
}

func (c *oldConn) send(t wire.ContentType, b []byte) (err error) {
	raw := append(wire.AppendHeader(nil, wire.Header{Type: t, Version: wire.VersionTLS12, Length: len(b)}), b...)
	if c.out != nil {
		if raw, err = c.out.Seal(nil, t, b); err != nil {
			return err
		}
	}
	_, err = c.Write(raw)
	return err
}

// read returns the content of the next record, which has to be of type t; or
// io.EOF for close_notify.
func (c *oldConn) read(want wire.ContentType) ([]byte, error) {
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return nil, fmt.Errorf("reading: %v", err) // no close_notify
	}
	h, err := wire.ParseHeader(header[:])
	if err != nil {
		return nil, err
	}
	b := make([]byte, h.Length)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, fmt.Errorf("reading: %v", err)
	}
	t := h.Type
	if c.in != nil {
		if t, b, err = c.in.Open(h, b); err != nil {
			return nil, err
		}
	}
	switch {
	case t == wire.TypeAlert && bytes.Equal(b, wire.MarshalAlert(wire.CloseNotify)):
		return nil, io.EOF
	case t != want:
		return nil, fmt.Errorf("a record of %v (%x) in place of %v", t, b[:min(len(b), 4)], want)
	}
	return b, nil
}

// message reads a handshake message that is a record's whole content.
func (c *oldConn) message(want wire.HandshakeType) ([]byte, error) {
	b, err := c.read(wire.TypeHandshake)
	if err != nil {
		return nil, err
	}
	t, n, err := wire.ParseMessageHeader(b)
	if err != nil || t != want || n != len(b)-wire.MessageHeaderLen {
		return nil, fmt.Errorf("%v in place of %v", t, want)
	}
	return b, nil
}

func dearmor(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	block, err := armor.Decode(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(block.Body)
}

// pgpPrimary returns the primary key in a file, and its OpenPGP key ID.
func pgpPrimary(name string) (*rsa.PrivateKey, [8]byte, error) {
	b, err := dearmor(name)
	if err != nil {
		return nil, [8]byte{}, err
	}
	p, err := packet.Read(bytes.NewReader(b))
	if err != nil {
		return nil, [8]byte{}, err
	}
	private, ok := p.(*packet.PrivateKey)
	if !ok {
		return nil, [8]byte{}, fmt.Errorf("%T in place of a private key", p)
	}
	key, ok := private.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, [8]byte{}, fmt.Errorf("%T in place of an RSA key", private.PrivateKey)
	}
	return key, [8]byte(private.Fingerprint[12:]), nil
}
