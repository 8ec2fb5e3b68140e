package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

// parsers has one entry for every parser: it parses b and writes the result
// back with the matching writer.
var parsers = map[string]func(b []byte) ([]byte, error){
	"ClientHello": func(b []byte) ([]byte, error) {
		m, err := ParseClientHello(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"ServerHello": func(b []byte) ([]byte, error) {
		m, err := ParseServerHello(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"EncryptedExtensions": func(b []byte) ([]byte, error) {
		m, err := ParseEncryptedExtensions(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"Certificate": func(b []byte) ([]byte, error) {
		m, err := ParseCertificate(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"CertificateVerify": func(b []byte) ([]byte, error) {
		m, err := ParseCertificateVerify(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"Finished": func(b []byte) ([]byte, error) {
		m, err := ParseFinished(b, 32)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"KeyUpdate": func(b []byte) ([]byte, error) {
		m, err := ParseKeyUpdate(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal(), nil
	},
	"NewSessionTicket": func(b []byte) ([]byte, error) {
		m, err := ParseNewSessionTicket(b)
		if err != nil {
			return nil, err
		}
		return m.Marshal()
	},
	"alert": func(b []byte) ([]byte, error) {
		level, a, err := ParseAlert(b)
		return []byte{level, byte(a)}, err
	},
	"supported_versions": func(b []byte) ([]byte, error) {
		v, err := ParseSupportedVersions(b)
		return SupportedVersions(v...).Data, err
	},
	"selected version": func(b []byte) ([]byte, error) {
		v, err := ParseSelectedVersion(b)
		return SelectedVersion(v).Data, err
	},
	"supported_groups": func(b []byte) ([]byte, error) {
		v, err := ParseSupportedGroups(b)
		return SupportedGroups(v...).Data, err
	},
	"signature_algorithms": func(b []byte) ([]byte, error) {
		v, err := ParseSignatureAlgorithms(b)
		return SignatureAlgorithms(v...).Data, err
	},
	"server_certificate_types": func(b []byte) ([]byte, error) {
		v, err := ParseServerCertificateTypes(b)
		return ServerCertificateTypes(v...).Data, err
	},
	"server_certificate_type": func(b []byte) ([]byte, error) {
		v, err := ParseServerCertificateType(b)
		return ServerCertificateType(v).Data, err
	},
	"client key_share": func(b []byte) ([]byte, error) {
		v, err := ParseClientKeyShares(b)
		return ClientKeyShares(v...).Data, err
	},
	"server key_share": func(b []byte) ([]byte, error) {
		v, err := ParseServerKeyShare(b)
		return ServerKeyShare(v).Data, err
	},
	"retry key_share": func(b []byte) ([]byte, error) {
		v, err := ParseRetryGroup(b)
		return RetryGroup(v).Data, err
	},
	"cookie": func(b []byte) ([]byte, error) {
		v, err := ParseCookie(b)
		return Cookie(v).Data, err
	},
}

// samples has valid inputs for each parser. The messages are those of RFC
// 8448, section 3, where it has them.
var samples = map[string][]string{
	"ClientHello": {
		"010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113031302010000910000000b0009000006736572766572ff01000100000a00140012001d0017001800190100010101020103010400230000003300260024001d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d0020001e040305030603020308040805080604010501060102010402050206020202002d00020101001c00024001",
		"010000290303000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000002c0300100", // no extensions
	},
	"ServerHello": {
		"020000560303a6af06a4121860dc5e6e60249cd34c95930c8ac5cb1434dac155772ed3e2692800130100002e00330024001d0020c9828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f002b00020304",
		"020000260303000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00c03000", // TLS 1.2's, no extensions
	},
	"EncryptedExtensions": {
		"080000240022000a00140012001d00170018001901000101010201030104001c0002400100000000",
		"080000020000",
	},
	"Certificate": {
		"0b000035000000310000" + "2c" + "302a300506032b6570032100000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" + "0000",
		"0b00000400000000",
	},
	"CertificateVerify":        {"0f0000080807000401020304"},
	"Finished":                 {"140000209b9b141d906337fbd2cbdce71df4deda4ab42c309572cb7fffee5454b78f0718"},
	"KeyUpdate":                {"1800000100", "1800000101"},
	"NewSessionTicket":         {"0400001b" + "00001c20" + "aabbccdd" + "020000" + "000401020304" + "0008002a000400000400"},
	"alert":                    {"0100", "0228"},
	"supported_versions":       {"0403040303"},
	"selected version":         {"0304"},
	"supported_groups":         {"0006001d00170018"},
	"signature_algorithms":     {"000408070403"},
	"server_certificate_types": {"020200"},
	"server_certificate_type":  {"02"},
	"client key_share":         {"000f001d00050102030405001700020102", "0000"},
	"server key_share":         {"001d00050102030405"},
	"retry key_share":          {"0018"},
	"cookie":                   {"0003010203"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestParsers checks for each parser that a valid input is written back
// unchanged, and that neither a strict prefix of it nor trailing bytes are
// accepted.
func TestParsers(t *testing.T) {
	for name, parse := range parsers {
		if len(samples[name]) == 0 {
			t.Errorf("%s has no sample", name)
		}
		for _, s := range samples[name] {
			in := unhex(t, s)
			out, err := parse(in)
			if err != nil {
				t.Errorf("%s %s: %v", name, s, err)
				continue
			}
			if !bytes.Equal(in, out) {
				t.Errorf("%s: %x came back as %x", name, in, out)
			}
			for n := range in {
				if _, err := parse(in[:n:n]); err == nil {
					t.Errorf("%s: the first %d of %d bytes were taken", name, n, len(in))
				}
			}
			if _, err := parse(append(bytes.Clone(in), 0)); err == nil {
				t.Errorf("%s: a trailing byte was taken", name)
			}
		}
	}
}

// TestInnerLengths shortens and lengthens the body of each message while its
// header stays right, so that the lists inside have to notice.
func TestInnerLengths(t *testing.T) {
	for _, name := range []string{"ClientHello", "ServerHello", "EncryptedExtensions", "Certificate", "CertificateVerify", "Finished", "KeyUpdate", "NewSessionTicket"} {
		in := unhex(t, samples[name][0])
		resize := func(b []byte) []byte {
			b = bytes.Clone(b)
			n := len(b) - MessageHeaderLen
			b[1], b[2], b[3] = byte(n>>16), byte(n>>8), byte(n)
			return b
		}
		for n := MessageHeaderLen; n < len(in); n++ {
			if name == "ClientHello" && n == MessageHeaderLen+2+32+1+8+2 ||
				name == "ServerHello" && n == MessageHeaderLen+2+32+1+2+1 {
				continue // before the extensions: TLS 1.2 allows for none
			}
			if _, err := parsers[name](resize(in[:n])); err == nil {
				t.Errorf("%s: a body of %d bytes was taken", name, n-MessageHeaderLen)
			}
		}
		if _, err := parsers[name](resize(append(bytes.Clone(in), 0))); err == nil {
			t.Errorf("%s: a byte after the last field was taken", name)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		parser, in string
		want       error
	}{
		"session ID of 33 bytes":        {"ServerHello", "020000470303" + zeros(32) + "21" + zeros(33) + "130100", ErrMalformed},
		"ClientHello: session ID of 33": {"ClientHello", "0100004a0303" + zeros(32) + "21" + zeros(33) + "000213010100", ErrMalformed},
		"no suite":                      {"ClientHello", "010000270303" + zeros(32) + "00" + "0000" + "0100", ErrMalformed},
		"half a suite":                  {"ClientHello", "010000280303" + zeros(32) + "00" + "000113" + "0100", ErrMalformed},
		"no compression method":         {"ClientHello", "010000280303" + zeros(32) + "00" + "00021301" + "00", ErrMalformed},
		"twice an extension":            {"EncryptedExtensions", "0800000a0008" + "00140000" + "00140000", ErrDuplicate},
		"65 extensions":                 {"EncryptedExtensions", extensions(65), ErrMalformed},
		"an empty key":                  {"Certificate", "0b000009" + "00" + "000005" + "000000" + "0000", ErrMalformed},
		"an entry without extensions":   {"Certificate", "0b000008" + "00" + "000004" + "000001" + "30", ErrMalformed},
		"65 entries":                    {"Certificate", entries(65), ErrMalformed},
		"another verify_data length":    {"Finished", "14000030" + zeros(48), ErrMalformed},
		"request_update of 2":           {"KeyUpdate", "1800000102", ErrKeyUpdate},
		"no ticket":                     {"NewSessionTicket", "0400000d" + zeros(8) + "00" + "0000" + "0000", ErrMalformed},
		"alert level 0":                 {"alert", "0000", ErrMalformed},
		"alert level 3":                 {"alert", "0328", ErrMalformed},
		"no version":                    {"supported_versions", "00", ErrMalformed},
		"half a version":                {"supported_versions", "0103", ErrMalformed},
		"no group":                      {"supported_groups", "0000", ErrMalformed},
		"half a group":                  {"supported_groups", "000100", ErrMalformed},
		"no scheme":                     {"signature_algorithms", "0000", ErrMalformed},
		"no certificate type":           {"server_certificate_types", "00", ErrMalformed},
		"an empty share":                {"server key_share", "001d0000", ErrMalformed},
		"an empty share in the list":    {"client key_share", "0004001d0000", ErrMalformed},
		"two shares of a group":         {"client key_share", "000a001d000101001d000102", ErrDuplicate},
		"an empty cookie":               {"cookie", "0000", ErrMalformed},
		"a message of another type":     {"ServerHello", samples["ClientHello"][0], ErrMalformed},
	} {
		_, err := parsers[tt.parser](unhex(t, tt.in))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want one that wraps %v", name, err, tt.want)
		}
	}
}

func zeros(n int) string { return hex.EncodeToString(make([]byte, n)) }

// extensions is an EncryptedExtensions message with n of them.
func extensions(n int) string {
	m := EncryptedExtensions{}
	for i := range n {
		m.Extensions = append(m.Extensions, Extension{Type: ExtensionType(i)})
	}
	msg, _ := m.Marshal()
	return hex.EncodeToString(msg)
}

// entries is a Certificate message with n of them.
func entries(n int) string {
	m := Certificate{}
	for range n {
		m.Entries = append(m.Entries, CertificateEntry{Data: []byte{0x30}})
	}
	msg, _ := m.Marshal()
	return hex.EncodeToString(msg)
}

// TestFields checks that the fields end up where they belong, with messages
// that others made: those of RFC 8448, section 3.
func TestFields(t *testing.T) {
	ch, err := ParseClientHello(unhex(t, samples["ClientHello"][0]))
	if err != nil {
		t.Fatal(err)
	}
	if want := []Suite{AES128GCM, ChaCha20Poly1305, AES256GCM}; !reflect.DeepEqual(ch.Suites, want) {
		t.Errorf("suites %v, want %v", ch.Suites, want)
	}
	body, _ := ch.Extensions.Get(ExtSupportedVersions)
	if versions, err := ParseSupportedVersions(body); err != nil || len(versions) != 1 || versions[0] != VersionTLS13 {
		t.Errorf("versions %v, %v", versions, err)
	}
	body, _ = ch.Extensions.Get(ExtKeyShare)
	if shares, err := ParseClientKeyShares(body); err != nil || len(shares) != 1 || shares[0].Group != X25519 || len(shares[0].Data) != 32 {
		t.Errorf("shares %v, %v", shares, err)
	}
	body, _ = ch.Extensions.Get(ExtSignatureAlgorithms)
	if schemes, err := ParseSignatureAlgorithms(body); err != nil || len(schemes) != 15 || schemes[0] != ECDSAP256SHA256 {
		t.Errorf("schemes %v, %v", schemes, err)
	}
	sh, err := ParseServerHello(unhex(t, samples["ServerHello"][0]))
	if err != nil {
		t.Fatal(err)
	}
	if sh.Version != VersionTLS12 || sh.Suite != AES128GCM || sh.IsHelloRetryRequest() || sh.Downgrade() != 0 {
		t.Errorf("ServerHello %+v", sh)
	}
}

func TestHelloRetryRequest(t *testing.T) {
	var m ServerHello
	m.SetHelloRetryRequest()
	// RFC 8446, section 4.1.3.
	const want = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
	if got := hex.EncodeToString(m.Random[:]); got != want || !m.IsHelloRetryRequest() {
		t.Errorf("the random is %s, want %s", got, want)
	}
}

func TestDowngrade(t *testing.T) {
	// RFC 8446, section 4.1.3.
	for end, want := range map[string]Version{
		"444f574e47524401": VersionTLS12,
		"444f574e47524400": VersionTLS11,
		"444f574e47524402": 0,
	} {
		m := ServerHello{Random: [32]byte(append(make([]byte, 24), unhex(t, end)...))}
		if got := m.Downgrade(); got != want {
			t.Errorf("%s stands for %v, want %v", end, got, want)
		}
	}
}

func TestRecordHeader(t *testing.T) {
	in := unhex(t, "1603030102")
	h, err := ParseHeader(in)
	if want := (Header{TypeHandshake, VersionTLS12, 0x102}); err != nil || h != want {
		t.Errorf("got %v, %v, want %v", h, err, want)
	}
	if out := AppendHeader(nil, h); !bytes.Equal(in, out) {
		t.Errorf("%x came back as %x", in, out)
	}
	for n := range in {
		if _, err := ParseHeader(in[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestAlertLevels(t *testing.T) {
	if got := MarshalAlert(CloseNotify); !bytes.Equal(got, []byte{1, 0}) {
		t.Errorf("close_notify is %x", got)
	}
	if got := MarshalAlert(DecryptError); !bytes.Equal(got, []byte{2, 51}) {
		t.Errorf("decrypt_error is %x", got)
	}
}
