package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mandos/internal/registry"
)

// FuzzFile: a good file with parts written over is refused as damaged, or says
// what it said before. In it, a client is disabled.
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

// FuzzRecord: what a record says is written so that it says the same again.
func FuzzRecord(f *testing.F) {
	for _, v := range []any{newRecordV1(new(fullRecord("a"))), struct{}{}} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"status":{"enabled":1}}`))
	f.Add([]byte(`{"current":{"key_id":"00"},"status":{"decision":"maybe"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		read := func(body []byte) (state registry.State, ok bool) {
			item := make([]byte, itemHeader, itemHeader+len(body))
			item[0] = version
			item = append(item, body...)
			key := []byte("a")
			binary.BigEndian.PutUint64(item[1:], checksum(clientsBucket, key, version, body))
			var v recordV1
			if _, err := unseal(clientsBucket, key, item, &v); err != nil {
				return state, false
			}
			r, err := v.record([]byte("a"))
			if err != nil {
				return state, false
			}
			return registry.State{Records: []registry.Record{r}}, true
		}
		first, ok := read(body)
		if !ok {
			return
		}
		again, err := json.Marshal(newRecordV1(&first.Records[0]))
		if err != nil {
			return // a year that JSON has no place for
		}
		second, ok := read(again)
		if !ok {
			t.Fatalf("%s was written as %s, which can't be read", body, again)
		}
		if a, b := first.Records[0].Saved.Enabled, second.Records[0].Saved.Enabled; a != b {
			t.Errorf("enabled: %v, then %v", a, b)
		}
		third, err := json.Marshal(newRecordV1(&second.Records[0]))
		if err != nil || string(third) != string(again) {
			t.Errorf("%s, then %s, %v", again, third, err)
		}
	})
}
