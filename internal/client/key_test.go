package client

import (
	"strings"
	"testing"
	"time"

	"mandos/internal/keyid"
)

func TestCheckKey(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	before, after := now.Add(-time.Hour), now.Add(time.Hour)
	raw := keyid.Identity{KeyID: keyid.KeyID{1}}
	pgp := keyid.Identity{Fingerprint: keyid.Fingerprint{1}}
	for name, tt := range map[string]struct {
		settings Settings
		id       keyid.Identity
		validity keyid.Validity
		want     Reason
		detail   string
	}{
		"raw key":                       {id: raw},
		"raw key, tls13":                {settings: Settings{Generation: OnlyTLS13}, id: raw},
		"OpenPGP":                       {id: pgp, validity: keyid.Validity{NotBefore: before, NotAfter: after}},
		"OpenPGP, tls13":                {settings: Settings{Generation: OnlyTLS13}, id: pgp, want: OldProtocol, detail: "generation = tls13"},
		"expired":                       {id: pgp, validity: keyid.Validity{NotAfter: before}, want: KeyInvalid, detail: "2026-11-22T11:00:00Z"},
		"expired, allowed":              {settings: Settings{AllowExpiredKey: true}, id: pgp, validity: keyid.Validity{NotAfter: before}},
		"revoked":                       {id: pgp, validity: keyid.Validity{Revoked: before}, want: KeyInvalid, detail: "2026-11-22T11:00:00Z"},
		"revoked, expired ones allowed": {settings: Settings{AllowExpiredKey: true}, id: pgp, validity: keyid.Validity{NotAfter: before, Revoked: before}, want: KeyInvalid, detail: "revoked"},
		"future, expired ones allowed":  {settings: Settings{AllowExpiredKey: true}, id: pgp, validity: keyid.Validity{NotBefore: after, NotAfter: before}, want: KeyInvalid, detail: "2026-11-22T13:00:00Z"},
		"expired and tls13":             {settings: Settings{AllowExpiredKey: true, Generation: OnlyTLS13}, id: pgp, validity: keyid.Validity{NotAfter: before}, want: OldProtocol, detail: "TLS 1.2"},
	} {
		t.Run(name, func(t *testing.T) {
			got := tt.settings.CheckKey(tt.id, tt.validity, now)
			if got == nil {
				if tt.want != "" {
					t.Fatalf("taken, want %q", tt.want)
				}
				return
			}
			if got.Reason != tt.want || !strings.Contains(got.Detail, tt.detail) {
				t.Errorf("got %v, want %q with %q", got, tt.want, tt.detail)
			}
		})
	}
}
