package store

import (
	"bytes"
	"os"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// stateV1 returns what is in testdata/v1, which was written by a program that
// knew only version 1.
func stateV1() registry.State {
	at := time.Date(2026, 11, 22, 3, 4, 5, 678901234, time.UTC)
	var digest registry.Digest
	for i := range digest {
		digest[i] = byte(i)
	}
	full := func(name string) registry.Record {
		set := client.Settings{
			Name: name, KeyID: keyid.OfSPKI([]byte(name)), Fingerprint: keyid.Fingerprint{1, 2, byte(len(name))},
			Host: "host of " + name, Checker: "fping -q -- %(host)s; echo 'ö' %%",
			Timeout: time.Minute, ExtendedTimeout: time.Hour, Interval: time.Second, ApprovalDelay: time.Millisecond,
			ApprovalDuration: 7, ApprovedByDefault: true, Enabled: true,
			Generation: client.OnlyTLS13, AllowExpiredKey: true,
		}
		r := registry.Record{
			Name: name, Configured: registry.Configured{Settings: set, SecretDigest: digest}, Current: set, OwnSecret: true,
			Saved: client.Saved{
				Facts: client.Facts{
					Enabled: true, Change: client.Change{At: at, By: "uid 0 over D-Bus", Why: "because"},
					Created: at.Add(1), LastEnabled: at.Add(2), LastCheckedOK: at.Add(3), LastApprovalRequest: at.Add(4),
					LastCheckerStatus: -1, LastCheckerSignal: 9, Grace: true,
				},
				At: at.Add(5), Expires: at.Add(6), Decision: client.Disapproved, DecisionUntil: at.Add(7),
			},
		}
		r.Current.Timeout, r.Current.Secret = 9*time.Minute, secret.New([]byte("changed\x00secret of "+name))
		return r
	}
	a, b, d := full("a"), full("b"), full("d")
	b.Current, b.OwnSecret, b.Saved.Enabled = b.Configured.Settings, false, false
	d.Saved.Decision = client.Approved
	c := registry.Record{Name: "c", Configured: registry.Configured{Settings: client.Settings{Name: "c", KeyID: keyid.OfSPKI([]byte("b")), Host: "c"}}, Saved: client.Saved{At: at}}
	c.Current = c.Configured.Settings
	tombstone := registry.Tombstone{Identity: registry.Identity{Kind: registry.ByName, Value: "gone"}, Saved: full("gone").Saved, Removed: true}
	tombstone.Saved.Enabled = false
	other := tombstone
	other.Identity = registry.Identity{Kind: registry.ByKeyID, Value: "00"}
	return registry.State{Seen: at, Records: []registry.Record{a, b, c, d}, Tombstones: []registry.Tombstone{tombstone, other}}
}

// TestVersion1: a file of version 1 still reads the same, and the first commit
// makes it one of this version, which an older program refuses.
func TestVersion1(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/v1")); err != nil {
		t.Fatal(err)
	}
	s := openT(t, dir)
	want := stateV1()
	same(t, loadT(t, s), want)
	if v := versionOf(t, s); v != "1" {
		t.Errorf("reading has made it version %s", v)
	}

	disabled := want.Records[0]
	disabled.Saved.Enabled = false
	commitT(t, s, registry.Batch{Seen: want.Seen, Put: []registry.Record{disabled}, DeleteTombstones: []registry.Identity{want.Tombstones[0].Identity}})
	want.Records[0], want.Tombstones = disabled, want.Tombstones[1:]
	if v := versionOf(t, s); v != versionText {
		t.Errorf("a commit has left it at version %s", v)
	}
	s.Close()
	s = openT(t, dir)
	same(t, loadT(t, s), want)
	s.Close()
}

func versionOf(t *testing.T, s *Store) (v string) {
	t.Helper()
	if err := s.db.View(func(tx *bbolt.Tx) error { v = string(tx.Bucket(metaBucket).Get(versionKey)); return nil }); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCutItem: an item that was cut short, or has trailing bytes, is refused,
// whatever its checksum is.
func TestCutItem(t *testing.T) {
	full := fullRecord("a")
	body := encoded(func(c *coder) { c.record(&full) })
	for n := range body {
		if _, err := readRecord(version, []byte("a"), body[:n]); err == nil {
			t.Errorf("with %d of %d bytes it is taken", n, len(body))
		}
	}
	if _, err := readRecord(version, []byte("a"), append(bytes.Clone(body), 0)); err == nil {
		t.Error("with one byte more it is taken")
	}
	for _, v := range []byte{0, version + 1} {
		if _, err := readRecord(v, []byte("a"), body); err == nil {
			t.Errorf("as version %d it is taken", v)
		}
	}
}

// TestClientsConfIsNoChange: settings that are as clients.conf says are in an
// item only once.
func TestClientsConfIsNoChange(t *testing.T) {
	r := fullRecord("a")
	r.Current, r.OwnSecret = r.Configured.Settings, false
	same := encoded(func(c *coder) { c.record(&r) })
	r.Current.Interval++
	other := encoded(func(c *coder) { c.record(&r) })
	if len(other) < len(same)+50 {
		t.Errorf("it has %d bytes, with another interval %d", len(same), len(other))
	}
}
