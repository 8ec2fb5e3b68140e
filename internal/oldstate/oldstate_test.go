package oldstate

import (
	"encoding/binary"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pickle "github.com/kisielk/og-rek"

	"mandos/internal/client"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

var saved = time.Date(2026, 11, 22, 3, 57, 0, 0, time.UTC)

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, name string) *State {
	t.Helper()
	s, err := Parse(file(t, name), saved)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

func at(h, m, s, micro int) time.Time {
	return time.Date(2026, 11, 22, h, m, s, micro*1000, time.UTC)
}

// TestParse compares with what mandos-ctl --verbose of the old server showed
// right before it was stopped.
func TestParse(t *testing.T) {
	for name, hasKeyID := range map[string]bool{"python3.pickle": true, "python2.pickle": false} {
		t.Run(name, func(t *testing.T) {
			s := parse(t, name)
			byName := map[string]*Client{}
			var names []string
			for i := range s.Clients {
				byName[s.Clients[i].Current.Name] = &s.Clients[i]
				names = append(names, s.Clients[i].Current.Name)
			}
			if want := []string{"disabled", "normal", "off", "resecret", "slow"}; !slices.Equal(names, want) {
				t.Fatalf("clients %q, want %q", names, want)
			}
			if len(s.Removed) != 1 || s.Removed[0].Name != "removed" {
				t.Errorf("removed: %v", s.Removed)
			}

			n := byName["normal"]
			if st := n.Status; !st.Enabled || !st.Created.Equal(at(3, 56, 51, 508494)) || !st.LastEnabled.Equal(at(3, 56, 51, 508486)) ||
				!st.LastCheckedOK.Equal(at(3, 56, 55, 169030)) || !st.Expires.Equal(at(4, 1, 55, 169316)) || st.LastCheckerStatus != 0 ||
				!st.LastApprovalRequest.IsZero() {
				t.Errorf("normal: %+v", st)
			}
			if !reflect.DeepEqual(n.Current, n.Configured) {
				t.Errorf("normal has %+v, and %+v in the file", n.Current, n.Configured)
			}
			if got := n.Current.Fingerprint.String(); got != "9C2A6E4809AEEF7B7712CA4DB05A681452F4F748" {
				t.Errorf("normal has the fingerprint %s", got)
			}
			wantID := ""
			if hasKeyID {
				wantID = "317B32C143692B9939C197F6A5DF54F9698DF9A4882FE8BF19608968662BE4FA"
			}
			if id := n.Current.KeyID; !id.IsZero() != hasKeyID || hasKeyID && id.String() != wantID {
				t.Errorf("normal has the key ID %s", id)
			}

			if st := byName["disabled"].Status; st.Enabled || !st.Expires.IsZero() || !st.LastCheckedOK.Equal(at(3, 56, 55, 56110)) {
				t.Errorf("disabled: %+v", st)
			}
			off := byName["off"]
			if off.Status.Enabled || off.Configured.Enabled || !off.Status.LastEnabled.IsZero() || off.Current.Host != "bücher.example" {
				t.Errorf("off: %+v", off)
			}
			slow := byName["slow"]
			set := slow.Current
			if set.Timeout != time.Hour || set.Interval != 10*time.Minute || set.ExtendedTimeout != 2*time.Hour ||
				set.ApprovalDelay != 30*time.Second || set.ApprovalDuration != 3*time.Second || set.ApprovedByDefault ||
				set.Host != "new.example.org" || set.Checker != "ping -c1 %(host)s" {
				t.Errorf("slow has %+v", set)
			}
			if set := slow.Configured; set.Timeout != 5*time.Minute || set.Interval != 2*time.Minute || set.ExtendedTimeout != 15*time.Minute ||
				set.ApprovalDelay != 0 || set.ApprovalDuration != time.Second || !set.ApprovedByDefault ||
				set.Host != "slow.example.org" || set.Checker != "true" {
				t.Errorf("slow is configured as %+v", set)
			}
			if !slow.Status.Expires.Equal(at(4, 56, 55, 981423)) {
				t.Errorf("slow expires at %v", slow.Status.Expires)
			}
		})
	}
}

// TestSecretChanged: only the one that was.
func TestSecretChanged(t *testing.T) {
	for _, c := range parse(t, "python3.pickle").Clients {
		name := c.Current.Name
		configured := "secret of " + name
		if name == "off" {
			configured = "off"
		}
		if got, want := c.SecretChanged(secret.New([]byte(configured))), name == "resecret"; got != want {
			t.Errorf("secret of %s changed: %v, want %v", name, got, want)
		}
		if name == "resecret" && c.SecretChanged(secret.New([]byte("changed in clients.conf since"))) {
			t.Errorf("secret of %s: one that nobody can know is said to be another", name)
		}
	}
}

func TestPassphrase(t *testing.T) {
	if got := string(passphrase([]byte("a\x00b"))); got != "mandos610062" {
		t.Errorf("short: %q", got)
	}
	long := []byte("\\\n\x00" + strings.Repeat("x", 1019))
	if got := string(passphrase(long)); got != `mandos\\\n\x00`+strings.Repeat("x", 1019) {
		t.Errorf("long: %q…", got[:40])
	}
	if got := passphrase(long[:1021]); len(got) != 2048 {
		t.Errorf("the longest in hexadecimal has %d bytes", len(got))
	}
}

func TestBatchIntoEmpty(t *testing.T) {
	s := parse(t, "python3.pickle")
	now := saved.Add(time.Minute)
	b := s.Batch(registry.State{}, now)
	if len(b.Put) != 5 || !b.Seen.Equal(saved) || len(b.Delete)+len(b.DeleteTombstones) != 0 {
		t.Fatalf("%d records, seen %v", len(b.Put), b.Seen)
	}
	for _, rec := range b.Put {
		if want := rec.Name != "disabled" && rec.Name != "off"; rec.Saved.Enabled != want {
			t.Errorf("%s is enabled: %v", rec.Name, rec.Saved.Enabled)
		}
		if rec.OwnSecret || rec.Configured.SecretDigest != (registry.Digest{}) {
			t.Errorf("%s has a secret of its own", rec.Name)
		}
	}
	if len(b.PutTombstones) != 3 {
		t.Fatalf("tombstones: %v", b.PutTombstones)
	}
	for _, ts := range b.PutTombstones {
		if ts.Saved.Enabled || ts.Removed != (ts.Identity.Kind == registry.ByName) {
			t.Errorf("tombstone: %+v", ts)
		}
	}
	// A file from the future must not look as if the clock had been set back,
	// and gives nobody more time.
	now = saved.Add(-100 * time.Hour)
	denied := &s.Clients[0].Status
	denied.Decision, denied.DecisionUntil = client.Disapproved, saved.Add(time.Minute)
	b = s.Batch(registry.State{}, now)
	if !b.Seen.Equal(now) || !b.Put[0].Saved.DecisionUntil.Equal(now.Add(time.Minute)) {
		t.Errorf("seen %v, denied until %v", b.Seen, b.Put[0].Saved.DecisionUntil)
	}
	for i, rec := range b.Put {
		was, is := s.Clients[i].Status, rec.Saved
		if !is.At.Equal(now) || is.Enabled && is.Expires.Sub(is.At) != was.Expires.Sub(was.At) {
			t.Errorf("%s is saved at %v and expires at %v", rec.Name, is.At, is.Expires)
		}
	}
}

// TestBatchIntoFull: it restricts, and never enables.
func TestBatchIntoFull(t *testing.T) {
	s := parse(t, "python3.pickle")
	first := s.Batch(registry.State{}, saved)
	have := registry.State{Seen: saved.Add(time.Hour)}
	for _, rec := range first.Put {
		rec.Saved.Enabled = rec.Name != "normal" // the other way round
		have.Records = append(have.Records, rec)
	}
	b := s.Batch(have, saved.Add(2*time.Hour))
	var put []string
	for _, rec := range b.Put {
		put = append(put, rec.Name)
		if rec.Saved.Enabled {
			t.Errorf("%s is enabled", rec.Name)
		}
	}
	slices.Sort(put)
	if !slices.Equal(put, []string{"disabled", "off"}) || !b.Seen.Equal(have.Seen) {
		t.Errorf("changes %q, seen %v", put, b.Seen)
	}
	for _, ts := range b.PutTombstones {
		if ts.Saved.Enabled || ts.Removed {
			t.Errorf("tombstone %+v", ts)
		}
	}

	// Known by its key alone, under another name, or by nobody.
	have.Records = have.Records[:1]
	have.Records[0].Name, have.Records[0].Current.Name = "renamed", "renamed" // was "disabled"
	have.Records[0].Saved.Enabled = true
	have.Tombstones = []registry.Tombstone{{Identity: registry.Identity{Kind: registry.ByName, Value: "off"}, Saved: client.Saved{Facts: client.Facts{Enabled: true}}, Removed: true}}
	b = s.Batch(have, saved.Add(2*time.Hour))
	if len(b.Put) != 1 || b.Put[0].Name != "renamed" || b.Put[0].Saved.Enabled {
		t.Errorf("puts %v", b.Put)
	}
	tombstones := map[registry.Identity]registry.Tombstone{}
	for _, ts := range b.PutTombstones {
		tombstones[ts.Identity] = ts
	}
	off := tombstones[registry.Identity{Kind: registry.ByName, Value: "off"}]
	name, named := tombstones[registry.Identity{Kind: registry.ByName, Value: "disabled"}]
	if off.Saved.Enabled || !off.Removed || !named || name.Saved.Enabled {
		t.Errorf("tombstones %v", b.PutTombstones)
	}
}

// TestHostile holds that what the old server doesn't write is refused.
func TestHostile(t *testing.T) {
	good := string(file(t, "python3.pickle"))
	long := func(op string, n uint32) string { return op + string(binary.LittleEndian.AppendUint32(nil, n)) }
	tests := map[string]struct{ data, want string }{
		"nothing":              {"", "no pickle"},
		"a shell command":      {"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", `"os system"`},
		"posix":                {"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", `"posix system"`},
		"eval":                 {"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", `eval`},
		"protocol 0":           {"cos\nsystem\n(S'true'\ntR.", "no pickle"},
		"instance":             {"\x80\x02(S'true'\nios\nsystem\n.", "0x53"},
		"INST":                 {"\x80\x02(ios\nsystem\n.", "0x69"},
		"OBJ":                  {"\x80\x02(cdatetime\ndatetime\no.", "0x6f"},
		"NEWOBJ":               {"\x80\x02cdatetime\ndatetime\n)\x81.", "0x81"},
		"BUILD":                {"\x80\x02}}b.", "0x62"},
		"STACK_GLOBAL":         {"\x80\x02U\x02osU\x06system\x93.", "0x93"},
		"persistent reference": {"\x80\x02Px\n.", "0x50"},
		"extension":            {"\x80\x02\x82\x01.", "0x82"},
		"class in a long line": {"\x80\x02c" + strings.Repeat("a", 1000) + "\nb\n.", "ends too early"},
		"text beyond the end":  {"\x80\x02" + long("X", 1<<32-1) + "abc.", "ends too early"},
		"bytes beyond the end": {"\x80\x02" + long("T", 1<<31) + "abc.", "ends too early"},
		"huge number":          {"\x80\x02\x8a\xff" + strings.Repeat("\x7f", 255) + ".", "number of 255 bytes"},
		"many values":          {"\x80\x02" + strings.Repeat("}", maxOps+1) + ".", "too many values"},
		"two pickles":          {good + good, "after its end"},
		"no pair":              {"\x80\x02N.", "should be a pair"},
		"one":                  {"\x80\x02}\x85.", "should be a pair"},
		"list":                 {"\x80\x02]]\x86.", "first part"},
		"stack underflow":      {"\x80\x02R.", "malformed"},
		"memo of nothing":      {"\x80\x02h\x07.", "malformed"},
		"class, not called":    {"\x80\x02}}U\x01acdatetime\ndatetime\ns\x86.", `"a"`},
		"dict that has itself": {"\x80\x02}q\x00U\x01ah\x00s}U\x01a}s\x86.", "missing"},
		"list for a key":       {"\x80\x02}]Ns}\x86.", "malformed"},
		"numbers for names":    {"\x80\x02}K\x01}s}\x86.", "no text"},
		"a name twice":         {"\x80\x02}(U\x01a}X\x01\x00\x00\x00a}u}U\x01a}s\x86.", "twice"},
		"bomb of references":   {"\x80\x02]q\x00" + bomb(200) + ".", "should be a pair"},
		"enabled is text":      {strings.Replace(good, "h'\x88", "h'N", 1), "neither True nor False"},
		"no such time":         {strings.Replace(good, "\x07\xc3\xaa\x0b\x16\x03", "\x07\xc3\xaa\x0d\x16\x03", 1), "no time that there is"},
		"no such codec":        {strings.ReplaceAll(good, "latin1", "rot_13"), "no bytes"},
		"enabled is missing":   {strings.ReplaceAll(good, "\x00enabled", "\x00unabled"), "missing"},
		"no name":              {"\x80\x02}U\x00}s}U\x00}s\x86.", "no name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(test.data, good) && len(test.data) == len(good) {
				t.Fatal("the test has changed nothing")
			}
			s, err := Parse([]byte(test.data), saved)
			if err == nil || s != nil {
				t.Fatalf("taken: %v", s)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want one with %q", err, test.want)
			}
		})
	}
}

// bomb makes a list whose content doubles with each of n steps.
func bomb(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("](h" + string([]byte{byte(i)}) + "h" + string([]byte{byte(i)}) + "eq" + string([]byte{byte(i + 1)}))
	}
	return b.String()
}

// TestTruncated: no strict prefix of a state is one.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"python3.pickle", "python2.pickle"} {
		data := file(t, name)
		for n := range data {
			if _, err := Parse(data[:n], saved); err == nil {
				t.Errorf("%s: the first %d of %d bytes are taken", name, n, len(data))
			}
		}
	}
}

// TestUnfit: what the old server lets an operator set, and this one doesn't.
func TestUnfit(t *testing.T) {
	c := Client{Configured: client.Settings{Interval: time.Minute, Timeout: -1}, Current: client.Settings{Interval: -time.Second, Timeout: -1}}
	c.refuseUnfit()
	if !slices.Equal(c.Unfit, []string{"interval"}) || c.Current.Interval != time.Minute {
		t.Errorf("unfit %q, %+v", c.Unfit, c.Current)
	}
	c = Client{Configured: client.Settings{Interval: time.Minute}, Current: client.Settings{Interval: time.Minute, ApprovalDelay: 2 * client.MaxDuration}}
	c.refuseUnfit()
	if len(c.Unfit) > 0 || c.Current.ApprovalDelay != client.MaxDuration {
		t.Errorf("centuries for an approval: unfit %q, %v", c.Unfit, c.Current.ApprovalDelay)
	}
	for name, tt := range map[string]struct {
		host, checker string
		want          []string
	}{
		"as configured":    {"h", "", nil}, // what is wrong in clients.conf is found there
		"fine":             {"other", "ping %(host)s", nil},
		"no checker":       {"h", "", []string{"checker"}},
		"unknown variable": {"h", "ping %(nick)s", []string{"checker"}},
		"lone percent":     {"h", "date +%s", []string{"checker"}},
		"too long":         {strings.Repeat("h", client.MaxText+1), "true", []string{"host"}},
		"NUL":              {"h\x00", "true\x00", []string{"host", "checker"}},
	} {
		configured := client.Settings{Host: "h", Checker: "true"}
		if name == "as configured" {
			configured.Checker = tt.checker
		}
		c := Client{Configured: configured, Current: client.Settings{Host: tt.host, Checker: tt.checker}}
		c.refuseUnfit()
		want := client.Settings{Host: tt.host, Checker: tt.checker}
		if slices.Contains(tt.want, "host") {
			want.Host = "h"
		}
		if slices.Contains(tt.want, "checker") {
			want.Checker = "true"
		}
		if !slices.Equal(c.Unfit, tt.want) || c.Current.Host != want.Host || c.Current.Checker != want.Checker {
			t.Errorf("%s: unfit %q, host %.40q, checker %q", name, c.Unfit, c.Current.Host, c.Current.Checker)
		}
	}
}

// TestAsDuration: a timedelta has at most a billion days, of which a Duration
// holds some.
func TestAsDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		days, seconds, micros int64
		want                  time.Duration
		ok                    bool
	}{
		{0, 300, 5, 300*time.Second + 5*time.Microsecond, true},
		{-1, 86399, 0, -time.Second, true},
		{100_000, 0, 0, 100_000 * day, true},
		{100_001, 0, 0, 100_000 * day, true},
		{999_999_999, 86399, 999_999, 100_001*day - time.Microsecond, true},
		{-999_999_999, 0, 0, -100_000 * day, true},
		{1_000_000_000, 0, 0, 0, false},
		{-1_000_000_000, 0, 0, 0, false},
		{0, 86400, 0, 0, false},
		{0, -1, 0, 0, false},
		{0, 0, 1_000_000, 0, false},
	} {
		v := pickle.Call{Callable: pickle.Class{Module: "datetime", Name: "timedelta"}, Args: pickle.Tuple{tt.days, tt.seconds, tt.micros}}
		if got, err := asDuration(v); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%d days, %d s, %d µs: %v, %v", tt.days, tt.seconds, tt.micros, got, err)
		}
	}
}

// FuzzParse: whatever a pickle holds, nothing of it is called, and who is
// disabled in it stays so.
func FuzzParse(f *testing.F) {
	f.Add(file(f, "python3.pickle"))
	f.Add(file(f, "python2.pickle"))
	f.Add([]byte("\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."))
	f.Add([]byte("\x80\x02]q\x00" + bomb(20) + "."))
	f.Add([]byte("\x80\x02}}\x86."))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data, saved)
		if (s == nil) == (err == nil) {
			t.Fatalf("state %v, error %v", s, err)
		}
		if err != nil {
			return
		}
		disabled := 0
		for _, rec := range s.Batch(registry.State{}, saved).Put {
			if !rec.Saved.Enabled {
				disabled++
			}
		}
		for _, c := range s.Clients {
			if !c.Status.Enabled {
				disabled--
			}
		}
		if disabled != 0 {
			t.Fatal("the number of disabled clients has changed")
		}
	})
}
