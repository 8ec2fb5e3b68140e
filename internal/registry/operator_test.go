package registry

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

func (w *world) do(name string, ev client.Event) {
	w.t.Helper()
	if err := w.Do(name, ev); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reload(settings ...client.Settings) Summary {
	w.t.Helper()
	sum, err := w.Reload(settings)
	if err != nil {
		w.t.Fatal(err)
	}
	w.settings = settings
	return sum
}

func (w *world) wantLogged(parts ...string) {
	w.t.Helper()
	for _, part := range parts {
		if !strings.Contains(w.logged(), part) {
			w.t.Errorf("the log lacks %q:\n%s", part, w.logged())
		}
	}
}

func withKey(set client.Settings, key byte) client.Settings {
	set.KeyID = keyOf(key)
	return set
}

// TestOnlyAnOperatorEnables disables client a in some way, does something that
// could bring it back, and checks that it doesn't; then an operator enables it.
func TestOnlyAnOperatorEnables(t *testing.T) {
	a, b := setting("a"), setting("b")
	byOperator := func(w *world) { w.do("a", client.Disable{By: "a test"}) }
	byTimeout := func(w *world) {
		w.checker.setDown(true, "a")
		sleep(time.Hour)
		w.checker.setDown(false, "a")
	}
	for name, happen := range map[string]struct {
		f    func(w *world)
		name string // under which it is then; empty: a
		key  byte   // that it then has; 0: a
	}{
		"nothing":              {f: func(w *world) {}},
		"its checker finds it": {f: func(w *world) { sleep(24 * time.Hour) }},
		"a check by hand":      {f: func(w *world) { w.do("a", client.StartChecker{By: "a test"}); sleep(time.Minute) }},
		"an operator vouches":  {f: func(w *world) { w.do("a", client.CheckedOK{By: "a test"}) }},
		"an operator approves": {f: func(w *world) { w.do("a", client.Approve{By: "a test"}) }},
		"a longer timeout": {f: func(w *world) {
			w.do("a", client.SetDuration{By: "a test", Property: client.PropTimeout, Value: 100 * time.Hour})
		}},
		"another secret": {f: func(w *world) {
			w.do("a", client.SetSecret{By: "a test", Value: secret.New([]byte("secret of a, other"))})
		}},
		"a restart":                {f: func(w *world) { w.restart() }},
		"removed and re-added":     {f: func(w *world) { w.reload(b); w.reload(a, b) }},
		"removed for a day":        {f: func(w *world) { w.reload(b); sleep(24 * time.Hour); w.reload(a, b) }},
		"removed over a restart":   {f: func(w *world) { w.reload(b); w.restart(); w.settings = []client.Settings{a, b}; w.restart() }},
		"renamed":                  {f: func(w *world) { w.reload(withKey(setting("c"), 'a'), b) }, name: "c"},
		"renamed over a restart":   {f: func(w *world) { w.settings = []client.Settings{withKey(setting("c"), 'a'), b}; w.restart() }, name: "c"},
		"its key to a new section": {f: func(w *world) { w.reload(withKey(a, 'x'), b, withKey(setting("c"), 'a')) }, name: "c"},
		"another key":              {f: func(w *world) { w.reload(withKey(a, 'x'), b) }, key: 'x'},
		"another key and back":     {f: func(w *world) { w.reload(withKey(a, 'x'), b); w.reload(a, b) }},
		"key swapped":              {f: func(w *world) { w.reload(withKey(a, 'b'), withKey(b, 'a')) }, name: "b"},
		"name of a swapped key":    {f: func(w *world) { w.reload(withKey(a, 'b'), withKey(b, 'a')) }, key: 'b'},
		"key swapped in a restart": {f: func(w *world) { w.settings = []client.Settings{withKey(a, 'b'), withKey(b, 'a')}; w.restart() }, name: "b"},
		"half-written, reloaded":   {f: func(w *world) { w.reload(); sleep(time.Minute); w.reload(a, b) }},
		"half-written, restarted":  {f: func(w *world) { w.settings = nil; w.restart(); w.settings = []client.Settings{a, b}; w.restart() }},
		"enabled = no lost": {f: func(w *world) {
			off := a
			off.Enabled = false
			w.reload(off, b)
			w.reload(a, b)
		}},
		"clock set back":           {f: func(w *world) { w.clock.set(-30 * 24 * time.Hour); sleep(time.Minute) }},
		"clock set back, restart":  {f: func(w *world) { w.clock.set(-30 * 24 * time.Hour); w.restart(); sleep(time.Minute) }},
		"clock set ahead, restart": {f: func(w *world) { w.clock.set(30 * 24 * time.Hour); w.restart() }},
		"clock back while down":    {f: func(w *world) { w.stop(); w.clock.set(-30 * 24 * time.Hour); w.start() }},
		"crash loop": {f: func(w *world) {
			for range 20 {
				w.stop()
				sleep(10 * time.Minute)
				w.start()
			}
		}},
		"removed by an operator, let go, re-added": {f: func(w *world) {
			if err := w.Remove("a", "a test"); err != nil {
				w.t.Fatal(err)
			}
			w.restart()
			w.reload(a, b)
			if _, ok := w.Get("a"); ok {
				w.t.Error("a removed client is back, though clients.conf has had it all the time")
			}
			w.reload(b)
			w.reload(a, b)
		}},
	} {
		for how, disable := range map[string]func(*world){"by an operator": byOperator, "by time-out": byTimeout} {
			t.Run(name+"/"+how, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.start()
					sleep(time.Minute)
					w.wantFetch('a', "secret of a")
					disable(w)
					w.wantFetch('a', "Disabled")
					happen.f(w)
					synctest.Wait()
					name, key := "a", byte('a')
					if happen.name != "" {
						name = happen.name
					}
					if happen.key != 0 {
						key = happen.key
					}
					w.wantFetch(key, "Disabled")
					sleep(time.Hour)
					w.wantFetch(key, "Disabled")
					w.restart()
					w.wantFetch(key, "Disabled")

					w.do(name, client.Enable{By: "a test"})
					want := "secret of " + name
					if strings.HasPrefix(t.Name(), "TestOnlyAnOperatorEnables/another_secret") {
						want = "secret of a, other"
					}
					w.wantFetch(key, want)
					w.restart()
					w.wantFetch(key, want)
				}, a, b)
			})
		}
	}
}

// TestSuspend sleeps over the deadline with all timers standing still: the
// first thing after that is a connection.
func TestSuspend(t *testing.T) {
	clock := &manualClock{client.Instant{Wall: time.Now(), Elapsed: time.Hour}}
	w := &world{t: t, store: &MemoryStore{}, checker: &fakeChecker{}, settings: []client.Settings{setting("a")}, stop: func() {}}
	w.mod = func(o *Options) { o.Clock = clock }
	w.startIdle(clock, w.checker)
	w.wantFetch('a', "secret of a")
	clock.now.Elapsed += 15*time.Minute - 1
	w.wantFetch('a', "secret of a")
	clock.now.Elapsed += 15 * time.Minute
	w.wantFetch('a', "Disabled")

	// It was on disk before the refusal was heard: a crash right now
	// changes nothing.
	w.startIdle(clock, w.checker)
	w.wantFetch('a', "Disabled")
}

// TestGrace: after a site's power cut, clients that were up get time to boot,
// once.
func TestGrace(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.checker.setDown(true, "down")
		sleep(4 * time.Minute)
		w.stop()
		sleep(time.Hour)
		w.checker.setDown(true, "up", "new")
		w.start()
		w.wantFetch('d', "Disabled")
		w.wantFetch('u', "secret of up")
		for range 3 { // a crash loop renews nothing
			sleep(6 * time.Minute)
			w.restart()
		}
		w.wantFetch('u', "Disabled")
		w.wantLogged("time to boot once")

		// Down, and down again before a check has succeeded.
		w.do("new", client.Enable{By: "a test"})
		w.checker.setDown(false, "new")
		sleep(5 * time.Minute)
		w.stop()
		w.checker.setDown(true, "new")
		w.mod = func(o *Options) { o.Checker = brokenChecker{w.checker} }
		for _, want := range []string{"secret of new", "Disabled", "Disabled"} {
			sleep(time.Hour)
			w.start()
			w.wantFetch('n', want)
			w.stop()
		}
		w.start()
	}, setting("up"), setting("down"), setting("new"))
}

// A brokenChecker can't run.
type brokenChecker struct{ *fakeChecker }

func (brokenChecker) Run(context.Context, string, string, time.Duration) (client.CheckResult, error) {
	return client.CheckResult{}, errors.New("the helper is away")
}

func TestGraceEndsWithASuccessfulCheck(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		for range 3 {
			sleep(5 * time.Minute)
			w.stop()
			sleep(time.Hour)
			w.start()
			w.wantFetch('a', "secret of a")
			sleep(time.Second) // the first check comes at once
		}
		// Down right after it was handed its secret: a hand-out isn't a check.
		w.stop()
		sleep(time.Hour)
		w.checker.setDown(true, "a")
		w.start()
		sleep(time.Minute)
		w.wantFetch('a', "secret of a")
		w.stop()
		sleep(time.Hour)
		w.start()
		w.wantFetch('a', "Disabled")
	}, setting("a"))
}

func TestNoRestore(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.Disable{By: "a test"})
		w.stop()
		before := w.store.(*MemoryStore).commits
		w.mod = func(o *Options) { o.NoRestore = true }
		w.start()
		w.wantFetch('a', "secret of a")
		w.wantLogged("level=WARN", "the saved state is left aside", "MANDOS_COUNT=1")
		w.do("b", client.Disable{By: "a test"})
		w.stop()
		if after := w.store.(*MemoryStore).commits; after != before {
			t.Errorf("--no-restore wrote %d times to the store", after-before)
		}
		w.mod = nil
		w.start()
		w.wantFetch('a', "Disabled")
		w.wantFetch('b', "secret of b")
	}, setting("a"), setting("b"))
}

func TestFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		store := w.store.(*MemoryStore)
		w.start()
		w.do("b", client.Disable{By: "a test"})
		full := errors.New("no space left on device")
		store.fail(full)
		for _, ev := range []client.Event{client.Enable{By: "a test"}, client.Approve{By: "a test"}, client.SetSecret{By: "a test", Value: secret.New([]byte("another"))},
			client.SetDuration{By: "a test", Property: client.PropTimeout, Value: time.Hour}} {
			if err := w.Do("b", ev); !errors.Is(err, full) || !strings.Contains(err.Error(), "not changed") {
				t.Errorf("%T on a full disk: %v, want an error that says that nothing has changed", ev, err)
			}
		}
		w.wantFetch('b', "Disabled")
		for range 2 { // the second time it is disabled, but still not on disk
			if err := w.Do("a", client.Disable{By: "a test"}); !errors.Is(err, full) || !strings.Contains(err.Error(), "tried again") {
				t.Errorf("disabling on a full disk: %v, want an error that says that it is in force, and saved later", err)
			}
		}
		w.wantFetch('a', "Disabled")
		if err := w.Remove("c", "a test"); !errors.Is(err, full) {
			t.Errorf("removing on a full disk: %v, want an error", err)
		}
		if _, err := w.Reload(nil); !errors.Is(err, full) {
			t.Errorf("reloading on a full disk: %v, want an error", err)
		}
		w.wantFetch('c', "secret of c")
		w.checker.setDown(true, "c")
		sleep(time.Hour)
		w.wantFetch('c', "Disabled")
		w.wantLogged("could not save the state", "no space left")
		if !w.Counts().Unsaved {
			t.Error("the counts don't say that the state is unsaved")
		}
		store.fail(nil)
		sleep(time.Minute)
		w.wantLogged("saved again")
		w.restart()
		for _, key := range []byte("abc") {
			w.wantFetch(key, "Disabled")
		}
	}, setting("a"), setting("b"), setting("c"))
}

func TestStoreThatCantBeTrusted(t *testing.T) {
	store := &MemoryStore{}
	store.fail(errors.New("it is damaged"))
	_, err := New(t.Context(), Options{Settings: []client.Settings{setting("a")}, Store: store, Checker: &fakeChecker{}, Log: discard})
	if err == nil || !strings.Contains(err.Error(), "it is damaged") {
		t.Errorf("starting with it: %v, want an error", err)
	}
}

func approving(name string) client.Settings {
	set := setting(name)
	set.ApprovalDelay, set.ApprovalDuration, set.ApprovedByDefault = time.Minute, 10*time.Second, false
	return set
}

func TestApproval(t *testing.T) {
	byDefault := approving("a")
	byDefault.ApprovedByDefault = true
	for name, tt := range map[string]struct {
		set    client.Settings
		before client.Event // before the connection
		at     time.Duration
		during client.Event
		want   string
		wantAt time.Duration
	}{
		"timed out":             {set: approving("a"), want: "Approval timed out", wantAt: time.Minute},
		"by default":            {set: byDefault, want: "secret of a", wantAt: time.Minute},
		"approved":              {set: approving("a"), at: 20 * time.Second, during: client.Approve{}, want: "secret of a", wantAt: 20 * time.Second},
		"denied":                {set: byDefault, at: 20 * time.Second, during: client.Deny{}, want: "Denied", wantAt: 20 * time.Second},
		"approved beforehand":   {set: approving("a"), before: client.Approve{}, want: "secret of a"},
		"denied beforehand":     {set: byDefault, before: client.Deny{}, want: "Denied"},
		"disabled meanwhile":    {set: byDefault, at: 20 * time.Second, during: client.Disable{}, want: "Disabled", wantAt: 20 * time.Second},
		"no delay, denied":      {set: setting("a"), before: client.Deny{}, want: "secret of a"},
		"secret as it is then":  {set: byDefault, at: 20 * time.Second, during: client.SetSecret{Value: secret.New([]byte("secret of a, new"))}, want: "secret of a, new", wantAt: time.Minute},
		"default as it is then": {set: byDefault, at: 20 * time.Second, during: client.SetApprovedByDefault{}, want: "Approval timed out", wantAt: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.start()
				if tt.before != nil {
					w.do("a", tt.before)
					sleep(9 * time.Second)
				}
				if tt.during != nil {
					time.AfterFunc(tt.at, func() { w.do("a", tt.during) })
				}
				start := time.Now()
				w.wantFetch('a', tt.want)
				if took := time.Since(start); took != tt.wantAt {
					t.Errorf("it took %v, want %v", took, tt.wantAt)
				}
				synctest.Wait()
				if v, _ := w.Get("a"); v.ApprovalPending {
					t.Error("approval is still pending")
				}
			}, tt.set)
		})
	}
}

func TestApprovalIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.Approve{By: "a test"})
		sleep(10 * time.Second)
		w.wantFetch('a', "Approval timed out")
	}, approving("a"))
}

func TestWaiters(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.mod = func(o *Options) { o.MaxWaiters = 3 }
		w.start()
		got := make(chan string, 10)
		for range 5 {
			go func() { got <- w.fetch('a') }()
			sleep(time.Second)
		}
		for range 2 {
			if g := <-got; g != "Too many waiting" {
				t.Errorf("the oldest got %q", g)
			}
		}
		ctx, hangUp := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- w.Approve(ctx, "a", Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}})
		}()
		synctest.Wait()
		<-got // the third had to make room for this
		if c := w.Counts(); c.Waiting != 1 {
			t.Errorf("%d clients are waiting, want 1", c.Waiting)
		}
		hangUp()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("hanging up: %v", err)
		}
		w.do("a", client.Approve{By: "a test"})
		for range 2 {
			if g := <-got; g != "secret of a" {
				t.Errorf("an approved one got %q", g)
			}
		}
		if c := w.Counts(); c.Waiting != 0 {
			t.Errorf("%d clients are waiting, want 0", c.Waiting)
		}
	}, approving("a"))
}

// TestRevoked takes eligibility away while a secret is on its way.
func TestRevoked(t *testing.T) {
	for name, take := range map[string]func(*world){
		"disabled": func(w *world) { w.do("a", client.Disable{By: "a test"}) },
		"expired":  func(w *world) { w.checker.setDown(true, "a"); sleep(time.Hour) },
		"removed":  func(w *world) { w.reload() },
		"removed by an operator": func(w *world) {
			if err := w.Remove("a", "a test"); err != nil {
				w.t.Fatal(err)
			}
		},
		"another key": func(w *world) { w.reload(withKey(setting("a"), 'b')) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.start()
				caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}}
				if err := w.Approve(t.Context(), "a", caller); err != nil {
					t.Fatal(err)
				}
				h, err := w.Release("a", caller)
				if err != nil {
					t.Fatal(err)
				}
				early, late := 0, 0
				h.OnRevoked(func() { early++ })
				if early > 0 {
					t.Fatal("revoked too early")
				}
				take(w)
				if early != 1 {
					t.Errorf("revoked %d times, want once", early)
				}
				if h.OnRevoked(func() { late++ }); late != 1 {
					t.Errorf("who comes late is told %d times, want once", late)
				}
				h.Done(nil)
				h.Done(nil)
				w.wantLogged("could not be sent whole")
			}, setting("a"))
		})
	}
}

// TestReleaseNeedsApproval goes straight to Release.
func TestReleaseNeedsApproval(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}}
		if _, err := w.Release("a", caller); err == nil {
			t.Fatal("released without approval")
		}
		w.do("a", client.Approve{By: "a test"})
		if err := w.Approve(t.Context(), "a", caller); err != nil {
			t.Fatal(err)
		}
		w.do("a", client.Deny{By: "a test"})
		sleep(10 * time.Second)
		if _, err := w.Release("a", caller); err == nil {
			t.Fatal("released after a denial")
		}
		if _, err := w.Release("b", caller); err == nil {
			t.Fatal("released another's secret")
		}
	}, approving("a"), setting("b"))
}

// TestGrantIsForOnce: an approval is for one hand-out, to the connection that
// asked, and soon.
func TestGrantIsForOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}}
		approve := func() {
			w.do("a", client.Approve{By: "a test"})
			if err := w.Approve(t.Context(), "a", caller); err != nil {
				t.Fatal(err)
			}
			sleep(20 * time.Second) // the word itself is over
		}
		approve()
		other := caller
		other.Addr = netip.AddrPortFrom(caller.Addr.Addr(), caller.Addr.Port()+1)
		if _, err := w.Release("a", other); err == nil {
			t.Error("released to a caller who wasn't approved")
		}
		h, err := w.Release("a", caller)
		if err != nil {
			t.Fatal(err)
		}
		h.Done(nil)
		if _, err := w.Release("a", caller); err == nil {
			t.Error("released twice")
		}
		approve()
		sleep(grantLife)
		if _, err := w.Release("a", caller); err == nil {
			t.Error("released long after the approval")
		}
	}, approving("a"))
}
