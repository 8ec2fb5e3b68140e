package schedule

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mandos/internal/keytls/wire"
)

const vectors = "../testdata/openpgp-tls"

func readVector(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{vectors}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A record is one record of a recorded stream.
type record struct {
	header   wire.Header
	fragment []byte
}

func splitRecords(t testing.TB, b []byte) (rs []record) {
	t.Helper()
	for len(b) > 0 {
		h, err := wire.ParseHeader(b)
		if err != nil || len(b) < wire.HeaderLen+h.Length {
			t.Fatalf("the stream ends inside of a record: %v", err)
		}
		rs = append(rs, record{h, b[wire.HeaderLen : wire.HeaderLen+h.Length]})
		b = b[wire.HeaderLen+h.Length:]
	}
	return rs
}

// TestRecordings12 goes through what old clients and servers sent: from
// premaster secret and messages to the master secret, both Finished, the
// secret that was handed out, and both close_notify.
func TestRecordings12(t *testing.T) {
	for _, name := range []string{
		"rsa2048-gnutls3.5.19", "rsa2048-variant-correct-length", "rsa4096-gnutls3.5.19", "dsa2048-dhedss-gnutls3.5.19",
	} {
		t.Run(name, func(t *testing.T) {
			clientHello, err := wire.ParseClientHello(readVector(t, name, "client_hello.hs.bin"))
			if err != nil {
				t.Fatal(err)
			}
			serverHello, err := wire.ParseServerHello(readVector(t, name, "server_hello.hs.bin"))
			if err != nil {
				t.Fatal(err)
			}
			suite, err := ForSuite12(serverHello.Suite)
			if err != nil {
				t.Fatal(err)
			}
			transcript := suite.NewHash()
			for _, m := range []string{"client_hello", "server_hello", "certificate", "server_key_exchange", "server_hello_done", "client_key_exchange"} {
				transcript.Write(readVector(t, name, m+".hs.bin"))
			}

			keylog := strings.Fields(string(readVector(t, name, "keylog.txt")))
			if !bytes.Equal(unhex(t, keylog[1]), clientHello.Random[:]) {
				t.Fatal("the key log is of another session")
			}
			premaster, err := os.ReadFile(filepath.Join(vectors, name, "premaster.hex"))
			master := NewPremaster(suite, unhex(t, keylog[2])).secretAsMaster()
			if err == nil { // not recorded for DSA
				shared := unhex(t, string(premaster))
				got := NewPremaster(suite, shared).Extended(transcript.Sum(nil))
				if !got.secret.Equal(master.secret) {
					t.Fatal("the master secret isn't the recorded one")
				}
				if !bytes.Equal(shared, make([]byte, len(shared))) {
					t.Error("the premaster secret wasn't wiped")
				}
				master = got
			} else if !strings.HasPrefix(name, "dsa") {
				t.Fatal(err)
			}
			fromClient, fromServer := master.Protections(clientHello.Random, serverHello.Random)

			// The TLS client's stream is the Mandos server's.
			open := func(p *Protection12, r record) (wire.ContentType, []byte) {
				t.Helper()
				typ, b, err := p.Open(r.header, bytes.Clone(r.fragment))
				if err != nil {
					t.Fatal(err)
				}
				return typ, b
			}
			protected := func(file string, skip int) []record {
				rs := splitRecords(t, readVector(t, name, file)[skip:])
				for i, r := range rs {
					if r.header.Type == wire.TypeChangeCipherSpec {
						return rs[i+1:]
					}
				}
				t.Fatal("no change_cipher_spec")
				return nil
			}
			client := protected("mandos-server-to-client.bin", 0)
			server := protected("mandos-client-to-server.bin", len("1\r\n"))
			finished := func(p *Protection12, r record, fromClient bool) {
				t.Helper()
				want := master.Finished(fromClient, transcript.Sum(nil))
				typ, msg := open(p, r)
				if typ != wire.TypeHandshake {
					t.Fatalf("%v, want a Finished", typ)
				}
				m, err := wire.ParseFinished(msg, FinishedLen12)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(m.VerifyData, want) {
					t.Errorf("verify_data %x, want %x", m.VerifyData, want)
				}
				transcript.Write(msg)
			}
			finished(fromClient, client[0], true)
			finished(fromServer, server[0], false)

			if len(client) != 3 || len(server) != 2 {
				t.Fatalf("%d and %d protected records, want 3 and 2", len(client), len(server))
			}
			if typ, b := open(fromClient, client[1]); typ != wire.TypeApplicationData || !bytes.Equal(b, readVector(t, name, "secret-sent.gpg")) {
				t.Errorf("%v of %d bytes isn't the secret that was sent", typ, len(b))
			}
			for p, r := range map[*Protection12]record{fromClient: client[2], fromServer: server[1]} {
				if typ, b := open(p, r); typ != wire.TypeAlert || !bytes.Equal(b, wire.MarshalAlert(wire.CloseNotify)) {
					t.Errorf("%v %x, want close_notify", typ, b)
				}
			}

			// What we seal with the same keys is the same as what the peer
			// sealed, apart from the explicit nonce that GnuTLS chose.
			again, _ := master.Protections(clientHello.Random, serverHello.Random)
			again.seq = fromClient.seq - 2
			secret := readVector(t, name, "secret-sent.gpg")
			sealed, err := again.Seal(nil, wire.TypeApplicationData, secret)
			if err != nil {
				t.Fatal(err)
			}
			if len(sealed) != wire.HeaderLen+len(client[1].fragment) {
				t.Errorf("sealed %d bytes, the recording has %d", len(sealed), wire.HeaderLen+len(client[1].fragment))
			}
		})
	}
}

// secretAsMaster takes the secret for the master secret itself.
func (p *Premaster) secretAsMaster() *Master { return &Master{p.suite, p.secret} }

var all12 = []wire.Suite{
	wire.ECDHEECDSAAES256GCM, wire.ECDHEECDSAAES128GCM, wire.ECDHEECDSAChaCha20Poly1305,
	wire.ECDHERSAAES256GCM, wire.ECDHERSAAES128GCM, wire.ECDHERSAChaCha20Poly1305,
	wire.DHERSAAES256GCM, wire.DHERSAAES128GCM, wire.DHERSAChaCha20Poly1305,
	wire.DHEDSSAES256GCM, wire.DHEDSSAES128GCM,
}

// TestProtection12 seals and opens with each suite, and refuses what was
// changed, swapped, repeated or cut.
func TestProtection12(t *testing.T) {
	for _, id := range all12 {
		t.Run(id.String(), func(t *testing.T) {
			suite, err := ForSuite12(id)
			if err != nil {
				t.Fatal(err)
			}
			pair := func() (seal, open *Protection12) {
				client, server := [32]byte{1}, [32]byte{2}
				m := NewPremaster(suite, []byte("shared")).Plain(client, server)
				seal, _ = m.Protections(client, server)
				open, _ = m.Protections(client, server)
				return seal, open
			}
			seal, open := pair()
			for n, payload := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("b"), wire.MaxPlaintext)} {
				raw, err := seal.Seal([]byte("before"), wire.TypeApplicationData, payload)
				if err != nil {
					t.Fatal(err)
				}
				r := splitRecords(t, raw[len("before"):])[0]
				if r.header.Version != wire.VersionTLS12 {
					t.Errorf("a record of %v", r.header.Version)
				}
				typ, got, err := open.Open(r.header, r.fragment)
				if err != nil || typ != wire.TypeApplicationData || !bytes.Equal(got, payload) {
					t.Fatalf("record %d: %v, %d bytes, %v", n, typ, len(got), err)
				}
			}
			if _, err := seal.Seal(nil, wire.TypeApplicationData, make([]byte, wire.MaxPlaintext+1)); !errors.Is(err, ErrOverflow) {
				t.Errorf("a payload that is too long: %v", err)
			}

			for name, change := range map[string]func(*record){
				"each byte":  nil,
				"type":       func(r *record) { r.header.Type = wire.TypeAlert },
				"version":    func(r *record) { r.header.Version = wire.VersionTLS11 },
				"cut":        func(r *record) { r.fragment = r.fragment[:len(r.fragment)-1] },
				"empty":      func(r *record) { r.fragment = nil },
				"tag only":   func(r *record) { r.fragment = r.fragment[:16] },
				"longer":     func(r *record) { r.fragment = append(r.fragment, 0) },
				"other key":  func(r *record) { r.fragment = nil; _, r.fragment, _ = reverse(suite) },
				"not sealed": func(r *record) { r.fragment = []byte("hello") },
			} {
				seal, open := pair()
				raw, err := seal.Seal(nil, wire.TypeApplicationData, []byte("payload"))
				if err != nil {
					t.Fatal(err)
				}
				r := splitRecords(t, raw)[0]
				if change == nil {
					for i := range r.fragment {
						_, open := pair()
						bad := bytes.Clone(r.fragment)
						bad[i] ^= 1
						if _, _, err := open.Open(r.header, bad); !errors.Is(err, ErrMAC) {
							t.Errorf("byte %d changed: %v", i, err)
						}
					}
					continue
				}
				change(&r)
				if _, _, err := open.Open(r.header, r.fragment); !errors.Is(err, ErrMAC) {
					t.Errorf("%s: %v, want ErrMAC", name, err)
				}
			}

			seal, open = pair()
			first, _ := seal.Seal(nil, wire.TypeApplicationData, []byte("1"))
			second, _ := seal.Seal(nil, wire.TypeApplicationData, []byte("2"))
			one, two := splitRecords(t, first)[0], splitRecords(t, second)[0]
			if _, _, err := open.Open(two.header, bytes.Clone(two.fragment)); !errors.Is(err, ErrMAC) {
				t.Errorf("the second record first: %v", err)
			}
			_, open = pair()
			if _, _, err := open.Open(one.header, bytes.Clone(one.fragment)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := open.Open(one.header, bytes.Clone(one.fragment)); !errors.Is(err, ErrMAC) {
				t.Errorf("the first record twice: %v", err)
			}
			if _, _, err := open.Open(one.header, make([]byte, wire.MaxCiphertext12+1)); !errors.Is(err, ErrOverflow) {
				t.Errorf("a record that is too long: %v", err)
			}

			seal, _ = pair()
			seal.seq = seal.limit - 2
			if !seal.Exhausted() {
				t.Error("not exhausted near its limit")
			}
			seal.seq = seal.limit
			if _, err := seal.Seal(nil, wire.TypeApplicationData, nil); !errors.Is(err, ErrExhausted) {
				t.Errorf("past its limit: %v", err)
			}
		})
	}
}

// reverse seals with the other direction's key.
func reverse(s *Suite12) (wire.Header, []byte, error) {
	m := NewPremaster(s, []byte("shared")).Plain([32]byte{1}, [32]byte{2})
	_, p := m.Protections([32]byte{1}, [32]byte{2})
	raw, err := p.Seal(nil, wire.TypeApplicationData, []byte("payload"))
	return wire.Header{}, raw[wire.HeaderLen:], err
}

func TestSuite12Unknown(t *testing.T) {
	for _, id := range []wire.Suite{0, 0x002f, 0xc09f, wire.AES256GCM, wire.EmptyRenegotiationInfoSCSV} {
		if _, err := ForSuite12(id); err == nil {
			t.Errorf("%v is known", id)
		}
	}
}

// TestNoKeys12 prints everything that holds a key.
func TestNoKeys12(t *testing.T) {
	suite, err := ForSuite12(wire.ECDHERSAAES256GCM)
	if err != nil {
		t.Fatal(err)
	}
	pre := NewPremaster(suite, []byte("attack at dawn"))
	out := fmt.Sprintf("%v %+v %#v %x %s", pre, *pre, pre, pre, *pre)
	if strings.Contains(out, "attack") || strings.Contains(out, "61747461636b") {
		t.Errorf("the premaster secret is printed: %s", out)
	}
	m := pre.Plain([32]byte{}, [32]byte{})
	key := m.secret.Reveal()
	p, _ := m.Protections([32]byte{}, [32]byte{})
	out = fmt.Sprintf("%v %+v %#v %x %d %v %+v %#v %d", m, *m, m, m, *m, p, *p, p, p)
	for _, form := range []string{string(key[:4]), hex.EncodeToString(key[:4]), strings.Trim(fmt.Sprint(key[:4]), "[]")} {
		if strings.Contains(out, form) {
			t.Errorf("the master secret is printed: %s", out)
		}
	}
}
