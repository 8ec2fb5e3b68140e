package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mandos/internal/registry"
)

// FuzzFile: a good file with parts overwritten is refused as damaged, or still
// reads the same. In it, a client is disabled.
func FuzzFile(f *testing.F) {
	made := f.TempDir()
	s, err := open(made, time.Millisecond)
	if err != nil {
		f.Fatal(err)
	}
	off := fullRecord("off")
	off.Saved.Enabled = false
	var b registry.Batch
	b.Put = append(b.Put, off)
	for i := range 20 { // more than a page
		b.Put = append(b.Put, fullRecord(fmt.Sprint("client ", i)))
	}
	if err := s.Commit(b); err != nil {
		f.Fatal(err)
	}
	want, err := s.Load()
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(made, fileName))
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	path := filepath.Join(dir, fileName)
	f.Add([]byte{})
	f.Add([]byte{0, 16, 1, 0})                        // page 0: magic
	f.Add([]byte{0x20, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}) // page 2
	f.Add([]byte{0x30, 8, 1, 16})                     // page 3: kind
	f.Fuzz(func(t *testing.T, edits []byte) {
		// An edit is an offset of two bytes, a number of bytes, and those.
		file := append([]byte(nil), good...)
		for len(edits) > 3 {
			at, n := int(binary.BigEndian.Uint16(edits))%len(file), min(int(edits[2]), len(edits)-3)
			copy(file[at:], edits[3:3+n])
			edits = edits[3+n:]
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if state, err := Read(dir); err == nil {
			same(t, state, want)
		}
	})
}

// FuzzRecord: a record read from any version is written so that it reads the
// same again.
func FuzzRecord(f *testing.F) {
	full := fullRecord("a")
	f.Add(byte(version), encoded(func(c *coder) { c.record(&full) }))
	f.Add(byte(version), encoded(func(c *coder) { c.record(&registry.Record{}) }))
	f.Add(byte(1), []byte(`{}`))
	f.Add(byte(1), []byte(`{"status":{"enabled":1}}`))
	f.Add(byte(1), []byte(`{"status":{"changed_at":"2026-11-22T03:00:00+01:00","created":"2026-11-22T03:00:00+01:00","last_enabled":"2026-11-22T03:00:00+01:00",`+
		`"last_checked_ok":"2026-11-22T03:00:00+01:00","last_approval_request":"2026-11-22T03:00:00+01:00",`+
		`"at":"2026-11-22T03:00:00+01:00","expires":"2026-11-22T03:00:00+01:00","decision_until":"9999-12-31T23:59:59-23:59"}}`))
	f.Add(byte(1), []byte(`{"current":{"key_id":"00"},"status":{"decision":"maybe"}}`))
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		key := []byte("a")
		first, err := readRecord(version, key, body)
		if err != nil {
			return
		}
		again := encoded(func(c *coder) { c.record(&first) })
		second, err := readRecord(2, key, again)
		if err != nil {
			t.Fatalf("%x was written as %x, which can't be read: %v", body, again, err)
		}
		same(t, registry.State{Records: []registry.Record{second}}, registry.State{Records: []registry.Record{first}})
		if third := encoded(func(c *coder) { c.record(&second) }); !bytes.Equal(third, again) {
			t.Errorf("%x, then %x", again, third)
		}
	})
}

// FuzzTombstone: a tombstone read from any version is written so that it reads
// the same again.
func FuzzTombstone(f *testing.F) {
	full := fullTombstone(registry.ByKeyID, "00")
	f.Add(byte(version), encoded(func(c *coder) { c.tombstone(&full) }))
	f.Add(byte(1), []byte(`{"removed":true}`))
	f.Add(byte(1), []byte(`{"status":{"created":"2026-11-22T03:00:00+01:00"}}`))
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		key := []byte("name\x00a")
		first, err := readTombstone(version, key, body)
		if err != nil {
			return
		}
		second, err := readTombstone(2, key, encoded(func(c *coder) { c.tombstone(&first) }))
		if err != nil {
			t.Fatalf("%x can't be read again: %v", body, err)
		}
		same(t, registry.State{Tombstones: []registry.Tombstone{second}}, registry.State{Tombstones: []registry.Tombstone{first}})
	})
}
