package registry

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mandos/internal/client"
)

// TestGraceIsOnDisk: the one extended timeout is saved before anybody can use
// it, so that a crash neither grants a second one nor takes it away.
func TestGraceIsOnDisk(t *testing.T) {
	clock := newManualClock()
	w := newWorld(t, setting("a"))
	start := func() { w.startIdle(clock, brokenChecker{w.checker}) } // after a crash
	pass := func(d time.Duration) {
		clock.now.Elapsed += d
		clock.now.Wall = clock.now.Wall.Add(d)
	}
	start()
	w.turn(func(t *turn) {
		w.byName["a"].c.Status.Check = client.Running
		w.step(t, w.byName["a"], client.CheckerDone{})
	})
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	pass(time.Hour)
	start() // and crash at once
	if v, _ := w.Get("a"); !v.Enabled || !v.Grace {
		t.Fatalf("it got no time to boot: %+v", v)
	}
	pass(5 * time.Minute)
	start()
	if v, _ := w.Get("a"); !v.Enabled || !v.Grace || v.Expires.Sub(clock.now.Wall) != 10*time.Minute {
		t.Errorf("after a crash it hasn't got the rest of its time: %+v", v)
	}
	pass(time.Hour)
	start()
	w.wantFetch('a', "Disabled")
}

// TestLastCheckIsOnDisk: that a check has failed is saved at once, as it
// decides who gets time to boot; so are a success after it and an operator's
// CheckedOK.
func TestLastCheckIsOnDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		vouched, again bool
		want           string
	}{
		"failed":                          {want: "Disabled"},
		"failed, and an operator vouches": {vouched: true, want: "secret of a"},
		"failed, and succeeded then":      {again: true, want: "secret of a"},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newManualClock()
			w := newWorld(t, setting("a"))
			start := func() { w.startIdle(clock, brokenChecker{w.checker}) } // after a crash
			ends := func(r client.CheckResult) {
				w.turn(func(t *turn) {
					w.byName["a"].c.Status.Check = client.Running
					w.step(t, w.byName["a"], client.CheckerDone{Result: r})
				})
			}
			start()
			ends(client.CheckResult{})
			if err := w.flush(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-w.hurry: // of the first
			default:
			}
			hurry := func() {
				select { // as the loop does that saves
				case <-w.hurry:
					if err := w.flush(); err != nil {
						t.Fatal(err)
					}
				default:
				}
			}
			ends(client.CheckResult{ExitStatus: 1})
			hurry()
			if tt.again {
				ends(client.CheckResult{})
				hurry()
			}
			if tt.vouched {
				w.do("a", client.CheckedOK{By: "a test"})
			}
			clock.now.Elapsed += time.Hour
			clock.now.Wall = clock.now.Wall.Add(time.Hour)
			start()
			w.wantFetch('a', tt.want)
		})
	}
}

// TestApprovalEndsOnDisk: an approval that was found to be over at one start,
// because the clock was wrong, is still over at the next start, when the clock
// is right.
func TestApprovalEndsOnDisk(t *testing.T) {
	for name, wrong := range map[string]time.Duration{"behind": -time.Hour, "ahead": 90 * time.Second} {
		t.Run(name, func(t *testing.T) {
			clock := newManualClock()
			set := approving("a")
			set.ApprovalDelay, set.ApprovalDuration = time.Nanosecond, time.Minute
			w := newWorld(t, set)
			start := func() { w.startIdle(clock, w.checker) } // after a crash
			start()
			w.do("a", client.Disable{By: "a test"})
			w.do("a", client.Approve{By: "a test"})
			clock.now.Wall = clock.now.Wall.Add(wrong)
			start()
			clock.now.Wall = clock.now.Wall.Add(-wrong)
			start()
			w.do("a", client.Enable{By: "a test"})
			w.wantFetch('a', "Approval timed out")
		})
	}
}

// TestFailedFlushIsTriedAgain: what could not be saved is saved later, though
// nothing else happens.
func TestFailedFlushIsTriedAgain(t *testing.T) {
	a := setting("a")
	a.Interval = 130 * time.Second // not checked just when the heartbeat is saved
	bubble(t, func(t *testing.T, w *world) {
		store := w.store.(*MemoryStore)
		w.start()
		w.checker.setDown(true, "a")
		sleep(64 * time.Second)
		store.fail(errors.New("the disk is away"))
		sleep(2 * time.Second) // its first check
		w.wantLogged("the disk is away")
		store.fail(nil)
		sleep(20 * time.Second)
		if v, _ := w.Get("a"); v.LastCheckerStatus != 1 || w.checker.runs["a"] != 1 {
			t.Fatalf("%d checks, the last with %d; this tests nothing", w.checker.runs["a"], v.LastCheckerStatus)
		}
		state, err := store.Load()
		if err != nil {
			t.Fatal(err)
		}
		if got := state.Records[0].Saved.LastCheckerStatus; got != 1 {
			t.Errorf("on disk the last check ended with %d, want 1", got)
		}
	}, a)
}

// TestHeartbeat: though nothing happens, the last instant on disk is at most half
// a minute old. A clock that is set back to before it is noticed at a start.
func TestHeartbeat(t *testing.T) {
	set := setting("a")
	set.Interval, set.Timeout = 24*time.Hour, 48*time.Hour
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		for range 300 {
			sleep(time.Second)
			state, err := w.store.Load()
			if err != nil {
				t.Fatal(err)
			}
			if old := w.clock.Now().Wall.Sub(state.Seen); old > 30*time.Second {
				t.Fatalf("it is %v old", old)
			}
		}
	}, set)
}

// TestClockSetBackBeforeACrash: what is on disk follows the clock, so that the
// time for which the server is down counts as a whole.
func TestClockSetBackBeforeACrash(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		sleep(90 * time.Second)
		w.checker.setDown(true, "a")
		sleep(100 * time.Second) // it is checked a minute and three after the start
		w.clock.set(-time.Hour)
		sleep(maxSleep + saveLag)
		w.stop()
		sleep(61 * time.Minute)
		w.start()
		w.wantFetch('a', "Disabled")
	}, setting("a"))
}

// A doubtfulStore, while doubtful, reports failure for commits that it has
// saved, as can happen when a disk fails late.
type doubtfulStore struct {
	*MemoryStore
	doubtful atomic.Bool
}

func (s *doubtfulStore) Commit(b Batch) error {
	err := s.MemoryStore.Commit(b)
	if s.doubtful.Load() {
		return errors.New("the disk is in doubt")
	}
	return err
}

// TestFailedCommitIsUndone: a change that was refused because it could not be
// saved is not there after a crash either, provided that something could be
// saved in between.
func TestFailedCommitIsUndone(t *testing.T) {
	for name, change := range map[string]func(w *world) error{
		"enable":        func(w *world) error { return w.Do("a", client.Enable{By: "a test"}) },
		"reload":        func(w *world) error { _, err := w.Reload([]client.Settings{setting("b"), setting("c")}); return err },
		"remove client": func(w *world) error { return w.Remove("b", "a test") },
	} {
		bubble(t, func(t *testing.T, w *world) {
			store := &doubtfulStore{MemoryStore: w.store.(*MemoryStore)}
			w.store = store
			w.start()
			if err := w.Do("a", client.Disable{By: "a test"}); err != nil {
				t.Fatal(err)
			}
			store.doubtful.Store(true)
			if err := change(w); err == nil || !strings.Contains(err.Error(), "in doubt") {
				t.Fatalf("%s: it has not failed: %v", name, err)
			}
			store.doubtful.Store(false)
			sleep(2 * saveRetry)
			state, err := store.Load()
			if err != nil {
				t.Fatal(err)
			}
			enabled := map[string]bool{}
			for _, r := range state.Records {
				enabled[r.Name] = r.Saved.Enabled
			}
			if is, ok := enabled["a"]; !ok || is || !enabled["b"] {
				t.Errorf("%s: on disk are, and are enabled: %v", name, enabled)
			}
		}, setting("a"), setting("b"))
	}
}
