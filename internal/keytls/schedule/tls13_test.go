package schedule

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mandos/internal/keytls/wire"
)

// trace reads a file of RFC 8448's values: lines "name:", and below them
// indented hexadecimal digits.
func trace(t *testing.T, file string) func(name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	values, name := map[string]string{}, ""
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " "):
			values[name] += strings.TrimSpace(line)
		default:
			name = strings.TrimSuffix(strings.TrimSpace(line), ":")
		}
	}
	return func(name string) []byte {
		t.Helper()
		b, err := hex.DecodeString(values[name])
		if err != nil || len(b) == 0 {
			t.Fatalf("%s has no good value %q: %v", file, name, err)
		}
		return b
	}
}

func suiteFor(t testing.TB, id wire.Suite) *Suite {
	t.Helper()
	s, err := ForSuite(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s is %x, want %x", what, got, want)
	}
}

// TestRFC8448 runs both traces that this package can follow: the simple
// handshake, and the one with a HelloRetryRequest.
func TestRFC8448(t *testing.T) {
	for file, tt := range map[string]struct {
		curve    ecdh.Curve
		messages []string
	}{
		"rfc8448-section3.txt": {ecdh.X25519(), []string{"ClientHello", "ServerHello"}},
		"rfc8448-section5.txt": {ecdh.P256(), []string{"first ClientHello", "HelloRetryRequest", "second ClientHello", "ServerHello"}},
	} {
		t.Run(file, func(t *testing.T) {
			value := trace(t, file)
			suite := suiteFor(t, wire.AES128GCM)

			ours, err := tt.curve.NewPrivateKey(value("client private key"))
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := tt.curve.NewPrivateKey(value("server private key"))
			if err != nil {
				t.Fatal(err)
			}
			shared, err := ours.ECDH(theirs.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the shared secret", shared, value("shared secret"))

			transcript := suite.NewHash()
			for i, name := range tt.messages {
				transcript.Write(value(name))
				if i == 0 && len(tt.messages) > 2 {
					sum := transcript.Sum(nil)
					transcript.Reset()
					transcript.Write(wire.MessageHash(sum))
				}
			}
			hash := transcript.Sum(nil)
			same(t, "the transcript's hash", hash, value("hash to ServerHello"))

			hs := NewEarly(suite).Handshake(shared, hash)
			if !bytes.Equal(shared, make([]byte, len(shared))) {
				t.Error("the shared secret isn't wiped")
			}
			same(t, "client_handshake_traffic_secret", hs.Client.secret.Reveal(), value("client handshake traffic"))
			same(t, "server_handshake_traffic_secret", hs.Server.secret.Reveal(), value("server handshake traffic"))
			same(t, "the server's key", expandLabel(suite, hs.Server.secret.Reveal(), "key", nil, 16), value("server handshake key"))
			same(t, "the server's IV", expandLabel(suite, hs.Server.secret.Reveal(), "iv", nil, 12), value("server handshake iv"))

			flight := value("server flight")
			record, err := hs.Server.Protection().Seal(nil, wire.TypeHandshake, flight)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the server's flight", record, value("server flight record"))
			opens(t, hs.Server.Protection(), value("server flight record"), wire.TypeHandshake, flight)

			// The flight ends with Finished: 4 bytes of header, 32 of data.
			before := len(flight) - 36
			transcript.Write(flight[:before])
			same(t, "the server's Finished", hs.Server.Finished(transcript.Sum(nil)), flight[before+4:])
			transcript.Write(flight[before:])

			clientTraffic := hs.Client
			app := hs.Application(transcript.Sum(nil))
			if s := hs.salt.Reveal(); !bytes.Equal(s, make([]byte, len(s))) {
				t.Error("the next stage's salt isn't wiped")
			}
			same(t, "client_application_traffic_secret", app.Client.secret.Reveal(), value("client application traffic"))
			same(t, "server_application_traffic_secret", app.Server.secret.Reveal(), value("server application traffic"))
			if file != "rfc8448-section3.txt" {
				return
			}

			same(t, "the client's Finished", clientTraffic.Finished(transcript.Sum(nil)), value("client Finished")[4:])
			record, err = clientTraffic.Protection().Seal(nil, wire.TypeHandshake, value("client Finished"))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the client's Finished record", record, value("client Finished record"))

			client := app.Client.Protection()
			record, err = client.Seal(nil, wire.TypeApplicationData, value("application data"))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the client's data", record, value("client application record"))
			record, err = client.Seal(nil, wire.TypeAlert, wire.MarshalAlert(wire.CloseNotify))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the client's close_notify", record, value("client close_notify record"))
			server := app.Server.Protection()
			server.seq = 1 // record 0 is a ticket
			opens(t, server, value("server application record 1"), wire.TypeApplicationData, value("application data"))
		})
	}
}

// opens checks that p opens the record and finds what is wanted.
func opens(t *testing.T, p *Protection, record []byte, wantType wire.ContentType, want []byte) {
	t.Helper()
	h, err := wire.ParseHeader(record)
	if err != nil {
		t.Fatal(err)
	}
	typ, payload, err := p.Open(h, slices.Clone(record[wire.HeaderLen:]))
	if err != nil || typ != wantType {
		t.Fatalf("opened %v, %v, want %v", typ, err, wantType)
	}
	same(t, "the payload", payload, want)
}

// TestUpdate checks KeyUpdate against the definition in RFC 8446, section 7.2,
// written out: HKDF-Expand of one block.
func TestUpdate(t *testing.T) {
	suite := suiteFor(t, wire.AES128GCM)
	traffic := testTraffic(suite)
	old := traffic.secret.Reveal()
	want := hmacOf(suite, slices.Clone(old), []byte("\x00\x20\x11tls13 traffic upd\x00\x01"))
	traffic.Update()
	same(t, "the next secret", traffic.secret.Reveal(), want)
	same(t, "the old secret", old, make([]byte, len(old)))
}
