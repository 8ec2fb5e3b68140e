package store

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

var kills = flag.Int("kills", 20, "at how many random moments TestCrash kills a server")

// TestMain also runs the server that gets killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MANDOS_CRASH_DIR"); dir != "" {
		if err := victim(dir, os.Getenv("MANDOS_CRASH_AT")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const crashClients = 20

func crashSettings() []client.Settings {
	var all []client.Settings
	for i := range crashClients {
		name := fmt.Sprintf("client%d", i)
		all = append(all, client.Settings{
			Name: name, KeyID: keyid.OfSPKI([]byte(name)), Secret: secret.New([]byte("secret of " + name)), Checker: "true",
			Timeout: time.Hour, ExtendedTimeout: 2 * time.Hour, Interval: 10 * time.Minute,
			ApprovalDuration: time.Second, ApprovedByDefault: true, Enabled: true,
		})
	}
	return all
}

type alwaysUp struct{}

func (alwaysUp) Validate(string) error                                { return nil }
func (alwaysUp) Expand(s string, _ map[string]string) (string, error) { return s, nil }
func (alwaysUp) Run(context.Context, string, string, time.Duration) (client.CheckResult, error) {
	return client.CheckResult{}, nil
}

func crashRegistry(s *Store) (*registry.Registry, error) {
	return registry.New(context.Background(), registry.Options{Settings: crashSettings(), Store: s, Checker: alwaysUp{}, Log: slog.New(slog.DiscardHandler)})
}

var crashAddr = netip.MustParseAddrPort("[::1]:1")

// ask makes the calls that a connection makes, and reports whether it got a
// secret.
func ask(r *registry.Registry, name string) bool {
	caller := registry.Caller{Addr: crashAddr, Identity: keyid.Identity{KeyID: keyid.OfSPKI([]byte(name))}}
	found, err := r.Lookup(caller)
	if err != nil || r.Approve(context.Background(), found, caller) != nil {
		return false
	}
	h, err := r.Release(found, caller)
	if err != nil {
		return false
	}
	h.Done(nil)
	return true
}

// victim is a server under load. It tells on stdout, in one write each, what
// it is about to do ("try NAME WORD VALUE") and what it was told is done
// ("did NAME WORD VALUE"). at is "POINT NUMBER": there it kills itself.
func victim(dir, at string) error {
	if point, number, ok := strings.Cut(at, ":"); ok {
		left, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		failpoint = func(name string) {
			if name == point {
				if left--; left == 0 {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
					select {}
				}
			}
		}
	}
	s, err := Open(dir)
	if err != nil {
		return err
	}
	r, err := crashRegistry(s)
	if err != nil {
		return err
	}
	go r.Run(context.Background())
	fmt.Println("ready")
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(part)))
			for {
				name := fmt.Sprintf("client%d", part+4*rnd.IntN(crashClients/4))
				word, value := "enabled", "no"
				var ev client.Event
				switch rnd.IntN(5) {
				case 0:
					ev = client.Disable{By: "the victim"}
				case 1:
					ev, value = client.Enable{By: "the victim"}, "yes"
				case 2:
					// Longer each time: a shorter one may disable the client.
					v, _ := r.Get(name)
					d := v.Settings.Timeout + time.Second
					ev, word, value = client.SetDuration{By: "the victim", Property: client.PropTimeout, Value: d}, "timeout", d.String()
				case 3:
					if err := r.Do(name, client.StartChecker{}); err != nil {
						fmt.Println("error", err)
					}
					continue
				default:
					ask(r, name)
					continue
				}
				fmt.Println("try", name, word, value)
				if err := r.Do(name, ev); err != nil {
					fmt.Println("error", err)
					continue
				}
				fmt.Println("did", name, word, value)
			}
		})
	}
	wg.Wait()
	return nil
}

// A known is what is known about clients from what a victim has printed: for
// each name and word the values that may be true.
type known map[string][]string

func newKnown() known {
	k := known{}
	for _, set := range crashSettings() {
		k[set.Name+" enabled"] = []string{"yes"}
		k[set.Name+" timeout"] = []string{set.Timeout.String()}
	}
	return k
}

func (k known) read(line string) error {
	what, rest, _ := strings.Cut(line, " ")
	i := strings.LastIndexByte(rest, ' ')
	switch {
	case what == "ready":
	case what == "try" && i > 0:
		k[rest[:i]] = append(k[rest[:i]], rest[i+1:])
	case what == "did" && i > 0:
		k[rest[:i]] = []string{rest[i+1:]}
	default:
		return fmt.Errorf("the victim says %q", line)
	}
	return nil
}

// check starts a server on what the victim has left.
func (k known) check(t *testing.T, dir, when string) {
	t.Helper()
	s, err := open(dir, 5*time.Second)
	if err != nil {
		t.Fatalf("killed %s: %v", when, err)
	}
	defer s.Close()
	r, err := crashRegistry(s)
	if err != nil {
		t.Fatalf("killed %s: %v", when, err)
	}
	allowed := func(key, is string) bool {
		for _, v := range k[key] {
			if v == is {
				return true
			}
		}
		return false
	}
	for i := range crashClients {
		name := fmt.Sprintf("client%d", i)
		v, ok := r.Get(name)
		if !ok {
			t.Fatalf("killed %s: %s is gone", when, name)
		}
		enabled := "no"
		if v.Enabled {
			enabled = "yes"
		}
		if key := name + " enabled"; !allowed(key, enabled) {
			t.Errorf("killed %s: enabled of %s is %s, want one of %q", when, name, enabled, k[key])
		}
		if key := name + " timeout"; !allowed(key, v.Settings.Timeout.String()) {
			t.Errorf("killed %s: timeout of %s is %v, want one of %q", when, name, v.Settings.Timeout, k[key])
		}
		if served := ask(r, name); served != v.Enabled {
			t.Errorf("killed %s: %s enabled: %v, served: %v", when, name, v.Enabled, served)
		}
		// What is true now is what the next victim begins with.
		k[name+" enabled"] = []string{enabled}
		k[name+" timeout"] = []string{v.Settings.Timeout.String()}
	}
}

// run runs a victim in dir until it is dead; it is killed after the time after,
// or with 0 kills itself.
func (k known) run(t *testing.T, dir, at string, after time.Duration, wrap ...string) {
	t.Helper()
	args := append(wrap, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "MANDOS_CRASH_DIR="+dir, "MANDOS_CRASH_AT="+at)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := 5 * time.Minute // a busy disk takes long to sync
	if after > 0 {
		limit = after
	}
	timer := time.AfterFunc(limit, func() {
		if after == 0 {
			t.Errorf("%s: the victim doesn't get there", at)
		}
		_ = cmd.Process.Kill()
	})
	defer timer.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if err := k.read(lines.Text()); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("%s: the victim ended with %v, want that it is killed", at, cmd.ProcessState)
	}
}

// TestCrash kills a server under load at random moments, again and again on
// the same state file.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	k := newKnown()
	did, span := 0, 200*time.Millisecond
	for i := 0; i < *kills || did == 0 && i < *kills+10; i++ {
		if i >= *kills { // a machine so busy that none came to doing something
			span *= 2
		}
		after := 1 + rand.N(span)
		k.run(t, dir, "", after)
		for _, v := range k {
			if len(v) == 1 && v[0] != "yes" && v[0] != "1h0m0s" {
				did++
			}
		}
		k.check(t, dir, fmt.Sprintf("for the %dth time, after %v", i+1, after))
		if t.Failed() {
			return
		}
	}
	if did == 0 {
		t.Error("no victim has ever done anything")
	}
}

// TestCrashAtFailpoints kills a server at every point at which the store
// writes.
func TestCrashAtFailpoints(t *testing.T) {
	for _, point := range []string{"temporary made", "temporary written", "linked", "before commit", "put", "drop", "within commit", "after commit"} {
		if point == "drop" {
			continue // the victim removes nothing
		}
		numbers := []int{1}
		switch point {
		case "put", "within commit", "before commit", "after commit":
			numbers = []int{1, 2, 3, 10, 30}
		}
		for _, n := range numbers {
			t.Run(fmt.Sprintf("%s %d", point, n), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				k := newKnown()
				k.run(t, dir, fmt.Sprintf("%s:%d", point, n), 0)
				k.check(t, dir, "at "+point)
			})
		}
	}
}

// TestCrashAtSystemCalls kills a server at the Nth system call that changes
// a file, whatever N is.
func TestCrashAtSystemCalls(t *testing.T) {
	if !*thorough {
		t.Skip("takes minutes; run with -args -thorough")
	}
	if err := exec.Command("strace", "-o", "/dev/null", "true").Run(); err != nil {
		t.Fatalf("strace is needed and must work: %v", err)
	}
	for _, call := range []string{"pwrite64", "fdatasync", "fsync", "ftruncate", "linkat", "unlinkat"} {
		for n := 1; n <= 12; n++ {
			if n > 1 && call != "pwrite64" && call != "fdatasync" {
				break
			}
			t.Run(fmt.Sprintf("%s %d", call, n), func(t *testing.T) {
				dir := t.TempDir()
				k := newKnown()
				k.run(t, dir, "", 0, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
					"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n))
				k.check(t, dir, fmt.Sprintf("at %s %d", call, n))
			})
		}
	}
}
