package lab_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mandos/internal/journal"
	"mandos/internal/lab"
)

// The server's address, and what it checks its clients at: an address for
// each, all of them the client host's.
const (
	serverAddress = "fd00::1"
	clientAddress = "fd00::1%02d"
)

// tortured is how long things may take that are due, on a machine that does
// other things as well.
const tortured = 3 * time.Minute

// A torture is a server that faults of all kinds happen to, and clients that
// ask it all the time.
type torture struct {
	t              *testing.T
	began, length  time.Duration
	random         *rand.Rand
	link           *lab.Link
	server, client *lab.Host
	clients        []*known
	askers         *lab.Process
	booting        string // section of a client that boots by Debian's program, and ours

	mu       sync.Mutex
	attempts []attempt            // not yet judged
	resting  map[string]bool      // they have said so
	unproved map[string][]attempt // hand-outs that the journal wasn't seen to have, by client and port

	ready     time.Duration // the last time at which the server was seen to be well
	duration  int           // approval_duration of steady-0 in ms, as an operator has set it; 0: not acknowledged
	process   string        // the server's, then
	skewed    string        // the server's process whose clock was set, if it still runs
	full      bool          // the state's disk is full, which must make no difference
	baseline  map[string]int
	journalAt string        // up to where the journal was read
	cutAt     time.Duration // when the server's power was last cut
	kills     []span        // of journald, each while it may explain that an entry is lost
	handouts  int
	lost      int // hand-outs whose entry was lost in a power cut, or with journald
	acts      map[string]int
}

// TestTorture does to a server, for as long as TORTURE says (such as 30m), what
// can happen to one, in an order that TORTURE_SEED decides; and holds all the
// time that no client gets its secret that must not, that one which was disabled
// stays so, that all others are served as soon as it is over, that each
// hand-out is in the journal, and that nothing leaks. A run can be repeated by
// its seed as far as the machine does the same things in the same time.
// TORTURE_ACTS leaves only those acts whose name it matches.
func TestTorture(t *testing.T) {
	lab.Need(t)
	t.Parallel()
	length, seed := 2*time.Minute, uint64(167) // in which much comes early
	var err error
	if text := os.Getenv("TORTURE"); text != "" {
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("TORTURE_SEED"); text == "random" {
		seed = rand.Uint64N(1e6)
	} else if text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	suite := lab.Suites()[seed%uint64(len(lab.Suites()))]
	x := &torture{t: t, began: elapsed(), length: length, random: rand.New(rand.NewPCG(seed, 1)), acts: map[string]int{},
		resting: map[string]bool{}, unproved: map[string][]attempt{}}
	x.log("TORTURE=%v TORTURE_SEED=%d, on %s", length, seed, suite)
	x.setUp(suite)
	acts := x.allActs()
	if only := os.Getenv("TORTURE_ACTS"); only != "" {
		acts = slices.DeleteFunc(acts, func(a act) bool { return !regexp.MustCompile(only).MatchString(a.name) })
	}
	for i, end := 0, elapsed()+length; elapsed() < end && !t.Failed(); i++ {
		if i%len(acts) == 0 { // each once before any comes again
			x.random.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
		}
		if i == 0 {
			rank := func(a act) int {
				if slices.Contains(firstActs, a.name) {
					return 0
				}
				return 1
			}
			slices.SortStableFunc(acts, func(a, b act) int { return rank(a) - rank(b) })
		}
		act := acts[i%len(acts)]
		x.acts[act.name]++
		act.do()
		x.settle()
		if i%6 == 5 {
			x.audit()
		}
	}
	if t.Failed() {
		return
	}
	if x.full {
		x.makeRoom()
		x.settle()
	}
	x.audit()
	total := 0
	for _, n := range x.acts {
		total += n
	}
	x.log("%d acts of %d kinds, %d hand-outs, all but %d in the journal (those were lost in power cuts, or with a journald that was killed); no broken promise", total, len(x.acts), x.handouts, x.lost)
}

func (x *torture) log(format string, args ...any) {
	x.t.Helper()
	x.t.Logf("%7.1fs  %s", (elapsed() - x.began).Seconds(), fmt.Sprintf(format, args...))
}

// broken reports a broken promise, which ends the test.
func (x *torture) broken(what string) {
	x.t.Helper()
	if what != "" {
		x.log("BROKEN: %s", what)
		x.log("on the server:\n%s", x.server.Try("sh", "-c", "ps axf; systemctl --failed; systemctl list-jobs;"+
			" journalctl -b -o short-precise --no-pager -n 1000 | grep -v mandos-check-").Stdout)
		x.t.FailNow()
	}
}

// until waits until check is true.
func (x *torture) until(what string, check func() bool) {
	x.t.Helper()
	for end := elapsed() + tortured; !check(); time.Sleep(100 * time.Millisecond) {
		if elapsed() > end {
			x.broken("still not so: " + what)
		}
	}
}

func (x *torture) setUp(suite lab.Suite) {
	x.link = lab.NewLink(x.t)
	x.server = x.link.Boot(x.t, suite, "server", lab.Disks())
	x.client = x.link.Boot(x.t, suite, "client")
	x.server.Run("make", "-C", "/src", "install")
	setUnit(x.server, "lab-link.service", "[Service]\nExecStart=ip addr add "+serverAddress+"/64 dev host0\n")
	x.server.Run("ip", "addr", "add", serverAddress+"/64", "dev", "host0")
	setUnit(x.server, "mandos.service", "[Service]\nWatchdogSec=10\n") // as in the unit, only faster
	// Always in service; disabled and enabled; up and down; approved; in the
	// file and out of it; kept by checks alone.
	const steady, quick = time.Minute, 15 * time.Second
	for i, c := range []known{
		{name: "steady-0", timeout: steady, extended: steady, interval: 5 * time.Second},
		{name: "steady-1", timeout: steady, extended: steady, interval: 7 * time.Second},
		{name: "toggled-0", timeout: steady, extended: steady, interval: 5 * time.Second},
		{name: "toggled-1", timeout: steady, extended: steady, interval: 6 * time.Second},
		{name: "travels-0", timeout: quick, extended: 20 * time.Second, interval: 3 * time.Second},
		{name: "travels-1", timeout: quick, extended: 20 * time.Second, interval: 4 * time.Second},
		{name: "approved-0", timeout: steady, extended: steady, interval: 5 * time.Second, approvalDuration: 10 * time.Second},
		{name: "moves-0", timeout: steady, extended: steady, interval: 5 * time.Second},
		{name: "silent-0", timeout: steady, extended: steady, interval: 2 * time.Second, silent: true},
		{name: "stranger"},
	} {
		c.host = fmt.Sprintf(clientAddress, i)
		c.configured, c.asks = c.name != "stranger", !c.silent
		c.wanted, c.up = c.configured, c.configured
		if c.configured {
			c.state = enabled
		} else {
			c.bar(0, "it is in no file")
		}
		x.clients = append(x.clients, new(c))
	}
	x.client.CopyIn("/root/password", thePassword, 0o600)
	x.booting = x.client.Run("mandos-keygen", "--passfile", "/root/password", "--name", "boots", "--no-ssh") +
		"\nchecker = true\ninterval = PT30S\n"
	x.configure()
	x.server.Run("systemctl", "enable", "--now", "mandos.socket")
	x.server.Run("sync")
	x.startAskers()
	x.ready = elapsed()
	x.settle()
	x.audit()
}

// configure writes clients.conf.
func (x *torture) configure() {
	var text strings.Builder
	text.WriteString(x.booting)
	for _, c := range x.clients {
		if !c.configured {
			continue
		}
		seconds := func(d time.Duration) string { return fmt.Sprintf("PT%dS", int(d.Seconds())) }
		lines := []string{"timeout = " + seconds(c.timeout), "extended_timeout = " + seconds(c.extended), "interval = " + seconds(c.interval)}
		if c.approvalDuration > 0 {
			lines = append(lines, "approval_delay = PT5S", "approval_duration = "+seconds(c.approvalDuration), "approved_by_default = no")
		}
		text.WriteString(strings.Replace(section(c.name, lines...), "host = "+c.name, "host = "+c.host, 1))
	}
	// As an editor does it that knows about power cuts.
	x.server.CopyIn(clientsConf+".new", text.String(), 0o600)
	x.server.Sh("sync " + clientsConf + ".new; mv " + clientsConf + ".new " + clientsConf + "; sync /etc/mandos")
}

// startAskers gives the client host its addresses, and has clients ask.
func (x *torture) startAskers() {
	for _, c := range x.clients {
		if c.up {
			x.client.Run("ip", "addr", "replace", c.host+"/64", "dev", "host0")
		}
	}
	x.askers = x.client.Start(as("askers", "["+serverAddress+"]:"+port)...)
	go func(lines <-chan string) {
		for line := range lines {
			x.heard(line)
		}
	}(x.askers.Lines())
	for _, c := range x.clients {
		if c.asks {
			x.askers.Tell("ask " + c.name)
		}
	}
}

func (x *torture) heard(line string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if name, ok := strings.CutPrefix(line, "rests "); ok {
		x.resting[name] = true
		return
	}
	a, err := parseAttempt(line)
	if err != nil {
		a.text = "wrong: an attempt that can't be read: " + line
	}
	x.attempts = append(x.attempts, a)
}

// rest has a client ask no more, and waits until nothing of it is under way.
func (x *torture) rest(clients ...*known) {
	x.t.Helper()
	x.mu.Lock()
	for _, c := range clients {
		delete(x.resting, c.name)
	}
	x.mu.Unlock()
	for _, c := range clients {
		x.askers.Tell("rest " + c.name)
	}
	x.until("the clients rest", func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return !slices.ContainsFunc(clients, func(c *known) bool { return !x.resting[c.name] })
	})
}

func (x *torture) ask(c *known) {
	c.asks = true
	x.askers.Tell("ask " + c.name)
}

// judge looks at what clients have got since it was last called.
func (x *torture) judge() {
	x.t.Helper()
	x.mu.Lock()
	attempts := x.attempts
	x.attempts = nil
	x.mu.Unlock()
	for _, a := range attempts {
		i := slices.IndexFunc(x.clients, func(c *known) bool { return c.name == a.client })
		if i < 0 {
			x.broken("it can't be read: " + a.String())
		}
		x.broken(x.clients[i].judge(a))
		if a.got {
			x.handouts++
			key := handoutKey(a.client, strconv.FormatUint(a.port, 10))
			x.unproved[key] = append(x.unproved[key], a)
		}
	}
}

func handoutKey(client, port string) string { return client + " " + port }

// dump is what mandos-ctl says of the clients, and when it was asked for.
func (x *torture) dump() (all map[string]map[string]any, asked time.Duration) {
	x.t.Helper()
	x.until("mandos-ctl reaches the server", func() bool {
		asked = elapsed()
		r := x.server.Try("mandos-ctl", "--dump-json")
		all = nil
		return r.Status == 0 && json.Unmarshal([]byte(r.Stdout), &all) == nil
	})
	return all, asked
}

// running names the server's process.
func (x *torture) running() string {
	return x.server.Sh("cat /proc/sys/kernel/random/boot_id; systemctl show -P MainPID mandos.service")
}

// settle waits until the server is well, and compares what it says of clients
// with what is known; who may be served must be, and who may not, must be refused.
func (x *torture) settle() {
	x.t.Helper()
	all, asked := x.dump()
	now, process := elapsed(), x.running()
	clockWasSet := x.skewed != "" && x.skewed != process
	if process != x.process {
		for _, c := range x.clients {
			c.restarted(x.ready, now)
		}
	}
	x.judge()
	for _, c := range x.clients {
		c := c
		properties, found := all[c.name]
		if found != (c.configured && !c.removed) {
			x.broken(fmt.Sprintf("%s is known to the server: %v, in clients.conf: %v, removed: %v", c.name, found, c.configured, c.removed))
		}
		if !found {
			continue
		}
		excuse := ""
		switch least := min(c.timeout, c.extended) / 2; {
		case clockWasSet:
			excuse = "the clock that its time was saved by was another one"
		case c.silent && now-x.ready > least || !c.silent && now-c.served > least:
			excuse = "there was no time for it"
		}
		before := c.state
		x.broken(c.saw(properties["Enabled"] == true, asked, now, excuse))
		if c.state != before {
			if !c.up {
				excuse = "its host is away"
			}
			x.log("%s is seen to be %s (%s)", c.name, map[state]string{enabled: "enabled", disabled: "disabled"}[c.state], excuse)
		}
	}
	if got := all["steady-0"]["ApprovalDuration"]; x.duration != 0 && got != float64(x.duration) {
		x.broken(fmt.Sprintf("approval_duration of steady-0 is %v, an operator has set %v", got, x.duration))
	}
	x.ready, x.process = now, process
	if clockWasSet {
		x.skewed = ""
	}
	x.mend()

	// Thieves ask for who is away for too long.
	for _, c := range x.clients {
		if !c.up && c.configured && !c.asks && (c.barred() || elapsed() > c.limit) {
			if !c.barred() {
				c.bar(c.limit, "its time was up")
			}
			x.log("%s asks, though its time is up", c.name)
			x.ask(c)
		}
	}
	since, looked := elapsed(), elapsed()
	for _, c := range x.clients {
		if c.silent && c.state == enabled {
			x.until(c.name+" is checked", func() bool {
				now, _ := x.dump()
				return now[c.name]["LastCheckedOK"] != all[c.name]["LastCheckedOK"]
			})
			// Whoever was enabled just now had time for two checks only: what gave
			// it more is on disk before the server is killed again.
			time.Sleep(time.Second)
			x.ready = elapsed()
		}
		if !c.asks {
			continue
		}
		x.until(fmt.Sprintf("%s is refused or served as it should be, since %v: %+v", c.name, since, *c), func() bool {
			x.judge()
			switch {
			case c.barred():
				return c.refused >= since
			case c.approvalDuration > 0 || !c.up || c.state != enabled:
				return true
			}
			if c.refused > looked && c.served < c.refused { // has it expired, as nobody had time for it?
				looked = elapsed()
				all, asked := x.dump()
				excuse := ""
				if elapsed()-c.served > min(c.timeout, c.extended)/2 {
					excuse = "there was no time for it"
				}
				x.broken(c.saw(all[c.name]["Enabled"] == true, asked, elapsed(), excuse))
				x.mend()
			}
			return c.served >= since
		})
	}
}

// mend enables who has expired and is wanted.
func (x *torture) mend() {
	for _, c := range x.clients {
		if c.configured && !c.removed && c.up && c.wanted && c.state != enabled {
			x.log("%s is enabled again", c.name)
			x.until(c.name+" can be enabled", func() bool { return x.operate("--enable", c) })
		}
	}
}

// operate has an operator do something, and returns whether it was
// acknowledged.
func (x *torture) operate(verb string, c *known) bool {
	return x.operated(verb, c, func() bool { return x.server.Try("mandos-ctl", verb, c.name).Status == 0 })
}

// operated notes what an operator does, and how it ended.
func (x *torture) operated(verb string, c *known, do func() bool) bool {
	asked := elapsed()
	switch verb {
	case "--enable":
		c.mayEnable(asked)
	case "--disable", "--remove":
		c.mayDisable()
	case "--approve":
		c.approvals = append(c.approvals, approval{asked, never})
	}
	if !do() {
		return false
	}
	switch now := elapsed(); verb {
	case "--enable":
		c.enabledBy(now)
	case "--disable", "--remove":
		c.disabledBy(now)
	case "--approve":
		c.approvals[len(c.approvals)-1].done = now
	}
	return true
}

// audit looks for leaks, and for each hand-out in the journal, while nobody
// asks.
func (x *torture) audit() {
	x.t.Helper()
	asking := slices.DeleteFunc(slices.Clone(x.clients), func(c *known) bool { return !c.asks })
	x.rest(asking...)
	x.judge()
	x.server.Run("journalctl", "--sync")
	x.readJournal()
	for _, as := range x.unproved {
		for _, a := range as {
			if a.begun > x.cutAt && !x.journalDied(a) { // journald syncs every few minutes
				x.broken("a hand-out is not in the journal: " + a.String())
			}
			x.lost++
		}
	}
	clear(x.unproved)

	const units = "mandos.service mandos-checker.service"
	counts := func() map[string]int {
		found := map[string]int{}
		out := x.server.Sh("for u in " + units + `; do pid=$(systemctl show -P MainPID $u); test $pid != 0 || continue
			echo "$u descriptors $(ls /proc/$pid/fd | wc -l)"; echo "$u threads $(ls /proc/$pid/task | wc -l)"
			echo "$u KiB $(grep ^RssAnon: /proc/$pid/status | tr -dc 0-9)"; done
			echo "scopes $(systemctl list-units --all --plain --no-legend 'mandos-check-*' | wc -l)"
			echo "checkers' processes $(pgrep -u mandos-checker | wc -l)"`)
		for line := range strings.Lines(out) {
			if i := strings.LastIndexByte(line, ' '); i > 0 {
				found[line[:i]], _ = strconv.Atoi(strings.TrimSpace(line[i:]))
			}
		}
		return found
	}
	// A check may be under way at any moment, but not for long.
	limits := map[string]int{"scopes": 0, "checkers' processes": 0,
		"mandos.service descriptors": 2, "mandos-checker.service descriptors": 2}
	var last map[string]int
	x.until(fmt.Sprint("nothing has leaked beyond ", x.baseline), func() bool {
		last = counts()
		if x.baseline == nil && last["scopes"] == 0 {
			x.baseline = last
		}
		for what, more := range limits {
			if x.baseline == nil || last[what] > x.baseline[what]+more {
				return false
			}
		}
		return true
	})
	x.log("at rest: %v", last)

	// Goroutines can be counted only once.
	process := x.running()
	x.server.Run("systemctl", "kill", "--signal=QUIT", "mandos.service")
	pid := process[strings.LastIndexByte(process, '\n')+1:]
	stacks := 0
	x.until("the server has said what it was at", func() bool {
		x.server.Run("journalctl", "--sync")
		out := x.server.Try("journalctl", "-b", "-q", "-o", "cat", "_PID="+pid).Stdout
		stacks = len(goroutine.FindAllString(out, -1))
		return stacks > 0 && strings.Contains(out, "\nrip ")
	})
	if x.baseline["goroutines"] == 0 {
		x.baseline["goroutines"] = stacks
	}
	x.log("%d goroutines (at first %d)", stacks, x.baseline["goroutines"])
	if stacks > x.baseline["goroutines"]+10 { // checks that were under way
		x.broken(fmt.Sprintf("%d goroutines, at first there were %d", stacks, x.baseline["goroutines"]))
	}
	for _, c := range asking {
		x.ask(c)
	}
	x.settle()
	x.until("the server is found by Zeroconf", func() bool { return slices.Contains(browse(x.client), "IPv6 Mandos 6637") })
}

var goroutine = regexp.MustCompile(`(?m)^goroutine [0-9]+ `)

// journalDied reports whether journald was killed at a's moment, which explains
// one lost entry for each kill.
func (x *torture) journalDied(a attempt) bool {
	for i, k := range x.kills {
		if a.begun < k.end && a.end > k.begun {
			x.kills = slices.Delete(x.kills, i, i+1)
			return true
		}
	}
	return false
}

// readJournal finds hand-outs in the journal, since the last time.
func (x *torture) readJournal() {
	since := x.journalAt
	if since == "" {
		since = "@0"
	}
	now := x.server.Sh("date +@%s -d '-10 minutes'") // what is found twice does no harm
	for _, e := range x.server.Journal("_SYSTEMD_UNIT=mandos.service", "--since", since, event(journal.SecretReleased)) {
		peer := e.Text("MANDOS_PEER")
		key := handoutKey(e.Text("MANDOS_CLIENT"), peer[strings.LastIndexByte(peer, ':')+1:])
		delete(x.unproved, key)
	}
	x.journalAt = now
}

// pick returns one of the clients whose name begins with prefix.
func (x *torture) pick(prefix string) *known {
	var found []*known
	for _, c := range x.clients {
		if strings.HasPrefix(c.name, prefix) {
			found = append(found, c)
		}
	}
	return found[x.random.IntN(len(found))]
}

// within is a random time of up to d.
func (x *torture) within(d time.Duration) time.Duration {
	return time.Duration(x.random.Int64N(int64(d)))
}
