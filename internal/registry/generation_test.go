package registry

import (
	"strings"
	"testing"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
)

// printOf makes a fingerprint of a letter.
func printOf(c byte) (f keyid.Fingerprint) { f[0] = c; return f }

// TestGenerations has clients of both generations come with their keys, by
// sections of their own and by one that has both keys.
func TestGenerations(t *testing.T) {
	old := func(c byte) Caller {
		return Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf(c)}}
	}
	onlyOld, both, barred := setting("old"), setting("both"), setting("modern")
	onlyOld.KeyID, onlyOld.Fingerprint = keyid.KeyID{}, printOf('o')
	both.Fingerprint = printOf('b')
	barred.Fingerprint, barred.Generation = printOf('m'), client.OnlyTLS13
	nobody := setting("nobody")
	nobody.KeyID = keyid.OfSPKI(nil)
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		for name, tt := range map[string]struct {
			caller Caller
			want   string
		}{
			"only old":           {old('o'), "secret of old"},
			"both, old":          {old('b'), "secret of both"},
			"both, new":          {Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('b')}}, "secret of both"},
			"barred, old":        {old('m'), "Old protocol"},
			"barred, new":        {Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('m')}}, "secret of modern"},
			"unknown, old":       {old('x'), "Unknown"},
			"no key":             {Caller{Addr: testAddr}, "Unknown"},
			"key ID of nothing":  {Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyid.OfSPKI(nil)}}, "Unknown"},
			"no key ID in there": {Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('o')}}, "Unknown"},
		} {
			if got := w.fetchAs(tt.caller); got != tt.want {
				t.Errorf("%s: got %q, want %q", name, got, tt.want)
			}
		}
		for _, want := range []string{
			`MANDOS_PROTOCOL="TLS 1.2 with an OpenPGP key"`, `MANDOS_PROTOCOL="TLS 1.3 with a raw public key"`, "generation = tls13",
		} {
			if !strings.Contains(w.logged(), want) {
				t.Errorf("the log lacks %s", want)
			}
		}
	}, onlyOld, both, barred, nobody)
}

// TestKeyValidity refuses keys that have expired, are revoked or were made in
// the future, at the moment when they are used.
func TestKeyValidity(t *testing.T) {
	strict, lenient := setting("strict"), setting("lenient")
	strict.Fingerprint, lenient.Fingerprint = printOf('s'), printOf('l')
	lenient.AllowExpiredKey = true
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		now := w.clock.Now().Wall
		before, after := now.Add(-time.Hour), now.Add(time.Hour)
		for name, tt := range map[string]struct {
			validity        keyid.Validity
			strict, lenient bool // gets the secret
			logged          string
		}{
			"no bounds": {keyid.Validity{}, true, true, ""},
			"valid":     {keyid.Validity{NotBefore: before, NotAfter: after}, true, true, ""},
			"expired":   {keyid.Validity{NotBefore: before, NotAfter: now}, false, true, "has expired (on " + now.Format(time.RFC3339)},
			"revoked":   {keyid.Validity{NotBefore: before, Revoked: before}, false, false, "is revoked (since " + before.Format(time.RFC3339)},
			"future":    {keyid.Validity{NotBefore: after}, false, false, "made in the future (on " + after.Format(time.RFC3339)},
		} {
			for c, want := range map[byte]bool{'s': tt.strict, 'l': tt.lenient} {
				got := w.fetchAs(Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf(c)}, Validity: tt.validity})
				if strings.HasPrefix(got, "secret of ") != want || !want && got != "Key not valid" {
					t.Errorf("%s, client %c: got %q", name, c, got)
				}
			}
			if !strings.Contains(w.logged(), tt.logged) {
				t.Errorf("%s: the log lacks %q", name, tt.logged)
			}
		}
	}, strict, lenient)
}

// TestKeyExpiresWhileWaiting has a key expire between approval and release.
func TestKeyExpiresWhileWaiting(t *testing.T) {
	s := setting("a")
	s.Fingerprint = printOf('a')
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		caller := Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf('a')},
			Validity: keyid.Validity{NotAfter: w.clock.Now().Wall.Add(time.Second)}}
		name, err := w.Lookup(caller)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Approve(t.Context(), name, caller); err != nil {
			t.Fatal(err)
		}
		sleep(2 * time.Second)
		if _, err := w.Release(name, caller); err == nil || !strings.Contains(err.Error(), "has expired") {
			t.Errorf("an expired key: %v", err)
		}
	}, s)
}
