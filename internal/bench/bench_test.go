package bench_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mandos/internal/bench"
	"mandos/internal/fetch/fetchtest"
)

// serve answers hosts; the secret of each goes through change first, where
// that isn't nil.
func serve(t *testing.T, hosts []bench.Host, change func(*fetchtest.Session, []byte) []byte) bench.Target {
	t.Helper()
	secrets := map[string][]byte{}
	for _, h := range hosts {
		secrets[h.KeyID().String()] = h.Secret()
	}
	addr := fetchtest.Serve(t, func(s *fetchtest.Session) {
		secret := secrets[s.KeyID.String()]
		if change != nil {
			secret = change(s, secret)
		}
		if secret != nil {
			s.Give(secret)
		}
	})
	return bench.Target{Port: netip.MustParseAddrPort(addr).Port(), From: bench.OneSource}
}

func TestLoad(t *testing.T) {
	hosts := bench.Hosts(3)
	waits := serve(t, hosts, nil).Load(t.Context(), hosts, 2, 100*time.Millisecond, time.Minute)
	if len(waits.Served) == 0 || len(waits.Failed) > 0 {
		t.Errorf("%d served, failed: %v", len(waits.Served), waits.Failed)
	}
}

func TestStorm(t *testing.T) {
	hosts := bench.Hosts(20)
	waits := serve(t, hosts, nil).Storm(t.Context(), hosts)
	if len(waits.Served) != len(hosts) || len(waits.Failed) > 0 {
		t.Errorf("%d of %d served, failed: %v", len(waits.Served), len(hosts), waits.Failed)
	}
}

// TestAskNoticesWhatIsWrong holds that nothing counts as a hand-out but the
// host's own secret, whole.
func TestAskNoticesWhatIsWrong(t *testing.T) {
	hosts := bench.Hosts(2)
	for name, change := range map[string]func(*fetchtest.Session, []byte) []byte{
		"another's":      func(*fetchtest.Session, []byte) []byte { return hosts[1].Secret() },
		"none":           func(*fetchtest.Session, []byte) []byte { return []byte{} },
		"too short":      func(_ *fetchtest.Session, b []byte) []byte { return b[1:] },
		"too long":       func(_ *fetchtest.Session, b []byte) []byte { return append(b, 0) },
		"nothing at all": func(*fetchtest.Session, []byte) []byte { return nil },
		"no close_notify": func(s *fetchtest.Session, b []byte) []byte {
			_, _ = s.Write(b)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			target := serve(t, hosts, change)
			if err := target.Ask(t.Context(), hosts[0]); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestStormEnds(t *testing.T) {
	hosts := bench.Hosts(2)
	arrived := make(chan struct{}, len(hosts))
	target := serve(t, hosts, func(s *fetchtest.Session, _ []byte) []byte {
		arrived <- struct{}{}
		<-s.Stop
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for range hosts {
			<-arrived
		}
		cancel()
	}()
	if waits := target.Storm(ctx, hosts); len(waits.Served) > 0 || len(waits.Failed) > 0 {
		t.Errorf("%d served, failed: %v", len(waits.Served), waits.Failed)
	}
}

func TestFloor(t *testing.T) {
	f, err := bench.MeasureFloor()
	if err != nil {
		t.Fatal(err)
	}
	for what, d := range map[string]time.Duration{
		"key pair": f.KeyPair, "agreement": f.Agreement, "verification": f.Verification, "AEAD": f.AEAD, "hashing": f.Hashing, "connection": f.Connection,
	} {
		if d <= 0 {
			t.Errorf("%s: %v", what, d)
		}
	}
	t.Logf("%+v", f)
}

// measured are results with which each statement is met, by little.
func measured() *bench.Results {
	load := func(atOnce, served int, p99 time.Duration) bench.Load {
		return bench.Load{AtOnce: atOnce, Duration: 10 * time.Second, InTime: served, Served: served,
			ServerCPU: time.Duration(served) * 300 * time.Microsecond, P50: p99 / 4, P99: p99, Worst: 2 * p99}
	}
	starts := func(d time.Duration) []bench.Start {
		return []bench.Start{{State: "none", Ready: d}, {State: "saved", Ready: d}}
	}
	const mib = 1 << 20
	return &bench.Results{
		Date:    "2026-01-02T03:04:05Z",
		Machine: bench.Machine{Cores: 2},
		Floor:   bench.Floor{KeyPair: 50_000, Agreement: 70_000, Verification: 78_000, AEAD: 2_000},
		Servers: []bench.Server{
			{Name: "ours", Clients: 1, Memory: 10 * mib, Starts: starts(5 * time.Millisecond),
				Loads: []bench.Load{load(8, 10_500, 10*time.Millisecond), load(256, 10_500, 190*time.Millisecond)}},
			{Name: "ours", Clients: 1000, Memory: 14 * mib, Loads: []bench.Load{load(8, 10_400, 10*time.Millisecond)}},
			{Name: "ours", Clients: 10_000, Memory: 10*mib + 3200*10_000, Starts: starts(290 * time.Millisecond),
				Loads: []bench.Load{load(8, 10_000, 10*time.Millisecond)},
				Storms: []bench.Storm{{Source: bench.OwnAddresses, Hosts: 10_000, Served: 10_000, Last: 14 * time.Second, ServerCPU: 12 * time.Second, LoadCPU: 8 * time.Second},
					{Source: bench.OneLink, Hosts: 10_000, Served: 10_000, Last: 14 * time.Second}}},
			{Name: "ours", Clients: 100_000, Memory: 10*mib + 3200*100_000, Starts: starts(2900 * time.Millisecond),
				Loads: []bench.Load{load(8, 9_500, 10*time.Millisecond), load(256, 9_500, 190*time.Millisecond)}},
			{Name: "debian", Clients: 1, Loads: []bench.Load{load(8, 520, time.Second)}},
			{Name: "debian", Clients: 1000, Loads: []bench.Load{load(8, 10, time.Second)}},
		},
	}
}

func TestStatements(t *testing.T) {
	met := measured().Statements()
	if len(met) != 15 {
		t.Errorf("%d statements, want 15", len(met))
	}
	for _, s := range met {
		if !s.Met {
			t.Error(s)
		}
	}
	// Each change breaks those statements, and no other.
	for name, tt := range map[string]struct {
		change func(ours []bench.Server)
		broken []string
	}{
		"slow":                  {func(s []bench.Server) { s[0].Loads[0].InTime = 10_000 }, []string{"1 client: at least 20 times"}},
		"slow with 1,000":       {func(s []bench.Server) { s[1].Loads[0].InTime = 9_900 }, []string{"1,000 clients: at least 1000 times"}},
		"slow with 100,000":     {func(s []bench.Server) { s[3].Loads[0].InTime = 9_000 }, []string{"100,000 clients: hand-outs per second"}},
		"collapse":              {func(s []bench.Server) { s[0].Loads[1].P99 = 201 * time.Millisecond }, []string{"1 client: p99"}},
		"collapse with 100,000": {func(s []bench.Server) { s[3].Loads[1].P99 = 201 * time.Millisecond }, []string{"100,000 clients: p99"}},
		"costly":                {func(s []bench.Server) { s[0].Loads[0].ServerCPU *= 2 }, []string{"1 client: CPU time"}},
		"costly with 100,000":   {func(s []bench.Server) { s[3].Loads[0].ServerCPU *= 2 }, []string{"100,000 clients: CPU time"}},
		"first start":           {func(s []bench.Server) { s[2].Starts[0].Ready *= 2 }, []string{"10,000 clients: ready in under 300 ms, for the first time"}},
		"next start":            {func(s []bench.Server) { s[3].Starts[1].Ready *= 2 }, []string{"100,000 clients: ready in under 3.0 s, with saved state"}},
		"fat":                   {func(s []bench.Server) { s[2].Memory += 60 * 10_000 }, []string{"10,000 clients: at most 2 KiB"}},
		"one isn't served":      {func(s []bench.Server) { s[2].Storms[0].Served-- }, []string{"storm of 10,000 hosts from own"}},
		"one waits":             {func(s []bench.Server) { s[2].Storms[1].Last = 15 * time.Second }, []string{"storm of 10,000 hosts from one"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := measured()
			tt.change(r.Servers)
			for _, s := range r.Statements() {
				var want bool
				for _, b := range tt.broken {
					want = want || strings.HasPrefix(s.Text, b)
				}
				if s.Met == want {
					t.Error(s)
				}
			}
		})
	}
	if found := new(bench.Results).Statements(); len(found) > 0 {
		t.Errorf("nothing was measured, yet: %v", found)
	}
}

func TestTableNamesWhatIsMissing(t *testing.T) {
	r := measured()
	r.Servers[4].Loads[0].Failed = map[string]int{"EOF": 2}
	table := r.Table()
	for _, row := range []string{
		"| secrets per second, 8 hosts at once: Debian's | 52 | 1 | – | – |",
		"|     here | 1,050 | 1,040 | 1,000 | 950 |",
		"| wait (median, 99th percentile, longest): Debian's | – | 250 ms, 1.0 s, 2.0 s (2 gave up) | – | – | – |",
		"|     here | – | – | 14 s; 10 s at best | – |",
	} {
		if !strings.Contains(strings.ReplaceAll(table, "\u00a0", " "), row+"\n") {
			t.Errorf("no row %s in:\n%s", row, table)
		}
	}
}

func TestChartIsXML(t *testing.T) {
	d := xml.NewDecoder(bytes.NewReader([]byte(measured().Chart())))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
