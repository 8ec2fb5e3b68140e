package store

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// TestParseWhatIsWritten: what seal writes of a client as they are is read
// without encoding/json.
func TestParseWhatIsWritten(t *testing.T) {
	var r recordV1
	fillAll(reflect.ValueOf(&r).Elem())
	r.OwnSecret, r.Secret = false, nil
	sameAsJSON(t, &r, true)
	sameAsJSON(t, &recordV1{}, true)
	var g graveV1
	fillAll(reflect.ValueOf(&g).Elem())
	sameAsJSON(t, &g, true)

	r.OwnSecret, r.Secret = true, []byte("a secret")
	sameAsJSON(t, &r, false)
	r.OwnSecret, r.Secret = false, nil
	r.Configured.Checker = "true && echo \"naïve\""
	sameAsJSON(t, &r, false)
}

// fillAll gives every field a value that is not its zero value.
func fillAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillAll(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 11, 22, 5, 30, 0, 123456789, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fillAll(v.Field(i))
		}
	case reflect.String:
		v.SetString("some text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(-1234567890123)
	}
}

// sameAsJSON checks that body, written as JSON, is read as it was, and whether
// our parser does it.
func sameAsJSON[Body recordV1 | graveV1](t *testing.T, body *Body, ours bool) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	var got Body
	if did := any(&got).(interface{ parse([]byte) bool }).parse(b); did != ours {
		t.Errorf("parsed without encoding/json: %v, want %v: %s", did, ours, b)
	} else if did && !reflect.DeepEqual(&got, body) {
		t.Errorf("read as %+v, want %+v", got, *body)
	}
}

// FuzzParse: what our parser takes means the same to encoding/json.
func FuzzParse(f *testing.F) {
	var r recordV1
	fillAll(reflect.ValueOf(&r).Elem())
	r.OwnSecret, r.Secret = false, nil
	b, err := json.Marshal(&r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"configured":{"timeout":-0},"status":{"enabled":false,"enabled":true}}`))
	f.Add([]byte(`{"current":{"interval":1},"current":{"timeout":01}}`))
	f.Add([]byte(`{}{}`))
	f.Add([]byte(`{"status":{"enabled":true},"secret":"a"}`))
	f.Add([]byte(`{"status":{"at":"2026-02-30T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var ours, theirs recordV1
		if !ours.parse(b) {
			if !reflect.DeepEqual(ours, recordV1{}) {
				t.Errorf("%q: given up, but %+v is left", b, ours)
			}
			return
		}
		if err := json.Unmarshal(b, &theirs); err != nil {
			t.Fatalf("%q: taken, but %v", b, err)
		}
		if !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%q: %+v, but encoding/json has %+v", b, ours, theirs)
		}
	})
}

// BenchmarkParse reads a client's record, by our parser and by encoding/json.
func BenchmarkParse(b *testing.B) {
	var r recordV1
	fillAll(reflect.ValueOf(&r).Elem())
	r.OwnSecret, r.Secret, r.Current = false, nil, nil
	text, err := json.Marshal(&r)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var v recordV1
			if !v.parse(text) {
				b.Fatal("gave up")
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var v recordV1
			if err := json.Unmarshal(text, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
