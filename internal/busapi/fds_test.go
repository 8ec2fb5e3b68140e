package busapi

import (
	"errors"
	"os"
	"testing"

	"github.com/godbus/dbus/v5"
)

// TestDescriptors: no message that has file descriptors comes through to the
// server, neither a call nor a signal, which every user may send.
func TestDescriptors(t *testing.T) {
	s := serve(t, settings("a"))
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := dbus.UnixFD(f.Fd())
	list := []dbus.UnixFD{fd}

	if !s.bus.SupportsUnixFDs() {
		t.Fatal("this test can't send descriptors")
	}
	for _, body := range []any{fd, list, dbus.MakeVariant(list), map[string]dbus.UnixFD{"x": fd}} {
		err := s.call("/clients/a", clientName+".Enable", body).Err
		if e, ok := errors.AsType[dbus.Error](err); !ok || e.Name != "org.freedesktop.DBus.Error.NotSupported" {
			t.Errorf("a call with %T: %v", body, err)
		}
	}
	var owner string
	if err := s.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, serverName).Store(&owner); err != nil {
		t.Fatal(err)
	}
	if err := s.bus.Send(&dbus.Message{
		Type: dbus.TypeSignal, Body: []any{list}, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldInterface: dbus.MakeVariant("x.y"), dbus.FieldMember: dbus.MakeVariant("Z"),
			dbus.FieldDestination: dbus.MakeVariant(owner), dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(list)),
		},
	}, nil).Err; err != nil {
		t.Fatal(err)
	}
	if got := s.get(t, "/clients/a", clientName, "Name"); got != "a" {
		t.Errorf("then the name is %v", got)
	}
	var after string
	if err := s.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, serverName).Store(&after); err != nil || after != owner {
		t.Errorf("the server came anew to the bus: %s, then %s; %v", owner, after, err)
	}
}
