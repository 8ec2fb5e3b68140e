// Package registry owns the clients of a running server. It applies the rules
// of package client to what happens, keeps their timers, runs their checkers,
// saves their state through a Store, and decides at each hand-out whether the
// secret may leave. It has no network and no D-Bus: those call it.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
)

// ErrNoClient is the error for a name that no client has.
var ErrNoClient = errors.New("no such client")

// A Checker runs the checkers of clients. It is called from several
// goroutines.
type Checker interface {
	// Validate returns an error that says what is wrong with template, a
	// command line that may contain %(name)s.
	Validate(template string) error
	// Expand replaces each %(name)s in template with its value, quoted for the
	// shell. It must not block: the registry is locked meanwhile.
	Expand(template string, values map[string]string) (string, error)
	// Run runs command with /bin/sh -c for the client called name and returns
	// how it ended. If it takes longer than limit, it is killed along with
	// everything it started, and the result says so. An error means that it
	// could not be run, or was abandoned because ctx ended; it says nothing
	// about the client.
	Run(ctx context.Context, name, command string, limit time.Duration) (client.CheckResult, error)
}

// Options are what a Registry needs.
type Options struct {
	Settings []client.Settings // as in clients.conf
	Store    Store             // nil only with NoRestore
	// NoRestore starts every client as Settings say and never writes to the
	// store.
	NoRestore bool
	Checker   Checker
	Log       *slog.Logger
	Clock     Clock                    // nil: SystemClock
	Path      func(name string) string // dbus_object_path of a client, for its checker; may be nil
	MaxChecks int                      // how many checkers may run at once; 0 means 64
	// MaxWaiters is how many connections per client may wait for approval; when
	// there is one more, the oldest is refused. 0 means 8.
	MaxWaiters int
}

// A Registry owns all clients. Its methods are safe for concurrent use.
//
// There are two locks. mu guards everything in memory and is held only briefly.
// disk is held from when the content of a commit is fixed until the commit is
// done, so that commits happen in the order of their contents; code that needs
// both locks takes disk first. Changes that decide eligibility are committed
// with both locks held: nobody sees or acts on what isn't on disk. Changes of
// mere liveness are made under mu alone and written by flush within a second.
type Registry struct {
	store      Store // nil: nothing is saved
	checker    Checker
	logger     *slog.Logger
	throttle   *journal.Throttle // for entries that peers can cause without getting a secret
	clock      Clock
	path       func(string) string
	maxChecks  int
	maxWaiters int

	disk sync.Mutex

	mu sync.Mutex
	index[*entry]
	tombstones  map[Identity]tombstone
	timers      timers
	counts      Counts
	feeds       map[*Feed]struct{}
	unsaved     map[*entry]struct{} // to be written by flush
	saveError   error               // of the last commit
	saveWarned  time.Duration       // when it was last logged
	checkWarned time.Duration       // when ChecksCannotRun was last logged
	queue       []*entry            // checkers that wait for their turn
	running     int                 // checkers that run
	started     []entryLog          // see LogStart
	offset      time.Duration       // wall clock minus elapsed time, to notice when the clock is set
	stopped     bool

	checks   sync.WaitGroup
	checkCtx context.Context // ends when checkers have to
	stop     context.CancelFunc
	wake     chan struct{}      // the earliest timer has changed
	dirtied  chan struct{}      // unsaved is no longer empty
	hurry    chan struct{}      // flush now
	ping     chan chan struct{} // see Ping
}

// throttleBurst is how many entries of one kind are logged per minute: about
// peers with unknown keys and, for each client, about refusals for one reason
// and about requests for approval. Any more are only counted. The D-Bus signals
// are limited in the same way, except for requests for approval: operators are
// asked about each of them.
const throttleBurst = 20

// An entry is a client in the registry.
type entry struct {
	c          client.Client
	configured Configured
	ownSecret  bool // the secret was changed at run time
	gone       bool // no longer in the registry
	queued     bool // in Registry.queue, or waits for run to end

	run *run // the checker that runs, or is being killed

	due time.Duration // when its timer fires
	pos int           // its index in timers; -1 if it has no timer

	waiters  []*waiter // the oldest first
	grants   map[Caller]time.Duration
	handouts map[*handout]struct{}
}

func (e *entry) name() string { return e.c.Settings.Name }

// New makes a registry from the configuration and the saved state. What it
// decides about clients that expired while the server was down is saved by the
// time it returns, and logged by LogStart. Nothing runs before Run is called.
func New(ctx context.Context, o Options) (*Registry, error) {
	r := &Registry{
		store: o.Store, checker: o.Checker, logger: o.Log, clock: o.Clock, path: o.Path,
		throttle:  journal.NewThrottle(o.Log, throttleBurst),
		maxChecks: o.MaxChecks, maxWaiters: o.MaxWaiters,
		index: newIndex[*entry](o.Settings), tombstones: map[Identity]tombstone{},
		feeds: map[*Feed]struct{}{}, unsaved: map[*entry]struct{}{},
		wake: make(chan struct{}, 1), dirtied: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		ping: make(chan chan struct{}),
	}
	if r.clock == nil {
		r.clock = SystemClock{}
	}
	if r.maxChecks <= 0 {
		r.maxChecks = 64
	}
	if r.maxWaiters <= 0 {
		r.maxWaiters = 8
	}
	r.checkCtx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	now := r.clock.Now()
	r.offset = offset(now)
	if err := r.start(ctx, o, now); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// A turn is what is done in one go while mu is held.
type turn struct {
	now    client.Instant
	caller Caller // the peer that caused it, if any
	logs   []entryLog
}

// An entryLog is a log entry that waits until the locks are released.
type entryLog struct {
	event    journal.Event
	attrs    []slog.Attr
	throttle string // the client, if it can cause the entry as often as it likes
}

func (t *turn) log(e journal.Event, attrs ...slog.Attr) {
	t.logs = append(t.logs, entryLog{event: e, attrs: attrs})
}

// turn runs f with mu held. f may change liveness only; for anything else see
// decide.
func (r *Registry) turn(f func(*turn)) {
	t := r.lockedTurn(f)
	for _, l := range t.logs {
		if l.throttle != "" {
			r.throttle.LogOf(context.Background(), l.throttle, "", l.event, l.attrs...)
			continue
		}
		l.event.Log(context.Background(), r.logger, l.attrs...)
	}
}

func (r *Registry) lockedTurn(f func(*turn)) *turn {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &turn{now: r.clock.Now()}
	f(t)
	r.startQueued(t)
	return t
}

// decide runs f with both locks held.
func (r *Registry) decide(f func(*turn)) {
	r.disk.Lock()
	defer r.disk.Unlock()
	r.turn(func(t *turn) {
		r.watchClock(t)
		f(t)
	})
}

// step applies an event that changes liveness only.
func (r *Registry) step(t *turn, e *entry, ev client.Event) {
	next, effects := client.Step(e.c, t.now, ev)
	r.install(t, e, next, effects, false)
}

// install makes next the state of e and carries out effects. saved says that
// what they want saved has been saved already.
func (r *Registry) install(t *turn, e *entry, next client.Client, effects []client.Effect, saved bool) {
	was := e.c.Status
	cannot := r.counts.CannotCheck
	r.counts.count(&e.c, -1)
	e.c = next
	r.counts.count(&e.c, 1)

	var notices []client.Notice
	for _, effect := range effects {
		switch effect := effect.(type) {
		case client.Save:
			if !saved {
				r.save(e, effect.When)
			}
		case client.RunChecker:
			e.queued = true
			r.queue = append(r.queue, e)
		case client.StopChecker:
			e.queued = false
			if e.run != nil {
				e.run.abandoned = true
				e.run.cancel()
			}
		case client.Log:
			t.log(effect.Event, append([]slog.Attr{journal.Client(e.name())}, effect.Attrs...)...)
			if effect.Event == journal.ApprovalNeeded {
				t.logs[len(t.logs)-1].throttle = e.name()
			}
		case client.Notify:
			notices = append(notices, effect.Notice)
		}
	}
	if len(notices) > 0 && len(r.feeds) > 0 {
		r.publish(Notice{Kind: ClientChanged, Client: r.view(&e.c), Changes: notices, Caller: t.caller})
	}

	st := &e.c.Status
	if was.Enabled && !st.Enabled {
		e.cutOff(e.c.Eligible(t.now, true)) // never nil: it is disabled
	}
	e.recheck(t.now)
	if st.Decision != was.Decision || st.DecisionUntil != was.DecisionUntil {
		r.decided(t, e)
	}
	r.schedule(e)
	r.reportCannotCheck(t, e, cannot)
}

// schedule sets the timer of e to when its client needs the next Tick.
func (r *Registry) schedule(e *entry) {
	if due, ok := e.c.Due(); !ok {
		r.timers.stop(e)
	} else if r.timers.set(e, due) {
		poke(r.wake)
	}
}

// Do applies an operator's request to the client called name: one of
// client.Enable, Disable, Approve, Deny, CheckedOK, StartChecker, StopChecks
// and the Set events. When Do returns nil, the change is on disk. A change that
// can't be saved is not made, unless it denies the client its secret: then it
// is made anyway, and the error says that it isn't saved.
func (r *Registry) Do(name string, ev client.Event) error {
	if err := client.Validate(ev); err != nil {
		return err
	}
	if set, ok := ev.(client.SetText); ok && set.Property == client.PropChecker {
		if err := r.checker.Validate(set.Value); err != nil {
			return fmt.Errorf("checker %q: %w", set.Value, err)
		}
	}
	var err error
	r.decide(func(t *turn) {
		e := r.byName[name]
		if e == nil {
			err = fmt.Errorf("client %q: %w", name, ErrNoClient)
			return
		}
		next, effects := client.Step(e.c, t.now, ev)
		ownSecret := e.ownSecret
		if _, ok := ev.(client.SetSecret); ok {
			e.ownSecret = true
		}
		saved := false
		if urgency, any := mostUrgent(effects); any && urgency == client.Now {
			if err = r.commit(t, Batch{Put: []Record{e.record(&next, t.now)}}); err != nil {
				if !stricter(&e.c, &next, ev) {
					e.ownSecret = ownSecret
					r.save(e, client.Soon) // a commit that fails may be on disk all the same
					err = fmt.Errorf("client %q: not changed, because it could not be saved: %w", name, err)
					return
				}
				err = fmt.Errorf("client %q: changed, but that could not be saved and is tried again: %w", name, err)
			} else {
				saved = true
				delete(r.unsaved, e)
			}
		}
		r.install(t, e, next, effects, saved)
	})
	return err
}

// stricter reports whether ev restricts the client, so that it takes effect
// even if it can't be saved.
func stricter(was, is *client.Client, ev client.Event) bool {
	switch ev.(type) {
	case client.Deny, client.Disable:
		return true
	}
	return was.Status.Enabled && !is.Status.Enabled
}

func mostUrgent(effects []client.Effect) (most client.Urgency, any bool) {
	for _, effect := range effects {
		if save, ok := effect.(client.Save); ok {
			most, any = max(most, save.When), true
		}
	}
	return most, any
}

// Ping returns nil if the registry's loop answers before ctx ends; to answer,
// the loop needs both locks. Ping is for the watchdog.
func (r *Registry) Ping(ctx context.Context) error {
	answer := make(chan struct{})
	select {
	case r.ping <- answer:
	case <-ctx.Done():
		return fmt.Errorf("the registry doesn't answer: %w", context.Cause(ctx))
	}
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the registry doesn't answer: %w", context.Cause(ctx))
	}
}

// spread returns the fraction of its interval after which a client's first
// checker starts, from 0 up to 1. Tests replace it.
var spread = rand.Float64

// poke puts a token into c unless it already holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func offset(now client.Instant) time.Duration {
	return time.Duration(now.Wall.UnixNano()) - now.Elapsed
}
