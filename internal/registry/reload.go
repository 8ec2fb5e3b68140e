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
	"slices"
	"strings"
	"sync/atomic"

	"mandos/internal/client"
	"mandos/internal/cores"
	"mandos/internal/journal"
	"mandos/internal/secret"
)

// A tombstone is a Tombstone in memory.
type tombstone struct {
	status  client.Status
	removed bool
	ranOut  bool // its time did while the server was down, and that isn't on disk yet
}

// Identities returns the identities of a client with the settings set, its name
// first.
func Identities(set *client.Settings) []Identity {
	ids := append(make([]Identity, 0, 3), Identity{ByName, set.Name})
	if !set.KeyID.IsZero() {
		ids = append(ids, Identity{ByKeyID, set.KeyID.String()})
	}
	if !set.Fingerprint.IsZero() {
		ids = append(ids, Identity{ByFingerprint, set.Fingerprint.String()})
	}
	return ids
}

// saltLen is the length of the salt that a Digest begins with.
const saltLen = 16

// digest returns what is kept of a configured secret: enough to notice that it
// was changed, and useless to anybody who reads it.
func digest(s secret.Secret, salt [saltLen]byte) (d Digest) {
	copy(d[:], salt[:])
	mac := hmac.New(sha256.New, []byte(hex.EncodeToString(salt[:]))) // in hex, as in the first version of the state file
	mac.Write(s.Reveal())
	mac.Sum(d[:saltLen])
	return d
}

// sameSecret reports whether d is the digest of s.
func (d *Digest) sameSecret(s secret.Secret) bool {
	if *d == (Digest{}) {
		return false
	}
	is := digest(s, [saltLen]byte(d[:saltLen]))
	return hmac.Equal(d[:], is[:])
}

// newDigest returns a digest of s with a salt of its own.
func newDigest(s secret.Secret) Digest {
	var salt [saltLen]byte
	_, _ = rand.Read(salt[:]) // never fails
	return digest(s, salt)
}

// says reports whether c is what configured returns for set, apart from the
// secret.
func (c *Configured) says(set *client.Settings) bool {
	without := *set
	without.Secret = secret.Secret{}
	return reflect.DeepEqual(c.Settings, without)
}

// configured returns what to remember about set, whose secret has the digest d.
func configured(set client.Settings, d Digest) Configured {
	set.Secret = secret.Secret{}
	return Configured{Settings: set, SecretDigest: d}
}

// merge returns the settings in force when clients.conf says set, whose secret
// has the digest d, and whether their secret is one set at run time. What has
// changed in clients.conf wins; the rest keeps changes made at run time.
// Debian's server merges in the same way.
func merge(set, current client.Settings, d Digest, was Configured, ownSecret bool) (client.Settings, bool) {
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
	if !ownSecret || d != was.SecretDigest {
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

// A Summary says what Reload did.
type Summary struct {
	Added    []string // new, or back
	Removed  []string
	Changed  []string
	KeptAway []string // in clients.conf, but removed by an operator
	Kept     int      // unchanged
}

// String returns the summary in words, for the log.
func (s Summary) String() string {
	return fmt.Sprintf("%d added, %d removed, %d changed, %d unchanged, %d kept away",
		len(s.Added), len(s.Removed), len(s.Changed), s.Kept, len(s.KeptAway))
}

// Reload makes settings, those of a new clients.conf, the configuration: all of
// them or, on error, none. Values that have changed in clients.conf win; the
// others keep changes made at run time. A client that is no longer listed is
// removed, but its status stays with its name and keys; Reload never enables a
// disabled client.
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
				for _, e := range r.byName {
					r.save(e, client.Soon) // a commit that fails may be on disk all the same
				}
				return
			}
		}
		r.carryOut(t, p)
		sum = p.sum
	})
	return sum, err
}

func (b *Batch) empty() bool {
	return len(b.Put)+len(b.Delete)+len(b.PutTombstones)+len(b.DeleteTombstones) == 0
}

// A plan says what becomes of all clients under a new configuration.
type plan struct {
	batch      Batch
	clients    []planned
	gone       []*entry
	tombstones map[Identity]tombstone
	reclaimed  []Identity
	sum        Summary
}

// A planned is one client of a plan.
type planned struct {
	e      *entry        // the existing entry; nil for a new client
	secret secret.Secret // for an e that is unchanged
	*change
}

// A change says what becomes of a client that is new or changed.
type change struct {
	next       client.Client
	effects    []client.Effect
	configured Configured
	ownSecret  bool
	rekeyed    bool // an existing client gets another key
}

// client returns the client as it will be.
func (pl *planned) client() *client.Client {
	if pl.change != nil {
		return &pl.next
	}
	return &pl.e.c
}

// record returns the client as it will be stored.
func (c *change) record(now client.Instant) Record {
	return (&entry{configured: c.configured, ownSecret: c.ownSecret}).record(&c.next, now)
}

// plan works out what becomes of all clients under the configuration settings.
// It changes nothing.
func (r *Registry) plan(t *turn, settings []client.Settings) (*plan, error) {
	wanted, err := indexed(settings)
	if err != nil {
		return nil, err
	}
	keptAway := func(name string) bool { return r.tombstones[Identity{ByName, name}].removed }
	// claims reports whether set, looked up in wanted by a name or key, is of a
	// client that will exist, which then holds that name or key.
	claims := func(set *client.Settings) bool { return set != nil && !keptAway(set.Name) }

	// Usually most clients are unchanged, or all are new. Either way each
	// secret must be hashed as a whole. A digest is kept for as long as the
	// secret stays the same.
	stays, digests := make([]bool, len(settings)), make([]Digest, len(settings))
	var changes atomic.Int32
	cores.Each(len(settings), func(i int) {
		set := &settings[i]
		e := r.byName[set.Name]
		if e != nil && e.configured.SecretDigest.sameSecret(set.Secret) {
			digests[i] = e.configured.SecretDigest
			stays[i] = e.configured.says(set) && e.hasKeysOf(set)
		} else {
			digests[i] = newDigest(set.Secret)
		}
		if !stays[i] {
			changes.Add(1)
		}
	})

	p := &plan{tombstones: map[Identity]tombstone{}, clients: make([]planned, 0, len(settings))}
	p.batch.Put = make([]Record, 0, changes.Load())
	for i := range settings {
		set := &settings[i]
		if keptAway(set.Name) {
			p.sum.KeptAway = append(p.sum.KeptAway, set.Name)
			continue
		}
		pl := planned{e: r.byName[set.Name]}
		switch {
		case pl.e == nil:
			p.sum.Added = append(p.sum.Added, set.Name)
			pl.change = r.planChange(t, *set, digests[i], nil)
		case !stays[i]:
			p.sum.Changed = append(p.sum.Changed, set.Name)
			pl.change = r.planChange(t, *set, digests[i], pl.e)
		default:
			p.sum.Kept++
			pl.secret = set.Secret
			if pl.e.ownSecret {
				pl.secret = pl.e.c.Settings.Secret
			}
		}
		if pl.change != nil {
			p.batch.Put = append(p.batch.Put, pl.record(t.now))
		}
		p.clients = append(p.clients, pl)
	}

	for _, e := range r.byName {
		set := &e.c.Settings
		if !claims(wanted.byName[set.Name]) {
			p.gone = append(p.gone, e)
			p.sum.Removed = append(p.sum.Removed, set.Name)
			p.batch.Delete = append(p.batch.Delete, set.Name)
			p.putTombstone(t, Identity{ByName, set.Name}, tombstone{status: e.c.Status.Tombstone(t.now)})
		}
		if !set.KeyID.IsZero() && !claims(wanted.byKeyID[set.KeyID]) {
			p.putTombstone(t, Identity{ByKeyID, set.KeyID.String()}, tombstone{status: e.c.Status.Tombstone(t.now)})
		}
		if !set.Fingerprint.IsZero() && !claims(wanted.byPrint[set.Fingerprint]) {
			p.putTombstone(t, Identity{ByFingerprint, set.Fingerprint.String()}, tombstone{status: e.c.Status.Tombstone(t.now)})
		}
	}
	for id, ts := range r.tombstones {
		claimant, _ := wanted.get(id)
		switch {
		case claims(claimant):
			p.reclaimed = append(p.reclaimed, id)
		case ts.removed && wanted.byName[id.Value] == nil:
			ts.removed = false // clients.conf no longer lists it
			p.putTombstone(t, id, ts)
		case ts.ranOut:
			// Saved, so that setting the clock back later doesn't undo it.
			if _, newer := p.tombstones[id]; !newer {
				ts.ranOut = false
				p.putTombstone(t, id, ts)
			}
		}
	}
	p.batch.DeleteTombstones = p.reclaimed
	return p, nil
}

func (p *plan) putTombstone(t *turn, id Identity, ts tombstone) {
	p.tombstones[id] = ts
	p.batch.PutTombstones = append(p.batch.PutTombstones, ts.stored(id, t.now))
}

func (ts tombstone) stored(id Identity, now client.Instant) Tombstone {
	c := client.Client{Status: ts.status}
	return Tombstone{Identity: id, Saved: c.Save(now), Removed: ts.removed}
}

// hasKeysOf reports whether e has the same keys as set.
func (e *entry) hasKeysOf(set *client.Settings) bool {
	return e.c.Settings.KeyID == set.KeyID && e.c.Settings.Fingerprint == set.Fingerprint
}

// planChange works out what becomes of e, which may be nil, with the settings
// set, whose secret has the digest d.
func (r *Registry) planChange(t *turn, set client.Settings, d Digest, e *entry) *change {
	c := &change{configured: configured(set, d)} // what the file says, before it is merged
	if e != nil {
		// If the configured secret is unchanged, one that was set at run time
		// stays.
		set, c.ownSecret = merge(set, e.c.Settings, d, e.configured, e.ownSecret)
	}
	if e != nil && e.hasKeysOf(&set) {
		c.next, c.effects = client.Reconfigure(e.c, set, t.now, spread())
		return c
	}

	var olds []client.Status
	var from []string
	for _, id := range Identities(&set) {
		if h, _ := r.get(id); h != nil {
			olds = append(olds, h.c.Status)
			from = append(from, string(id.Kind)+" of client "+h.name())
		} else if ts, ok := r.tombstones[id]; ok {
			olds = append(olds, ts.status)
			from = append(from, string(id.Kind)+" known from before")
		}
	}
	c.rekeyed = e != nil
	if len(olds) == 0 {
		c.next, c.effects = client.New(set, t.now, spread())
		return c
	}
	c.next, c.effects = client.Inherit(set, olds, strings.Join(from, ", "), t.now, spread())
	// ClientAdded announces it as a whole.
	c.effects = slices.DeleteFunc(c.effects, func(e client.Effect) bool { _, is := e.(client.Notify); return is })
	if c.rekeyed {
		// Connections that wait are counted until they have left, and a check
		// that was started for the old key says nothing about the new one.
		c.next.Status.Pending = e.c.Status.Pending
		c.effects = append(c.effects, client.StopChecker{})
	}
	return c
}

// carryOut carries out p, which has been saved.
func (r *Registry) carryOut(t *turn, p *plan) {
	for _, e := range p.gone {
		r.dismiss(t, e)
	}
	for id, ts := range p.tombstones {
		r.tombstones[id] = ts
	}
	for _, id := range p.reclaimed {
		delete(r.tombstones, id)
	}
	for _, pl := range p.clients {
		if pl.change != nil && pl.rekeyed {
			r.forgetKeys(pl.e) // all of them first: one may take another's key
		}
	}
	for _, pl := range p.clients {
		e := pl.e
		if pl.change == nil {
			e.c.Settings.Secret = pl.secret
			r.schedule(e) // it may just have been restored
			continue
		}
		if e == nil {
			e = &entry{c: pl.next, pos: -1}
			r.counts.count(&e.c, 1)
		} else if pl.rekeyed {
			// To those who follow the feed a client's key never changes: this
			// is another client.
			r.publish(Notice{Kind: ClientRemoved, Client: r.view(&e.c)})
		}
		e.configured, e.ownSecret = pl.configured, pl.ownSecret
		r.add(&pl.next.Settings, e)
		r.install(t, e, pl.next, pl.effects, true)
		if pl.rekeyed {
			e.cutOff(&client.Refusal{Reason: client.Unknown, Detail: "the client has got another key"})
		}
		if pl.e == nil || pl.rekeyed {
			r.publish(Notice{Kind: ClientAdded, Client: r.view(&e.c)})
		}
		delete(r.unsaved, e)
	}
}

// forgetKeys removes the keys of e from the index.
func (r *Registry) forgetKeys(e *entry) {
	set := &e.c.Settings
	if r.byKeyID[set.KeyID] == e {
		delete(r.byKeyID, set.KeyID)
	}
	if r.byPrint[set.Fingerprint] == e {
		delete(r.byPrint, set.Fingerprint)
	}
}

// dismiss removes e from the registry.
func (r *Registry) dismiss(t *turn, e *entry) {
	set := &e.c.Settings
	if r.byName[set.Name] == e {
		delete(r.byName, set.Name)
	}
	r.forgetKeys(e)
	e.cutOff(&client.Refusal{Reason: client.Unknown, Detail: "the client was removed"})
	e.gone, e.queued = true, false
	if e.run != nil {
		e.run.abandoned = true
		e.run.cancel()
	}
	r.timers.stop(e)
	delete(r.unsaved, e)
	r.counts.count(&e.c, -1)
	t.log(journal.ClientGone, journal.Client(set.Name), journal.Reason(e.c.Status.Describe()))
	r.publish(Notice{Kind: ClientRemoved, Client: r.view(&e.c)})
}

// Remove removes the client called name at the request of the operator by. It
// stays removed until clients.conf no longer lists it; what comes back under
// its name or keys after that is disabled.
func (r *Registry) Remove(name, by string) error {
	var err error
	r.decide(func(t *turn) {
		e := r.byName[name]
		if e == nil {
			err = fmt.Errorf("client %q: %w", name, ErrNoClient)
			return
		}
		next, _ := client.Step(e.c, t.now, client.Disable{By: by, Why: "removed"})
		p := &plan{tombstones: map[Identity]tombstone{}, batch: Batch{Delete: []string{name}}}
		for _, id := range Identities(&e.c.Settings) {
			p.putTombstone(t, id, tombstone{status: next.Status.Tombstone(t.now), removed: id.Kind == ByName})
		}
		if err = r.commit(t, p.batch); err != nil {
			err = fmt.Errorf("client %q: not removed, because that could not be saved: %w", name, err)
			r.save(e, client.Soon) // a commit that fails may be on disk all the same
			return
		}
		for id, ts := range p.tombstones {
			r.tombstones[id] = ts
		}
		r.counts.count(&e.c, -1)
		e.c = next
		r.counts.count(&e.c, 1)
		r.dismiss(t, e)
	})
	return err
}

// start creates the clients of a new registry.
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
	// What Restore decided is saved in the same commit as everything else.
	for i := range p.clients {
		pl := &p.clients[i]
		effects := restored[pl.e]
		if len(effects) == 0 {
			continue
		}
		if pl.change == nil {
			pl.change = &change{next: pl.e.c, configured: pl.e.configured, ownSecret: pl.e.ownSecret}
			pl.next.Settings.Secret = pl.secret
			p.batch.Put = append(p.batch.Put, pl.record(now))
		}
		pl.effects = append(effects, pl.effects...)
	}
	if err := r.commit(t, p.batch); err != nil {
		return fmt.Errorf("saving the state of clients: %w", err)
	}
	r.carryOut(t, p)
	for _, name := range p.sum.KeptAway {
		t.log(journal.ClientKeptAway, journal.Client(name))
	}
	r.started = t.logs
	return nil
}

// LogStart logs what New has found out about clients, once. With many new ones
// that takes as long as the rest of New, which leaves it until clients are
// being served.
func (r *Registry) LogStart(ctx context.Context) {
	r.mu.Lock()
	logs := r.started
	r.started = nil
	r.mu.Unlock()
	for _, l := range logs {
		l.event.Log(ctx, r.logger, l.attrs...)
	}
}

// restore puts the saved state into the registry, as plan expects to find it,
// and returns the effects that this has for each client.
func (r *Registry) restore(t *turn, settings []client.Settings, state State) map[*entry][]client.Effect {
	byName := make(map[string]*client.Settings, len(settings))
	for i := range settings {
		byName[settings[i].Name] = &settings[i]
	}
	effects := map[*entry][]client.Effect{}
	for i := range state.Records {
		rec := &state.Records[i]
		e := &entry{configured: rec.Configured, ownSecret: rec.OwnSecret, pos: -1}
		set := byName[rec.Name]
		if set != nil && set.KeyID == rec.Current.KeyID && set.Fingerprint == rec.Current.Fingerprint {
			var then []client.Effect
			if e.c, then = client.Restore(rec.Current, rec.Saved, state.Seen, t.now, spread()); len(then) > 0 {
				effects[e] = then
			}
		} else {
			e.c = client.Client{Settings: rec.Current, Status: client.RestoreTombstone(rec.Saved, state.Seen, t.now)}
		}
		r.add(&e.c.Settings, e)
		r.counts.count(&e.c, 1)
	}
	for _, ts := range state.Tombstones {
		status := client.RestoreTombstone(ts.Saved, state.Seen, t.now)
		r.tombstones[ts.Identity] = tombstone{status, ts.Removed, ts.Saved.Enabled && !status.Enabled}
	}
	return effects
}

// startAfresh starts all clients as settings say, because an operator asked for
// that, and logs how many of them the saved state would have kept disabled.
func (r *Registry) startAfresh(ctx context.Context, settings []client.Settings, state State, now client.Instant) error {
	was := &Registry{index: newIndex[*entry](settings), tombstones: map[Identity]tombstone{}}
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
		if c := held.clients[i].client(); !c.Status.Enabled && c.Settings.Enabled {
			enabled++
		}
	}
	for i := range p.clients { // that they are new needn't be logged
		p.clients[i].effects = nil // there were no clients before, so change is never nil
	}
	r.carryOut(t, p)
	journal.NotRestored.Log(ctx, r.logger, journal.Count(enabled))
	return nil
}
