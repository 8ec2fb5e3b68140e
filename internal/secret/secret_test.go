package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestRedacted prints a secret in every way that a careless line of code
// could, alone and inside of other values.
func TestRedacted(t *testing.T) {
	const plain = "attack at dawn"
	s := New([]byte(plain))
	type holder struct {
		Name   string
		Secret Secret
		Ptr    *Secret
		List   []Secret
		Map    map[string]Secret

		hidden    Secret // fmt can't call its methods
		hiddenPtr *Secret
	}
	h := holder{"a", s, &s, []Secret{s}, map[string]Secret{"k": s}, s, &s}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%t", "%c", "%U"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", h)
		fmt.Fprintf(&out, verb+"\n", &h)
	}
	for _, v := range []any{s, h} {
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
	}
	x, err := xml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(x)

	got := out.String()
	for _, form := range []string{plain, fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain), fmt.Sprintf("% x", plain), "97 116 116 97 99 107", "YXR0YWNr"} {
		if strings.Contains(got, form) {
			t.Errorf("the output holds the secret as %q", form)
		}
	}
	if !strings.Contains(got, redacted) {
		t.Error("the output doesn't say that it was redacted")
	}
}

func TestEqual(t *testing.T) {
	a := New([]byte("one"))
	if !a.Equal(New([]byte("one"))) || a.Equal(New([]byte("two"))) || a.Equal(New(nil)) {
		t.Error("Equal is not equality")
	}
}

func TestWipe(t *testing.T) {
	a := New([]byte("one"))
	b := a
	a.Wipe()
	if !bytes.Equal(b.Reveal(), make([]byte, 3)) {
		t.Error("a copy still holds the bytes")
	}
}
