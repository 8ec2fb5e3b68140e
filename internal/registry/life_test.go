package registry

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/client"
	"mandos/internal/secret"
)

// TestLife goes through a client's days. Each line says what happens at an
// instant after the start, and then how long the client has left; the rules
// are those of Debian's server.
func TestLife(t *testing.T) {
	const disabled = -1
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		began := time.Now()
		for _, line := range []struct {
			at     time.Duration
			what   string
			happen func()
			left   time.Duration
		}{
			{0, "a new client gets its timeout", func() {}, 5 * time.Minute},
			{time.Minute, "the first check, half of the interval later", func() {}, 5 * time.Minute},
			{2 * time.Minute, "time passes", func() {}, 4 * time.Minute},
			{3 * time.Minute, "the next check, an interval later", func() {}, 5 * time.Minute},
			{4 * time.Minute, "its secret is handed out", func() { w.wantFetch('a', "secret of a") }, 15 * time.Minute},
			{5 * time.Minute, "a check gives the timeout, even if that is less", func() {}, 5 * time.Minute},
			{6 * time.Minute, "it goes down", func() { w.checker.setDown(true, "a") }, 4 * time.Minute},
			{7 * time.Minute, "a failed check changes nothing", func() {}, 3 * time.Minute},
			{8 * time.Minute, "an operator vouches", func() { w.do("a", client.CheckedOK{}) }, 5 * time.Minute},
			{8 * time.Minute, "a longer timeout adds the difference", func() { w.do("a", client.SetDuration{Property: client.PropTimeout, Value: 7 * time.Minute}) }, 7 * time.Minute},
			{8 * time.Minute, "a shorter one takes it away", func() { w.do("a", client.SetDuration{Property: client.PropTimeout, Value: 5 * time.Minute}) }, 5 * time.Minute},
			{9 * time.Minute, "enabling an enabled client changes nothing", func() { w.do("a", client.Enable{}) }, 4 * time.Minute},
			{10 * time.Minute, "a restart keeps what is left", func() { w.restart() }, 3 * time.Minute},
			{11 * time.Minute, "the clock is set ahead", func() { w.clock.set(100 * time.Hour) }, 2 * time.Minute},
			{12 * time.Minute, "the clock is set back", func() { w.clock.set(-200 * time.Hour) }, time.Minute},
			{12*time.Minute + 59*time.Second, "its last second", func() { w.wantFetch('x', "Unknown") }, time.Second},
			{13 * time.Minute, "its time is up", func() { w.wantFetch('a', "Disabled") }, disabled},
			{14 * time.Minute, "it is up again", func() { w.checker.setDown(false, "a") }, disabled},
			{24 * time.Hour, "a day later", func() { w.restart() }, disabled},
			{48 * time.Hour, "an operator enables it: two intervals", func() { w.do("a", client.Enable{}) }, 4 * time.Minute},
			{48*time.Hour + time.Minute, "no check yet", func() {}, 3 * time.Minute},
			{48*time.Hour + 2*time.Minute, "the first after a full interval", func() {}, 5 * time.Minute},
			{48*time.Hour + 3*time.Minute, "another interval: a check now", func() { w.do("a", client.SetDuration{Property: client.PropInterval, Value: time.Minute}) }, 5 * time.Minute},
			{72 * time.Hour, "another day", func() {}, 5 * time.Minute},
			{72*time.Hour + time.Second, "the timeout is shortened to nothing", func() { w.do("a", client.SetDuration{Property: client.PropTimeout, Value: 0}) }, disabled},
		} {
			sleep(line.at - time.Since(began))
			line.happen()
			synctest.Wait()
			v, _ := w.Get("a")
			left := time.Duration(disabled)
			if v.Enabled {
				left = v.Expires.Sub(w.clock.Now().Wall)
			}
			if left != line.left {
				t.Errorf("at %v, %s: %v are left, want %v", line.at, line.what, left, line.left)
			}
		}
	}, setting("a"))
}

func TestWarnings(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		sleep(10 * time.Minute)
		if strings.Contains(w.logged(), "level=WARN") {
			t.Errorf("warned of a client that is well:\n%s", w.logged())
		}
		w.checker.setDown(true, "a")
		sleep(2 * time.Minute)
		w.wantLogged("failed for the first time", "MANDOS_EXPIRES=")
		if strings.Contains(w.logged(), "will be disabled soon") {
			t.Error("warned too early")
		}
		sleep(5 * time.Minute)
		for text, want := range map[string]int{"failed for the first time": 1, "will be disabled soon": 1, "a client was disabled": 1, "last checker exit status 1": 3} {
			if got := strings.Count(w.logged(), text); got < want || want == 1 && got > 1 {
				t.Errorf("%q is logged %d times, want %d", text, got, want)
			}
		}
	}, setting("a"))
}

// TestCannotCheck: while the helper is away, no client is disabled before its
// time, and the log says so.
func TestCannotCheck(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		sleep(10 * time.Minute)
		w.checker.mu.Lock()
		w.checker.broken = errors.New("the helper is away")
		w.checker.mu.Unlock()
		v, _ := w.Get("a")
		sleep(v.Expires.Sub(w.clock.Now().Wall) - time.Second)
		w.wantFetch('b', "secret of b") // gets its extended timeout
		if v, _ := w.Get("a"); !v.Enabled || v.LastCheckerStatus != 0 || v.CannotCheck == "" {
			t.Errorf("a second before its time is up: %+v", v)
		}
		if c := w.Counts(); c.CannotCheck != 2 {
			t.Errorf("%d clients can't be checked, want 2", c.CannotCheck)
		}
		sleep(time.Second)
		w.wantFetch('a', "Disabled")
		w.wantLogged("checkers could not be run", "the helper is away")
		w.checker.mu.Lock()
		w.checker.broken = nil
		w.checker.mu.Unlock()
		sleep(15 * time.Second)
		w.wantFetch('b', "secret of b")
		w.wantLogged("checkers can be run again")
	}, setting("a"), setting("b"))
}

// TestReload merges run-time values with a changed clients.conf.
func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.do("a", client.SetDuration{Property: client.PropTimeout, Value: time.Hour})
		w.do("a", client.SetText{Property: client.PropHost, Value: "elsewhere"})
		w.do("a", client.SetSecret{Value: secret.New([]byte("secret of a, new"))})
		w.restart()
		want := func(when string, timeout time.Duration, host, secret string) {
			t.Helper()
			v, _ := w.Get("a")
			if v.Settings.Timeout != timeout || v.Settings.Host != host {
				t.Errorf("%s: timeout %v, host %q; want %v, %q", when, v.Settings.Timeout, v.Settings.Host, timeout, host)
			}
			w.wantFetch('a', secret)
		}
		want("after a restart", time.Hour, "elsewhere", "secret of a, new")
		sum := w.reload(setting("a"))
		if sum.Kept != 1 || len(sum.Changed) != 0 {
			t.Errorf("an unchanged file: %+v", sum)
		}
		want("an unchanged file", time.Hour, "elsewhere", "secret of a, new")
		a := setting("a")
		a.Timeout = 2 * time.Hour
		w.reload(a, setting("b"))
		want("another timeout", 2*time.Hour, "elsewhere", "secret of a, new")
		a.Secret = secret.New([]byte("secret of a, third"))
		w.reload(a)
		w.restart()
		want("another secret", 2*time.Hour, "elsewhere", "secret of a, third")

		if _, err := w.Reload([]client.Settings{a, withKey(setting("b"), 'a')}); err == nil || !strings.Contains(err.Error(), "same key_id") {
			t.Errorf("two clients with one key: %v, want an error", err)
		}
		want("after a bad one", 2*time.Hour, "elsewhere", "secret of a, third")
		w.reload(setting("b"))
		w.reload(setting("a"), setting("b"))
		want("gone and back", 5*time.Minute, "a", "secret of a")
	}, setting("a"))
}

// TestFeed compares the notices with the signals of Debian's server.
func TestFeed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		feed, views := w.Subscribe(100), w.List()
		if len(views) != 1 {
			t.Fatalf("%d clients, want 1", len(views))
		}
		expect := func(when, want string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(feed.C) > 0 {
				n := <-feed.C
				for _, c := range n.Changes {
					switch c := c.(type) {
					case client.PropertyChanged:
						got = append(got, string(c.Property))
					default:
						got = append(got, strings.TrimSuffix(reflect.TypeOf(c).Name(), "Notice"))
					}
				}
				if n.Kind != ClientChanged {
					got = append(got, fmt.Sprint("kind", n.Kind))
				}
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("%s: %s\nwant %s", when, s, want)
			}
		}
		w.wantFetch('a', "secret of a")
		expect("a hand-out", "LastCheckedOK Expires GotSecret")
		w.do("a", client.StartChecker{})
		expect("a check", "CheckerRunning CheckerStarted CheckerRunning LastCheckerStatus LastCheckedOK Expires CheckerCompleted")
		w.do("a", client.Disable{})
		expect("disabling", "Expires Enabled")
		w.wantFetch('a', "Disabled")
		expect("a refusal", "Rejected")
		w.do("a", client.Enable{})
		expect("enabling", "Enabled LastEnabled Expires")
		w.do("a", client.SetSecret{Value: secret.New([]byte("another"))})
		expect("a secret", "Secret")
		w.do("a", client.SetSecret{Value: secret.New([]byte("another"))})
		expect("the same secret", "")
		w.checker.setDown(true, "a")
		w.do("a", client.StartChecker{})
		expect("a check that fails", "CheckerRunning CheckerStarted CheckerRunning LastCheckerStatus CheckerCompleted")
		w.do("a", client.CheckedOK{})
		expect("an operator's word", "LastCheckedOK LastCheckerStatus Expires")
		w.do("a", client.CheckedOK{})
		expect("his word again", "LastCheckedOK Expires")
		w.do("a", client.SetDuration{Property: client.PropInterval, Value: 2 * time.Minute})
		expect("the same interval", "CheckerRunning CheckerStarted CheckerRunning LastCheckerStatus CheckerCompleted")
		w.wantFetch('x', "Unknown")
		expect("a stranger", "kind4")
		if err := w.Remove("a", "a test"); err != nil {
			t.Fatal(err)
		}
		expect("removal", "kind2")
		feed.Close()

		slow := w.Subscribe(1)
		defer slow.Close()
		for range 3 {
			w.wantFetch('x', "Unknown")
		}
		want := func(kinds ...NoticeKind) {
			t.Helper()
			for _, kind := range kinds {
				if n := <-slow.C; n.Kind != kind {
					t.Errorf("a slow reader gets %v, want %v", n.Kind, kind)
				}
			}
		}
		// The loss is reported even if nothing happens after it.
		want(ClientNotFound, Lost)
		w.wantFetch('x', "Unknown")
		w.wantFetch('x', "Unknown")
		want(ClientNotFound)
		w.wantFetch('x', "Unknown") // it is lost, too, and still Lost is to come
		want(Lost)
		w.wantFetch('x', "Unknown")
		want(ClientNotFound)
	}, setting("a"))
}
