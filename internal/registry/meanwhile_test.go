package registry

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// TestLate: time runs out while the timers stand still, as in a suspend or
// behind a slow disk. Whatever happens first after that mustn't undo it.
func TestLate(t *testing.T) {
	for name, first := range map[string]func(*Registry) error{
		"a checker's success": func(r *Registry) error { r.checks.Wait(); return nil },
		"an operator's word that it is well": func(r *Registry) error {
			return r.Do("a", client.CheckedOK{By: "a test"})
		},
		"a shorter interval": func(r *Registry) error {
			return r.Do("a", client.SetDuration{By: "a test", Property: client.PropInterval, Value: time.Second})
		},
		"a longer timeout": func(r *Registry) error {
			return r.Do("a", client.SetDuration{By: "a test", Property: client.PropTimeout, Value: time.Hour})
		},
		"a longer timeout in clients.conf": func(r *Registry) error {
			set := setting("a")
			set.Timeout = time.Hour
			_, err := r.Reload([]client.Settings{set})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := &manualClock{client.Instant{Wall: time.Now(), Elapsed: time.Hour}}
				r, err := New(t.Context(), Options{Settings: []client.Settings{setting("a")}, Store: &MemoryStore{},
					Checker: &fakeChecker{took: time.Second}, Clock: clock, Log: discard})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { r.stop(); r.checks.Wait() }()
				pass := func(d time.Duration) {
					r.mu.Lock() // under which everybody asks the clock
					defer r.mu.Unlock()
					clock.now.Elapsed += d
				}
				pass(2 * time.Minute)
				r.tick() // starts the checker
				pass(10 * time.Minute)
				if err := first(r); err != nil {
					t.Fatal(err)
				}
				r.checks.Wait()
				r.tick()
				if v, _ := r.Get("a"); v.Enabled {
					t.Errorf("it lives on until %v", v.Expires)
				}
			})
		})
	}
}

// TestOtherKeyWhileWaiting: connections that wait under the old key are
// refused, and are no longer counted after that.
func TestOtherKeyWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		got := make(chan string)
		go func() { got <- w.fetch('a') }()
		sleep(time.Second)
		w.reload(withKey(approving("a"), 'b'))
		if g := <-got; g != "Unknown" {
			t.Errorf("who waited got %q", g)
		}
		synctest.Wait()
		if c := w.Counts(); c.Waiting != 0 {
			t.Errorf("%d clients are waiting, want 0", c.Waiting)
		}
		go func() { got <- w.fetchAs(Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('b')}}) }()
		sleep(time.Second)
		if v, _ := w.Get("a"); !v.ApprovalPending {
			t.Error("one that waits isn't seen")
		}
		w.do("a", client.Approve{By: "a test"})
		if g := <-got; g != "secret of a" {
			t.Errorf("the other key got %q", g)
		}
		synctest.Wait()
		if c := w.Counts(); c.Waiting != 0 {
			t.Errorf("%d clients are waiting, want 0", c.Waiting)
		}
	}, approving("a"))
}

// TestDeniedWhileSending: a denial cuts a hand-out off like a disabling, even
// if it expires at once.
func TestDeniedWhileSending(t *testing.T) {
	set := approving("a")
	set.ApprovalDuration = time.Minute
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.Approve{By: "a test"})
		caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}}
		if err := w.Approve(t.Context(), "a", caller); err != nil {
			t.Fatal(err)
		}
		h, err := w.Release("a", caller)
		if err != nil {
			t.Fatal(err)
		}
		revoked := false
		h.OnRevoked(func() { revoked = true })
		w.do("a", client.SetDuration{By: "a test", Property: client.PropApprovalDuration, Value: 0})
		w.do("a", client.Deny{By: "a test"})
		if !revoked {
			t.Error("not revoked")
		}
		h.Done(nil)
	}, set)
}

// TestDeniedAfterApproved: an operator approves a client that waits, and denies
// it before its connection has noticed either. The denial counts, even if it
// expires at once.
func TestDeniedAfterApproved(t *testing.T) {
	set := approving("a")
	set.ApprovalDuration = 0
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		got := make(chan string)
		go func() { got <- w.fetch('a') }()
		sleep(time.Second)
		w.turn(func(turn *turn) { // with two calls of Do it depends on who comes first
			w.step(turn, w.byName["a"], client.Approve{By: "a test"})
			w.step(turn, w.byName["a"], client.Deny{By: "a test"})
		})
		if g := <-got; g != "Denied" {
			t.Errorf("it got %q", g)
		}
	}, set)
}

// TestBarredWhileSending: when a changed client would now be refused by
// Release, a hand-out in progress is cut off.
func TestBarredWhileSending(t *testing.T) {
	set := setting("a")
	set.Fingerprint, set.AllowExpiredKey = printOf('a'), true
	for name, tt := range map[string]struct {
		change  func(*world)
		revoked bool
	}{
		"barred from its protocol": {func(w *world) {
			barred := set
			barred.Generation = client.OnlyTLS13
			w.reload(barred)
		}, true},
		"barred as its key has expired": {func(w *world) {
			strict := set
			strict.AllowExpiredKey = false
			w.reload(strict)
		}, true},
		"to be approved": {func(w *world) {
			w.do("a", client.SetDuration{By: "a test", Property: client.PropApprovalDelay, Value: time.Minute})
		}, true},
		"another checker": {func(w *world) {
			w.do("a", client.SetText{By: "a test", Property: client.PropChecker, Value: "true"})
		}, false},
		"another secret": {func(w *world) {
			w.do("a", client.SetSecret{By: "a test", Value: secret.New([]byte("the other"))})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.start()
				caller := Caller{Addr: testAddr, Identity: keyid.Identity{Fingerprint: printOf('a')},
					Validity: keyid.Validity{NotAfter: w.clock.Now().Wall.Add(-time.Hour)}}
				h, err := w.Release("a", caller)
				if err != nil {
					t.Fatal(err)
				}
				defer h.Done(nil)
				revoked := false
				h.OnRevoked(func() { revoked = true })
				tt.change(w)
				if revoked != tt.revoked {
					t.Errorf("revoked: %t", revoked)
				}
			}, set)
		})
	}
}

// TestEnabledLate: an operator's Enable counts even if the client's time is up
// and no timer has noticed yet.
func TestEnabledLate(t *testing.T) {
	clock := &manualClock{client.Instant{Wall: time.Now(), Elapsed: time.Hour}}
	r, err := New(t.Context(), Options{Settings: []client.Settings{setting("a")}, Store: &MemoryStore{},
		Checker: &fakeChecker{}, Clock: clock, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	clock.now.Elapsed += time.Hour
	if err := r.Do("a", client.Enable{By: "a test"}); err != nil {
		t.Fatal(err)
	}
	r.tick()
	if v, _ := r.Get("a"); !v.Enabled {
		t.Error(v.Describe())
	}
}

// TestOldKeysCheck: the result of a checker that was started for the old key is
// ignored, even if another check is wanted meanwhile.
func TestOldKeysCheck(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.checker.took = 30 * time.Second
		w.start()
		sleep(70 * time.Second) // the first runs
		w.reload(withKey(setting("a"), 'b'))
		w.do("a", client.StartChecker{By: "a test"})
		sleep(25 * time.Second) // it would have ended
		if v, _ := w.Get("a"); !v.LastCheckedOK.IsZero() {
			t.Errorf("checked at %v", v.LastCheckedOK)
		}
		sleep(10 * time.Second)
		if v, _ := w.Get("a"); v.LastCheckedOK.IsZero() {
			t.Error("the new key's checker hasn't ended well")
		}
	}, setting("a"))
}

// A stubbornChecker can't be stopped.
type stubbornChecker struct{ *fakeChecker }

func (c stubbornChecker) Run(_ context.Context, name, command string, limit time.Duration) (client.CheckResult, error) {
	return c.fakeChecker.Run(context.Background(), name, command, limit)
}

// TestStoppedCheck: the success of a check that was stopped says nothing, even
// if it comes after an operator has enabled the client again or asked for
// another check.
func TestStoppedCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		events []client.Event
		runs   int // until the first is over
	}{
		"disabled":                       {[]client.Event{client.Disable{}}, 1},
		"disabled and enabled":           {[]client.Event{client.Disable{}, client.Enable{}}, 1},
		"stopped":                        {[]client.Event{client.StopChecks{}}, 1},
		"enabled, and asked for another": {[]client.Event{client.Disable{}, client.Enable{}, client.StartChecker{}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.checker.took = 30 * time.Second
				w.mod = func(o *Options) { o.Checker = stubbornChecker{w.checker} }
				w.start()
				sleep(70 * time.Second) // the first runs
				for _, ev := range tt.events {
					w.do("a", ev)
				}
				before, _ := w.Get("a")
				sleep(25 * time.Second) // it has ended
				after, _ := w.Get("a")
				if !after.LastCheckedOK.IsZero() || after.LastCheckerStatus != client.NeverChecked || !after.Expires.Equal(before.Expires) {
					t.Errorf("it counts: %+v, before %+v", after, before)
				}
				if runs := w.checker.runs["a"]; runs != tt.runs {
					t.Errorf("%d checks, want %d", runs, tt.runs)
				}
			}, setting("a"))
		})
	}
}

// TestGrantEndsWithDisabling: a connection that was approved before the client
// was disabled has to be approved again after it is enabled.
func TestGrantEndsWithDisabling(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.Approve{By: "a test"})
		caller := Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf('a')}}
		if err := w.Approve(t.Context(), "a", caller); err != nil {
			t.Fatal(err)
		}
		sleep(11 * time.Second) // the operator's word is over, the grant isn't
		w.do("a", client.Disable{By: "a test"})
		w.do("a", client.Enable{By: "a test"})
		if _, err := w.Release("a", caller); err == nil {
			t.Error("it was served")
		}
	}, approving("a"))
}
