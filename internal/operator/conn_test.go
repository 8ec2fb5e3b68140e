package operator

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/interop"
)

// TestForged: what somebody else than the server says is not heard, whoever it
// is sent to.
func TestForged(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", interop.Bus(t))
	connect := func() *dbus.Conn {
		conn, err := dbus.ConnectSystemBus()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	server, stranger := connect(), connect()
	if _, err := server.RequestName(BusName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	heard, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	emit := func(from *dbus.Conn, to, iface, member string, values ...any) {
		t.Helper()
		m := &dbus.Message{Type: dbus.TypeSignal, Body: values, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/clients/a")), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
			dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(values...)),
		}}
		if to != "" {
			m.Headers[dbus.FieldDestination] = dbus.MakeVariant(to)
		}
		from.Send(m, nil)
		if err := from.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil { // it has arrived
			t.Fatal(err)
		}
	}
	for _, to := range []string{"", c.bus.Names()[0]} {
		emit(stranger, to, properties, "PropertiesChanged", ClientInterface, map[string]dbus.Variant{"Name": dbus.MakeVariant("forged")}, []string{})
		emit(stranger, to, "org.freedesktop.DBus", "NameOwnerChanged", BusName, ":1.1", "")
	}
	emit(server, "", properties, "PropertiesChanged", ClientInterface, map[string]dbus.Variant{"Name": dbus.MakeVariant("real")}, []string{})
	if o := <-heard; o.Kind != Changed || o.Changed["Name"].Value() != "real" {
		t.Errorf("heard %v", o)
	}
}

// TestHungBus: a bus that takes the connection and says nothing doesn't hang
// its operator.
func TestHungBus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	if c, err := connect(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "no answer within 1ms") {
		t.Errorf("got %v, %v", c, err)
	}
}
