package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A fixedKey is the same in each run: key IDs are compared.
func fixedKey(name string) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

// recordApprovals writes down what is seen of a server when a client asks:
// what it gets, and the signals, in order. With mayHang, whole is false if it
// stood still.
func recordApprovals(t *testing.T, server Programs, mayHang bool) (lines []string, whole bool) {
	t.Helper()
	sections := []string{section("fence", rarely...)}
	keys := map[string]ed25519.PrivateKey{"stranger": fixedKey("stranger")}
	// An operator's word holds for long, so each of these hears only one.
	askers := []string{"asker", "approved", "denied"}
	for _, name := range askers {
		keys[name] = fixedKey(name)
		sections = append(sections, keySection(t, name, keys[name], append(slices.Clone(rarely), "approval_duration = PT1H")...))
	}
	o := server.operate(t, sections...)
	o.mayHang = mayHang
	defer func() {
		if hung := recover(); hung != nil && hung != errHung {
			panic(hung)
		}
	}()
	for _, client := range append(askers, "fence") {
		o.set(t, client, "CheckerRunning", true)
		o.hear(t, "CheckerCompleted", 1)
	}
	o.fence(t)
	part, asker := "", ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seen of %s:\n%s", server.server, strings.Join(lines, "\n"))
		}
	})
	add := func(format string, args ...any) {
		lines = append(lines, part+": "+fmt.Sprintf(format, args...))
	}
	const (
		pendingOver = `PropertiesChanged.*"ApprovalPending": <false>`
		rejected    = `fukt\.Mandos\.Client\.Rejected` // of the two names it is the second
		gotSecret   = `fukt\.Mandos\.Client\.GotSecret`
		needed      = `fukt\.Mandos\.Client\.NeedApproval`
		released    = gotSecret + "|" + rejected
	)
	// tell writes down the signals until each of patterns has matched one;
	// with the last, it waits until the connection is over for the server.
	tell := func(patterns ...string) {
		t.Helper()
		heard := o.gather(t, patterns...)
		if !slices.Contains(patterns, needed) {
			o.until(t, asker, "ApprovalPending", false)
		}
		for i, s := range append(heard, o.fence(t)...) {
			add("signal %d: %s", i+1, normal(s))
		}
	}
	set := func(property string, value any) {
		t.Helper()
		o.set(t, asker, property, value)
	}
	approve := func(yes bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), o.within())
		defer cancel()
		if err := o.conn.Object(mandosName, dbus.ObjectPath("/clients/"+asker)).CallWithContext(ctx, mandosName+".Client.Approve", 0, yes).Err; err != nil {
			o.failed(t, err)
		}
	}
	// decide approves or denies, and tells what follows.
	decide := func(yes bool, patterns ...string) {
		t.Helper()
		o.idle(t)
		approve(yes)
		tell(patterns...)
	}
	ask := func(who string) (got func()) {
		result := make(chan string, 1)
		go func() {
			secret, err := fetch(o.addr, keys[who])
			switch {
			case err != nil:
				result <- err.Error()
			case len(secret) == 0:
				result <- "nothing, and a proper end"
			default:
				result <- string(secret)
			}
		}()
		return func() {
			select {
			case what := <-result:
				add("the client gets %s", what)
			case <-time.After(o.within()):
				o.failed(t, fmt.Errorf("the client gets no answer: %w", context.DeadlineExceeded))
			}
		}
	}
	begin := func(client, name string, delay time.Duration, byDefault bool) {
		t.Helper()
		o.fence(t)
		part, asker = "asking, "+name, client
		set("Enabled", true)
		set("ApprovalDelay", uint64(delay.Milliseconds()))
		set("ApprovedByDefault", byDefault)
		o.fence(t)
	}

	begin("asker", "without approval", 0, true)
	got := ask(asker)
	tell(gotSecret)
	got()
	add("LastApprovalRequest is %s", normal(fmt.Sprint(o.get(t, asker, "LastApprovalRequest"))))

	begin("denied", "denied", time.Hour, false)
	got = ask(asker)
	tell(needed)
	add("ApprovalPending is %v, LastApprovalRequest is %s", o.get(t, asker, "ApprovalPending"), normal(fmt.Sprint(o.get(t, asker, "LastApprovalRequest"))))
	decide(false, rejected, pendingOver)
	got()
	add("ApprovalPending is %v", o.get(t, asker, "ApprovalPending"))

	begin("approved", "approved", time.Hour, false)
	got = ask(asker)
	tell(needed)
	decide(true, gotSecret, pendingOver)
	got()
	add("ApprovalPending is %v", o.get(t, asker, "ApprovalPending"))

	// Two that wait at once are left out, and so is one that hangs up: at the
	// word for the two Debian's server stands still, often for good, and the
	// other's end it sometimes never tells.

	begin("asker", "nobody answers, no", 100*time.Millisecond, false)
	got = ask(asker)
	tell(rejected, pendingOver)
	got()
	begin("asker", "nobody answers, yes", 100*time.Millisecond, true)
	got = ask(asker)
	tell(gotSecret, pendingOver)
	got()

	begin("asker", "disabled", 0, true)
	set("Enabled", false)
	o.fence(t)
	got = ask(asker)
	tell(rejected)
	got()
	begin("asker", "disabled, with approval", time.Hour, true)
	set("Enabled", false)
	o.fence(t)
	got = ask(asker)
	tell(rejected)
	got()
	for late := true; late; {
		const delay = 5 * time.Second // the time we have to disable it
		kept := len(lines)
		begin("asker", "disabled meanwhile", delay, true)
		asked := time.Now()
		got = ask(asker)
		tell(needed)
		set("Enabled", false)
		if late = time.Since(asked) >= delay; late { // that tells nothing
			got()
			o.until(t, asker, "ApprovalPending", false)
			o.fence(t)
			lines = lines[:kept]
			continue
		}
		tell(released, pendingOver)
		got()
	}

	begin("approved", "approved before", time.Hour, false)
	got = ask(asker)
	tell(gotSecret)
	got()
	begin("denied", "denied before", time.Hour, true)
	got = ask(asker)
	tell(rejected)
	got()
	begin("denied", "denied before, without approval", 0, true)
	got = ask(asker)
	tell(gotSecret)
	got()

	begin("asker", "with an unknown key", 0, true)
	got = ask("stranger")
	tell(`fukt\.Mandos\.ClientNotFound`)
	got()
	return lines, true
}

// gather returns the signals until each of patterns has matched one.
func (o *operated) gather(t *testing.T, patterns ...string) (heard []string) {
	t.Helper()
	for len(patterns) > 0 {
		line := o.next(t)
		heard = append(heard, line)
		for i, p := range patterns {
			if regexp.MustCompile(p).MatchString(line) {
				patterns = append(patterns[:i:i], patterns[i+1:]...)
				break
			}
		}
	}
	return heard
}

// idle waits until all threads of the server have slept for a while.
// Debian's server stands still for good if an operator's word comes just as
// its client's process begins to wait for one, and nobody else can tell when
// it has begun.
func (o *operated) idle(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for asleep := 0; asleep < 20; time.Sleep(50 * time.Millisecond) {
		asleep++
		stats, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range stats {
			stat, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			// State, parent and process group follow the name (proc(5)).
			fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			if fields[2] == strconv.Itoa(o.pid) && fields[0] != "S" && fields[0] != "Z" {
				asleep = 0
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the server never rests")
		}
	}
}
