package store

import (
	"bytes"
	"errors"
	"time"
	"unique"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// The types here are version 1 of what is in the file. They don't change:
// whoever needs something else makes version 2.

type recordV1 struct {
	Configured settingsV1  `json:"configured"`
	Digest     string      `json:"secret_digest"`
	Current    *settingsV1 `json:"current,omitempty"` // nil: as configured
	OwnSecret  bool        `json:"own_secret,omitempty"`
	Secret     []byte      `json:"secret,omitempty"` // with OwnSecret
	Status     statusV1    `json:"status"`
}

// Durations are nanoseconds.
type settingsV1 struct {
	KeyID             string        `json:"key_id,omitempty"`
	Fingerprint       string        `json:"fingerprint,omitempty"`
	Host              string        `json:"host,omitempty"`
	Checker           string        `json:"checker"`
	Timeout           time.Duration `json:"timeout"`
	ExtendedTimeout   time.Duration `json:"extended_timeout"`
	Interval          time.Duration `json:"interval"`
	ApprovalDelay     time.Duration `json:"approval_delay,omitempty"`
	ApprovalDuration  time.Duration `json:"approval_duration"`
	ApprovedByDefault bool          `json:"approved_by_default"`
	Enabled           bool          `json:"enabled"`
	OnlyTLS13         bool          `json:"only_tls13,omitempty"`
	AllowExpiredKey   bool          `json:"allow_expired_key,omitempty"`
}

type statusV1 struct {
	Enabled             bool      `json:"enabled"`
	ChangedAt           time.Time `json:"changed_at,omitzero"`
	ChangedBy           string    `json:"changed_by,omitempty"`
	ChangedWhy          string    `json:"changed_why,omitempty"`
	Created             time.Time `json:"created,omitzero"`
	LastEnabled         time.Time `json:"last_enabled,omitzero"`
	LastCheckedOK       time.Time `json:"last_checked_ok,omitzero"`
	LastApprovalRequest time.Time `json:"last_approval_request,omitzero"`
	LastCheckerStatus   int       `json:"last_checker_status"`
	LastCheckerSignal   int       `json:"last_checker_signal,omitempty"`
	Grace               bool      `json:"grace,omitempty"`
	At                  time.Time `json:"at"`
	Expires             time.Time `json:"expires,omitzero"`
	Decision            string    `json:"decision,omitempty"`
	DecisionUntil       time.Time `json:"decision_until,omitzero"`
}

type graveV1 struct {
	Status  statusV1 `json:"status"`
	Removed bool     `json:"removed,omitempty"`
}

// one returns one string for all equal ones: most clients have the same.
func one(s string) string { return unique.Make(s).Value() }

var decisions = map[client.Decision]string{client.Undecided: "", client.Approved: "approved", client.Disapproved: "denied"}

func newStatusV1(s *client.Saved) statusV1 {
	return statusV1{
		s.Enabled, s.Change.At, s.Change.By, s.Change.Why,
		s.Created, s.LastEnabled, s.LastCheckedOK, s.LastApprovalRequest,
		s.LastCheckerStatus, s.LastCheckerSignal, s.Grace,
		s.At, s.Expires, decisions[s.Decision], s.DecisionUntil,
	}
}

func (v *statusV1) saved() (client.Saved, error) {
	s := client.Saved{
		Facts: client.Facts{
			Enabled:             v.Enabled,
			Change:              client.Change{At: v.ChangedAt, By: one(v.ChangedBy), Why: one(v.ChangedWhy)},
			Created:             v.Created,
			LastEnabled:         v.LastEnabled,
			LastCheckedOK:       v.LastCheckedOK,
			LastApprovalRequest: v.LastApprovalRequest,
			LastCheckerStatus:   v.LastCheckerStatus,
			LastCheckerSignal:   v.LastCheckerSignal,
			Grace:               v.Grace,
		},
		At:            v.At,
		Expires:       v.Expires,
		DecisionUntil: v.DecisionUntil,
	}
	for d, text := range decisions {
		if text == v.Decision {
			s.Decision = d
			return s, nil
		}
	}
	return s, errors.New("it has an unknown decision")
}

func newSettingsV1(s *client.Settings) settingsV1 {
	v := settingsV1{
		Host: s.Host, Checker: s.Checker,
		Timeout: s.Timeout, ExtendedTimeout: s.ExtendedTimeout, Interval: s.Interval,
		ApprovalDelay: s.ApprovalDelay, ApprovalDuration: s.ApprovalDuration,
		ApprovedByDefault: s.ApprovedByDefault, Enabled: s.Enabled,
		OnlyTLS13: s.Generation == client.OnlyTLS13, AllowExpiredKey: s.AllowExpiredKey,
	}
	if !s.KeyID.IsZero() {
		v.KeyID = s.KeyID.String()
	}
	if !s.Fingerprint.IsZero() {
		v.Fingerprint = s.Fingerprint.String()
	}
	return v
}

func (v *settingsV1) settings(name string) (client.Settings, error) {
	s := client.Settings{
		Name: name, Host: v.Host, Checker: one(v.Checker),
		Timeout: v.Timeout, ExtendedTimeout: v.ExtendedTimeout, Interval: v.Interval,
		ApprovalDelay: v.ApprovalDelay, ApprovalDuration: v.ApprovalDuration,
		ApprovedByDefault: v.ApprovedByDefault, Enabled: v.Enabled,
		AllowExpiredKey: v.AllowExpiredKey,
	}
	if v.OnlyTLS13 {
		s.Generation = client.OnlyTLS13
	}
	var err error
	if v.KeyID != "" {
		if s.KeyID, err = keyid.ParseKeyID(v.KeyID); err != nil {
			return s, err
		}
	}
	if v.Fingerprint != "" {
		s.Fingerprint, err = keyid.ParseFingerprint(v.Fingerprint)
	}
	return s, err
}

func newRecordV1(r *registry.Record) *recordV1 {
	v := &recordV1{
		Configured: newSettingsV1(&r.Configured.Settings),
		Digest:     r.Configured.SecretDigest,
		OwnSecret:  r.OwnSecret,
		Status:     newStatusV1(&r.Saved),
	}
	if current := newSettingsV1(&r.Current); current != v.Configured {
		v.Current = &current
	}
	if r.OwnSecret {
		v.Secret = r.Current.Secret.Reveal()
	}
	return v
}

func (v *recordV1) record(key []byte) (registry.Record, error) {
	name := string(key)
	if v.Configured.Host == name { // as a rule
		v.Configured.Host = name
	}
	r := registry.Record{Name: name, OwnSecret: v.OwnSecret}
	var err error
	if r.Configured.Settings, err = v.Configured.settings(name); err != nil {
		return r, err
	}
	r.Configured.SecretDigest = v.Digest
	r.Current = r.Configured.Settings
	if v.Current != nil {
		if r.Current, err = v.Current.settings(name); err != nil {
			return r, err
		}
	}
	if v.OwnSecret {
		r.Current.Secret = secret.New(v.Secret)
	}
	r.Saved, err = v.Status.saved()
	return r, err
}

func newGraveV1(g *registry.Grave) *graveV1 {
	return &graveV1{newStatusV1(&g.Saved), g.Removed}
}

func (v *graveV1) grave(key []byte) (registry.Grave, error) {
	kind, value, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return registry.Grave{}, errors.New("it has no kind")
	}
	saved, err := v.Status.saved()
	return registry.Grave{
		Identity: registry.Identity{Kind: registry.Kind(kind), Value: string(value)},
		Saved:    saved,
		Removed:  v.Removed,
	}, err
}

func graveKey(id registry.Identity) []byte {
	return []byte(string(id.Kind) + "\x00" + id.Value)
}
