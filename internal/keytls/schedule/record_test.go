package schedule

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"mandos/internal/keytls/wire"
	"mandos/internal/secret"
)

func testTraffic(s *Suite) *Traffic {
	return &Traffic{suite: s, secret: secret.New(bytes.Repeat([]byte{0xA5}, s.NewHash().Size()))}
}

func hmacOf(s *Suite, key, message []byte) []byte {
	mac := hmac.New(s.NewHash, key)
	mac.Write(message)
	return mac.Sum(nil)
}

func allSuites(t *testing.T, f func(t *testing.T, s *Suite)) {
	for _, id := range []wire.Suite{wire.AES128GCM, wire.AES256GCM, wire.ChaCha20Poly1305} {
		t.Run(id.String(), func(t *testing.T) { f(t, suiteFor(t, id)) })
	}
}

func TestSealOpen(t *testing.T) {
	allSuites(t, func(t *testing.T, s *Suite) {
		seal, open := testTraffic(s).Protection(), testTraffic(s).Protection()
		for _, n := range []int{0, 1, 1000, wire.MaxPlaintext} {
			payload := bytes.Repeat([]byte{7}, n)
			record, err := seal.Seal([]byte("before"), wire.TypeApplicationData, payload)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(record, []byte("before\x17\x03\x03")) {
				t.Fatalf("the record is %x", record[:10])
			}
			opens(t, open, record[len("before"):], wire.TypeApplicationData, payload)
		}
		if _, err := seal.Seal(nil, wire.TypeApplicationData, make([]byte, wire.MaxPlaintext+1)); !errors.Is(err, ErrOverflow) {
			t.Errorf("a payload that is too long: %v", err)
		}
	})
}

// TestOpenRefuses changes each byte of a record, and its place in the order.
func TestOpenRefuses(t *testing.T) {
	allSuites(t, func(t *testing.T, s *Suite) {
		seal := testTraffic(s).Protection()
		record, err := seal.Seal(nil, wire.TypeApplicationData, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := seal.Seal(nil, wire.TypeApplicationData, []byte("more"))
		if err != nil {
			t.Fatal(err)
		}
		open := func(record []byte) error {
			h, err := wire.ParseHeader(record)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = testTraffic(s).Protection().Open(h, slices.Clone(record[wire.HeaderLen:]))
			return err
		}
		if err := open(record); err != nil {
			t.Fatal(err)
		}
		for i := range record {
			bad := slices.Clone(record)
			bad[i] ^= 1
			want := ErrMAC
			if i == 0 {
				want = ErrUnexpected
			}
			if err := open(bad); !errors.Is(err, want) {
				t.Errorf("byte %d changed: %v, want %v", i, err, want)
			}
		}
		for n := wire.HeaderLen; n < len(record); n++ {
			if err := open(record[:n]); !errors.Is(err, ErrMAC) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		if err := open(second); !errors.Is(err, ErrMAC) {
			t.Errorf("the second record first: %v", err)
		}
		if err := open(make([]byte, wire.HeaderLen)); !errors.Is(err, ErrUnexpected) {
			t.Errorf("no record at all: %v", err)
		}
	})
}

// sealRaw protects inner as it is, type and padding included.
func sealRaw(p *Protection, inner []byte) []byte {
	aead, iv := p.keys()
	nonce, _ := p.nonce(iv)
	header := wire.AppendHeader(nil, wire.Header{
		Type: wire.TypeApplicationData, Version: wire.VersionTLS12, Length: len(inner) + aead.Overhead(),
	})
	return aead.Seal(slices.Clone(header), nonce[:], inner, header)
}

func TestPadding(t *testing.T) {
	allSuites(t, func(t *testing.T, s *Suite) {
		for name, tt := range map[string]struct {
			inner []byte
			want  []byte
			err   error
		}{
			"padded":             {[]byte("data\x17\x00\x00\x00"), []byte("data"), nil},
			"padded, no data":    {[]byte("\x17\x00\x00"), []byte{}, nil},
			"zeros in the data":  {[]byte("\x00\x00\x17\x00"), []byte{0, 0}, nil},
			"as long as allowed": {append(make([]byte, wire.MaxPlaintext), 0x17), make([]byte, wire.MaxPlaintext), nil},
			"padding only":       {make([]byte, 20), nil, ErrUnexpected},
			"nothing":            {nil, nil, ErrUnexpected},
			"one byte too long":  {append(make([]byte, wire.MaxPlaintext+1), 0x17), nil, ErrOverflow},
			"far too long":       {append(make([]byte, wire.MaxCiphertext13), 0x17), nil, ErrOverflow},
		} {
			record := sealRaw(testTraffic(s).Protection(), tt.inner)
			h, err := wire.ParseHeader(record)
			if err != nil {
				t.Fatal(err)
			}
			typ, got, err := testTraffic(s).Protection().Open(h, record[wire.HeaderLen:])
			if !errors.Is(err, tt.err) || err == nil && (typ != wire.TypeApplicationData || !bytes.Equal(got, tt.want)) {
				t.Errorf("%s: %v, %d bytes, %v", name, typ, len(got), err)
			}
		}
	})
}

// TestLimits goes to the end of the sequence numbers: RFC 8446, sections 5.3
// and 5.5.
func TestLimits(t *testing.T) {
	allSuites(t, func(t *testing.T, s *Suite) {
		limit := uint64(math.MaxUint64)
		if s.ID != wire.ChaCha20Poly1305 {
			limit = 1 << 24
		}
		p := testTraffic(s).Protection()
		p.seq = limit - 3
		if p.Exhausted() {
			t.Error("exhausted with three records left")
		}
		var last []byte
		for range 3 {
			record, err := p.Seal(nil, wire.TypeApplicationData, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			last = record
			if !p.Exhausted() {
				t.Error("not exhausted with two records left")
			}
		}
		if _, err := p.Seal(nil, wire.TypeApplicationData, []byte("data")); !errors.Is(err, ErrExhausted) {
			t.Errorf("a record too many was sealed: %v", err)
		}
		open := testTraffic(s).Protection()
		open.seq = limit - 1
		opens(t, open, last, wire.TypeApplicationData, []byte("data"))
		h, _ := wire.ParseHeader(last)
		if _, _, err := open.Open(h, last[wire.HeaderLen:]); !errors.Is(err, ErrExhausted) {
			t.Errorf("a record too many was opened: %v", err)
		}
	})
}

// TestRedacted prints everything that holds keys, alone and inside of others.
func TestRedacted(t *testing.T) {
	suite := suiteFor(t, wire.AES256GCM)
	hs := NewEarly(suite).Handshake([]byte("the shared secret"), make([]byte, 48))
	traffic := hs.Client
	protection := traffic.Protection()
	key := expandLabel(suite, traffic.secret.Reveal(), "key", nil, 32)
	iv := expandLabel(suite, traffic.secret.Reveal(), "iv", nil, 12)
	hidden := [][]byte{traffic.secret.Reveal(), hs.Server.secret.Reveal(), hs.salt.Reveal(), key, iv}

	type holder struct {
		Traffic    Traffic
		Protection *Protection
		Records    Records
		hs         *Handshake
		traffic    Traffic
		protection *Protection
		records    Records
	}
	h := holder{traffic, protection, protection, hs, traffic, protection, protection}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		for _, v := range []any{traffic, &traffic, *hs, hs, Application{Client: traffic}, protection, *protection, h, &h} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, b := range hidden {
		for _, form := range []string{string(b[:8]), fmt.Sprintf("%x", b[:8]), fmt.Sprintf("%X", b[:8]),
			strings.Trim(fmt.Sprint(b[:4]), "[]"), strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", b[:4]), "[]byte{"), "}")} {
			if strings.Contains(out.String(), form) {
				t.Errorf("a key is printed, as %q", form)
			}
		}
	}
}

func TestForSuite(t *testing.T) {
	if _, err := ForSuite(wire.ECDHERSAAES256GCM); err == nil {
		t.Error("a suite of TLS 1.2 is taken for one of TLS 1.3")
	}
}
