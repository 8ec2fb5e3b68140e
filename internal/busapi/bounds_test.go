package busapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/registry"
)

// TestHuge: with all methods and properties, a value that is too long gets an
// error and changes nothing; one that is just short enough is accepted.
func TestHuge(t *testing.T) {
	s := serve(t, settings("a", func(s *client.Settings) { s.Interval, s.Timeout = 24*time.Hour, 48*time.Hour }))
	const path = "/clients/a"
	before := s.getAll(t, path)
	text := strings.Repeat("x", 1<<16) // more costs seconds: interop.TestGreatest does it
	longPath := dbus.ObjectPath("/" + text[1:])

	refused := func(what string, call *dbus.Call) {
		t.Helper()
		e, ok := errors.AsType[dbus.Error](call.Err)
		if !ok {
			t.Fatalf("%s: %v; want an error in answer", what, call.Err)
		}
		if words, _ := e.Body[0].(string); len(words) == 0 || len(words) > 2*maxErrorText {
			t.Errorf("%s: the error %s says %d bytes", what, e.Name, len(words))
		}
	}
	for _, p := range clientProperties {
		for kind, v := range map[string]any{"text": text, "bytes": []byte(text[:client.MaxText+1]), "path": longPath, "list": make([]uint64, 1<<10)} {
			if p.name == "LastCheckedOK" && kind == "text" || p.name == "Secret" && kind == "bytes" {
				continue // any text counts as a word that all is well; a secret may be longer
			}
			refused(fmt.Sprintf("%s set to a huge %s", p.name, kind),
				s.call(path, propertiesName+".Set", clientName, p.name, dbus.MakeVariant(v)))
		}
	}
	for _, i := range append(clientInterfaces, serverInterfaces...) {
		for _, m := range i.methods {
			if m.name == "GetAll" {
				continue // an unknown interface has no properties
			}
			for _, on := range []dbus.ObjectPath{path, "/"} {
				refused(i.name+"."+m.name+" of a huge text", s.call(on, i.name+"."+m.name, text))
				if m.name == "Get" || m.name == "Set" {
					args := []any{text[:len(text)/2], text[:len(text)/2], dbus.MakeVariant("x")}
					refused(i.name+"."+m.name+" of huge names", s.call(on, i.name+"."+m.name, args[:len(m.in)]...))
				}
			}
		}
	}
	refused("RemoveClient of a huge path", s.call("/", serverName+".RemoveClient", longPath))
	refused("a call of a huge path", s.call(longPath, clientName+".Enable"))
	if err := s.call(path, propertiesName+".GetAll", text).Err; err != nil {
		t.Error(err)
	}
	if after := s.getAll(t, path); !maps.Equal(before, after) {
		t.Errorf("what was refused has changed %v to %v", before, after)
	}

	// The limits themselves.
	for property, limit := range map[string]int{"Host": client.MaxText, "Checker": client.MaxText} {
		for _, n := range []int{limit, limit + 1} {
			v := text[:n]
			err := s.set(path, property, v)
			if (err == nil) != (n <= limit) {
				t.Errorf("%s of %d bytes: %v", property, n, err)
			}
			if err == nil && s.get(t, path, clientName, property) != v {
				t.Errorf("%s of %d bytes reads as something else", property, n)
			}
		}
	}
	if err := s.set(path, "Checker", ""); err == nil {
		t.Error("an empty checker was taken")
	}
}

// TestDeep: values within values, as deep as the bus lets them through.
func TestDeep(t *testing.T) {
	s := serve(t, settings("a"))
	for depth := range 70 {
		v := dbus.MakeVariant("x")
		for range depth {
			v = dbus.MakeVariant(v)
		}
		conn, err := dbus.ConnectSystemBus() // the bus hangs up on who sends what is too deep
		if err != nil {
			t.Fatal(err)
		}
		err = conn.Object(serverName, "/clients/a").Call(propertiesName+".Set", 0, clientName, "Host", v).Err
		conn.Close()
		if (err == nil) != (depth == 0) {
			t.Errorf("a text within %d variants: %v", depth, err)
		}
	}
	select {
	case <-s.bus.Context().Done():
		t.Error("the bus is gone")
	default:
	}
	var owner string
	if err := s.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, serverName).Store(&owner); err != nil {
		t.Errorf("the server lost the bus: %v", err)
	}
}

// TestTooMany: an answer that doesn't fit in a message is replaced by an error,
// as the bus would hang up; the answer for 10,000 clients isn't.
func TestTooMany(t *testing.T) {
	long := strings.Repeat("x", client.MaxText)
	ask := func(n int, change func(*client.Settings)) (guessed, encoded int, err error) {
		var many []client.Settings
		for i := range n {
			many = append(many, settings(fmt.Sprintf("host%04d.example.org", i), change))
		}
		r, err := registry.New(t.Context(), registry.Options{Settings: many, NoRestore: true, Checker: stubChecker{}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := objectManagerMethods[0].call(call{api: &api{registry: r, paths: &Paths{}}})
		if err != nil {
			return 0, 0, err
		}
		for _, interfaces := range out[0].(map[dbus.ObjectPath]map[string]map[string]dbus.Variant) {
			for _, values := range interfaces {
				guessed += sizeOf(values)
			}
		}
		var message bytes.Buffer
		if err := (&dbus.Message{
			Type: dbus.TypeMethodReply, Body: out, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldReplySerial: dbus.MakeVariant(uint32(1)), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(out...)),
			},
		}).EncodeTo(&message, binary.LittleEndian); err != nil {
			t.Fatal(err)
		}
		return guessed, message.Len(), nil
	}
	guessed, encoded, err := ask(100, func(*client.Settings) {})
	if err != nil || guessed < encoded || 100*guessed > maxAnswer {
		t.Errorf("100 clients: guessed %d bytes, they take %d; %v", guessed, encoded, err)
	}
	_, _, err = ask(maxAnswer/client.MaxText/2+2, func(s *client.Settings) { s.Checker = long })
	if e, ok := errors.AsType[dbus.Error](err); !ok || e.Name != errLimits {
		t.Errorf("too many clients: %v", err)
	}
}

// TestOrder: calls whose answers nobody waits for are done in the order in
// which they were sent, on which Debian's mandos-monitor relies.
func TestOrder(t *testing.T) {
	s := serve(t, settings("a"))
	o := s.bus.Object(serverName, "/clients/a")
	const last = 500
	for i := range last + 1 {
		o.Go(propertiesName+".Set", dbus.FlagNoReplyExpected, nil, clientName, "Host", dbus.MakeVariant(fmt.Sprint(i)))
	}
	if got := s.get(t, "/clients/a", clientName, "Host"); got != fmt.Sprint(last) {
		t.Errorf("the last word was %d, and it is %v", last, got)
	}
}

// TestLine: a call that joins a full line waits, other messages don't, and a
// closed line blocks nothing.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		message := func(of string) *dbus.Message {
			return &dbus.Message{Type: dbus.TypeMethodCall, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldInterface: dbus.MakeVariant(of)}}
		}
		l := newLine()
		var joined []*dbus.Message
		go func() {
			for range lineLength + 2 {
				m := message(clientName)
				l.join(m)
				joined = append(joined, m)
			}
		}()
		synctest.Wait()
		if len(joined) != lineLength {
			t.Fatalf("%d joined a line of %d", len(joined), lineLength)
		}
		l.join(message("org.freedesktop.DBus.Peer"))

		// The last comes first, and waits for all before it.
		var done []int
		for i := lineLength - 1; i >= 0; i-- {
			go func() {
				leave, err := l.enter(joined[i])
				if err != nil {
					t.Error(err)
					return
				}
				done = append(done, i)
				leave()
			}()
			synctest.Wait()
			if i > 0 && len(done) > 0 {
				t.Fatalf("%v were done before the first", done)
			}
		}
		if len(done) != lineLength || !slices.IsSorted(done) {
			t.Errorf("done in the order %v", done)
		}
		if len(joined) != lineLength+2 {
			t.Errorf("%d joined when there was room", len(joined))
		}
		go func() {
			for range 2 * lineLength {
				l.join(message(clientName))
			}
		}()
		synctest.Wait()
		l.close() // or the bubble never ends
		late := message(clientName)
		l.join(late)
		if _, err := l.enter(late); err == nil {
			t.Error("a call joined a closed line")
		}
	})
}
