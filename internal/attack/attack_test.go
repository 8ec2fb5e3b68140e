package attack_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// gather starts a crowd.
func gather(t *testing.T, c crowd) process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, exe, "crowd")
	if err := json.NewEncoder(p.stdin).Encode(c); err != nil {
		t.Fatal(err)
	}
	return p
}

// tally waits for a crowd's end, which disperse brings about.
func (p process) tally() (t tally) {
	p.T.Helper()
	if err := json.Unmarshal([]byte(p.Await(`tally: (.*)`)[1]), &t); err != nil {
		p.T.Fatal(err)
	}
	return t
}

func (p process) disperse() tally {
	p.T.Helper()
	p.stdin.Close()
	return p.tally()
}

// sources returns n addresses of the loopback network 127.net.0.0.
func sources(net, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("127.%d.%d.%d", net, i/250, i%250+1))
	}
	return all
}

// A scenario is an attack, and what goes on meanwhile.
type scenario struct {
	silent, dripping, strangers, refused int // strangers and refused: handshakes a second
	honest                               int // a second
	length                               time.Duration
}

// TestUnderAttack: while others attack from a few addresses, clients elsewhere
// are served; nothing is left of it afterwards, and the log stays readable.
func TestUnderAttack(t *testing.T) {
	s := scenario{silent: 500, dripping: 500, strangers: 20, refused: 20, honest: 10, length: 3 * time.Second}
	if full() {
		s = scenario{silent: 5000, dripping: 5000, strangers: 200, refused: 100, honest: 50, length: 60 * time.Second}
	}
	const clients, disabled, unknown = 64, 64, 1000 // keys: clients are those before disabled
	var sections []string
	for n := range clients {
		sections = append(sections, section(n))
	}
	sections = append(sections, section(disabled, "enabled = no"))
	server, addr := serve(t, sections)
	honest := sources(9, clients)
	for n := range clients {
		if err := get(honest[n], addr, n); err != nil {
			t.Fatal(err)
		}
	}
	var files int // now
	settled := func() bool {
		was := files
		files = server.openFiles()
		return files == was
	}
	eventually(t, "the server settles", settled)
	calm := files
	memory := server.memory("VmRSS")

	idle := gather(t, crowd{Addr: addr, Sources: sources(1, 2), Silent: s.silent, Dripping: s.dripping})
	strangers := gather(t, crowd{Addr: addr, Sources: sources(2, 1), Rate: s.strangers, Key: unknown, Keys: 100})
	refused := gather(t, crowd{Addr: addr, Sources: sources(3, 1), Rate: s.refused, Key: disabled, Keys: 1})
	for _, p := range []process{idle, strangers, refused} {
		p.Await("begun")
	}
	eventually(t, "the crowd arrives", func() bool { return server.openFiles() > calm+s.silent })

	busy := server.processorTime()

	// The clients: as many a second as there are, whether the server keeps up
	// or not, so that one that waits hides no other.
	var mu sync.Mutex
	var waits []time.Duration
	var failures []error
	var asking sync.WaitGroup
	most := 0
	tick := time.NewTicker(time.Second / time.Duration(s.honest))
	defer tick.Stop()
	for i, end := 0, time.Now().Add(s.length); time.Now().Before(end); i++ {
		asking.Go(func() {
			n := i % clients
			start := time.Now()
			err := get(honest[n], addr, n)
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, time.Since(start))
			if err != nil {
				failures = append(failures, err)
			}
		})
		if i%s.honest == 0 { // counting takes the kernel long
			most = max(most, server.openFiles())
		}
		<-tick.C
	}
	asking.Wait()
	peak := server.memory("VmHWM")
	busy = (server.processorTime() - busy) / time.Duration(s.length.Seconds())

	tallies := map[string]tally{"idle": idle.disperse(), "strangers": strangers.disperse(), "refused": refused.disperse()}
	settled = func() bool {
		was := files
		files = server.openFiles()
		return files <= calm && files == was
	}
	eventually(t, "the server's descriptors are back to what they were", settled)
	for n := range clients {
		if err := get(honest[n], addr, n); err != nil {
			t.Errorf("a client after the attack: %v", err)
		}
	}
	eventually(t, "the server's descriptors are back to what they were", settled)
	after := server.memory("VmRSS")
	for _, err := range failures {
		t.Errorf("a client was not served: %v", err)
	}

	stacks := server.stacks()
	for _, stack := range stacks {
		if strings.Contains(stack, "internal/server.(*session)") {
			t.Errorf("a session is left: %s", stack)
		}
	}

	if len(stacks) > 40 { // the runtime's own are among them
		t.Errorf("%d goroutines are left", len(stacks))
	}

	lines := kinds(server.Log())
	handouts := lines["releasing a client's secret to it"]
	if want := len(waits) - len(failures) + 2*clients; handouts != want {
		t.Errorf("%d hand-outs are in the log, want %d", handouts, want)
	}
	// 20 of a kind in a minute, and a line for those that were left out.
	minutes := int(s.length/time.Minute) + 2
	for kind, n := range lines {
		if limit := 2*20*minutes + 20; kind != "releasing a client's secret to it" && n > limit {
			t.Errorf("%d lines %q, want at most %d", n, kind, limit)
		}
	}

	slices.Sort(waits)
	at := func(p float64) time.Duration {
		return waits[min(int(p*float64(len(waits))), len(waits)-1)].Round(100 * time.Microsecond)
	}
	t.Logf("clients: %d asked, %d not served; p50 %v, p99 %v, worst %v", len(waits), len(failures), at(0.5), at(0.99), at(1))
	t.Logf("server: %v of processor time a second; resident %d KiB before, at most %d KiB, %d KiB after; descriptors %d before, at most %d, %d after; goroutines after: %d",
		busy.Round(time.Millisecond), memory, peak, after, calm, most, files, len(stacks))
	for _, name := range []string{"idle", "strangers", "refused"} {
		t.Logf("%s: %+v", name, tallies[name])
	}
	for _, kind := range slices.Sorted(func(yield func(string) bool) {
		for kind := range lines {
			if !yield(kind) {
				return
			}
		}
	}) {
		t.Logf("log: %6d %s", lines[kind], kind)
	}
	if full() && at(0.99) > time.Second {
		t.Errorf("the p99 is %v, want at most 1s", at(0.99))
	}
}

var entry = regexp.MustCompile(`(?m)^.*?\b(?:NOTICE|INFO|WARNING|ERROR|CRITICAL) (?:\w+): ([^:\n]+)`)

// kinds counts a log's lines by their text.
func kinds(log string) map[string]int {
	_, log, _ = strings.Cut(log, "ready to serve clients")
	log, _, _ = strings.Cut(log, "SIGQUIT: quit")
	counts := map[string]int{}
	for _, m := range entry.FindAllStringSubmatch(log, -1) {
		counts[m[1]]++
	}
	return counts
}

// TestFewDescriptors: a server that may have few open files keeps to that, and
// serves clients all the same.
func TestFewDescriptors(t *testing.T) {
	server, addr := serveWith(t, 600, []string{section(0)})
	idle := gather(t, crowd{Addr: addr, Sources: sources(1, 2), Silent: 200, Dripping: 200})
	idle.Await("begun")
	eventually(t, "the crowd arrives", func() bool { return server.openFiles() > 100 })
	for range 20 {
		if err := get("127.9.0.1", addr, 0); err != nil {
			t.Errorf("a client is not served: %v", err)
		}
	}
	if n := server.openFiles(); n > 350 {
		t.Errorf("%d descriptors are open", n)
	}
	idle.disperse()
	server.stacks() // to the end of its log
	if lines := kinds(server.Log()); lines["could not accept a connection"] > 0 {
		t.Errorf("log: %v", lines)
	}
}

// TestStorm: hosts of one source that all boot at once are all served; in full,
// without having to ask twice.
func TestStorm(t *testing.T) {
	hosts := 300
	if full() {
		hosts = 10000
	}
	var sections []string
	for n := range hosts {
		sections = append(sections, section(n))
	}
	server, addr := serve(t, sections)
	storm := gather(t, crowd{Addr: addr, Sources: sources(1, 1), Hosts: hosts})
	got := storm.tally()
	<-storm.Ended
	slices.Sort(got.Served)
	peak, busy, its := server.memory("VmHWM"), server.processorTime(), storm.Cmd.ProcessState
	server.stacks() // to the end of its log
	if n := kinds(server.Log())["releasing a client's secret to it"]; n < hosts {
		t.Errorf("%d hand-outs are in the log, want at least %d", n, hosts)
	}
	t.Logf("%d hosts: p50 %.2f s, p99 %.2f s, the last %.2f s; asked again: %d", hosts,
		got.Served[hosts/2], got.Served[hosts*99/100], got.Served[hosts-1], got.Retried)
	t.Logf("server: %v of processor time, the hosts: %v; at most %d KiB resident; log: %v", busy, its.UserTime()+its.SystemTime(), peak, kinds(server.Log()))
	if full() && got.Retried > 0 {
		t.Errorf("%d times a host had to ask again", got.Retried)
	}
}
