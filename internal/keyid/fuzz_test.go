package keyid

import (
	"strings"
	"testing"
	"unicode"
)

// FuzzParse: what is taken are the digits in it, and whatever is printed is
// read again.
func FuzzParse(f *testing.F) {
	f.Add(strings.Repeat("0123456789abcdef", 4))
	f.Add("7cc5 6a1b 0000 ffff 1234  5678 9abc def0 1122 3344")
	f.Add("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B85g")
	f.Fuzz(func(t *testing.T, s string) {
		digits := strings.ToUpper(strings.Join(strings.FieldsFunc(s, unicode.IsSpace), ""))
		k, err := ParseKeyID(s)
		if again, _ := ParseKeyID(k.String()); again != k || err == nil && k.String() != digits || err != nil && !k.IsZero() {
			t.Errorf("%q as a key ID is %v, %v", s, k, err)
		}
		p, err := ParseFingerprint(s)
		if again, _ := ParseFingerprint(p.String()); again != p || err == nil && p.String() != digits || err != nil && !p.IsZero() {
			t.Errorf("%q as a fingerprint is %v, %v", s, p, err)
		}
	})
}
