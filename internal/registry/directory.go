package registry

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// A Caller is a peer that has proved its identity and asks for its secret.
type Caller struct {
	Addr     netip.AddrPort // with zone, where the address is link-local
	Identity keyid.Identity
	Validity keyid.Validity // the time for which its key claims to be valid
}

// A Handout is the right to send one secret to one caller, once, now.
type Handout struct {
	Secret secret.Secret
	// OnRevoked registers cut, which must cut the connection at once. It is
	// called once if the client stops being eligible before Done is called,
	// immediately if it already has. cut must neither block nor call the
	// registry.
	OnRevoked func(cut func())
	// Done must be called exactly once: with nil if the whole secret was
	// written, otherwise with what went wrong.
	Done func(error)
}

// grantLife is how long a caller that was approved may take to call Release.
const grantLife = time.Minute

// A waiter is a connection that waits for approval.
type waiter struct {
	caller  Caller
	decided chan *client.Refusal // receives nil for "approved"; has a buffer of one
}

// A handout is the registry's side of a Handout.
type handout struct {
	caller  Caller
	granted bool            // caller was approved
	over    *client.Refusal // why it was revoked; nil: it wasn't
	cut     func()          // may be nil
}

// Lookup returns the name of the client that has caller's key, or a
// *client.Refusal with the reason Unknown, which it logs.
func (r *Registry) Lookup(caller Caller) (name string, err error) {
	r.mu.Lock()
	e := r.find(caller.Identity)
	if e != nil {
		name = e.name()
	}
	r.mu.Unlock()
	if e == nil {
		if r.throttle.Log(context.Background(), journal.UnknownKey,
			journal.KeyID(caller.Identity), journal.Protocol(caller.Identity), journal.Peer(caller.Addr)) {
			r.mu.Lock()
			r.publish(Notice{Kind: ClientNotFound, Caller: caller})
			r.mu.Unlock()
		}
		return "", &client.Refusal{Reason: client.Unknown, Detail: "no client has this key"}
	}
	return name, nil
}

func (r *Registry) find(id keyid.Identity) *entry {
	switch {
	case id.KeyID.IsOfNothing():
		return nil
	case !id.KeyID.IsZero():
		return r.byKeyID[id.KeyID]
	case !id.Fingerprint.IsZero():
		return r.byPrint[id.Fingerprint]
	}
	return nil
}

// claim returns the client called name if caller has that client's key at this
// moment and the key is acceptable.
func (r *Registry) claim(t *turn, name string, caller Caller) (*entry, *client.Refusal) {
	e := r.byName[name]
	if e == nil || r.find(caller.Identity) != e {
		return nil, &client.Refusal{Reason: client.Unknown, Detail: "the client is no longer configured with this key"}
	}
	if refusal := e.c.Settings.CheckKey(caller.Identity, caller.Validity, t.now.Wall); refusal != nil {
		return nil, refusal
	}
	return e, nil
}

// Approve returns nil if the client called name may have its secret as far as
// its status and approval are concerned. If ApprovalDelay is set, it waits up
// to that long for an operator's decision. Otherwise it returns a
// *client.Refusal, which it logs, or the cause of ctx if that ended first.
func (r *Registry) Approve(ctx context.Context, name string, caller Caller) error {
	var e *entry
	var w *waiter
	var refusal *client.Refusal
	var delay time.Duration
	r.turn(func(t *turn) {
		if e, refusal = r.claim(t, name, caller); refusal != nil {
			return
		}
		delay = e.c.Settings.ApprovalDelay
		refusal = e.c.Eligible(t.now, true)
		switch {
		case refusal != nil:
		case delay <= 0:
		case e.c.CurrentDecision(t.now) == client.Approved:
			r.grant(t, e, caller)
		default:
			if len(e.waiters) >= r.maxWaiters {
				e.waiters[0].end(&client.Refusal{Reason: client.TooManyWaiting})
				e.waiters = slices.Delete(e.waiters, 0, 1)
			}
			w = &waiter{caller, make(chan *client.Refusal, 1)}
			e.waiters = append(e.waiters, w)
			r.step(t, e, client.Connect{})
		}
	})
	if refusal != nil {
		return r.refuse(name, caller, r.settle(name, refusal))
	}
	if w == nil {
		return nil
	}
	return r.wait(ctx, e, w, delay)
}

// wait waits for an operator's decision on w, which is one of e's waiters.
func (r *Registry) wait(ctx context.Context, e *entry, w *waiter, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	var refusal *client.Refusal
	decided, hungUp := false, false
	select {
	case refusal = <-w.decided:
		decided = true
	case <-timer.C:
	case <-ctx.Done():
		hungUp = true
	}
	name := ""
	r.turn(func(t *turn) {
		name = e.name()
		if i := slices.Index(e.waiters, w); i >= 0 {
			e.waiters = slices.Delete(e.waiters, i, i+1)
		}
		if !decided {
			select { // it may have been decided at this very moment
			case refusal = <-w.decided:
				decided = true
			default:
			}
		}
		if !decided && !hungUp && !e.c.Settings.ApprovedByDefault {
			refusal = &client.Refusal{Reason: client.ApprovalTimedOut, Detail: "no operator approved within " + delay.String()}
		}
		if e.gone || refusal != nil && !hungUp {
			return
		}
		if !hungUp && !decided {
			r.grant(t, e, w.caller)
		}
		r.step(t, e, client.Disconnect{})
	})
	switch {
	case hungUp:
		return context.Cause(ctx)
	case refusal == nil:
		return nil
	}
	err := r.refuse(name, w.caller, refusal)
	// The refusal is announced before the end of the wait, as by Debian's
	// server.
	r.turn(func(t *turn) {
		if !e.gone {
			r.step(t, e, client.Disconnect{})
		}
	})
	return err
}

// end tells w how its wait ended. Only the first call counts.
func (w *waiter) end(refusal *client.Refusal) {
	select {
	case w.decided <- refusal:
	default:
	}
}

// grant notes that caller was approved, for Release to see.
func (r *Registry) grant(t *turn, e *entry, caller Caller) {
	if e.grants == nil {
		e.grants = map[Caller]time.Duration{}
	}
	for c, until := range e.grants {
		if until <= t.now.Elapsed {
			delete(e.grants, c)
		}
	}
	e.grants[caller] = t.now.Elapsed + grantLife
}

// decided tells the waiters of e that an operator has decided. An approval
// takes effect here, not when they wake up: another decision may come in
// between.
func (r *Registry) decided(t *turn, e *entry) {
	var refusal *client.Refusal
	switch e.c.Status.Decision { // even one that ends at once
	case client.Approved:
		for _, w := range e.waiters {
			r.grant(t, e, w.caller)
		}
	case client.Disapproved:
		refusal = &client.Refusal{Reason: client.Denied, Detail: "an operator denied it"}
		e.grants = nil
		if e.c.Settings.ApprovalDelay > 0 {
			e.revoke(refusal)
		}
	default:
		return
	}
	for _, w := range e.waiters {
		w.end(refusal)
	}
	e.waiters = nil
}

// cutOff ends everything in progress for e, which is no longer eligible, has
// another key or was removed. Its waiters get refusal, which is never nil.
func (e *entry) cutOff(refusal *client.Refusal) {
	for _, w := range e.waiters {
		w.end(refusal)
	}
	e.waiters, e.grants = nil, nil
	e.revoke(refusal)
}

// revoke ends all hand-outs in progress.
func (e *entry) revoke(why *client.Refusal) {
	for h := range e.handouts {
		h.revoke(why)
	}
}

func (h *handout) revoke(why *client.Refusal) {
	if h.over != nil {
		return
	}
	h.over = why
	if h.cut != nil {
		h.cut()
	}
}

// recheck ends those hand-outs in progress that Release would now refuse.
func (e *entry) recheck(now client.Instant) {
	for h := range e.handouts {
		why := cmp.Or(e.c.Settings.CheckKey(h.caller.Identity, h.caller.Validity, now.Wall), e.c.Eligible(now, h.granted))
		if why != nil {
			h.revoke(why)
		}
	}
}

// settle disables the client called name if refusal says that its time is up
// and its timer hasn't fired yet, so that this is on disk before anybody hears
// of it. It returns the refusal to give.
func (r *Registry) settle(name string, refusal *client.Refusal) *client.Refusal {
	if refusal.Reason != client.Expired {
		return refusal
	}
	r.decide(func(t *turn) {
		if e := r.byName[name]; e != nil && e.expired(t.now) {
			r.tickAll(t, []*entry{e})
			refusal = cmp.Or(e.c.Eligible(t.now, true), refusal)
		}
	})
	return refusal
}

func (e *entry) expired(now client.Instant) bool {
	refusal := e.c.Eligible(now, true)
	return refusal != nil && refusal.Reason == client.Expired
}

// Release makes the last check of eligibility, at this instant, and logs the
// hand-out before the secret leaves. It returns a *client.Refusal, which it
// logs, if the check fails or if the hand-out can't be logged.
func (r *Registry) Release(name string, caller Caller) (*Handout, error) {
	h := &handout{caller: caller}
	var e *entry
	var refusal *client.Refusal
	out := new(Handout)
	r.turn(func(t *turn) {
		if e, refusal = r.claim(t, name, caller); refusal != nil {
			return
		}
		until, ok := e.grants[caller]
		h.granted = ok && t.now.Elapsed < until
		delete(e.grants, caller)
		if refusal = e.c.Eligible(t.now, h.granted); refusal != nil {
			return
		}
		// From here on, anything that ends eligibility revokes it.
		if e.handouts == nil {
			e.handouts = map[*handout]struct{}{}
		}
		e.handouts[h] = struct{}{}
	})
	if refusal != nil {
		return nil, r.refuse(name, caller, r.settle(name, refusal))
	}

	// Writing the log entry may take a while, so eligibility is checked again
	// afterwards.
	err := journal.SecretReleased.Write(context.Background(), r.logger,
		journal.Client(name), journal.KeyID(caller.Identity), journal.Protocol(caller.Identity), journal.Peer(caller.Addr))
	r.turn(func(t *turn) {
		if err != nil {
			refusal = &client.Refusal{Reason: client.Faulty, Detail: "the hand-out could not be logged: " + err.Error()}
		} else if _, refusal = r.claim(t, name, caller); refusal == nil {
			refusal = e.c.Eligible(t.now, h.granted)
		}
		if refusal == nil { // no later change undoes a revocation
			refusal = h.over
		}
		if refusal != nil {
			delete(e.handouts, h)
			return
		}
		out.Secret = e.c.Settings.Secret
	})
	if refusal != nil {
		return nil, r.refuse(name, caller, r.settle(name, refusal))
	}
	out.OnRevoked = func(cut func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if h.cut = cut; h.over != nil {
			cut()
		}
	}
	var once sync.Once
	out.Done = func(err error) { once.Do(func() { r.handedOut(e, h, err) }) }
	return out, nil
}

// handedOut notes how a hand-out ended.
func (r *Registry) handedOut(e *entry, h *handout, err error) {
	r.turn(func(t *turn) {
		delete(e.handouts, h)
		if err == nil && h.over != nil {
			err = errors.New("the client stopped being eligible while it was sent")
		}
		if err != nil {
			t.log(journal.SecretUnsent, journal.Client(e.name()), journal.KeyID(h.caller.Identity), journal.Peer(h.caller.Addr), journal.Err(err))
			return
		}
		if !e.gone {
			t.caller = h.caller
			r.step(t, e, client.HandedOut{})
		}
	})
}

// refuse logs and publishes refusal, and returns it. When one client is refused
// for one reason many times in quick succession, only their number is logged.
func (r *Registry) refuse(name string, caller Caller, refusal *client.Refusal) error {
	if !r.throttle.LogOf(context.Background(), name, string(refusal.Reason), journal.Refused,
		journal.Client(name), journal.KeyID(caller.Identity), journal.Protocol(caller.Identity), journal.Peer(caller.Addr), journal.Reason(refusal.Error())) {
		return refusal
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byName[name]; e != nil && len(r.feeds) > 0 {
		r.publish(Notice{Kind: ClientChanged, Client: r.view(&e.c), Caller: caller,
			Changes: []client.Notice{client.RejectedNotice{Reason: refusal.Reason}}})
	}
	return refusal
}
