// Package oldstate reads the state that the Mandos server written in Python
// leaves behind, so that an upgrade loses nothing: who was disabled stays
// disabled, who was removed stays away, and what was set at run time stays
// set.
//
// That state is a pickle: a program for Python, which can be made to do
// anything. Here nothing is run: only what the old server writes is taken,
// and everything else is an error.
package oldstate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pickle "github.com/kisielk/og-rek"

	"mandos/internal/checker"
	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
)

// FileName is the name of the file in the folder of the state.
const FileName = "clients.pickle"

// A State is what the old server had saved.
type State struct {
	Saved   time.Time // when
	Clients []Client  // by name
	// Removed are clients that an operator removed: of their settings, those
	// of clients.conf.
	Removed []client.Settings
}

// A Client is what the old server had saved of one client.
type Client struct {
	Configured client.Settings // what clients.conf said, without the secret
	Current    client.Settings // what was in force, without the secret
	Status     client.Saved
	// Unfit are the settings that were changed at run time to what isn't
	// accepted here; Current has what clients.conf said instead.
	Unfit []string

	sealedSecret []byte // see SecretChanged
}

// Parse reads a state that was saved at the instant saved.
func Parse(data []byte, saved time.Time) (*State, error) {
	v, err := decode(data)
	if err != nil {
		return nil, err
	}
	pair, ok := v.(pickle.Tuple)
	if !ok || len(pair) != 2 {
		return nil, fmt.Errorf("it should be a pair, and is %s", kind(v))
	}
	clients, err := asDict(pair[0])
	if err != nil {
		return nil, fmt.Errorf("its first part %w", err)
	}
	configured, err := asDict(pair[1])
	if err != nil {
		return nil, fmt.Errorf("its second part %w", err)
	}
	s := &State{Saved: saved.UTC()}
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		if configured[name] == nil {
			return nil, fmt.Errorf("client %q: there are no settings", name)
		}
		c, err := newClient(name, clients[name], configured[name], s.Saved)
		if err != nil {
			return nil, err
		}
		s.Clients = append(s.Clients, c)
	}
	// A client that is configured and of which nothing is saved was removed
	// by an operator.
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		if _, there := clients[name]; there {
			continue
		}
		set, err := readSettings(name, "settings of client", configured[name])
		if err != nil {
			return nil, err
		}
		s.Removed = append(s.Removed, set)
	}
	return s, nil
}

func newClient(name string, saved, configured any, at time.Time) (c Client, err error) {
	if c.Configured, err = readSettings(name, "settings of client", configured); err != nil {
		return c, err
	}
	if c.Current, err = readSettings(name, "client", saved); err != nil {
		return c, err
	}
	d, _ := asDict(saved) // readSettings has done so
	r := &reader{of: fmt.Sprintf("client %q", name), d: d}
	st := client.Saved{At: at}
	st.Enabled = c.Current.Enabled
	c.Current.Enabled = c.Configured.Enabled // what clients.conf says; the status rules
	st.Change = client.Change{At: at, Why: "as it was saved by the server before this one"}
	st.Created = value(r, "created", asTime)
	st.LastEnabled = value(r, "last_enabled", asTime)
	st.LastCheckedOK = value(r, "last_checked_ok", asTime)
	st.LastApprovalRequest = value(r, "last_approval_request", asTime)
	st.Expires = value(r, "expires", asTime)
	status := value(r, "last_checker_status", asInt)
	if status < client.NeverChecked || status > 255 {
		r.fail("last_checker_status", fmt.Errorf("is no exit status: %d", status))
	}
	st.LastCheckerStatus = int(status)
	// A denial is taken along; an approval has to be given again.
	if approved := optional(r, "approved", asVerdict); approved != nil && !*approved {
		st.Decision, st.DecisionUntil = client.Disapproved, at.Add(max(c.Current.ApprovalDuration, 0))
	}
	c.sealedSecret = value(r, "encrypted_secret", asBytes)
	if !st.Enabled {
		st.Expires = time.Time{}
	}
	c.Status = st
	c.refuseUnfit()
	return c, r.err
}

// readSettings reads what both parts of the state have of a client.
func readSettings(name, of string, v any) (client.Settings, error) {
	d, err := asDict(v)
	if err != nil {
		return client.Settings{}, fmt.Errorf("%s %q: it %w", of, name, err)
	}
	if name == "" {
		return client.Settings{}, errors.New("a client has no name")
	}
	r := &reader{of: fmt.Sprintf("%s %q", of, name), d: d}
	set := client.Settings{
		Name:              name,
		Host:              value(r, "host", asText),
		Checker:           value(r, "checker_command", asText),
		Timeout:           value(r, "timeout", asDuration),
		ExtendedTimeout:   value(r, "extended_timeout", asDuration),
		Interval:          value(r, "interval", asDuration),
		ApprovalDelay:     value(r, "approval_delay", asDuration),
		ApprovalDuration:  value(r, "approval_duration", asDuration),
		ApprovedByDefault: value(r, "approved_by_default", asBool),
		Enabled:           value(r, "enabled", asBool),
	}
	// The old server takes any text for these, and versions before 1.8 have
	// no key_id. What is no key identifies nobody.
	set.KeyID, _ = keyid.ParseKeyID(optional(r, "key_id", asText))
	set.Fingerprint, _ = keyid.ParseFingerprint(optional(r, "fingerprint", asText))
	return set, r.err
}

// refuseUnfit takes back what was set at run time and can't be set here. What is
// too long becomes as long as can be: whoever set an approval_delay of centuries
// doesn't want the one of clients.conf.
func (c *Client) refuseUnfit() {
	for _, d := range []struct {
		key         string
		property    client.Property
		current, to *time.Duration
	}{
		{"timeout", client.PropTimeout, &c.Current.Timeout, &c.Configured.Timeout},
		{"extended_timeout", client.PropExtendedTimeout, &c.Current.ExtendedTimeout, &c.Configured.ExtendedTimeout},
		{"interval", client.PropInterval, &c.Current.Interval, &c.Configured.Interval},
		{"approval_delay", client.PropApprovalDelay, &c.Current.ApprovalDelay, &c.Configured.ApprovalDelay},
		{"approval_duration", client.PropApprovalDuration, &c.Current.ApprovalDuration, &c.Configured.ApprovalDuration},
	} {
		*d.current = min(*d.current, client.MaxDuration)
		if *d.current != *d.to && client.Validate(client.SetDuration{Property: d.property, Value: *d.current}) != nil {
			*d.current = *d.to
			c.Unfit = append(c.Unfit, d.key)
		}
	}
	for _, t := range []struct {
		key         string
		property    client.Property
		current, to *string
	}{
		{"host", client.PropHost, &c.Current.Host, &c.Configured.Host},
		{"checker", client.PropChecker, &c.Current.Checker, &c.Configured.Checker},
	} {
		bad := strings.ContainsRune(*t.current, 0) || client.Validate(client.SetText{Property: t.property, Value: *t.current}) != nil ||
			t.property == client.PropChecker && checker.Validate(*t.current) != nil
		if *t.current != *t.to && bad {
			*t.current = *t.to
			c.Unfit = append(c.Unfit, t.key)
		}
	}
}

// Batch returns what takes s over into a store that holds have.
//
// A store that is empty gets all of it. One that isn't, because the old server
// ran again in between, keeps what it has, but who was disabled or removed by
// the old server is disabled: only an operator enables.
func (s *State) Batch(have registry.State, now time.Time) registry.Batch {
	// A file from the future is one that was saved just now, with all times in
	// it as much earlier: nobody lives longer because the clock isn't set yet.
	at := s.Saved
	if at.After(now) {
		at = now
	}
	b := registry.Batch{Seen: at}
	if len(have.Records)+len(have.Tombstones) > 0 {
		b.Seen = have.Seen
		s.restrict(&b, have, at)
		return b
	}
	for _, c := range s.Clients {
		saved := c.Status
		saved.At, saved.Change.At = at, at
		if saved.Enabled {
			saved.Expires = saved.Expires.Add(at.Sub(s.Saved))
		}
		if saved.Decision != client.Undecided {
			saved.DecisionUntil = saved.DecisionUntil.Add(at.Sub(s.Saved))
		}
		b.Put = append(b.Put, registry.Record{
			Name: c.Current.Name,
			// Without a digest of the secret, that of clients.conf counts.
			Configured: registry.Configured{Settings: c.Configured},
			Current:    c.Current,
			Saved:      saved,
		})
	}
	for _, set := range s.Removed {
		for _, id := range registry.Identities(&set) {
			b.PutTombstones = append(b.PutTombstones, registry.Tombstone{Identity: id, Saved: disabled(at, removedWhy), Removed: id.Kind == registry.ByName})
		}
	}
	return b
}

const (
	removedWhy  = "removed by an operator of the server before this one"
	disabledWhy = "it was disabled in a clients.pickle of the server before this one"
)

func disabled(at time.Time, why string) client.Saved {
	return client.Saved{
		Facts: client.Facts{Change: client.Change{At: at, Why: why}, Created: at, LastCheckerStatus: client.NeverChecked},
		At:    at,
	}
}

// restrict disables in have whom s has disabled or removed.
func (s *State) restrict(b *registry.Batch, have registry.State, at time.Time) {
	strict := map[registry.Identity]bool{}
	for i := range s.Clients {
		if c := &s.Clients[i]; !c.Status.Enabled {
			for _, id := range registry.Identities(&c.Current) {
				strict[id] = true
			}
		}
	}
	for i := range s.Removed {
		for _, id := range registry.Identities(&s.Removed[i]) {
			strict[id] = true
		}
	}
	for _, rec := range have.Records {
		hit := false
		for _, id := range registry.Identities(&rec.Current) {
			hit = hit || strict[id]
		}
		if hit && rec.Saved.Enabled {
			rec.Saved.Enabled, rec.Saved.Expires = false, time.Time{}
			rec.Saved.Change = client.Change{At: at, Why: disabledWhy}
			b.Put = append(b.Put, rec)
		}
		for _, id := range registry.Identities(&rec.Current) {
			delete(strict, id) // held by a client
		}
	}
	for _, ts := range have.Tombstones {
		if strict[ts.Identity] && ts.Saved.Enabled {
			ts.Saved.Enabled, ts.Saved.Expires = false, time.Time{}
			ts.Saved.Change = client.Change{At: at, Why: disabledWhy}
			b.PutTombstones = append(b.PutTombstones, ts)
		}
		delete(strict, ts.Identity)
	}
	for id := range strict {
		b.PutTombstones = append(b.PutTombstones, registry.Tombstone{Identity: id, Saved: disabled(at, disabledWhy)})
	}
}
