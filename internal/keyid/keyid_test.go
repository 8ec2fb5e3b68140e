package keyid

import (
	"strings"
	"testing"
)

func TestParseKeyID(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 4)
	for name, tt := range map[string]struct {
		in      string
		wantErr string
	}{
		"lower case":     {in: good},
		"upper case":     {in: strings.ToUpper(good)},
		"with blanks":    {in: " " + good[:8] + " \t" + good[8:] + "\n"},
		"empty":          {in: "", wantErr: "64 hexadecimal digits, not 0"},
		"one too few":    {in: good[1:], wantErr: "not 63"},
		"one too many":   {in: good + "0", wantErr: "not 65"},
		"no hexadecimal": {in: good[1:] + "g", wantErr: "hexadecimal digits only"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParseKeyID(tt.in)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				if !k.IsZero() {
					t.Errorf("a failed parse gave %v, want the zero key ID", k)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := k.String(); got != strings.ToUpper(good) {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestParseFingerprint(t *testing.T) {
	f, err := ParseFingerprint("7cc5 6a1b 0000 ffff 1234  5678 9abc def0 1122 3344")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.String(), "7CC56A1B0000FFFF123456789ABCDEF011223344"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := ParseFingerprint("7cc5"); err == nil {
		t.Error("four digits were taken as a fingerprint")
	}
}

func TestOfNothing(t *testing.T) {
	if !OfSPKI(nil).IsOfNothing() {
		t.Error("the SHA-256 of no bytes is not seen as such")
	}
	if OfSPKI([]byte{0x30}).IsOfNothing() {
		t.Error("another key ID is seen as that of nothing")
	}
	if got, want := ofNothing.String(), "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestText: none is no digits, rather than zeros.
func TestText(t *testing.T) {
	k := OfSPKI(nil)
	if got := Text(k); got != k.String() {
		t.Errorf("a key ID: %q, want %v", got, k)
	}
	if k, f := Text(KeyID{}), Text(Fingerprint{}); k != "" || f != "" {
		t.Errorf("none: %q and %q", k, f)
	}
}
