package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv6"

	"mandos/internal/clientkeys"
	"mandos/internal/keytls"
	"mandos/internal/testenv"
)

// These tests run the client on a real link: a pair of virtual Ethernet
// devices between two network namespaces. On the other side are avahi-daemon
// and Mandos servers, or hosts that mean harm.

// A link is such a pair: eth0 in each of the two namespaces.
type link struct {
	t                testing.TB
	client, server   string // the namespaces
	keys             string // the client's folder of keys
	secret, password string // file with the secret for these keys, and what it decrypts to
}

func newLink(t *testing.T) *link {
	t.Helper()
	testenv.Root(t, "for network namespaces")
	for program, pkg := range map[string]string{"ip": "iproute2", "unshare": "util-linux", "setpriv": "util-linux", "avahi-daemon": "avahi-daemon"} {
		testenv.Program(t, program, pkg)
	}
	id := fmt.Sprintf("mc%d-%d", os.Getpid(), nextLink())
	l := &link{t: t, client: id + "c", server: id + "s", keys: makeKeys(t), password: password}
	for _, ns := range []string{l.client, l.server} {
		_ = exec.Command("ip", "netns", "del", ns).Run() // of a killed process with our number
		l.must("ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		l.must("ip", "-n", ns, "link", "set", "lo", "up")
	}
	l.must("ip", "-n", l.client, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", l.server)

	pair, err := clientkeys.ReadPGPPair(filepath.Join(l.keys, clientkeys.PubKey), filepath.Join(l.keys, clientkeys.SecKey))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pair.Seal([]byte(l.password), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l.secret = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(l.secret, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

var nextLink = func() func() int {
	var mu sync.Mutex
	n := 0
	return func() int { mu.Lock(); defer mu.Unlock(); n++; return n }
}()

func (l *link) must(name string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// up brings both ends up; they get IPv6 link-local addresses.
func (l *link) up() {
	l.t.Helper()
	for _, ns := range []string{l.client, l.server} {
		l.must("ip", "-n", ns, "link", "set", "eth0", "up")
	}
}

// start runs a command in a namespace until the test ends.
func (l *link) start(ns string, stdout io.Writer, name string, args ...string) *exec.Cmd {
	l.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns, name}, args...)...)
	var stderr lockedBuffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	l.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if l.t.Failed() {
			l.t.Logf("%s said:\n%s", filepath.Base(name), &stderr)
		}
	})
	return cmd
}

// self is this test's program under the name of one of its commands.
func (l *link) self(command string) string {
	l.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	path := filepath.Join(l.t.TempDir(), command)
	if err := os.Symlink(exe, path); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// mandos starts a server that gives everybody the secret in a file, and
// returns its port. Without a file it knows nobody.
func (l *link) mandos(secretFile string) int {
	l.t.Helper()
	r, w := io.Pipe()
	l.start(l.server, w, l.self("fake-mandos"), secretFile)
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		l.t.Fatal(err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		l.t.Fatal(err)
	}
	return port
}

// fakeMandos is the program of mandos.
func fakeMandos() {
	secret, _ := os.ReadFile(os.Args[1])
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	for {
		tcp, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer tcp.Close()
			if _, err := bufio.NewReaderSize(tcp, 16).ReadString('\n'); err != nil {
				return
			}
			conn := keytls.Client(tcp, &keytls.Config{})
			_, _ = conn.Write(secret)
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}()
	}
}

// avahi announces services of the name _mandos._tcp on the server's side. It
// has folders of its own in place of the system's, and no D-Bus.
func (l *link) avahi(services map[string]int) {
	l.t.Helper()
	dir := l.t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "services"), 0o755); err != nil {
		l.t.Fatal(err)
	}
	n := 0
	for name, port := range services {
		n++
		service := fmt.Sprintf("<service-group><name>%s</name><service><type>_mandos._tcp</type><port>%d</port></service></service-group>\n", name, port)
		if err := os.WriteFile(filepath.Join(dir, "services", fmt.Sprintf("%d.service", n)), []byte(service), 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
	conf := "[server]\nhost-name=serverhost\nuse-ipv4=yes\nuse-ipv6=yes\nenable-dbus=no\n[publish]\npublish-aaaa-on-ipv4=no\npublish-a-on-ipv6=no\n[rlimits]\n"
	if err := os.WriteFile(filepath.Join(dir, "avahi-daemon.conf"), []byte(conf), 0o644); err != nil {
		l.t.Fatal(err)
	}
	script := `mount --make-rprivate / && mount --bind "$1" /etc/avahi && mount -t tmpfs tmpfs /run &&
		exec avahi-daemon --no-drop-root --no-chroot --no-rlimits`
	l.start(l.server, nil, "unshare", "-m", "sh", "-c", script, "sh", dir)
}

// patience is how long a client may take that needs a few seconds on a machine
// with nothing else to do.
const patience = 5 * time.Minute

// A fetching is a client that was started.
type fetching struct {
	*link
	stdout, stderr lockedBuffer
	ended          chan error
	cmd            *exec.Cmd
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *link) run(prefix []string, args ...string) *fetching {
	l.t.Helper()
	r := &fetching{link: l, ended: make(chan error, 1)}
	k := func(name string) string { return filepath.Join(l.keys, name) }
	full := append([]string{"netns", "exec", l.client}, prefix...)
	full = append(full, l.self("mandos-client"), "--debug", "--pubkey", k(clientkeys.PubKey), "--seckey", k(clientkeys.SecKey),
		"--tls-pubkey", k(clientkeys.TLSPubKey), "--tls-privkey", k(clientkeys.TLSPrivKey), "--retry", "1")
	r.cmd = exec.Command("ip", append(full, args...)...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	timer := time.AfterFunc(patience, r.kill)
	l.t.Cleanup(func() {
		timer.Stop()
		r.kill()
		if l.t.Failed() {
			l.t.Logf("the client said:\n%s", &r.stderr)
		}
	})
	return r
}

func (r *fetching) kill() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }

// says waits until the client has said something.
func (r *fetching) says(text string) {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(r.stderr.String(), text) {
			return
		}
	}
	r.t.Fatalf("the client hasn't said %q within %v", text, patience)
}

func (r *fetching) wantPassword() {
	r.t.Helper()
	if err := <-r.ended; err != nil || r.stdout.String() != r.password {
		r.t.Fatalf("the client printed %q, %v; want %q", r.stdout.String(), err, r.password)
	}
}

func TestDiscover(t *testing.T) {
	t.Run("link-local", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.up()
		l.avahi(map[string]int{"Mandos": l.mandos(l.secret)})
		r := l.run(nil)
		r.wantPassword()
		if !strings.Contains(r.stderr.String(), "[fe80::") {
			t.Error("no link-local address was used")
		}
	})
	t.Run("without privileges", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.up()
		l.avahi(map[string]int{"Mandos": l.mandos(l.secret)})
		for path := range map[string]bool{l.keys: true, filepath.Dir(l.keys): true} {
			l.must("chown", "-R", "65534:65534", path)
			l.must("chmod", "711", path)
		}
		r := l.run([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"})
		r.wantPassword()
	})
	t.Run("the server comes later", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.up()
		r := l.run(nil)
		r.says("looking for servers on interface eth0")
		l.avahi(map[string]int{"Mandos": l.mandos(l.secret)})
		r.wantPassword()
	})
	t.Run("the client brings the interface up, and takes it down again", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.must("ip", "-n", l.server, "link", "set", "eth0", "up")
		l.avahi(map[string]int{"Mandos": l.mandos(l.secret)})
		l.run(nil, "--interface", "eth0").wantPassword()
		out, err := exec.Command("ip", "-n", l.client, "link", "show", "eth0").Output()
		if err != nil || strings.Contains(string(out), ",UP") {
			t.Errorf("after it: %s %v", out, err)
		}
	})
	t.Run("IPv4 alone", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		for i, ns := range []string{l.client, l.server} {
			l.must("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
			l.must("ip", "-n", ns, "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		}
		l.up()
		l.avahi(map[string]int{"Mandos": l.mandos(l.secret)})
		r := l.run(nil)
		r.wantPassword()
		if !strings.Contains(r.stderr.String(), "192.0.2.2:") {
			t.Error("the IPv4 address wasn't used")
		}
	})
	t.Run("names with dots, blanks and umlauts", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.up()
		l.avahi(map[string]int{"Mändos v1.0 of example.org": l.mandos(l.secret)})
		l.run(nil).wantPassword()
	})
	t.Run("several servers, of which one knows the client", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.up()
		refuses := l.mandos("")
		l.avahi(map[string]int{"a": refuses, "b": 1, "c": l.mandos(l.secret), "d": refuses})
		l.run(nil).wantPassword()
	})
	t.Run("another interface", func(t *testing.T) {
		t.Parallel()
		l := newLink(t)
		l.up()
		l.must("ip", "-n", l.client, "link", "add", "eth1", "type", "veth", "peer", "name", "other")
		l.must("ip", "-n", l.client, "link", "set", "other", "up")
		l.must("ip", "-n", l.client, "link", "set", "eth1", "up")
		l.avahi(map[string]int{"Mandos": l.mandos(l.secret)})
		r := l.run(nil, "--interface=eth1")
		r.says("looking for servers on interface eth1")
		l.run(nil, "--interface=eth0").wantPassword()
		if out := r.stdout.String(); out != "" || strings.Contains(r.stderr.String(), "eth0") {
			t.Errorf("--interface=eth1, and yet eth0 was used (%q)", out)
		}
	})
}

// A host on the link that means harm can't make the client end, nor keep it
// from a good server for long.
func TestDiscoverAmongEnemies(t *testing.T) {
	t.Parallel()
	l := newLink(t)
	l.up()
	port := l.mandos(l.secret)
	refuses := l.mandos("")
	l.start(l.server, nil, l.self("enemy"), fmt.Sprint(refuses))
	r := l.run(nil)
	// It is listened to: what looks true is tried.
	r.says("lie._mandos._tcp.local. on eth0")
	l.avahi(map[string]int{"Mandos": port})
	r.wantPassword()
	for _, bad := range []string{"from-another-port", "of-another-service", "in-a-query"} {
		if strings.Contains(r.stderr.String(), bad) {
			t.Errorf("the client believed %s", bad)
		}
	}
}

// enemy is the program of a host that sends all sorts of answers, all the
// time. One of them is well-formed and leads to a server that refuses.
func enemy() {
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		panic(err)
	}
	group := &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: 5353, Zone: "eth0"}
	open := func(port int) *ipv6.PacketConn {
		cfg := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, 15, 1) // SO_REUSEPORT
			})
		}}
		c, err := cfg.ListenPacket(context.Background(), "udp6", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			panic(err)
		}
		p := ipv6.NewPacketConn(c)
		_ = p.SetMulticastInterface(ifi)
		_ = p.SetMulticastHopLimit(255)
		return p
	}
	right, wrong := open(5353), open(0)
	addr := net.ParseIP("fe80::bad")
	if all, err := ifi.Addrs(); err == nil && len(all) > 0 {
		addr = all[0].(*net.IPNet).IP
	}
	message := func(name, service string) *dns.Msg {
		m := new(dns.Msg)
		m.Response = true
		instance := name + "." + service
		head := func(name string, t uint16) dns.RR_Header {
			return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: 4294967295}
		}
		port, _ := strconv.Atoi(os.Args[1])
		m.Answer = []dns.RR{
			&dns.PTR{Hdr: head("_mandos._tcp.local.", dns.TypePTR), Ptr: instance},
			&dns.SRV{Hdr: head(instance, dns.TypeSRV), Port: uint16(port), Target: "enemy.local."},
			&dns.AAAA{Hdr: head("enemy.local.", dns.TypeAAAA), AAAA: addr},
		}
		return m
	}
	pack := func(m *dns.Msg) []byte {
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return b
	}
	lie := pack(message("lie", "_mandos._tcp.local."))
	query := message("in-a-query", "_mandos._tcp.local.")
	query.Response = false
	goodbye := message("Mandos", "_mandos._tcp.local.")
	goodbye.Answer = goodbye.Answer[:1]
	goodbye.Answer[0].Header().Ttl = 0
	loop := append([]byte{0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0}, 0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12)
	counts := append([]byte{0, 0, 0x84, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, lie[12:]...)
	for n := 0; ; n++ {
		for _, b := range [][]byte{
			nil, {0}, loop, counts, lie[:len(lie)/2], make([]byte, 1400), bytes.Repeat([]byte{0xff}, 1400),
			pack(query), pack(goodbye),
			pack(message("of-another-service", "_http._tcp.local.")),
			pack(message(fmt.Sprintf("flood%d", n), "_mandos._tcp.local.")),
			lie,
		} {
			_, _ = right.WriteTo(b, nil, group)
		}
		_, _ = wrong.WriteTo(pack(message("from-another-port", "_mandos._tcp.local.")), nil, group)
		time.Sleep(20 * time.Millisecond)
	}
}
