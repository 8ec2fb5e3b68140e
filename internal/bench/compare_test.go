package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mandos/internal/bench"
	"mandos/internal/interop"
)

var (
	compareTo = flag.String("compare", "", "measure both servers, and write the results to this `file`")
	only      = flag.String("only", "", "measure only servers whose name and clients are in this `list`, like ours/1,debian/1000")
	profile   = flag.String("profile", "", "record what the servers do under load with perf, into this `folder`")
)

// A plan says what is measured of one server with a number of clients.
type plan struct {
	name    string
	clients int
	loads   []int // how many at once
	seconds time.Duration
	storms  map[string]time.Duration // by source: for how long at most
	kinds   bool                     // the hosts are those of bench.Kinds, and ask one kind after the other
}

const seconds = time.Second

func (p plan) String() string { return fmt.Sprintf("%s/%d", p.name, p.clients) }

func (p plan) wanted() bool {
	return *only == "" || slices.Contains(strings.Split(*only, ","), p.String())
}

var plans = []plan{
	{name: "ours", clients: 1},
	{name: "ours", clients: 1000, loads: []int{8}, seconds: 5 * seconds},
	{name: "ours", clients: 10_000, loads: []int{8}, seconds: 5 * seconds, storms: map[string]time.Duration{bench.OwnAddresses: 60 * seconds, bench.OneLink: 60 * seconds}},
	{name: "ours", clients: 100_000},
	{name: "ours", clients: len(bench.Kinds), seconds: 3 * seconds, kinds: true},
	{name: "debian", clients: 1, loads: []int{16, 64, 256}, seconds: 8 * seconds},
	{name: "debian", clients: 1000, loads: []int{8}, seconds: 20 * seconds},
	{name: "debian", clients: 10_000, loads: []int{8}, seconds: 60 * seconds, storms: map[string]time.Duration{bench.OwnAddresses: 40 * seconds}},
}

// What is compared closely is measured in rounds, in which each has its turn:
// the speed of a machine that has neighbours changes from one minute to the
// next.
var (
	rounds = 5
	turns  = []plan{
		{name: "ours", clients: 1, loads: []int{8, 256, 64, 16, 1}, seconds: 2 * seconds},
		{name: "ours", clients: 100_000, loads: []int{8, 256, 64, 16, 1}, seconds: 2 * seconds},
		{name: "debian", clients: 1, loads: []int{8, 1}, seconds: 2 * seconds},
	}
)

const (
	settle   = 5 * seconds // before memory is measured
	patience = 20 * seconds
	maxRate  = 4000 // secrets a second for which key pairs are made ahead
)

// TestCompare is the comparison itself. It asserts no figure.
func TestCompare(t *testing.T) {
	if *compareTo == "" {
		t.Skip("it takes ten minutes and a quiet machine: make bench-compare")
	}
	if os.Getuid() != 0 {
		t.Fatal("run it as root: the servers get a journal of their own, in a mount namespace")
	}
	debug.SetGCPercent(400) // the server lacks the time that the load takes
	results := bench.Results{
		Date: time.Now().UTC().Format(time.RFC3339), Commit: commit(t), Command: "make bench-compare",
		Machine: bench.ThisMachine(), Rounds: rounds,
	}
	current, err := filepath.EvalSymlinks(interop.DebianRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	_, results.Machine.Debian, _ = strings.Cut(filepath.Base(current), "-") // make deps names it so
	programs := map[string]interop.Programs{"ours": interop.Ours(t), "debian": interop.Debian(t)}
	hosts := bench.Hosts(100_000)
	for _, p := range plans {
		if !p.wanted() {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			results.Servers = append(results.Servers, p.measure(t, programs[p.name], slices.Clone(hosts[:p.clients])))
		})
		write(t, *compareTo, results) // what there is: the next may take long
	}
	t.Run("rounds", func(t *testing.T) { measureRounds(t, programs, hosts, &results) })
	write(t, *compareTo, results)
	fmt.Printf("\n%s\n", results.Table())
	for _, s := range results.Statements() {
		fmt.Println(s)
	}
}

func write(t *testing.T, name string, results bench.Results) {
	t.Helper()
	b, err := json.MarshalIndent(results, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commit names what is measured.
func commit(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (p plan) measure(t *testing.T, program interop.Programs, hosts []bench.Host) bench.Server {
	m := bench.Server{Name: p.name, Clients: p.clients}
	if p.kinds {
		setKinds(t, hosts)
	}
	dir := configure(t, hosts)
	s, first := startFastest(t, p, program, dir, hosts[0], "none")
	m.Starts = append(m.Starts, first)
	t.Logf("first start: ready after %v, secret after %v", first.Ready, first.Secret)
	if p.name == "ours" {
		s.stop(t)
		var next bench.Start
		s, next = startFastest(t, p, program, dir, hosts[0], "saved")
		m.Starts = append(m.Starts, next)
		t.Logf("next start: ready after %v, secret after %v", next.Ready, next.Secret)
	}
	time.Sleep(settle)
	m.Memory = s.pss(t)
	t.Logf("memory: %.1f MiB", float64(m.Memory)/(1<<20))

	target := bench.Target{Port: s.port, From: bench.OwnAddress}
	for _, n := range p.loads {
		l := s.load(t, target, hosts, n, p.seconds)
		m.Loads = append(m.Loads, l.Load)
		t.Log(l)
	}
	for i, what := range bench.Kinds {
		if !p.kinds {
			break
		}
		l := s.load(t, target, hosts[i:i+1], 8, p.seconds)
		l.What = what
		m.Loads = append(m.Loads, l.Load)
		t.Log(what, l)
	}
	for _, source := range []string{bench.OwnAddresses, bench.OneLink} {
		limit, ok := p.storms[source]
		if !ok {
			continue
		}
		target := target
		if source == bench.OneLink {
			target.From = bench.OneSource
		}
		ended := s.record(t, fmt.Sprintf("%v-storm-%s", p, source))
		storm := s.storm(t, target, hosts, limit)
		ended()
		storm.Source = source
		m.Storms = append(m.Storms, storm)
		t.Logf("storm from %s: %d of %d served; p50 %v p99 %v last %v; failed: %v; server %v, load %v, others %v", source,
			storm.Served, storm.Hosts, storm.P50, storm.P99, storm.Last, storm.Failed, storm.ServerCPU, storm.LoadCPU, storm.Others)
	}
	if p.name == "ours" && len(p.loads) > 0 {
		time.Sleep(settle)
		m.Loaded = s.pss(t)
		t.Logf("memory after the load: %.1f MiB; %d entries in the journal", float64(m.Loaded)/(1<<20), s.journal.entries(t))
	}
	return m
}

// measureRounds measures what turns say, and the floor before each turn of ours.
func measureRounds(t *testing.T, programs map[string]interop.Programs, hosts []bench.Host, results *bench.Results) {
	type contender struct {
		plan
		server  *server
		samples map[int]*sample // by hosts at once
	}
	var all []contender
	for _, p := range turns {
		if p.wanted() {
			s := start(t, p.name, programs[p.name], configure(t, hosts[:p.clients]), hosts[0])
			all = append(all, contender{p, s, map[int]*sample{}})
		}
	}
	for _, c := range all {
		c.server.rest(t)
	}
	var floors []bench.Floor
	for range rounds {
		for _, c := range all {
			if c.name == "ours" {
				floor, err := bench.MeasureFloor()
				if err != nil {
					t.Fatal(err)
				}
				floors = append(floors, floor)
			}
			for _, n := range c.loads {
				ended := c.server.record(t, fmt.Sprintf("%v-at-%d", c, n))
				l := c.server.load(t, bench.Target{Port: c.server.port, From: bench.OwnAddress}, hosts[:c.clients], n, c.seconds)
				ended()
				if c.samples[n] == nil {
					c.samples[n] = new(sample)
				}
				c.samples[n].add(l)
			}
		}
	}
	results.Floor = bench.MeanFloor(floors)
	t.Logf("floor: %+v: %v", results.Floor, results.Floor.Sum())
	for _, c := range all {
		i := slices.IndexFunc(results.Servers, func(m bench.Server) bool { return m.Name == c.name && m.Clients == c.clients })
		m := &results.Servers[i]
		for _, n := range slices.Sorted(maps.Keys(c.samples)) {
			m.Loads = append(m.Loads, c.samples[n].Load)
			t.Log(c, c.samples[n])
		}
	}
}

// setKinds makes the hosts those of bench.Kinds.
func setKinds(t *testing.T, hosts []bench.Host) {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa3072, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	hosts[1] = hosts[1].WithKey(p256)
	hosts[2] = hosts[2].WithKey(rsa3072)
	hosts[3] = hosts[3].Hybrid()
}

// startFastest starts a server, where that is quick three times, and returns how long the
// fastest start took: what else goes on here only makes it longer. The last
// server runs on.
func startFastest(t *testing.T, p plan, program interop.Programs, dir string, host bench.Host, state string) (s *server, fastest bench.Start) {
	t.Helper()
	times := 1
	if p.name == "ours" && p.clients < 100_000 {
		times = 3
	}
	for i := range times {
		if i > 0 {
			s.stop(t)
			if state == "none" {
				empty(t, filepath.Join(dir, "state"))
			}
		}
		s = start(t, p.name, program, dir, host)
		if i == 0 || s.ready < fastest.Ready {
			fastest = bench.Start{State: state, Ready: s.ready, Secret: s.secret}
		}
	}
	return s, fastest
}

// empty removes what is in a folder.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// configure makes a server's folder with the hosts' clients.conf.
func configure(t *testing.T, hosts []bench.Host) (dir string) {
	t.Helper()
	dir = interop.Folder(t)
	for name, mode := range map[string]os.FileMode{"etc": 0o755, "state": 0o700} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	uid, gid := interop.Unprivileged(t)
	if err := os.Chown(filepath.Join(dir, "state"), uid, gid); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "etc/clients.conf"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := bench.WriteConfig(f, hosts); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A server is one that runs.
type server struct {
	name          string
	cmd           *exec.Cmd
	tree          bench.Tree
	port          uint16
	ready, secret time.Duration
	journal       *journald
}

// own is run in a mount namespace of its own: it gives the server the
// journal's socket and the system log's, which $1 holds, lets it open
// $2 files or as many as may be, and tells on descriptor 4 when it is about to become the server.
const own = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal "$1/dev"
ln -s "$1/journal" /run/systemd/journal/socket
mount -t tmpfs tmpfs "$1/dev"
for n in null zero full random urandom tty; do : >"$1/dev/$n"; mount --bind "/dev/$n" "$1/dev/$n"; done
mkdir -m 1777 "$1/dev/shm"
ln -s "$1/log" "$1/dev/log"
mount --rbind "$1/dev" /dev
ulimit -n "$2" 2>/dev/null || ulimit -n "$(ulimit -Hn)"
shift 2
echo >&4
exec 4>&-
exec "$@"`

// start starts a server, and waits until host has had its secret from it.
func start(t *testing.T, name string, program interop.Programs, dir string, host bench.Host) *server {
	t.Helper()
	s := &server{name: name}
	sockets := interop.Folder(t)
	s.journal = startJournald(t, filepath.Join(sockets, "journal"), filepath.Join(sockets, "log"))
	ready := awaitReady(t, filepath.Join(sockets, "notify"))
	stderr, err := os.Create(filepath.Join(sockets, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(stderr.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	socket, port := bind(t, name == "ours")
	defer socket.Close()
	s.port = port
	about, toBe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer about.Close()

	real := program.ServerCommand(t)
	args := append([]string{"-m", "sh", "-c", own, "sh", sockets, limitNOFILE(t)}, real.Args...)
	s.cmd = exec.Command("unshare", append(args, "--foreground", "--no-zeroconf", "--socket", "3",
		"--configdir", filepath.Join(dir, "etc"), "--statedir", filepath.Join(dir, "state"))...)
	s.cmd.Env = append(real.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	if name == "ours" {
		s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+filepath.Join(sockets, "notify"))
	}
	s.cmd.ExtraFiles = []*os.File{socket, toBe}
	s.cmd.Stderr = stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toBe.Close()
	s.tree = bench.Tree(s.cmd.Process.Pid)
	t.Cleanup(func() {
		_ = syscall.Kill(-int(s.tree), syscall.SIGKILL)
		_ = s.cmd.Wait()
		if b, _ := os.ReadFile(stderr.Name()); len(b) > 0 && t.Failed() {
			t.Logf("%s said:\n%s", name, b[max(0, len(b)-4000):])
		}
	})
	if _, err := about.Read(make([]byte, 1)); err != nil {
		t.Fatal("the server's namespace could not be made")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if name == "ours" {
		select {
		case <-ready:
		case <-ctx.Done():
			t.Fatal("the server doesn't become ready")
		}
	} else {
		awaitPort(ctx, t, port)
	}
	s.ready = time.Since(began)
	if err := (bench.Target{Port: port, From: bench.OwnAddress}).Ask(ctx, host); err != nil {
		t.Fatal(err)
	}
	s.secret = time.Since(began)
	return s
}

// limitNOFILE is what mandos.service lets a server open.
func limitNOFILE(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile("../../systemd/mandos.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if limit, ok := strings.CutPrefix(line, "LimitNOFILE="); ok {
			return strings.TrimSpace(limit)
		}
	}
	t.Fatal("mandos.service has no LimitNOFILE=")
	return ""
}

// awaitPort waits until somebody listens on port.
func awaitPort(ctx context.Context, t *testing.T, port uint16) {
	t.Helper()
	for {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("nobody listens: %v", err)
		}
	}
}

// stop stops the server in good order.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

// rest waits, for some minutes at most, until the server does nothing: after its
// start, ours tells D-Bus of all clients at leisure.
func (s *server) rest(t *testing.T) {
	t.Helper()
	for range 60 {
		then := s.clock(t)
		time.Sleep(settle)
		if s.clock(t).Since(then).Server <= settle/100 {
			return
		}
	}
}

func (s *server) pss(t *testing.T) int64 {
	t.Helper()
	n, err := s.tree.PSS()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *server) clock(t *testing.T) bench.Clock {
	t.Helper()
	c, err := s.tree.Now()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A sample is a load, with what its percentiles are made of.
type sample struct {
	bench.Load
	waits []time.Duration
}

// add adds another load of the same kind.
func (s *sample) add(more sample) {
	s.AtOnce = more.AtOnce
	s.Duration += more.Duration
	s.InTime += more.InTime
	s.Served += more.Served
	s.ServerCPU += more.ServerCPU
	s.LoadCPU += more.LoadCPU
	s.Others += more.Others
	for why, n := range more.Failed {
		if s.Failed == nil {
			s.Failed = map[string]int{}
		}
		s.Failed[why] += n
	}
	s.waits = append(s.waits, more.waits...)
	slices.Sort(s.waits)
	s.P50, s.P99, s.Worst = bench.At(s.waits, 0.5), bench.At(s.waits, 0.99), bench.At(s.waits, 1)
}

func (s sample) String() string {
	return fmt.Sprintf("%d at once: %.1f/s (%d in %v, failed: %v), server %v, load %v each, others %v; p50 %v p99 %v worst %v",
		s.AtOnce, s.PerSecond(), s.InTime, s.Duration, s.Failed, s.CPUPer(), s.LoadCPU/time.Duration(max(1, s.Served)), s.Others, s.P50, s.P99, s.Worst)
}

// disturbed reports whether other processes had more than 5 % of a machine
// that was watched for d.
func disturbed(others, d time.Duration) bool {
	return others > d*time.Duration(runtime.NumCPU())/20
}

// load measures a load. Where other processes disturb it, it tries again, at
// most twice, and returns the least disturbed.
func (s *server) load(t *testing.T, target bench.Target, hosts []bench.Host, atOnce int, d time.Duration) (best sample) {
	t.Helper()
	for try := range 3 {
		target.Pairs = bench.MakePairs(maxRate * int(d/time.Second))
		began, then := time.Now(), s.clock(t)
		waits := target.Load(t.Context(), hosts, atOnce, d, patience)
		elapsed, had := time.Since(began), s.clock(t).Since(then)
		var l sample
		l.add(sample{bench.Load{
			AtOnce: atOnce, Duration: d, InTime: waits.InTime, Served: len(waits.Served), Failed: waits.Failed,
			ServerCPU: had.Server, LoadCPU: had.Load, Others: had.Others,
		}, waits.Served})
		if try == 0 || l.Others < best.Others {
			best = l
		}
		if s.name != "ours" || !disturbed(had.Others, elapsed) {
			break
		}
		t.Logf("%d at once: disturbed, as other processes had %v of %v", atOnce, had.Others, elapsed)
	}
	return best
}

func (s *server) storm(t *testing.T, target bench.Target, hosts []bench.Host, limit time.Duration) bench.Storm {
	t.Helper()
	// No deadline: then a connection fails by it that is given up.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(limit, cancel).Stop()
	target.Pairs = bench.MakePairs(len(hosts))
	then := s.clock(t)
	waits := target.Storm(ctx, hosts)
	had := s.clock(t).Since(then)
	return bench.Storm{
		Hosts: len(hosts), Cap: limit, Served: len(waits.Served), Failed: waits.Failed,
		P50: bench.At(waits.Served, 0.5), P99: bench.At(waits.Served, 0.99), Last: bench.At(waits.Served, 1),
		ServerCPU: had.Server, LoadCPU: had.Load, Others: had.Others,
	}
}

// record has perf record what the server does, if that is asked for, until
// the function that it returns is called.
func (s *server) record(t *testing.T, name string) (end func()) {
	t.Helper()
	if *profile == "" {
		return func() {}
	}
	file := filepath.Join(*profile, strings.NewReplacer(" ", "-", "/", "-").Replace(name)+".perf")
	cmd := exec.Command("perf", "record", "-q", "-F", "499", "-g", "-o", file, "-p", fmt.Sprint(int(s.tree)))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	}
}

// bind makes the socket that a server inherits. Ours gets it as from
// mandos.socket; Debian's listens itself, and that tells when it is ready.
func bind(t *testing.T, listen bool) (*os.File, uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{}); err != nil {
		t.Fatal(err)
	}
	if listen {
		if err := unix.Listen(fd, 4096); err != nil {
			t.Fatal(err)
		}
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "socket"), uint16(sa.(*unix.SockaddrInet6).Port)
}
