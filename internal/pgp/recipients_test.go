package pgp

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

// Packets in the new format (RFC 9580, section 4.2): tag, length, contents.
func rawPacket(tag byte, contents string) string {
	return string([]byte{0xc0 | tag, byte(len(contents))}) + contents
}

func TestRecipients(t *testing.T) {
	to1 := rawPacket(tagPKESK, "\x03\x01\x02\x03\x04\x05\x06\x07\x08\x01data")
	to2 := rawPacket(tagPKESK, "\x03\x00\x00\x00\x00\x00\x00\x00\x02\x01data")
	anonymous := rawPacket(tagPKESK, "\x03\x00\x00\x00\x00\x00\x00\x00\x00\x01data")
	data := rawPacket(tagProtected, "\x01ciphertext")
	armoured := "-----BEGIN PGP MESSAGE-----\n\n" + base64.StdEncoding.EncodeToString([]byte(to1+data)) + "\n-----END PGP MESSAGE-----\n"
	for name, tt := range map[string]struct {
		in      string
		want    []uint64
		wantErr error
	}{
		"one":            {in: to1 + data, want: []uint64{0x0102030405060708}},
		"two":            {in: to1 + to2 + data, want: []uint64{0x0102030405060708, 2}},
		"not named":      {in: anonymous + data},
		"also by words":  {in: rawPacket(tagSKESK, "\x04\x09\x00\x02") + to2 + data, want: []uint64{2}},
		"after a marker": {in: rawPacket(tagMarker, "PGP") + to2 + data, want: []uint64{2}},
		"unknown form":   {in: rawPacket(tagPKESK, "\x06\x00") + data},
		"old data":       {in: to2 + rawPacket(tagEncrypted, "x"), want: []uint64{2}},
		"AEAD":           {in: to2 + rawPacket(tagAEAD, "x"), want: []uint64{2}},
		"armoured":       {in: armoured, want: []uint64{0x0102030405060708}},

		"empty":             {wantErr: errNoMessage},
		"text":              {in: "hunter2", wantErr: errNoMessage},
		"bytes":             {in: "\xff\x01x", wantErr: errNoMessage},
		"by words only":     {in: rawPacket(tagSKESK, "\x04\x09\x00\x02") + data, wantErr: errPassphrase},
		"to nobody":         {in: data, wantErr: errNobody},
		"no data":           {in: to1, wantErr: errCutOff},
		"half":              {in: to1 + data[:5], wantErr: errCutOff},
		"half a key":        {in: to1[:5], wantErr: errCutOff},
		"signed":            {in: rawPacket(tagOnePass, "x"), wantErr: errPlain},
		"literal":           {in: rawPacket(tagLiteral, "b\x00\x00\x00\x00\x00secret"), wantErr: errPlain},
		"public key":        {in: rawPacket(tagPublicKey, "x"), wantErr: errKey},
		"user ID":           {in: rawPacket(13, "x"), wantErr: errNoMessage},
		"damaged armour":    {in: "-----BEGIN PGP MESSAGE-----", wantErr: errNoMessage},
		"armoured and half": {in: strings.Replace(armoured, "\n-----END", "!\n-----END", 1), wantErr: errCutOff},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Recipients([]byte(tt.in))
			if err != tt.wantErr || !slices.Equal(got, tt.want) {
				t.Errorf("got %x, %v; want %x, %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

// FuzzRecipients: of a message that is none, no recipients come out.
func FuzzRecipients(f *testing.F) {
	f.Add([]byte(rawPacket(tagPKESK, "\x03\x01\x02\x03\x04\x05\x06\x07\x08\x01data") + rawPacket(tagProtected, "x")))
	f.Add([]byte("-----BEGIN PGP MESSAGE-----\n\nwQ==\n-----END PGP MESSAGE-----\n"))
	f.Add([]byte{0x84, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if ids, err := Recipients(b); err != nil && ids != nil {
			t.Errorf("%x beside %v", ids, err)
		}
	})
}
