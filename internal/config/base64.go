package config

import (
	"encoding/base64"
	"errors"
	"fmt"
)

const notBase64 = 0xff

// base64Value maps each character to its six bits (RFC 4648, section 4).
var base64Value = func() (t [256]byte) {
	for i := range t {
		t[i] = notBase64
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	return t
}()

// A decoded is the result of decoding a text in base64.
type decoded struct {
	bytes   []byte
	ignored int // characters that were skipped
	err     error
}

// decode decodes e's value, which needs no interpolation.
func (e *entry) decode() decoded {
	if e.folded {
		// The library is fastest on text without line ends.
		var room [4096]byte
		text := appendFolded(room[:0], e.raw, "")
		out := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		if n, err := base64.StdEncoding.Decode(out, text); err == nil {
			return decoded{bytes: out[:n]}
		}
	}
	return decodeBase64(e.value())
}

// decodeBase64 decodes s as Python's binascii.a2b_base64 does by default, which
// is laxer than encoding/base64: characters outside of the alphabet are
// skipped, and what follows the padding is ignored. ignored counts both, apart
// from white space.
func decodeBase64(s string) (d decoded) {
	// Both read plain base64 with line ends in the same way, and the library is
	// faster.
	if out, err := base64.StdEncoding.DecodeString(s); err == nil {
		return decoded{bytes: out}
	}
	out, ignored := make([]byte, 0, len(s)/4*3+3), 0
	var bits, have, pads uint
	data := 0
	for i := range len(s) {
		c := s[i]
		if c == '=' {
			pads++
			if have >= 2 && have+pads >= 4 {
				for _, r := range s[i+1:] {
					if !isSpace(r) {
						ignored++
					}
				}
				return decoded{out, ignored, nil}
			}
			continue
		}
		v := base64Value[c]
		if v == notBase64 {
			if !isSpace(rune(c)) {
				ignored++
			}
			continue
		}
		pads = 0
		data++
		bits = bits<<6 | uint(v)
		switch have++; have {
		case 2:
			out = append(out, byte(bits>>4))
		case 3:
			out = append(out, byte(bits>>2))
		case 4:
			out = append(out, byte(bits))
			have, bits = 0, 0
		}
	}
	switch have {
	case 0:
		return decoded{out, ignored, nil}
	case 1:
		return decoded{nil, ignored, fmt.Errorf("base64 has no text of %d characters: one is missing or too many", data)}
	default:
		return decoded{nil, ignored, errors.New("the base64 text ends without its padding =")}
	}
}
