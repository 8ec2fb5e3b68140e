package registry

import (
	"context"
	"flag"

	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mandos/internal/client"
	"mandos/internal/keyid"
)

var modelSteps = flag.Int("steps", 10_000, "how many random steps the model check takes: 200000 in make check, 10000000 in make model-nightly")

// stepsPerRun is how many steps one random run has.
const stepsPerRun = 100

// manualClock is set by hand.
type manualClock struct{ now client.Instant }

func newManualClock() *manualClock {
	return &manualClock{client.Instant{Wall: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Elapsed: time.Hour}}
}

func (c *manualClock) Now() client.Instant { return c.now }

// A promise is the naive statement of the first promise: a secret goes only to
// a client that is enabled, unexpired and approved at this moment. It knows
// nothing of records, tombstones or plans. It keeps its facts separately for
// each name and each key: a client is served only if both its name and its key
// are good.
type promise struct {
	disabled map[string]bool          // of a name or key; only an operator takes it out
	deadline map[string]time.Duration // elapsed time, of a name or key
	checked  map[string]bool          // the last check succeeded
	grace    map[string]bool          // lives on its one extended timeout
	decision map[string]client.Decision
	until    map[string]time.Duration // of the decision
	off      map[string]keyid.KeyID   // clients.conf says enabled = no already
}

func newPromise() *promise {
	return &promise{map[string]bool{}, map[string]time.Duration{}, map[string]bool{}, map[string]bool{}, map[string]client.Decision{}, map[string]time.Duration{}, map[string]keyid.KeyID{}}
}

// ids are what a client is known by.
func ids(set *client.Settings) [2]string {
	return [2]string{"name " + set.Name, "key " + string(set.KeyID[0])}
}

// appear: a client is configured. A name or key that was never seen starts
// afresh.
func (p *promise) appear(set *client.Settings, now time.Duration) {
	known := false
	for _, id := range ids(set) {
		_, k := p.deadline[id]
		known = known || k || p.disabled[id]
	}
	least, any := time.Duration(0), false
	for _, id := range ids(set) {
		if d, ok := p.deadline[id]; ok && (!any || d < least) {
			least, any = d, true
		}
	}
	for _, id := range ids(set) {
		if !known {
			p.deadline[id] = now + set.Timeout
			p.disabled[id] = !set.Enabled
		} else if _, ok := p.deadline[id]; !ok && any {
			p.deadline[id] = least
		}
	}
	key, off := p.off[set.Name]
	if !set.Enabled && !(off && key == set.KeyID) {
		p.disable(set)
	}
	delete(p.off, set.Name)
	if !set.Enabled {
		p.off[set.Name] = set.KeyID
	}
}

// pass: time has passed. Whatever is past its deadline is disabled for good.
func (p *promise) pass(now time.Duration) {
	for id, d := range p.deadline {
		if d <= now {
			p.disabled[id] = true
			delete(p.deadline, id)
		}
	}
}

func (p *promise) good(set *client.Settings, now time.Duration) bool {
	for _, id := range ids(set) {
		if d, ok := p.deadline[id]; p.disabled[id] || !ok || d <= now {
			return false
		}
	}
	return true
}

func (p *promise) approved(set *client.Settings, now time.Duration) bool {
	if set.ApprovalDelay == 0 {
		return true
	}
	if p.until[set.Name] > now {
		return p.decision[set.Name] == client.Approved
	}
	return set.ApprovedByDefault
}

func (p *promise) extend(set *client.Settings, now, d time.Duration) {
	if p.good(set, now) {
		for _, id := range ids(set) {
			p.deadline[id] = now + d
		}
	}
}

func (p *promise) disable(set *client.Settings) {
	for _, id := range ids(set) {
		p.disabled[id] = true
		delete(p.deadline, id)
	}
}

// enable: an operator enabled the client. Where only a bound is known, it may
// have been disabled although it seems good.
func (p *promise) enable(set *client.Settings, now time.Duration, exact bool) {
	if exact && p.good(set, now) {
		return
	}
	for _, id := range ids(set) {
		delete(p.disabled, id)
		p.deadline[id] = max(p.deadline[id], now+2*set.Interval)
	}
	p.grace[set.Name] = false
}

// down: the server was down, by the wall clock for gone. Clients that are
// configured as before may get their extended timeout; nothing else does.
func (p *promise) down(before, after map[string]client.Settings, now, gone, stopped time.Duration) {
	for name, until := range p.until {
		left := until - stopped - max(gone, 0)
		if gone < 0 && p.decision[name] != client.Disapproved {
			left = 0
		}
		p.until[name] = now + left
	}
	left := map[string]time.Duration{}
	for id, d := range p.deadline {
		left[id] = d - stopped
	}
	for id, l := range left {
		if gone < 0 || l <= gone {
			delete(p.deadline, id)
		} else {
			p.deadline[id] = now + l - gone
		}
	}
	for name, set := range after {
		was, same := before[name]
		same = same && was.KeyID == set.KeyID
		both := ids(&set)
		_, n := p.deadline[both[0]]
		_, k := p.deadline[both[1]]
		if same && !(n && k) && !p.disabled[both[0]] && !p.disabled[both[1]] && p.checked[name] && !p.grace[name] {
			p.grace[name] = true
			for _, id := range both {
				p.deadline[id] = now + was.ExtendedTimeout
			}
		}
	}
	for id := range left {
		if _, ok := p.deadline[id]; !ok {
			p.disabled[id] = true
		}
	}
}

// A modelWorld drives a registry by hand, without its loop, alongside a
// promise.
type modelWorld struct {
	t interface {
		Fatal(...any)
		Fatalf(string, ...any)
	}
	clock   *manualClock
	store   *MemoryStore
	r       *Registry
	up      map[string]bool
	conf    map[string]client.Settings // clients.conf
	current map[string]client.Settings // with what was changed at run time
	p       *promise
	exact   bool // nothing has happened that the promise knows only a bound of
	served  int
	steps   int
	log     secretFinder
}

func (w *modelWorld) Validate(string) error { return nil }
func (w *modelWorld) Expand(template string, _ map[string]string) (string, error) {
	return template, nil
}

// Run is the checker. It tells the promise its result; the registry can do
// nothing else meanwhile.
func (w *modelWorld) Run(_ context.Context, name, _ string, _ time.Duration) (client.CheckResult, error) {
	set := w.current[name]
	if !w.up[name] {
		w.p.checked[name] = false
		return client.CheckResult{ExitStatus: 1}, nil
	}
	w.p.checked[name] = true
	w.p.grace[name] = false
	w.p.extend(&set, w.clock.now.Elapsed, set.Timeout)
	return client.CheckResult{}, nil
}

// vouch is an operator's CheckedOK, which counts like a successful check.
func (w *modelWorld) vouch(set client.Settings) {
	now := w.clock.now.Elapsed
	w.do(set.Name, client.CheckedOK{By: "the model"})
	w.p.checked[set.Name] = true
	w.p.grace[set.Name] = false
	w.p.extend(&set, now, set.Timeout)
}

func (w *modelWorld) settings() []client.Settings {
	return slices.Collect(maps.Values(w.conf))
}

func (w *modelWorld) start() {
	r, err := New(context.Background(), Options{Settings: w.settings(), Store: w.store, Checker: w, Clock: w.clock,
		Log: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})), MaxChecks: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.r = r
	for _, name := range slices.Sorted(maps.Keys(w.conf)) {
		set := w.conf[name]
		w.p.appear(&set, w.clock.now.Elapsed)
	}
}

// settle does what the loops would do.
func (w *modelWorld) settle() {
	for {
		w.r.tick()
		w.r.checks.Wait()
		if e := w.r.timers.first(); e == nil || e.due > w.clock.now.Elapsed {
			break
		}
	}
	w.p.pass(w.clock.now.Elapsed)
	w.hurry()
}

// hurry flushes if that was asked for. In reality that happens within
// milliseconds, so a crash before it is like one before the event that asked
// for it.
func (w *modelWorld) hurry() {
	select {
	case <-w.r.hurry:
		w.flush()
	default:
	}
}

func (w *modelWorld) flush() {
	if err := w.r.flush(); err != nil {
		w.t.Fatal(err)
	}
}

// advance lets d pass, timer by timer.
func (w *modelWorld) advance(d time.Duration) {
	end := w.clock.now.Elapsed + d
	for {
		next := end
		if e := w.r.timers.first(); e != nil {
			next = min(max(e.due, w.clock.now.Elapsed), end)
		}
		gone := next - w.clock.now.Elapsed
		w.clock.now.Elapsed += gone
		w.clock.now.Wall = w.clock.now.Wall.Add(gone)
		w.p.pass(w.clock.now.Elapsed)
		w.settle()
		if next == end {
			break
		}
	}
	w.flush()
}

func (w *modelWorld) pick(t *rapid.T, label string) (client.Settings, bool) {
	if len(w.conf) == 0 {
		return client.Settings{}, false
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(w.conf))).Draw(t, label)
	return w.current[name], true
}

func (w *modelWorld) do(name string, ev client.Event) {
	if err := w.r.Do(name, ev); err != nil {
		w.t.Fatal(err)
	}
	w.r.checks.Wait()
	w.hurry()
}

// disrupt does one thing that may take eligibility away.
func (w *modelWorld) disrupt(set client.Settings, how int) {
	now := w.clock.now.Elapsed
	switch how {
	case 0:
		w.do(set.Name, client.Disable{By: "the model"})
		w.p.disable(&set)
	case 1:
		w.do(set.Name, client.Deny{By: "the model"})
		w.p.decision[set.Name], w.p.until[set.Name] = client.Disapproved, now+set.ApprovalDuration
	case 2:
		w.advance(20 * time.Minute)
	case 3:
		w.swapKeys()
	case 4:
		w.remove(set.Name)
	}
}

// fetch asks for a secret, and lets something happen before Release.
func (w *modelWorld) fetch(set client.Settings, meanwhile int) {
	caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: set.KeyID}}
	name, err := w.r.Lookup(caller)
	if err != nil || name != set.Name {
		w.t.Fatalf("looking up %s: %q, %v", set.Name, name, err)
	}
	approvable := w.p.approved(&set, w.clock.now.Elapsed)
	if err := w.r.Approve(context.Background(), name, caller); err != nil {
		w.refused(set, approvable, err)
		return
	}
	if !w.p.good(&set, w.clock.now.Elapsed) || !approvable {
		w.t.Fatalf("%s was approved: %+v\n%+v", name, w.p, w.r.byName[name].c.Status)
	}
	w.disrupt(set, meanwhile)

	now := w.clock.now.Elapsed
	h, err := w.r.Release(name, caller)
	is, there := w.current[name]
	owns := there && is.KeyID == set.KeyID
	denied := is.ApprovalDelay > 0 && w.p.until[name] > now && w.p.decision[name] == client.Disapproved
	if err != nil {
		// A grant that waits for twenty minutes is over.
		w.refused(is, owns && !denied && (is.ApprovalDelay == 0 || meanwhile != 2), err)
		return
	}
	if !owns || !w.p.good(&is, now) || denied {
		w.t.Fatalf("%s was served at %v: owns its key %v, denied %v, %+v", name, now, owns, denied, w.p)
	}
	w.served++
	h.Done(nil)
	w.p.extend(&is, now, is.ExtendedTimeout)
	w.settle()
}

// refused checks that there was a reason to refuse, as long as the promise
// knows everything.
func (w *modelWorld) refused(set client.Settings, approved bool, err error) {
	if w.exact && approved && w.p.good(&set, w.clock.now.Elapsed) {
		w.t.Fatalf("%s was refused (%v) for no reason: %+v", set.Name, err, w.p)
	}
}

// reload reads w.conf again.
func (w *modelWorld) reload() {
	if _, err := w.r.Reload(w.settings()); err != nil {
		w.t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(w.conf)) {
		set := w.conf[name]
		w.p.appear(&set, w.clock.now.Elapsed)
		if cur, ok := w.current[name]; ok && cur.KeyID == set.KeyID {
			continue
		}
		delete(w.p.grace, name)
		w.current[name] = set
	}
	for name := range w.current {
		if _, ok := w.conf[name]; !ok {
			delete(w.current, name)
			delete(w.p.off, name)
			delete(w.p.until, name)
		}
	}
	w.exact = false
	w.settle()
}

func (w *modelWorld) swapKeys() {
	names := slices.Sorted(maps.Keys(w.conf))
	if len(names) < 2 {
		return
	}
	a, b := w.conf[names[0]], w.conf[names[1]]
	a.KeyID, b.KeyID = b.KeyID, a.KeyID
	w.conf[a.Name], w.conf[b.Name] = a, b
	w.reload()
}

func (w *modelWorld) remove(name string) {
	delete(w.conf, name)
	w.reload()
}

// restart stops the server, or kills it, for some time on a clock that may be
// set meanwhile.
func (w *modelWorld) restart(clean bool, pause, set time.Duration) {
	if clean {
		w.flush()
	}
	stopped, wall := w.clock.now.Elapsed, w.clock.now.Wall
	before := maps.Clone(w.current)
	for name, set := range before {
		// A crash may have lost the hand-outs and checks of the last second.
		saved := w.store.records[name].Saved
		for _, id := range ids(&set) {
			if d, ok := w.p.deadline[id]; ok && saved.Enabled {
				w.p.deadline[id] = min(d, stopped+saved.Expires.Sub(wall))
			}
		}
	}
	w.clock.now.Elapsed += pause
	w.clock.now.Wall = w.clock.now.Wall.Add(pause + set)
	gone := w.clock.now.Wall.Sub(wall)
	switch seen := w.store.seen; {
	case seen.After(wall): // the clock was set back, and nothing on disk tells by how much
		gone = w.clock.now.Wall.Sub(seen)
	case gone < 0 && !w.clock.now.Wall.Before(seen): // nothing tells that it was set back: as if the server had ended then
		stopped -= wall.Sub(seen)
		gone = w.clock.now.Wall.Sub(seen)
	}
	w.p.down(before, w.conf, w.clock.now.Elapsed, gone, stopped)
	w.exact = w.exact && clean && set == 0
	w.start()
	w.settle()
}

func (w *modelWorld) step(t *rapid.T) {
	now := w.clock.now.Elapsed
	set, any := w.pick(t, "client")
	minutes := func(label string) time.Duration {
		return time.Duration(rapid.SampledFrom([]int{1, 10, 50, 119, 121, 299, 301, 899, 901, 3600, 9000}).Draw(t, label)) * time.Second
	}
	op := rapid.IntRange(0, 17).Draw(t, "op")
	if !any && op < 12 {
		op = 15
	}
	switch op {
	case 0, 1, 2, 3:
		w.fetch(set, -1)
	case 4:
		w.fetch(set, rapid.IntRange(0, 4).Draw(t, "meanwhile"))
	case 5:
		w.up[set.Name] = !w.up[set.Name]
	case 6:
		w.disrupt(set, rapid.IntRange(0, 4).Draw(t, "what"))
	case 7, 8:
		w.do(set.Name, client.Enable{By: "the model"})
		w.p.enable(&set, now, w.exact)
	case 9:
		w.do(set.Name, client.Approve{By: "the model"})
		w.p.decision[set.Name], w.p.until[set.Name] = client.Approved, now+set.ApprovalDuration
	case 10:
		w.do(set.Name, client.StartChecker{By: "the model"})
	case 11:
		w.vouch(set)
	case 12, 13:
		w.advance(minutes("time"))
	case 14:
		w.restart(rapid.Bool().Draw(t, "clean"), minutes("pause"), rapid.SampledFrom([]time.Duration{0, 0, 0, -time.Hour, time.Hour}).Draw(t, "set"))
	case 15: // a section that was, or is, or has another's key
		name := string(rapid.SampledFrom([]byte("abc")).Draw(t, "name"))
		set := modelSettings(name)
		set.KeyID = keyOf(rapid.SampledFrom([]byte("abcd")).Draw(t, "key"))
		set.Enabled = rapid.IntRange(0, 9).Draw(t, "enabled") > 0
		for other, o := range w.conf {
			if other != name && o.KeyID == set.KeyID {
				return
			}
		}
		w.conf[name] = set
		w.reload()
	case 16:
		set := rapid.SampledFrom([]time.Duration{-24 * time.Hour, -10 * time.Minute, 24 * time.Hour}).Draw(t, "set")
		w.clock.now.Wall = w.clock.now.Wall.Add(set)
		// On disk, a denial may then seem to be over until it is written anew;
		// but nothing that is over may seem to last.
		if set > 0 || rapid.Bool().Draw(t, "noticed") {
			w.settle()
			w.flush()
		}
	case 17: // suspend: time passes, and no timer comes
		d := minutes("suspended")
		w.clock.now.Elapsed += d
		w.clock.now.Wall = w.clock.now.Wall.Add(d)
		w.p.pass(w.clock.now.Elapsed)
		if set, ok := w.pick(t, "first"); ok {
			w.fetch(set, -1)
		}
		w.settle()
	}
	w.steps++
}

// modelSettings is setting, with approval for some.
func modelSettings(name string) client.Settings {
	set := setting(name)
	set.ApprovalDuration = time.Minute
	switch name {
	case "b":
		set.ApprovalDelay = time.Nanosecond
	case "c":
		set.ApprovalDelay, set.ApprovedByDefault = time.Nanosecond, false
	}
	return set
}

func newModelWorld() *modelWorld {
	w := &modelWorld{clock: newManualClock(),
		store: &MemoryStore{}, up: map[string]bool{"a": true, "b": true, "c": true},
		conf: map[string]client.Settings{}, p: newPromise(), exact: true}
	return w
}

// begin starts the server with the clients called names.
func (w *modelWorld) begin(names ...string) {
	for _, name := range names {
		w.conf[name] = modelSettings(name)
	}
	w.current = maps.Clone(w.conf)
	w.start()
}

// TestPromise runs random sequences of events against the naive statement.
func TestPromise(t *testing.T) {
	if err := flag.Set("rapid.checks", strconv.Itoa(max(1, *modelSteps/stepsPerRun))); err != nil {
		t.Fatal(err)
	}
	// The seed it prints is enough; no files.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		t.Fatal(err)
	}
	steps, served := 0, 0
	defer func(f func() float64) { spread = f }(spread)
	rapid.Check(t, func(t *rapid.T) {
		fixed := rapid.Float64Range(0, 0.999).Draw(t, "spread")
		spread = func() float64 { return fixed }
		w := newModelWorld()
		w.t = t
		w.begin("a", "b", "c")
		for range stepsPerRun {
			w.step(t)
		}
		if w.log.found != "" {
			t.Fatalf("the log holds a secret: %s", w.log.found)
		}
		steps, served = steps+w.steps, served+w.served
	})
	t.Logf("%d steps, %d secrets served", steps, served)
	if served < steps/50 {
		t.Errorf("only %d secrets were served in %d steps: this proves little", served, steps)
	}
}
