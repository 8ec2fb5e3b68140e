package wire

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
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

// TestMessages12 writes and reads each message of TLS 1.2 and refuses each
// strict prefix and trailing bytes, with and without a header that says so.
func TestMessages12(t *testing.T) {
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	id := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	for name, tt := range map[string]struct {
		msg   []byte
		parse func([]byte) (any, error)
		want  any
	}{
		"OpenPGP certificate": {
			must((&OpenPGPCertificate{KeyID: id, HasKeyID: true, Data: []byte("packets")}).Marshal()),
			func(b []byte) (any, error) { return ParseOpenPGPCertificate(b) },
			&OpenPGPCertificate{KeyID: id, HasKeyID: true, Data: []byte("packets")},
		},
		"OpenPGP certificate of RFC 5081": {
			must((&OpenPGPCertificate{Data: []byte("packets")}).Marshal()),
			func(b []byte) (any, error) { return ParseOpenPGPCertificate(b) },
			&OpenPGPCertificate{Data: []byte("packets")},
		},
		"ECDHE": {
			must((&ServerKeyExchange{Group: P384, Point: []byte("point"), Scheme: RSAPKCS1SHA384, Signature: []byte("signature")}).Marshal()),
			func(b []byte) (any, error) { return ParseServerKeyExchange(b, false) },
			&ServerKeyExchange{Group: P384, Point: []byte("point"), Params: []byte("\x03\x00\x18\x05point"), Scheme: RSAPKCS1SHA384, Signature: []byte("signature")},
		},
		"DHE": {
			must((&ServerKeyExchange{P: []byte("p"), G: []byte("g"), Y: []byte("yy"), Scheme: DSASHA256, Signature: []byte("s")}).Marshal()),
			func(b []byte) (any, error) { return ParseServerKeyExchange(b, true) },
			&ServerKeyExchange{P: []byte("p"), G: []byte("g"), Y: []byte("yy"), Params: []byte("\x00\x01p\x00\x01g\x00\x02yy"), Scheme: DSASHA256, Signature: []byte("s")},
		},
		"client's ECDHE": {
			must((&ClientKeyExchange{Public: []byte("point")}).Marshal(false)),
			func(b []byte) (any, error) { return ParseClientKeyExchange(b, false) },
			&ClientKeyExchange{Public: []byte("point")},
		},
		"client's DHE": {
			must((&ClientKeyExchange{Public: []byte("value")}).Marshal(true)),
			func(b []byte) (any, error) { return ParseClientKeyExchange(b, true) },
			&ClientKeyExchange{Public: []byte("value")},
		},
		"ServerHelloDone": {
			MarshalServerHelloDone(),
			func(b []byte) (any, error) { return nil, ParseServerHelloDone(b) },
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.parse(tt.msg)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("%+v, %v, want %+v", got, err, tt.want)
			}
			for n := range tt.msg {
				if _, err := tt.parse(tt.msg[:n:n]); !errors.Is(err, ErrMalformed) {
					t.Errorf("the first %d bytes: %v", n, err)
				}
				if n >= MessageHeaderLen { // as a message of its own
					cut := bytes.Clone(tt.msg[:n])
					cut[3] = byte(n - MessageHeaderLen)
					if _, err := tt.parse(cut); err == nil {
						t.Errorf("the first %d bytes with a fitting header were read", n)
					}
				}
			}
			if _, err := tt.parse(append(bytes.Clone(tt.msg), 0)); !errors.Is(err, ErrMalformed) {
				t.Errorf("a trailing byte: %v", err)
			}
			longer := append(bytes.Clone(tt.msg), 0)
			longer[3]++
			if _, err := tt.parse(longer); err == nil {
				t.Error("a trailing byte with a fitting header was read")
			}
			other := bytes.Clone(tt.msg)
			other[0] = byte(TypeFinished)
			if _, err := tt.parse(other); !errors.Is(err, ErrMalformed) {
				t.Errorf("as a Finished: %v", err)
			}
		})
	}
}

// TestCertificateForms reads the lengths that GnuTLS gets wrong, and refuses
// all others.
func TestCertificateForms(t *testing.T) {
	body := func(outer int, rest ...byte) []byte {
		n := 3 + len(rest)
		return append([]byte{byte(TypeCertificate), 0, byte(n >> 8), byte(n), 0, 0, byte(outer)}, rest...)
	}
	sub := []byte{2, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 2, 'p', 'k'} // 15 bytes
	key := []byte{1, 0, 0, 2, 'p', 'k'}                            // 6 bytes
	for outer := range 32 {
		_, err := ParseOpenPGPCertificate(body(outer, sub...))
		if good := outer == 15 || outer == 8; good != (err == nil) {
			t.Errorf("outer length %d for 15 bytes: %v", outer, err)
		}
		_, err = ParseOpenPGPCertificate(body(outer, key...))
		if good := outer == 6; good != (err == nil) {
			t.Errorf("outer length %d for 6 bytes: %v", outer, err)
		}
	}
	for name, tt := range map[string]struct {
		msg  []byte
		want error
	}{
		"nothing":                 {body(0), ErrNoCertificate},
		"empty_cert":              {body(4, 1, 0, 0, 0), ErrNoCertificate},
		"empty subkey_cert":       {body(13, 2, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0), ErrNoCertificate},
		"fingerprint":             {body(3, 0, 1, 1), ErrOnlyFingerprint},
		"fingerprint and key ID":  {body(3, 3, 1, 1), ErrOnlyFingerprint},
		"unknown descriptor":      {body(6, 4, 0, 0, 2, 'p', 'k'), ErrMalformed},
		"key ID of 7 bytes":       {body(14, 2, 7, 1, 2, 3, 4, 5, 6, 7, 0, 0, 2, 'p', 'k'), ErrMalformed},
		"key ID of 9 bytes":       {body(16, 2, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 2, 'p', 'k'), ErrMalformed},
		"X.509's list":            {body(7, 0, 0, 4, 0x30, 2, 5, 0), ErrOnlyFingerprint},
		"no outer length":         {[]byte{byte(TypeCertificate), 0, 0, 2, 0, 0}, ErrMalformed},
		"bytes after certificate": {body(7, 1, 0, 0, 2, 'p', 'k', 0), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseOpenPGPCertificate(tt.msg); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// TestServerKeyExchangeLimits refuses what is well-formed but not wanted.
func TestServerKeyExchangeLimits(t *testing.T) {
	explicit := []byte{byte(TypeServerKeyExchange), 0, 0, 2, 1, 0}
	if _, err := ParseServerKeyExchange(explicit, false); !errors.Is(err, ErrExplicitCurve) {
		t.Errorf("an explicit curve: %v", err)
	}
	huge := &ServerKeyExchange{P: make([]byte, MaxDH+2), G: []byte{2}, Y: []byte{2}}
	msg, err := huge.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseServerKeyExchange(msg, true); !errors.Is(err, ErrMalformed) {
		t.Errorf("a prime of %d bytes: %v", len(huge.P), err)
	}
	for _, empty := range []*ServerKeyExchange{
		{P: []byte{}, G: []byte{2}, Y: []byte{2}},
		{P: []byte{7}, G: []byte{}, Y: []byte{2}},
		{P: []byte{7}, G: []byte{2}, Y: []byte{}},
	} {
		msg, err := empty.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseServerKeyExchange(msg, true); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", empty, err)
		}
	}
}

// TestRecordings12 reads each recorded message and writes the same bytes.
func TestRecordings12(t *testing.T) {
	for _, name := range []string{
		"rsa2048-gnutls3.5.19", "rsa2048-variant-correct-length", "rsa4096-gnutls3.5.19", "dsa2048-dhedss-gnutls3.5.19",
	} {
		t.Run(name, func(t *testing.T) {
			same := func(file string, write func([]byte) ([]byte, error)) {
				t.Helper()
				msg := readVector(t, name, file)
				got, err := write(msg)
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				if !bytes.Equal(got, msg) {
					t.Errorf("%s: wrote\n%x, read\n%x", file, got, msg)
				}
			}
			dhe := name[:3] == "dsa"
			same("client_hello.hs.bin", func(b []byte) ([]byte, error) {
				m, err := ParseClientHello(b)
				if err != nil {
					return nil, err
				}
				return m.Marshal()
			})
			same("server_hello.hs.bin", func(b []byte) ([]byte, error) {
				m, err := ParseServerHello(b)
				if err != nil {
					return nil, err
				}
				return m.Marshal()
			})
			same("certificate.hs.bin", func(b []byte) ([]byte, error) {
				m, err := ParseOpenPGPCertificate(b)
				if err != nil {
					return nil, err
				}
				out, err := m.Marshal()
				if err == nil && name != "rsa2048-variant-correct-length" {
					out[6] -= gnutlsShort // the bug
				}
				return out, err
			})
			same("server_key_exchange.hs.bin", func(b []byte) ([]byte, error) {
				m, err := ParseServerKeyExchange(b, dhe)
				if err != nil {
					return nil, err
				}
				m.Params = nil // made again from the parts
				return m.Marshal()
			})
			same("client_key_exchange.hs.bin", func(b []byte) ([]byte, error) {
				m, err := ParseClientKeyExchange(b, dhe)
				if err != nil {
					return nil, err
				}
				return m.Marshal(dhe)
			})
			same("server_hello_done.hs.bin", func(b []byte) ([]byte, error) {
				return MarshalServerHelloDone(), ParseServerHelloDone(b)
			})
		})
	}
}

func TestExtensions12(t *testing.T) {
	if v, err := ParseRenegotiationInfo(RenegotiationInfo().Data); err != nil || len(v) != 0 {
		t.Errorf("renegotiation_info: %x, %v", v, err)
	}
	if ok, err := ParseECPointFormats(UncompressedPoints().Data); err != nil || !ok {
		t.Errorf("ec_point_formats: %v, %v", ok, err)
	}
	if ok, err := ParseECPointFormats([]byte{2, 1, 2}); err != nil || ok {
		t.Errorf("ec_point_formats without uncompressed: %v, %v", ok, err)
	}
	if ts, err := ParseCertificateTypes(CertificateTypes(OpenPGP, X509).Data); err != nil || !reflect.DeepEqual(ts, []CertificateType{OpenPGP, X509}) {
		t.Errorf("cert_type: %v, %v", ts, err)
	}
	if v, err := ParseChosenCertificateType(ChosenCertificateType(OpenPGP).Data); err != nil || v != OpenPGP {
		t.Errorf("chosen cert_type: %v, %v", v, err)
	}
	for name, err := range map[string]error{
		"empty renegotiation_info":   second(ParseRenegotiationInfo(nil)),
		"long renegotiation_info":    second(ParseRenegotiationInfo([]byte{0, 0})),
		"short renegotiation_info":   second(ParseRenegotiationInfo([]byte{1})),
		"empty ec_point_formats":     second(ParseECPointFormats([]byte{0})),
		"long ec_point_formats":      second(ParseECPointFormats([]byte{1, 0, 0})),
		"empty cert_type":            second(ParseCertificateTypes([]byte{0})),
		"no chosen cert_type":        second(ParseChosenCertificateType(nil)),
		"list as a chosen cert_type": second(ParseChosenCertificateType([]byte{1, 1})),
	} {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// FuzzServerKeyExchange: what is accepted is written back unchanged.
func FuzzServerKeyExchange(f *testing.F) {
	f.Add(readVector(f, "rsa2048-gnutls3.5.19", "server_key_exchange.hs.bin"), false)
	f.Add(readVector(f, "dsa2048-dhedss-gnutls3.5.19", "server_key_exchange.hs.bin"), true)
	f.Fuzz(func(t *testing.T, msg []byte, dhe bool) {
		m, err := ParseServerKeyExchange(msg, dhe)
		if (m == nil) == (err == nil) {
			t.Fatalf("%v, %v", m, err)
		}
		if err != nil {
			return
		}
		params := m.Params
		m.Params = nil
		got, err := m.Marshal()
		if err != nil || !bytes.Equal(got, msg) || !bytes.Equal(m.Params, params) {
			t.Fatalf("wrote %x, %v, read %x", got, err, msg)
		}
	})
}

// FuzzOpenPGPCertificate: what is accepted is written back unchanged, except
// for a length that old GnuTLS gets wrong.
func FuzzOpenPGPCertificate(f *testing.F) {
	f.Add(readVector(f, "rsa2048-gnutls3.5.19", "certificate.hs.bin"))
	f.Add(readVector(f, "rsa2048-variant-correct-length", "certificate.hs.bin"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := ParseOpenPGPCertificate(msg)
		if (m == nil) == (err == nil) {
			t.Fatalf("%v, %v", m, err)
		}
		if err != nil {
			return
		}
		// All but the outer length comes out as it went in.
		got, err := m.Marshal()
		if err != nil || !bytes.Equal(got[7:], msg[7:]) {
			t.Fatalf("wrote %x, %v, read %x", got, err, msg)
		}
	})
}
