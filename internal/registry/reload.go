package registry

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// A grave is a Grave in memory.
type grave struct {
	status  client.Status
	removed bool
}

// identities returns what a client of set is known by.
func identities(set *client.Settings) []Identity {
	ids := append(make([]Identity, 0, 3), Identity{ByName, set.Name})
	if !set.KeyID.IsZero() {
		ids = append(ids, Identity{ByKeyID, set.KeyID.String()})
	}
	if !set.Fingerprint.IsZero() {
		ids = append(ids, Identity{ByFingerprint, set.Fingerprint.String()})
	}
	return ids
}

// saltLen is the length of the salt in a digest, in hexadecimal digits.
const saltLen = 32

// digest makes what is remembered of a configured secret: enough to notice
// that it was changed, and of no use to who reads it. salt is a random string
// of saltLen hexadecimal digits; empty: a new one.
func digest(s secret.Secret, salt string) string {
	if salt == "" {
		var b [saltLen / 2]byte
		_, _ = rand.Read(b[:]) // never fails
		salt = hex.EncodeToString(b[:])
	}
	mac := hmac.New(sha256.New, []byte(salt))
	mac.Write(s.Reveal())
	return salt + hex.EncodeToString(mac.Sum(nil))
}

// sameSecret reports whether d is the digest of s.
func sameSecret(d string, s secret.Secret) bool {
	return len(d) > saltLen && hmac.Equal([]byte(d), []byte(digest(s, d[:saltLen])))
}

// configured returns what to remember of set. was is what was remembered; its
// digest is kept while the secret is the same.
func configured(set client.Settings, was Configured) Configured {
	c := Configured{Settings: set, SecretDigest: was.SecretDigest}
	c.Settings.Secret = secret.Secret{}
	if !sameSecret(was.SecretDigest, set.Secret) {
		c.SecretDigest = digest(set.Secret, "")
	}
	return c
}

// merge returns the settings in force when clients.conf says set: what it
// says differently than before wins, the rest stays as it was changed at run
// time (reference.md, section 7).
func merge(set, current client.Settings, was Configured, ownSecret bool) (client.Settings, bool) {
	m := current
	old := &was.Settings
	m.Name, m.KeyID, m.Fingerprint, m.Enabled = set.Name, set.KeyID, set.Fingerprint, set.Enabled
	m.Generation, m.AllowExpiredKey = set.Generation, set.AllowExpiredKey
	pick(&m.Host, old.Host, set.Host)
	pick(&m.Checker, old.Checker, set.Checker)
	pick(&m.Timeout, old.Timeout, set.Timeout)
	pick(&m.ExtendedTimeout, old.ExtendedTimeout, set.ExtendedTimeout)
	pick(&m.Interval, old.Interval, set.Interval)
	pick(&m.ApprovalDelay, old.ApprovalDelay, set.ApprovalDelay)
	pick(&m.ApprovalDuration, old.ApprovalDuration, set.ApprovalDuration)
	pick(&m.ApprovedByDefault, old.ApprovedByDefault, set.ApprovedByDefault)
	if !ownSecret || !sameSecret(was.SecretDigest, set.Secret) {
		m.Secret, ownSecret = set.Secret, false
	}
	return m, ownSecret
}

func pick[T comparable](current *T, old, configured T) {
	if configured != old {
		*current = configured
	}
}

// record returns e as it is stored, with c as its client.
func (e *entry) record(c *client.Client, now client.Instant) Record {
	rec := Record{Name: c.Settings.Name, Configured: e.configured, Current: c.Settings, OwnSecret: e.ownSecret, Saved: c.Save(now)}
	if !e.ownSecret {
		rec.Current.Secret = secret.Secret{}
	}
	return rec
}

// validate says what is wrong with a configuration as a whole.
func validate(settings []client.Settings) error {
	holder := make(map[Identity]string, 2*len(settings))
	var errs []error
	for i := range settings {
		ids := identities(&settings[i])
		if len(ids) == 1 || settings[i].Name == "" {
			errs = append(errs, fmt.Errorf("client %q has no name or no key", settings[i].Name))
		}
		for _, id := range ids {
			if other, taken := holder[id]; taken {
				errs = append(errs, fmt.Errorf("clients %q and %q have the same %s %s", other, settings[i].Name, id.Kind, id.Value))
			}
			holder[id] = settings[i].Name
		}
	}
	return errors.Join(errs...)
}

// A Summary says what Reload did.
type Summary struct {
	Added    []string // new, or back
	Removed  []string
	Changed  []string
	KeptAway []string // in clients.conf, but removed by an operator
	Kept     int      // as they were
}

// String returns the summary in words, for the log.
func (s Summary) String() string {
	return fmt.Sprintf("%d added, %d removed, %d changed, %d unchanged, %d kept away",
		len(s.Added), len(s.Removed), len(s.Changed), s.Kept, len(s.KeptAway))
}

// Reload makes settings, those of a new clients.conf, the configuration: all
// of them or, with an error, none. Values that clients.conf says differently
// than before win, the others stay as they were changed at run time. A client
// that is no longer there is removed, but its status stays with its name and
// keys; nothing that Reload does enables a disabled client.
func (r *Registry) Reload(settings []client.Settings) (Summary, error) {
	var sum Summary
	var err error
	r.decide(func(t *turn) {
		var p *plan
		if p, err = r.plan(t, settings); err != nil {
			return
		}
		if !p.batch.empty() {
			if err = r.commit(t, p.batch); err != nil {
				err = fmt.Errorf("the new configuration could not be saved: %w", err)
				return
			}
		}
		r.carryOut(t, p)
		sum = p.sum
	})
	return sum, err
}

func (b *Batch) empty() bool {
	return len(b.Put)+len(b.Delete)+len(b.Bury)+len(b.Unbury) == 0
}

// A plan is what a new configuration makes of all clients.
type plan struct {
	batch   Batch
	clients []planned
	gone    []*entry
	buried  map[Identity]grave
	unbury  []Identity
	sum     Summary
}

// A planned is one client of a plan.
type planned struct {
	e          *entry // the one there is; nil: a new one
	next       client.Client
	effects    []client.Effect
	configured Configured
	ownSecret  bool
	rekeyed    bool // e has got another key
	changed    bool
}

// plan works out what becomes of all clients with the configuration
// settings. It changes nothing.
func (r *Registry) plan(t *turn, settings []client.Settings) (*plan, error) {
	if err := validate(settings); err != nil {
		return nil, err
	}
	p := &plan{buried: map[Identity]grave{}, clients: make([]planned, 0, len(settings))}
	holder := make(map[Identity]*entry, 2*len(r.byName))
	for _, e := range r.byName {
		for _, id := range identities(&e.c.Settings) {
			holder[id] = e
		}
	}
	claimed := make(map[Identity]bool, 2*len(settings))
	named := make(map[string]bool, len(settings))
	stays := make(map[*entry]bool, len(settings))
	for _, set := range settings {
		named[set.Name] = true
		if r.graves[Identity{ByName, set.Name}].removed {
			p.sum.KeptAway = append(p.sum.KeptAway, set.Name)
			continue
		}
		for _, id := range identities(&set) {
			claimed[id] = true
		}
		pl := r.planOne(t, set, holder)
		if pl.e != nil {
			stays[pl.e] = true
		}
		switch {
		case pl.e == nil:
			p.sum.Added = append(p.sum.Added, set.Name)
		case pl.changed:
			p.sum.Changed = append(p.sum.Changed, set.Name)
		default:
			p.sum.Kept++
		}
		if pl.changed {
			p.batch.Put = append(p.batch.Put, (&entry{configured: pl.configured, ownSecret: pl.ownSecret}).record(&pl.next, t.now))
		}
		p.clients = append(p.clients, pl)
	}

	for _, e := range r.byName {
		if !stays[e] {
			p.gone = append(p.gone, e)
			p.sum.Removed = append(p.sum.Removed, e.name())
			p.batch.Delete = append(p.batch.Delete, e.name())
		}
	}
	for id, e := range holder {
		if !claimed[id] {
			p.bury(t, id, grave{status: e.c.Status.Buried(t.now)})
		}
	}
	for id, g := range r.graves {
		switch {
		case claimed[id]:
			p.unbury = append(p.unbury, id)
		case g.removed && !named[id.Value]:
			g.removed = false // clients.conf has let go of it
			p.bury(t, id, g)
		}
	}
	p.batch.Unbury = p.unbury
	return p, nil
}

func (p *plan) bury(t *turn, id Identity, g grave) {
	p.buried[id] = g
	p.batch.Bury = append(p.batch.Bury, g.stored(id, t.now))
}

func (g grave) stored(id Identity, now client.Instant) Grave {
	c := client.Client{Status: g.status}
	return Grave{Identity: id, Saved: c.Save(now), Removed: g.removed}
}

// planOne works out what becomes of the client of set. holder says who has
// the name and keys until now.
func (r *Registry) planOne(t *turn, set client.Settings, holder map[Identity]*entry) planned {
	e := r.byName[set.Name]
	if e != nil && e.c.Settings.KeyID == set.KeyID && e.c.Settings.Fingerprint == set.Fingerprint {
		pl := planned{e: e, next: e.c, configured: configured(set, e.configured), ownSecret: e.ownSecret}
		var merged client.Settings
		merged, pl.ownSecret = merge(set, e.c.Settings, e.configured, e.ownSecret)
		if pl.changed = !reflect.DeepEqual(pl.configured, e.configured) || pl.ownSecret != e.ownSecret; pl.changed {
			// A secret that is the same stays the one that is there.
			pl.next, pl.effects = client.Reconfigure(e.c, merged, t.now, spread())
		} else {
			pl.next.Settings.Secret = merged.Secret
		}
		return pl
	}

	pl := planned{e: e, changed: true}
	var olds []client.Status
	var from []string
	for _, id := range identities(&set) {
		if h := holder[id]; h != nil {
			olds = append(olds, h.c.Status)
			from = append(from, string(id.Kind)+" of client "+h.name())
		} else if g, ok := r.graves[id]; ok {
			olds = append(olds, g.status)
			from = append(from, string(id.Kind)+" known from before")
		}
	}
	if e != nil {
		pl.rekeyed = true
		set, pl.ownSecret = merge(set, e.c.Settings, e.configured, e.ownSecret)
		pl.configured = configured(set, e.configured)
	} else {
		pl.configured = configured(set, Configured{})
	}
	if len(olds) == 0 {
		pl.next, pl.effects = client.New(set, t.now, spread())
		return pl
	}
	pl.next, pl.effects = client.Inherit(set, olds, strings.Join(from, ", "), t.now, spread())
	if pl.rekeyed {
		// Whoever waits is counted until it has left, and what a checker of
		// the old key finds says nothing of the new one.
		pl.next.Status.Pending = e.c.Status.Pending
		pl.effects = append(pl.effects, client.StopChecker{})
	}
	return pl
}

// carryOut makes p, which is saved, the truth.
func (r *Registry) carryOut(t *turn, p *plan) {
	for _, e := range p.gone {
		r.dismiss(t, e)
	}
	for id, g := range p.buried {
		r.graves[id] = g
	}
	for _, id := range p.unbury {
		delete(r.graves, id)
	}
	for _, pl := range p.clients {
		e := pl.e
		if e == nil {
			e = &entry{c: pl.next, pos: -1}
			r.byName[e.name()] = e
			r.counts.count(&e.c, 1)
			r.publish(Notice{Kind: ClientAdded, Client: r.view(&e.c)})
		}
		e.configured, e.ownSecret = pl.configured, pl.ownSecret
		r.install(t, e, pl.next, pl.effects, true)
		if pl.rekeyed {
			r.cutOff(t, e, &client.Refusal{Reason: client.Unknown, Detail: "the client has got another key"})
		}
		if pl.changed {
			delete(r.unsaved, e)
		}
	}
	r.byKeyID = make(map[keyid.KeyID]*entry, len(r.byName))
	r.byPrint = make(map[keyid.Fingerprint]*entry)
	for _, e := range r.byName {
		r.index(e)
	}
}

func (r *Registry) index(e *entry) {
	set := &e.c.Settings
	if !set.KeyID.IsZero() {
		r.byKeyID[set.KeyID] = e
	}
	if !set.Fingerprint.IsZero() {
		r.byPrint[set.Fingerprint] = e
	}
}

// dismiss takes e out of the registry.
func (r *Registry) dismiss(t *turn, e *entry) {
	set := &e.c.Settings
	if r.byName[set.Name] == e {
		delete(r.byName, set.Name)
	}
	if r.byKeyID[set.KeyID] == e {
		delete(r.byKeyID, set.KeyID)
	}
	if r.byPrint[set.Fingerprint] == e {
		delete(r.byPrint, set.Fingerprint)
	}
	r.cutOff(t, e, &client.Refusal{Reason: client.Unknown, Detail: "the client was removed"})
	e.gone, e.queued = true, false
	if e.run != nil {
		e.run.given = true
		e.run.cancel()
	}
	r.timers.stop(e)
	delete(r.unsaved, e)
	r.counts.count(&e.c, -1)
	t.log(journal.ClientGone, journal.Client(set.Name), journal.Reason(e.c.Status.Describe()))
	r.publish(Notice{Kind: ClientRemoved, Client: r.view(&e.c)})
}

// Remove removes the client called name on the word of the operator by. It
// stays away, though clients.conf has it, until clients.conf has let go of
// it; what comes back under its name or keys is disabled.
func (r *Registry) Remove(name, by string) error {
	var err error
	r.decide(func(t *turn) {
		e := r.byName[name]
		if e == nil {
			err = fmt.Errorf("client %q: %w", name, ErrNoClient)
			return
		}
		next, _ := client.Step(e.c, t.now, client.Disable{By: by, Why: "removed"})
		p := &plan{buried: map[Identity]grave{}, batch: Batch{Delete: []string{name}}}
		for _, id := range identities(&e.c.Settings) {
			p.bury(t, id, grave{status: next.Status.Buried(t.now), removed: id.Kind == ByName})
		}
		if err = r.commit(t, p.batch); err != nil {
			err = fmt.Errorf("client %q: not removed, because that could not be saved: %w", name, err)
			return
		}
		for id, g := range p.buried {
			r.graves[id] = g
		}
		r.counts.count(&e.c, -1)
		e.c = next
		r.counts.count(&e.c, 1)
		r.dismiss(t, e)
	})
	return err
}

// start makes the clients that a new registry begins with.
func (r *Registry) start(ctx context.Context, o Options, now client.Instant) error {
	var state State
	if o.Store != nil {
		var err error
		if state, err = o.Store.Load(); err != nil {
			return fmt.Errorf("loading the saved state: %w", err)
		}
	} else if !o.NoRestore {
		return errors.New("there is no store for the state of clients")
	}
	if o.NoRestore {
		r.store = nil
		return r.startAfresh(ctx, o.Settings, state, now)
	}

	t := &turn{now: now}
	restored := r.restore(t, o.Settings, state)
	p, err := r.plan(t, o.Settings)
	if err != nil {
		return err
	}
	// What Restore decided is saved in the same commit as all the rest.
	for i := range p.clients {
		pl := &p.clients[i]
		if effects := restored[pl.e]; pl.e != nil && len(effects) > 0 {
			pl.effects = append(effects, pl.effects...)
			if _, any := mostUrgent(effects); any && !pl.changed {
				pl.changed = true
				p.batch.Put = append(p.batch.Put, pl.e.record(&pl.next, now))
			}
		}
	}
	// So is that the time of what nobody holds has run out: a clock that is
	// set back later must not undo it.
	for _, g := range state.Graves {
		if now := r.graves[g.Identity]; g.Saved.Enabled && !now.status.Enabled {
			if _, again := p.buried[g.Identity]; !again {
				p.bury(t, g.Identity, now)
			}
		}
	}
	if err := r.commit(t, p.batch); err != nil {
		return fmt.Errorf("saving the state of clients: %w", err)
	}
	r.carryOut(t, p)
	for _, name := range p.sum.KeptAway {
		t.log(journal.ClientKeptAway, journal.Client(name))
	}
	for _, l := range t.logs {
		l.event.Log(ctx, r.logger, l.attrs...)
	}
	return nil
}

// restore puts what was saved into the registry, as plan expects to find it,
// and returns what follows from that for each client.
func (r *Registry) restore(t *turn, settings []client.Settings, state State) map[*entry][]client.Effect {
	byName := make(map[string]*client.Settings, len(settings))
	for i := range settings {
		byName[settings[i].Name] = &settings[i]
	}
	effects := make(map[*entry][]client.Effect, len(state.Records))
	for _, rec := range state.Records {
		e := &entry{configured: rec.Configured, ownSecret: rec.OwnSecret, pos: -1}
		set := byName[rec.Name]
		if set != nil && set.KeyID == rec.Current.KeyID && set.Fingerprint == rec.Current.Fingerprint {
			e.c, effects[e] = client.Restore(rec.Current, rec.Saved, state.Seen, t.now, spread())
		} else {
			e.c = client.Client{Settings: rec.Current, Status: client.RestoreBuried(rec.Saved, state.Seen, t.now)}
		}
		r.byName[rec.Name] = e
		r.counts.count(&e.c, 1)
	}
	for _, g := range state.Graves {
		r.graves[g.Identity] = grave{client.RestoreBuried(g.Saved, state.Seen, t.now), g.Removed}
	}
	return effects
}

// startAfresh starts all clients as settings say, on the word of an operator,
// and says how many of them the saved state would have kept disabled.
func (r *Registry) startAfresh(ctx context.Context, settings []client.Settings, state State, now client.Instant) error {
	was := &Registry{byName: map[string]*entry{}, graves: map[Identity]grave{}}
	t := &turn{now: now}
	was.restore(t, settings, state)
	held, err := was.plan(t, settings)
	if err != nil {
		return err
	}
	p, err := r.plan(t, settings)
	if err != nil {
		return err
	}
	enabled := len(held.sum.KeptAway)
	for i := range held.clients {
		if !held.clients[i].next.Status.Enabled && held.clients[i].next.Settings.Enabled {
			enabled++
		}
	}
	for i := range p.clients { // that they are new needs no saying
		p.clients[i].effects = nil
	}
	r.carryOut(t, p)
	journal.NotRestored.Log(ctx, r.logger, journal.Count(enabled))
	return nil
}
