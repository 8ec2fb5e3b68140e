package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"mandos/internal/keyid"
)

// TestFlood calls every method and property that the daemon has, with good
// arguments and bad ones, as fast as it answers, while clients fetch their
// secrets over TLS: each call gets an answer, and each client its secret.
// It runs for MANDOS_FLOOD (10s, say), and shortly without it; -v tells the
// rates.
func TestFlood(t *testing.T) {
	length := 500 * time.Millisecond
	if s := os.Getenv("MANDOS_FLOOD"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	const hosts = 4
	keys := make([]ed25519.PrivateKey, hosts)
	sections := []string{section("victim", "interval = P1D", "timeout = P2D")}
	for i := range keys {
		keys[i] = newKey(t)
		sections = append(sections, keySection(t, fmt.Sprintf("host%d", i), keys[i], "interval = P1D", "timeout = P2D"))
	}
	addr, called := fakeBus(t)
	configdir, statedir := config(t, sections)
	socket, server := listen(t)
	cmd := command(Ours(t).server, "--no-zeroconf", "--socket", "3", "--configdir", configdir, "--statedir", statedir)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = append(cmd.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+addr)
	start(t, cmd)
	daemon := <-called

	// fetching fetches 80 secrets a second until ctx ends, more than a site
	// that boots as a whole, and returns how long each took.
	fetching := func(ctx context.Context) (took []time.Duration) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for i, key := range keys {
			all.Go(func() {
				pace := time.NewTicker(50 * time.Millisecond)
				defer pace.Stop()
				for range pace.C { // once at least, however busy the machine is
					before := time.Now()
					got, err := fetch(server, key)
					if want := fmt.Sprintf("secret of host%d", i); err != nil || string(got) != want {
						t.Errorf("got %q, %v", got, err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(before))
					mu.Unlock()
					if ctx.Err() != nil {
						return
					}
				}
			})
		}
		all.Wait()
		slices.Sort(took)
		return took
	}
	ctx, cancel := context.WithTimeout(t.Context(), length/4)
	calm := fetching(ctx)
	cancel()

	calls := everyCall(t, daemon)
	answers := make(chan *dbus.Message, 1<<10)
	window := make(chan struct{}, 256) // so many calls are under way
	var sent, refused atomic.Int64
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		for m := range answers {
			if m.Type == dbus.TypeError {
				refused.Add(1)
			}
			<-window
		}
	}()
	ctx, cancel = context.WithTimeout(t.Context(), length)
	defer cancel()
	var flooding sync.WaitGroup
	flooding.Go(func() {
		for i := 0; i < cap(window) || ctx.Err() == nil; i++ {
			window <- struct{}{}
			if err := daemon.send(calls[i%len(calls)], answers); err != nil {
				t.Errorf("the daemon hung up: %v", err)
				return
			}
			sent.Add(1)
		}
	})
	took := fetching(ctx)
	flooding.Wait()
	for range cap(window) { // all are answered
		select {
		case window <- struct{}{}:
		case <-time.After(patience):
			t.Fatal("a call wasn't answered")
		}
	}
	close(answers)
	<-counted

	if len(took) == 0 || refused.Load() == 0 || refused.Load() == sent.Load() {
		t.Errorf("%d secrets, %d calls, %d of them refused", len(took), sent.Load(), refused.Load())
	}
	objects, _ := daemon.call(t, "/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").Body[0].(map[dbus.ObjectPath]map[string]map[string]dbus.Variant)
	if len(objects) != hosts+1 {
		t.Errorf("there are %d clients", len(objects))
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	at := func(took []time.Duration, n, of int) time.Duration {
		return took[min(len(took)*n/of, len(took)-1)].Round(time.Microsecond)
	}
	t.Logf("%d calls in %v, %.0f a second, %d of them refused, %d signals; %s",
		sent.Load(), length, float64(sent.Load())/length.Seconds(), refused.Load(), daemon.signals.Load(), regexp.MustCompile(`VmHWM:\s*(.*)`).Find(status))
	for what, took := range map[string][]time.Duration{"before": calm, "during": took} {
		if len(took) > 0 {
			t.Logf("%s: %d secrets, half of them within %v, 99 %% within %v, the last %v", what, len(took), at(took, 1, 2), at(took, 99, 100), at(took, 1, 1))
		}
	}
}

// everyCall returns calls of all that introspection shows. Those that would
// take the clients that ask from their secrets are for the client victim.
func everyCall(t *testing.T, d *direct) (calls [][]byte) {
	t.Helper()
	const (
		victim     = dbus.ObjectPath("/clients/victim")
		properties = "org.freedesktop.DBus.Properties"
	)
	values := []any{
		int64(-1), uint64(1<<64 - 1), int32(5), true, false, 1.5, byte(7), "", "x", "%(nonsense)s", strings.Repeat("x", 1<<15), []byte{},
		[]byte("x"), dbus.ObjectPath("/"), dbus.ObjectPath("/clients/nosuch"), []string{"x"}, map[string]int32{"x": 1}, dbus.MakeVariant(int32(1)),
	}
	add := func(path dbus.ObjectPath, iface, member string, args ...any) {
		calls = append(calls, methodCall(path, iface, member, args...))
	}
	for _, path := range []dbus.ObjectPath{"/", "/clients", victim} {
		var node introspect.Node
		text, _ := d.call(t, path, "org.freedesktop.DBus.Introspectable", "Introspect").Body[0].(string)
		if err := xml.NewDecoder(strings.NewReader(text)).Decode(&node); err != nil {
			t.Fatal(err)
		}
		for _, i := range node.Interfaces {
			for _, m := range i.Methods {
				add(path, i.Name, m.Name)
				for _, v := range values {
					add(path, i.Name, m.Name, v)
					add(path, i.Name, m.Name, v, v)
				}
			}
			for _, p := range i.Properties {
				add(path, properties, "Get", i.Name, p.Name)
				for _, v := range values {
					add(path, properties, "Set", i.Name, p.Name, dbus.MakeVariant(v))
				}
			}
			add(path, i.Name, "Nonsense")
		}
	}
	add("/nosuch", mandosName+".Client", "Enable")
	// One call in a hundred changes something, which is on disk before it is
	// answered: how many of those there can be a second is the disk's affair.
	for n := 10 * len(calls); len(calls) < n; {
		for i := range 4 {
			host := dbus.ObjectPath(fmt.Sprintf("/clients/host%d", i))
			for _, p := range []string{"Expires", "Enabled", "Secret", "Nonsense"} {
				add(host, properties, "Get", mandosName+".Client", p)
				add(host, properties, "Set", mandosName+".Client", p, dbus.MakeVariant(1.5))
			}
			add(host, mandosName+".Client", "Approve", "x")
			add(host, mandosName+".Client", "Nonsense", "x")
		}
	}
	return calls
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keySection is a section for a client with key, whose secret is "secret of
// NAME".
func keySection(t *testing.T, name string, key ed25519.PrivateKey, more ...string) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[%s]\nkey_id = %s\nfingerprint =\nsecret = %s\n%s\n", name, keyid.OfSPKI(spki),
		base64.StdEncoding.EncodeToString([]byte("secret of "+name)), strings.Join(more, "\n"))
}

// TestGreatestMessages: a value as large as the system bus lets through, 32
// MiB, gets an error in answer; with MANDOS_GREATEST=1 so does one of 128
// MiB, the most that D-Bus allows (D-Bus Specification, "Message Format"),
// on a bus that lets it through. That takes 2 GB of memory.
func TestGreatestMessages(t *testing.T) {
	sizes := map[string]int{"Host": 32<<20 - 1<<10}
	var limits []string
	if os.Getenv("MANDOS_GREATEST") != "" {
		const all = 1 << 27
		sizes = map[string]int{"Host": all - 1<<10, "Checker": all - 1<<10, "Timeout": all - 1<<10, "Secret": 1 << 26}
		for _, limit := range []string{"max_message_size", "max_incoming_bytes", "max_outgoing_bytes"} {
			limits = append(limits, fmt.Sprintf(`<limit name="%s">%d</limit>`, limit, all))
		}
	}
	o := Ours(t).operateOn(t, Bus(t, limits...), section("one"))
	for property, n := range sizes {
		var v any = strings.Repeat("x", n)
		if property == "Secret" {
			v = bytes.Repeat([]byte("x"), n)
		}
		err := o.conn.Object(mandosName, "/clients/one").SetProperty(mandosName+".Client."+property, dbus.MakeVariant(v))
		if e, ok := err.(dbus.Error); !ok || e.Name != "org.freedesktop.DBus.Error.InvalidArgs" {
			t.Errorf("%s of %d bytes: %v", property, n, err)
		}
	}
	if got := o.get(t, "one", "Host"); got != "one.example" {
		t.Errorf("Host is %.40q", got)
	}
}
