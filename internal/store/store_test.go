package store

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

var thorough = flag.Bool("thorough", false, "try every byte, and every crash: takes minutes")

func openT(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := open(dir, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func loadT(t *testing.T, s *Store) registry.State {
	t.Helper()
	state, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func commitT(t *testing.T, s *Store, b registry.Batch) {
	t.Helper()
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
}

var epoch = time.Date(2026, 11, 22, 3, 4, 5, 678901234, time.UTC)

// fullRecord returns a record no field of which is zero, but for those that
// exclude each other.
func fullRecord(name string) registry.Record {
	set := client.Settings{
		Name: name, KeyID: keyid.OfSPKI([]byte(name)), Fingerprint: keyid.Fingerprint{1, 2, byte(len(name))},
		Host: "host of " + name, Checker: "fping -q -- %(host)s; echo 'ö' %%",
		Timeout: time.Minute, ExtendedTimeout: time.Hour, Interval: time.Second, ApprovalDelay: time.Millisecond,
		ApprovalDuration: 7, ApprovedByDefault: true, Enabled: true,
		Generation: client.OnlyTLS13, AllowExpiredKey: true,
	}
	current := set
	current.Timeout, current.Secret = 9*time.Minute, secret.New([]byte("changed\x00secret of "+name))
	return registry.Record{
		Name:       name,
		Configured: registry.Configured{Settings: set, SecretDigest: registry.Digest([]byte(fmt.Sprintf("%048s", name))[:48])},
		Current:    current,
		OwnSecret:  true,
		Saved: client.Saved{
			Facts: client.Facts{
				Enabled: true, Change: client.Change{At: epoch, By: "uid 0 over D-Bus", Why: "because"},
				Created: epoch.Add(1), LastEnabled: epoch.Add(2), LastCheckedOK: epoch.Add(3), LastApprovalRequest: epoch.Add(4),
				LastCheckerStatus: -1, LastCheckerSignal: 9, Grace: true,
			},
			At: epoch.Add(5), Expires: epoch.Add(6), Decision: client.Disapproved, DecisionUntil: epoch.Add(7),
		},
	}
}

func fullTombstone(kind registry.Kind, value string) registry.Tombstone {
	ts := registry.Tombstone{Identity: registry.Identity{Kind: kind, Value: value}, Saved: fullRecord(value).Saved, Removed: true}
	ts.Saved.Enabled = false
	return ts
}

// same compares states; secrets by their contents.
func same(t *testing.T, got, want registry.State) {
	t.Helper()
	byName := func(a, b registry.Record) int { return strings.Compare(a.Name, b.Name) }
	byID := func(a, b registry.Tombstone) int {
		return strings.Compare(string(tombstoneKey(a.Identity)), string(tombstoneKey(b.Identity)))
	}
	plain := func(s registry.State) (registry.State, []string) {
		s.Records, s.Tombstones = slices.Clone(s.Records), slices.Clone(s.Tombstones)
		slices.SortFunc(s.Records, byName)
		slices.SortFunc(s.Tombstones, byID)
		var secrets []string
		if len(s.Records) == 0 {
			s.Records = nil
		}
		if len(s.Tombstones) == 0 {
			s.Tombstones = nil
		}
		for i := range s.Records {
			secrets = append(secrets, string(s.Records[i].Current.Secret.Reveal()))
			s.Records[i].Current.Secret = secret.Secret{}
		}
		return s, secrets
	}
	g, gs := plain(got)
	w, ws := plain(want)
	if !reflect.DeepEqual(g, w) || !slices.Equal(gs, ws) {
		t.Errorf("got\n%+v\n%q\nwant\n%+v\n%q", g, gs, w, ws)
	}
}

// TestFullRecord checks that fullRecord does what it says, so that
// TestRoundTrip notices a field that is added later.
func TestFullRecord(t *testing.T) {
	var zero func(path string, v reflect.Value)
	zero = func(path string, v reflect.Value) {
		if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() && v.Type() != reflect.TypeFor[secret.Secret]() {
			for i := range v.NumField() {
				zero(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
			return
		}
		if v.IsZero() && path != ".Configured.Settings.Secret" {
			t.Errorf("%s is zero", path)
		}
	}
	zero("", reflect.ValueOf(fullRecord("a")))
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := openT(t, dir)
	same(t, loadT(t, s), registry.State{})

	plain := registry.Record{Name: "plain"}
	plain.Configured.Settings.Name, plain.Current.Name = "plain", "plain"
	strange := fullRecord("a name/with \x00 … and 300 characters " + strings.Repeat("x", 300))
	full := fullRecord("full")
	ts1, ts2 := fullTombstone(registry.ByName, "gone\x00 too"), fullTombstone(registry.ByKeyID, "AA")
	commitT(t, s, registry.Batch{Seen: epoch, Put: []registry.Record{plain, strange, full}, PutTombstones: []registry.Tombstone{ts1, ts2}})
	want := registry.State{Seen: epoch, Records: []registry.Record{plain, strange, full}, Tombstones: []registry.Tombstone{ts1, ts2}}
	same(t, loadT(t, s), want)
	s.Close()
	s = openT(t, dir)
	same(t, loadT(t, s), want)

	full.Saved.Enabled = false
	ts2.Removed = false
	commitT(t, s, registry.Batch{Seen: epoch.Add(9), Put: []registry.Record{full}, Delete: []string{"plain", "nobody"},
		PutTombstones: []registry.Tombstone{ts2}, DeleteTombstones: []registry.Identity{ts1.Identity, {Kind: registry.ByName, Value: "nobody"}}})
	s.Close()
	s = openT(t, dir)
	same(t, loadT(t, s), registry.State{Seen: epoch.Add(9), Records: []registry.Record{strange, full}, Tombstones: []registry.Tombstone{ts2}})

	info, err := os.Stat(s.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v; want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("the folder has %q, want the state file only", left)
	}
}

func TestConfiguredSecretIsNotStored(t *testing.T) {
	dir := t.TempDir()
	s := openT(t, dir)
	r := fullRecord("a")
	r.OwnSecret = false
	commitT(t, s, registry.Batch{Seen: epoch, Put: []registry.Record{r}})
	s.Close()
	raw, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	// JSON has it in base64; its start depends on nothing before it.
	if bytes.Contains(raw, []byte("changed\x00secret")) || bytes.Contains(raw, []byte("Y2hhbmdlZABzZWNyZXQ")) {
		t.Error("the file holds a secret that clients.conf has")
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	openT(t, dir)
	_, err := open(dir, time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "--statedir") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opening it twice: %v, want an error that names --statedir", err)
	}
}

// filled makes a state file with n clients and a few tombstones, several commits
// old, and returns its path and what is in it.
func filled(t *testing.T, dir string, n int) (string, registry.State) {
	t.Helper()
	s := openT(t, dir)
	for i := range n {
		b := registry.Batch{Seen: epoch.Add(time.Duration(i)), Put: []registry.Record{fullRecord(fmt.Sprintf("client%d", i))}}
		if i%4 == 0 {
			b.PutTombstones = []registry.Tombstone{fullTombstone(registry.ByName, fmt.Sprintf("gone%d", i))}
		}
		commitT(t, s, b)
	}
	state := loadT(t, s)
	if len(state.Records) != n {
		t.Fatalf("%d records, want %d", len(state.Records), n)
	}
	s.Close()
	return s.Path(), state
}

// read opens and loads what is in dir.
func read(dir string) (registry.State, error) {
	s, err := open(dir, time.Millisecond)
	if err != nil {
		return registry.State{}, err
	}
	defer s.Close()
	return s.Load()
}

func wantDamaged(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || !errors.Is(err, errDamaged) {
		t.Errorf("%s: error %v, want that it is damaged", what, err)
		return
	}
	for _, part := range []string{fileName, "--no-restore", "backup"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q doesn't mention %q", what, err, part)
		}
	}
}

// TestFlippedByte flips bytes all over the file. Each time, either the file
// is refused or all that was in it is still there.
func TestFlippedByte(t *testing.T) {
	path, want := filled(t, t.TempDir(), 12)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stride := 61
	if *thorough {
		stride = 1
	}
	refused := 0
	for i := 0; i < len(good); i += stride {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if err := os.WriteFile(filepath.Join(dir, fileName), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		state, err := read(dir)
		if err != nil {
			wantDamaged(t, fmt.Sprintf("byte %d", i), err)
			refused++
			continue
		}
		same(t, state, want)
		if t.Failed() {
			t.Fatalf("with byte %d flipped", i)
		}
	}
	if refused == 0 {
		t.Error("no flipped byte was noticed")
	}
	t.Logf("%d flips, %d refused", (len(good)+stride-1)/stride, refused)
}

// TestMetaPages damages every part of the first two pages that matters: falling
// back to the other page would undo the last commit.
func TestMetaPages(t *testing.T) {
	path, _ := filled(t, t.TempDir(), 3)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for page := range 2 {
		for i := 16; i < 16+64; i++ {
			bad := bytes.Clone(good)
			bad[page*pageSize+i] ^= 0x10
			if err := os.WriteFile(filepath.Join(dir, fileName), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := read(dir)
			wantDamaged(t, fmt.Sprintf("page %d, byte %d", page, i), err)
		}
	}
}

func TestPageWithTwoUses(t *testing.T) {
	dir := t.TempDir()
	path, _ := filled(t, dir, 20)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := checkMetas(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	// The root is also free, as the list of free pages has it: the next
	// commit would overwrite it.
	list := file[native.Uint64(meta[32:])*pageSize:]
	n := native.Uint16(list[10:])
	native.PutUint16(list[10:], n+1)
	copy(list[pageHeader+int(n)*8:], meta[16:24])
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = read(dir)
	wantDamaged(t, "a page that is in use and free", err)
}

// TestFewPages: not even one whose checksums are right may make it panic.
func TestFewPages(t *testing.T) {
	dir := t.TempDir()
	path, _ := filled(t, dir, 3)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for pages := range uint64(4) {
		for i := range 2 {
			meta := file[i*pageSize+pageHeader:][:metaSize]
			native.PutUint64(meta[40:], pages)
			native.PutUint64(meta[56:], metaSum(meta[:56]))
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = read(dir)
		wantDamaged(t, fmt.Sprintf("%d pages", pages), err)
	}
}

func TestCutShort(t *testing.T) {
	path, want := filled(t, t.TempDir(), 12)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for n := 0; n < len(good); n += 512 {
		if err := os.WriteFile(filepath.Join(dir, fileName), good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		state, err := read(dir)
		if err != nil {
			wantDamaged(t, fmt.Sprintf("%d bytes of %d", n, len(good)), err)
			continue
		}
		same(t, state, want) // nothing but unused pages is missing
	}
}

func TestMissingItem(t *testing.T) {
	dir := t.TempDir()
	path, _ := filled(t, dir, 3)
	for name, change := range map[string]func(*bbolt.Tx) error{
		"a record is gone": func(tx *bbolt.Tx) error { return tx.Bucket(clientsBucket).Delete([]byte("client1")) },
		"a tombstone is gone": func(tx *bbolt.Tx) error {
			return tx.Bucket(tombstonesBucket).Delete(tombstoneKey(registry.Identity{Kind: registry.ByName, Value: "gone0"}))
		},
		"the summary is gone":   func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(summaryKey) },
		"the version is gone":   func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(versionKey) },
		"a bucket is gone":      func(tx *bbolt.Tx) error { return tx.DeleteBucket(tombstonesBucket) },
		"a record is too short": func(tx *bbolt.Tx) error { return tx.Bucket(clientsBucket).Put([]byte("client1"), []byte{1, 2}) },
		"a record is under another name": func(tx *bbolt.Tx) error {
			b := tx.Bucket(clientsBucket)
			one, two := bytes.Clone(b.Get([]byte("client1"))), bytes.Clone(b.Get([]byte("client2")))
			return errors.Join(b.Put([]byte("client1"), two), b.Put([]byte("client2"), one))
		},
		"an old record is back": func(tx *bbolt.Tx) error {
			old := fullRecord("client1")
			old.Saved.LastCheckerStatus = 0
			item := seal(clientsBucket, []byte("client1"), func(c *coder) { c.record(&old) })
			return tx.Bucket(clientsBucket).Put([]byte("client1"), item)
		},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(copied, fileName), good, 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := openBolt(filepath.Join(copied, fileName), time.Second, new(*os.File))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(change), db.Close()); err != nil {
				t.Fatal(err)
			}
			_, err = read(copied)
			wantDamaged(t, name, err)
		})
	}
}

func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	path, _ := filled(t, dir, 1)
	db, err := openBolt(path, time.Second, new(*os.File))
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(versionKey, []byte("3")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = read(dir)
	if err == nil || !strings.Contains(err.Error(), "newer mandos (format 3; this one knows up to 2)") {
		t.Errorf("error %v, want that the file is of a newer version", err)
	}
}

func TestNoFolder(t *testing.T) {
	_, err := open(filepath.Join(t.TempDir(), "nowhere"), time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "--statedir") {
		t.Errorf("error %v, want one that names --statedir", err)
	}
}
