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
	// Validate says what is wrong with a template for a command line.
	Validate(template string) error
	// Expand replaces each %(name)s of template by its value, quoted for
	// the shell. It does so at once: the registry waits.
	Expand(template string, values map[string]string) (string, error)
	// Run runs command by /bin/sh -c for the client called name, and returns
	// how it ended. After limit it is killed with all that it started, and
	// the result says so. An error means that it could not be run, or was
	// given up because ctx ended; that says nothing of the client.
	Run(ctx context.Context, name, command string, limit time.Duration) (client.CheckResult, error)
}

// Options are what a Registry needs.
type Options struct {
	Settings []client.Settings // as in clients.conf
	Store    Store             // nil only with NoRestore
	// NoRestore starts all clients as Settings say, and never changes the
	// store.
	NoRestore bool
	Checker   Checker
	Log       *slog.Logger
	Clock     Clock                    // nil: SystemClock
	Path      func(name string) string // dbus_object_path of a client, for its checker; may be nil
	MaxChecks int                      // how many checkers run at once; 0: 64
	// MaxWaiters is how many connections may wait for approval of one
	// client; one more makes the oldest give up. 0: 8.
	MaxWaiters int
}

// A Registry owns all clients. Its methods may be called from everywhere.
//
// There are two locks. mu guards everything in memory and is held for
// moments. disk is held from the moment at which the content of a commit is
// settled until the commit is over, so that commits are in the order of what
// they say; whoever needs both takes disk first. What decides eligibility is
// committed with both held: nobody sees or acts on what isn't on disk. What
// is mere liveness is changed under mu alone and written by flush within a
// second.
type Registry struct {
	store      Store // nil: nothing is saved
	checker    Checker
	logger     *slog.Logger
	throttle   *journal.Throttle // for what peers cause that get nothing
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
	wake     chan struct{}      // the first timer is another one
	dirtied  chan struct{}      // unsaved isn't empty any more
	hurry    chan struct{}      // flush now
	ping     chan chan struct{} // see Ping
}

// throttleBurst is how many entries of one kind are logged in a minute: of peers
// with unknown keys, and of each client that is refused for one reason or
// waits for approval. More are counted. Nor do D-Bus signals tell of more,
// but for those that wait: about each of them an operator is asked.
const throttleBurst = 20

// An entry is a client in the registry.
type entry struct {
	c          client.Client
	configured Configured
	ownSecret  bool // the secret was changed at run time
	gone       bool // no longer in the registry
	queued     bool // in Registry.queue, or waits for run to end

	run *run // the checker that runs, or is being killed

	due time.Duration // its timer
	pos int           // in timers; -1: none

	waiters  []*waiter // the oldest first
	grants   map[Caller]time.Duration
	handouts map[*handout]struct{}
}

func (e *entry) name() string { return e.c.Settings.Name }

// New makes a registry from the configuration and the saved state. What it
// decides about clients that expired meanwhile is saved when it returns, and
// logged by LogStart. Nothing runs before Run is called.
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

// A turn is one use of the registry by its owner: what holds mu.
type turn struct {
	now    client.Instant
	caller Caller // whose doing it is, if anybody's
	logs   []entryLog
}

// An entryLog is a log entry that waits until the locks are released.
type entryLog struct {
	event    journal.Event
	attrs    []slog.Attr
	throttle string // the client that can cause it as often as it likes
}

func (t *turn) log(e journal.Event, attrs ...slog.Attr) {
	t.logs = append(t.logs, entryLog{event: e, attrs: attrs})
}

// turn runs f as the owner of everything in memory. f may change liveness
// only: see decide.
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
	r.pump(t)
	return t
}

// decide runs f as the owner of everything in memory and on disk.
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
// what they ask to be saved has been.
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
				e.run.given = true
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
		r.cutOff(t, e, nil)
	}
	e.recheck(t.now)
	if st.Decision != was.Decision || st.DecisionUntil != was.DecisionUntil {
		r.decided(t, e)
	}
	r.schedule(e)
	r.reportCannotCheck(t, e, cannot)
}

// schedule sets the timer of e as its client wants it.
func (r *Registry) schedule(e *entry) {
	if due, ok := e.c.Due(); !ok {
		r.timers.stop(e)
	} else if r.timers.set(e, due) {
		poke(r.wake)
	}
}

// Do applies what an operator wants of the client called name: one of
// client.Enable, Disable, Approve, Deny, CheckedOK, StartChecker, StopChecks
// and the Set events. When it returns nil, the change is on disk. When it
// can't be saved, it is not made, unless it keeps the client from its secret:
// then it is made all the same, and the error says that it isn't saved.
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

// stricter reports whether ev is worth having even if it can't be saved.
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

// Ping returns nil when the owner is alive: when its loop answers, which
// takes both locks. It is for the watchdog.
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

// spread is where in its interval a client's first checker starts. Tests make
// it predictable.
var spread = rand.Float64

// poke puts a token into c unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func offset(now client.Instant) time.Duration {
	return time.Duration(now.Wall.UnixNano()) - now.Elapsed
}
