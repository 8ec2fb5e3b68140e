package sysbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// likeGodbus encodes a signal with godbus. If the result depends on a map's
// order, it tries until the result is want.
func likeGodbus(t *testing.T, want []byte, path dbus.ObjectPath, name, member string, values []any) []byte {
	t.Helper()
	body := make([]any, len(values))
	for i, v := range values {
		body[i] = godbusValue(v)
	}
	m := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(name), dbus.FieldMember: dbus.MakeVariant(member),
	}}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var got bytes.Buffer
	for range 1000 {
		got.Reset()
		if err := m.EncodeTo(&got, binary.LittleEndian); err != nil {
			return nil
		}
		if len(want) > 12 {
			copy(got.Bytes()[8:12], want[8:12]) // the number
		}
		if bytes.Equal(got.Bytes(), want) {
			break
		}
	}
	return got.Bytes()
}

func godbusValue(v any) any {
	switch v := v.(type) {
	case Variant:
		return dbus.MakeVariant(godbusValue(v.Value))
	case Properties:
		m := map[string]dbus.Variant{}
		for _, p := range v {
			m[p.Name] = dbus.MakeVariant(godbusValue(p.Value))
		}
		return m
	case Interfaces:
		m := map[string]map[string]dbus.Variant{}
		for _, i := range v {
			m[i.Name] = godbusValue(i.Properties).(map[string]dbus.Variant)
		}
		return m
	}
	return v
}

type pair struct{ A, B string }

// TestEncoding: a signal has the bytes that godbus gives it.
func TestEncoding(t *testing.T) {
	at := "2026-11-22T09:00:00.000000"
	for _, values := range [][]any{
		nil,
		{"Expires", Variant{at}},
		{"x.y", Properties{{"Expires", at}}, []string(nil)},
		{"x.y", Properties(nil), []string{"Secret"}},
		{"x.y", Properties{{"a", true}, {"LastCheckerStatus", int16(-2)}}, []string{"", "b", "Secret"}},
		{int16(-1), int64(math.MinInt64), "true"},
		{uint64(math.MaxUint64), false, true, "ö\x01"},
		{dbus.ObjectPath("/clients/a"), "a"},
		{dbus.ObjectPath("/"), Interfaces{{"empty", nil}, {"x.y", Properties{{"p", dbus.ObjectPath("/p")}, {"list", []pair{{"1", "2"}, {"", "ö"}}}}}}},
		{Interfaces(nil), []pair(nil), []pair{{"a", "b"}}},
		{Variant{Variant{Properties{{"x", Variant{uint64(5)}}}}}},
		{strings.Repeat("x", 3*full)},
	} {
		// Alignment is relative to the start of the message.
		for _, path := range []dbus.ObjectPath{"/", "/a", "/clients/abc", "/clients/abcdefghijk"} {
			var out bytes.Buffer
			s := NewSignals(&out)
			names := []string{"se.recompile.Mandos", "a.b"}
			if err := errors.Join(s.Add(path, names, "Member", values...), s.Flush()); err != nil {
				t.Fatalf("%v: %v", values, err)
			}
			all, left := out.Bytes(), bytes.NewReader(out.Bytes())
			for i, name := range names {
				begin := len(all) - left.Len()
				m, err := dbus.DecodeMessage(left)
				if err != nil {
					t.Fatalf("%v: %v", values, err)
				}
				if m.Serial() != uint32(i+1) {
					t.Errorf("%v: message %d has the number %d", values, i+1, m.Serial())
				}
				got := all[begin : len(all)-left.Len()]
				if want := likeGodbus(t, got, path, name, "Member", values); !bytes.Equal(got, want) {
					t.Errorf("%v of %s by %s:\n%q\nwant\n%q", values, path, name, got, want)
				}
			}
			if left.Len() > 0 {
				t.Errorf("%v: %d bytes more came", values, left.Len())
			}
		}
	}
}

// FuzzAdd: a signal has the bytes that godbus gives it, and what godbus refuses
// is refused.
func FuzzAdd(f *testing.F) {
	f.Add("/clients/a", "PropertyChanged", "Expires", "2026-11-22T09:00:00.000000", uint64(0), "svp")
	f.Add("/", "ClientRemoved", "/clients/a", "a", uint64(1), "os")
	f.Add("/a", "X", "\x00", "\xff", uint64(1<<63), "ntxblaiv")
	f.Fuzz(func(t *testing.T, path, member, a, b string, n uint64, kinds string) {
		if !validMember(member) || len(kinds) > 20 {
			return // members are ours
		}
		var values []any
		for _, kind := range kinds {
			var v any
			switch kind {
			case 's':
				v = a
			case 'o':
				v = dbus.ObjectPath(a)
			case 'b':
				v = n%2 == 1
			case 'n':
				v = int16(n)
			case 'x':
				v = int64(n)
			case 't':
				v = n
			case 'l':
				v = []string{a, b}[:n%3]
			case 'p':
				v = []pair{{a, b}, {b, a}}[:n%3]
			case 'a':
				v = Properties{{a, n}}[:n%2] // a map has any order
			case 'i':
				v = Interfaces{{a, Properties{{b, a}}}}[:n%2]
			case 'v':
				if len(values) == 0 {
					continue
				}
				v = Variant{values[len(values)-1]}
			default:
				continue
			}
			values = append(values, v)
		}
		var out bytes.Buffer
		s := NewSignals(&out)
		err := errors.Join(s.Add(dbus.ObjectPath(path), []string{"a.b"}, member, values...), s.Flush())
		want := likeGodbus(t, out.Bytes(), dbus.ObjectPath(path), "a.b", member, values)
		if (err == nil) != (want != nil) {
			t.Fatalf("%v: %v, and godbus makes %q of it", values, err, want)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%v:\n%q\nwant\n%q", values, out.Bytes(), want)
		}
	})
}

// validMember reports whether s is one of the names that godbus surely accepts;
// there are others.
func validMember(s string) bool {
	return s != "" && len(s) < 256 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_") == ""
}

// TestRefused: of a signal that can't be sent nothing leaves; what came before
// it leaves whole.
func TestRefused(t *testing.T) {
	for what, add := range map[string]func(*Signals) error{
		"NUL":       func(s *Signals) error { return s.Add("/a", []string{"a.b"}, "M", "\x00") },
		"not UTF-8": func(s *Signals) error { return s.Add("/a", []string{"a.b"}, "M", Variant{"\xff"}) },
		"a path":    func(s *Signals) error { return s.Add("a", []string{"a.b"}, "M") },
		"a value":   func(s *Signals) error { return s.Add("/a", []string{"a.b"}, "M", dbus.ObjectPath("/a/")) },
		"a type":    func(s *Signals) error { return s.Add("/a", []string{"a.b"}, "M", []int32{1}) },
		"a long list": func(s *Signals) error {
			return s.Add("/a", []string{"a.b"}, "M", []string{strings.Repeat("x", maxArray)})
		},
		"too long": func(s *Signals) error { return s.Add("/a", []string{"a.b"}, "M", strings.Repeat("x", maxMessage)) },
	} {
		var out bytes.Buffer
		s := NewSignals(&out)
		if err := s.Add("/a", []string{"a.b"}, "Good"); err != nil {
			t.Fatal(err)
		}
		if err := add(s); err == nil {
			t.Errorf("%s was taken", what)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		m, err := dbus.DecodeMessage(&out)
		if err != nil || m.Headers[dbus.FieldMember].Value() != "Good" || out.Len() > 0 {
			t.Errorf("%s: %v, %v, and %d bytes", what, m, err, out.Len())
		}
	}
}

// writes counts writes, and fails when it has none left.
type writes struct {
	left  int
	sizes []int
}

func (w *writes) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

// TestQueue: signals leave together; what waits for the next Flush is bounded,
// and so is the memory that is kept after a long one.
func TestQueue(t *testing.T) {
	w := &writes{left: math.MaxInt}
	s := NewSignals(w)
	add := func(text string) error { return s.Add("/a", []string{"a.b", "c.d"}, "M", text) }
	if err := s.Flush(); err != nil || len(w.sizes) != 0 {
		t.Errorf("nothing was sent as %v, %v", w.sizes, err)
	}
	for range 10 {
		if err := add("x"); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.sizes) != 0 {
		t.Errorf("sent before Flush: %v", w.sizes)
	}
	if err := s.Flush(); err != nil || len(w.sizes) != 1 {
		t.Errorf("ten were sent as %v, %v", w.sizes, err)
	}
	for range 1000 {
		if err := add(strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
		if len(s.queue) > full {
			t.Fatalf("%d bytes wait", len(s.queue))
		}
	}
	if err := add(strings.Repeat("x", 100*full)); err != nil || len(s.queue) > 0 || cap(s.queue) > 4*full || cap(s.body) > 4*full {
		t.Errorf("after a long one %d bytes wait, and room is kept for %d and %d; %v", len(s.queue), cap(s.queue), cap(s.body), err)
	}
	w.left = 0
	if err := errors.Join(add("x"), s.Flush()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a connection that is gone: %v", err)
	}
}

// TestSerials: numbers wrap around, skipping zero.
func TestSerials(t *testing.T) {
	var s serials
	s.last.Store(math.MaxUint32 - 1)
	got := fmt.Sprint(s.GetSerial(), s.GetSerial(), s.GetSerial())
	if got != "4294967295 1 2" {
		t.Errorf("got %s", got)
	}
}
