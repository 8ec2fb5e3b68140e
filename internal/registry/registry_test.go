package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/secret"
)

// A fakeClock is a wall clock that can be set, on top of the time of a synctest
// bubble, which can't.
type fakeClock struct {
	mu    sync.Mutex
	start time.Time
	wall  time.Duration // the wall clock is ahead by this
}

func newClock() *fakeClock { return &fakeClock{start: time.Now()} }

func (c *fakeClock) Now() client.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().Round(0).UTC()
	return client.Instant{Wall: now.Add(c.wall), Elapsed: time.Since(c.start)}
}

// set moves the wall clock, and nothing else.
func (c *fakeClock) set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += by
}

// A fakeChecker finds clients up, down or not at all.
type fakeChecker struct {
	mu     sync.Mutex
	down   map[string]bool
	broken error
	took   time.Duration
	runs   map[string]int
	limits map[string]time.Duration
	order  []string // of all runs

	running, most int // at once
}

func (f *fakeChecker) Validate(template string) error {
	if strings.Contains(template, "%(bad)s") {
		return errors.New("%(bad)s is not known")
	}
	return nil
}

func (f *fakeChecker) Expand(template string, values map[string]string) (string, error) {
	return strings.ReplaceAll(template, "%(name)s", values["name"]), nil
}

func (f *fakeChecker) Run(ctx context.Context, name, command string, limit time.Duration) (client.CheckResult, error) {
	f.mu.Lock()
	took, broken, down := f.took, f.broken, f.down[name]
	if f.runs == nil {
		f.runs, f.limits = map[string]int{}, map[string]time.Duration{}
	}
	f.runs[name]++
	f.limits[name] = limit
	f.order = append(f.order, name)
	f.running++
	f.most = max(f.most, f.running)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.running--
	}()
	if took > 0 { // bubbles whose goroutines read timers that are due already crash Go 1.26's race detector at times
		select {
		case <-time.After(took):
		case <-ctx.Done():
			return client.CheckResult{}, context.Cause(ctx)
		}
	}
	if broken != nil {
		return client.CheckResult{}, broken
	}
	if down {
		return client.CheckResult{ExitStatus: 1}, nil
	}
	return client.CheckResult{}, nil
}

// atOnce returns how many checkers run, and how many have at most.
func (f *fakeChecker) atOnce() (now, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running, f.most
}

func (f *fakeChecker) setDown(down bool, names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down == nil {
		f.down = map[string]bool{}
	}
	for _, name := range names {
		f.down[name] = down
	}
}

// fail makes Load and Commit return err from now on; nil ends that.
func (m *MemoryStore) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// A world is a registry under test with everything around it. It survives
// restarts.
type world struct {
	t        *testing.T
	clock    *fakeClock
	store    Store
	checker  *fakeChecker
	settings []client.Settings
	mod      func(*Options)
	log      bytes.Buffer
	logMu    sync.Mutex

	*Registry
	stop func()
}

func (w *world) Write(p []byte) (int, error) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.Write(p)
}

// secretMark is a mark that is in every secret of these tests, in the clear and
// in the encodings in which bytes get into a log.
var secretMark = func() (marks []string) {
	const mark = "secret of "
	bytes := strings.Trim(fmt.Sprint([]byte(mark)), "[]")
	hex := hex.EncodeToString([]byte(mark))
	// It is where a secret begins; 9 bytes make 12 digits of base64.
	return []string{mark, bytes, strings.ReplaceAll(bytes, " ", ", "), hex, strings.ToUpper(hex), base64.StdEncoding.EncodeToString([]byte(mark[:9]))}
}()

func holdsSecret(log []byte) bool {
	return slices.ContainsFunc(secretMark, func(mark string) bool { return bytes.Contains(log, []byte(mark)) })
}

// A secretFinder is a log of which only the first entry with a secret is kept.
type secretFinder struct {
	mu    sync.Mutex
	found string
}

func (f *secretFinder) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found == "" && holdsSecret(p) {
		f.found = string(p)
	}
	return len(p), nil
}

// TestSecretFinder: the finder that looks for secrets in all logs would find
// one.
func TestSecretFinder(t *testing.T) {
	set := setting("a")
	for _, leak := range []any{set.Secret.Reveal(), string(set.Secret.Reveal()), fmt.Sprintf("%x", set.Secret.Reveal()), fmt.Sprintf("%X", set.Secret.Reveal()),
		fmt.Sprint(set.Secret.Reveal()), base64.StdEncoding.EncodeToString(set.Secret.Reveal())} {
		var f secretFinder
		slog.New(slog.NewTextHandler(&f, nil)).Info("", "leak", leak)
		if f.found == "" {
			t.Errorf("%v isn't found", leak)
		}
	}
	var f secretFinder
	slog.New(slog.NewTextHandler(&f, nil)).Info("", "secret", set.Secret, "settings", set)
	if f.found != "" {
		t.Errorf("what redacts itself is found: %s", f.found)
	}
}

func (w *world) logged() string {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.String()
}

func newWorld(t *testing.T, settings ...client.Settings) *world {
	return &world{t: t, clock: newClock(), store: &MemoryStore{}, checker: &fakeChecker{}, settings: settings, stop: func() {}}
}

// startIdle starts the server, at first or after a crash, without its loops: it
// does only what the test has it do.
func (w *world) startIdle(clock Clock, checker Checker) {
	w.t.Helper()
	r, err := New(w.t.Context(), Options{Settings: w.settings, Store: w.store, Checker: checker, Clock: clock, Log: discard})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Registry = r
}

// start starts the server.
func (w *world) start() {
	w.t.Helper()
	o := Options{Settings: w.settings, Store: w.store, Checker: w.checker, Clock: w.clock,
		Log: slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if w.mod != nil {
		w.mod(&o)
	}
	r, err := New(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Registry = r
	r.LogStart(w.t.Context())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("stopping: %v", err)
		}
		w.stop = func() {}
	}
}

func (w *world) restart() { w.stop(); w.start() }

// keyOf makes a key ID of a letter.
func keyOf(c byte) keyid.KeyID {
	var k keyid.KeyID
	k[0] = c
	return k
}

// setting returns a client with the defaults of clients.conf, whose key is
// made of the first letter of its name.
func setting(name string) client.Settings {
	return client.Settings{
		Name: name, KeyID: keyOf(name[0]), Secret: secret.New([]byte("secret of " + name)),
		Host: name, Checker: "fping -q -- %(name)s",
		Timeout: 5 * time.Minute, ExtendedTimeout: 15 * time.Minute, Interval: 2 * time.Minute,
		ApprovalDuration: time.Second, ApprovedByDefault: true, Enabled: true,
	}
}

var discard = slog.New(slog.DiscardHandler)

var testAddr = netip.MustParseAddrPort("[fe80::1%br0]:4711")

// fetch makes the calls that a connection makes, and returns the secret or the
// reason for the refusal.
func (w *world) fetch(key byte) string {
	w.t.Helper()
	return w.fetchAs(Caller{Addr: testAddr, Identity: keyid.Identity{KeyID: keyOf(key)}})
}

func (w *world) fetchAs(caller Caller) string {
	w.t.Helper()
	fail := func(err error) string {
		if refusal, ok := errors.AsType[*client.Refusal](err); ok {
			return string(refusal.Reason)
		}
		return err.Error()
	}
	name, err := w.Lookup(caller)
	if err != nil {
		return fail(err)
	}
	if err := w.Approve(w.t.Context(), name, caller); err != nil {
		return fail(err)
	}
	h, err := w.Release(name, caller)
	if err != nil {
		return fail(err)
	}
	defer h.Done(nil)
	return string(h.Secret.Reveal())
}

func (w *world) wantFetch(key byte, want string) {
	w.t.Helper()
	if got := w.fetch(key); got != want {
		w.t.Errorf("client %c got %q, want %q", key, got, want)
	}
}

// bubble runs f in a synctest bubble, and stops the server after it.
func bubble(t *testing.T, f func(t *testing.T, w *world), settings ...client.Settings) {
	defer func(f func() float64) { spread = f }(spread)
	spread = func() float64 { return 0.5 }
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, settings...)
		defer func() {
			w.stop()
			if holdsSecret([]byte(w.logged())) {
				t.Errorf("the log holds a secret:\n%s", w.logged())
			}
		}()
		f(t, w)
	})
}

func sleep(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestHandOut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		w.wantFetch('a', "secret of a")
		w.wantFetch('x', "Unknown")
		if err := w.Do("a", client.Disable{By: "a test"}); err != nil {
			t.Fatal(err)
		}
		w.wantFetch('a', "Disabled")
		w.restart()
		w.wantFetch('a', "Disabled")
		if err := w.Do("a", client.Enable{By: "a test"}); err != nil {
			t.Fatal(err)
		}
		w.restart()
		w.wantFetch('a', "secret of a")
	}, setting("a"))
}

func TestExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start()
		sleep(time.Hour)
		w.wantFetch('a', "secret of a")
		sleep(time.Hour)
		w.checker.setDown(true, "a")
		sleep(7 * time.Minute)
		w.wantFetch('a', "Disabled")
		w.checker.setDown(false, "a")
		sleep(time.Hour)
		w.wantFetch('a', "Disabled")
		v, _ := w.Get("a")
		if want := "no successful check since"; !strings.Contains(v.Describe(), want) {
			t.Errorf("%q lacks %q", v.Describe(), want)
		}
	}, setting("a"))
}
