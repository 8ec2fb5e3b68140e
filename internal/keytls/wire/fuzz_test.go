package wire

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"
	"testing"
)

// FuzzParsers: whatever any of the parsers of messages and extensions accepts
// is written back unchanged, and no strict prefix of it is accepted.
func FuzzParsers(f *testing.F) {
	names := slices.Sorted(maps.Keys(parsers))
	for i, name := range names {
		for _, s := range samples[name] {
			b, _ := hex.DecodeString(s)
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		name := names[int(which)%len(names)]
		out, err := parsers[name](in)
		if err != nil {
			return
		}
		if !bytes.Equal(in, out) {
			t.Errorf("%s: %x came back as %x", name, in, out)
		}
		for n := range min(len(in), 512) {
			if _, err := parsers[name](in[:n:n]); err == nil {
				t.Errorf("%s: the first %d of the bytes %x were taken too", name, n, in)
			}
		}
	})
}
