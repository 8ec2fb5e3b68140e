package store

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
	"unique"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// These types are version 1 of the items, in JSON. It is only read, never
// written.

type recordV1 struct {
	Configured settingsV1  `json:"configured"`
	Digest     string      `json:"secret_digest"`
	Current    *settingsV1 `json:"current"` // nil: as configured
	OwnSecret  bool        `json:"own_secret"`
	Secret     []byte      `json:"secret"` // with OwnSecret
	Status     statusV1    `json:"status"`
}

// Durations are nanoseconds.
type settingsV1 struct {
	KeyID             string        `json:"key_id"`
	Fingerprint       string        `json:"fingerprint"`
	Host              string        `json:"host"`
	Checker           string        `json:"checker"`
	Timeout           time.Duration `json:"timeout"`
	ExtendedTimeout   time.Duration `json:"extended_timeout"`
	Interval          time.Duration `json:"interval"`
	ApprovalDelay     time.Duration `json:"approval_delay"`
	ApprovalDuration  time.Duration `json:"approval_duration"`
	ApprovedByDefault bool          `json:"approved_by_default"`
	Enabled           bool          `json:"enabled"`
	OnlyTLS13         bool          `json:"only_tls13"`
	AllowExpiredKey   bool          `json:"allow_expired_key"`
}

type statusV1 struct {
	Enabled             bool      `json:"enabled"`
	ChangedAt           time.Time `json:"changed_at"`
	ChangedBy           string    `json:"changed_by"`
	ChangedWhy          string    `json:"changed_why"`
	Created             time.Time `json:"created"`
	LastEnabled         time.Time `json:"last_enabled"`
	LastCheckedOK       time.Time `json:"last_checked_ok"`
	LastApprovalRequest time.Time `json:"last_approval_request"`
	LastCheckerStatus   int       `json:"last_checker_status"`
	LastCheckerSignal   int       `json:"last_checker_signal"`
	Grace               bool      `json:"grace"`
	At                  time.Time `json:"at"`
	Expires             time.Time `json:"expires"`
	Decision            string    `json:"decision"`
	DecisionUntil       time.Time `json:"decision_until"`
}

type tombstoneV1 struct {
	Status  statusV1 `json:"status"`
	Removed bool     `json:"removed"`
}

func readRecordV1(name string, body []byte) (r registry.Record, err error) {
	var v recordV1
	if err := json.Unmarshal(body, &v); err != nil {
		return r, err
	}
	r.Name, r.OwnSecret = name, v.OwnSecret
	if r.Configured.Settings, err = v.Configured.settings(name); err != nil {
		return r, err
	}
	digest := &r.Configured.SecretDigest
	if v.Digest != "" {
		if len(v.Digest) != hex.EncodedLen(len(digest)) {
			return r, fmt.Errorf("it has a digest of %d digits", len(v.Digest))
		}
		if _, err = hex.Decode(digest[:], []byte(v.Digest)); err != nil {
			return r, err
		}
	}
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

func readTombstoneV1(ts *registry.Tombstone, body []byte) error {
	var v tombstoneV1
	err := json.Unmarshal(body, &v)
	if err == nil {
		ts.Saved, err = v.Status.saved()
	}
	ts.Removed = v.Removed
	return err
}

func (v *settingsV1) settings(name string) (client.Settings, error) {
	s := client.Settings{
		Name: name, Host: v.Host, Checker: unique.Make(v.Checker).Value(),
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

func (v *statusV1) saved() (client.Saved, error) {
	s := client.Saved{
		Facts: client.Facts{
			Enabled:             v.Enabled,
			Change:              client.Change{At: v.ChangedAt, By: unique.Make(v.ChangedBy).Value(), Why: unique.Make(v.ChangedWhy).Value()},
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
	// As in version 2, which keeps no zone.
	for _, at := range []*time.Time{&s.Change.At, &s.Created, &s.LastEnabled, &s.LastCheckedOK, &s.LastApprovalRequest, &s.At, &s.Expires, &s.DecisionUntil} {
		*at = at.UTC()
	}
	var err error
	s.Decision, err = decision(v.Decision)
	return s, err
}
