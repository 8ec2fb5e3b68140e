package busapi

import (
	"encoding/xml"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// Names of interfaces.
const (
	introspectable = "org.freedesktop.DBus.Introspectable"
	propertiesName = "org.freedesktop.DBus.Properties"
	objectManager  = "org.freedesktop.DBus.ObjectManager"

	serverName    = "se.recompile.Mandos"
	clientName    = "se.recompile.Mandos.Client"
	oldServerName = "se.bsnet.fukt.Mandos"
	oldClientName = "se.bsnet.fukt.Mandos.Client"

	// Our own, for what has no place in the others: see mandos-dbus(7).
	ourServerName = "mandos.go.Server1"
	ourClientName = "mandos.go.Client1"
)

// The interfaces that hold a client's properties and signals; the second is the
// deprecated name of the first.
var clientNames = []string{clientName, oldClientName}

// An iface is one interface of an object.
type iface struct {
	name       string
	methods    []method
	signals    []introspect.Signal
	properties []property
	deprecated bool
}

// A method is a method that may be called.
type method struct {
	name       string
	in, out    []arg
	deprecated bool
	call       func(c call) ([]any, error)
}

// A call is one call of a method. object is the client's name, or empty.
type call struct {
	api    *api
	object string
	sender string
	args   []any // of the types in the method's in
}

type arg struct{ name, signature string }

// A property is a property of a client or of the server.
type property struct {
	name       string
	signature  string
	changes    string // for EmitsChangedSignal; empty: the default, "true"
	deprecated bool
	get        func(s subject) any           // nil: can't be read
	set        func(c call, value any) error // nil: can't be written
}

func (p property) access() string {
	switch {
	case p.get == nil:
		return "write"
	case p.set == nil:
		return "read"
	}
	return "readwrite"
}

const (
	deprecatedAnnotation = "org.freedesktop.DBus.Deprecated"
	changesAnnotation    = "org.freedesktop.DBus.Property.EmitsChangedSignal"
)

func annotations(deprecated bool, changes string) []introspect.Annotation {
	var as []introspect.Annotation
	if changes != "" {
		as = append(as, introspect.Annotation{Name: changesAnnotation, Value: changes})
	}
	if deprecated {
		as = append(as, introspect.Annotation{Name: deprecatedAnnotation, Value: "true"})
	}
	return as
}

func signal(name string, deprecated bool, args ...arg) introspect.Signal {
	s := introspect.Signal{Name: name, Annotations: annotations(deprecated, "")}
	for _, a := range args {
		s.Args = append(s.Args, introspect.Arg{Name: a.name, Type: a.signature})
	}
	return s
}

// describe returns i as Introspect describes it.
func (i iface) describe() introspect.Interface {
	d := introspect.Interface{Name: i.name, Signals: i.signals, Annotations: annotations(i.deprecated, "")}
	for _, m := range i.methods {
		im := introspect.Method{Name: m.name, Annotations: annotations(m.deprecated, "")}
		for _, a := range m.in {
			im.Args = append(im.Args, introspect.Arg{Name: a.name, Type: a.signature, Direction: "in"})
		}
		for _, a := range m.out {
			im.Args = append(im.Args, introspect.Arg{Name: a.name, Type: a.signature, Direction: "out"})
		}
		d.Methods = append(d.Methods, im)
	}
	for _, p := range i.properties {
		d.Properties = append(d.Properties, introspect.Property{
			Name: p.name, Type: p.signature, Access: p.access(), Annotations: annotations(p.deprecated, p.changes),
		})
	}
	return d
}

func describeNode(interfaces []iface, children []string) (string, error) {
	var node introspect.Node
	for _, i := range interfaces {
		node.Interfaces = append(node.Interfaces, i.describe())
	}
	for _, c := range children {
		node.Children = append(node.Children, introspect.Node{Name: c})
	}
	text, err := xml.MarshalIndent(node, "", "  ")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(introspect.IntrospectDeclarationString) + "\n" + string(text) + "\n", nil
}

// An object is the object at a path. It implements [dbus.ServerObject].
type object struct {
	handler
	client     string // its name, for a client's object
	interfaces []iface
}

// LookupInterface implements [dbus.ServerObject]. A call may omit the
// interface.
func (o object) LookupInterface(name string) (dbus.Interface, bool) {
	if name == "" {
		return lookup{o, o.interfaces}, true
	}
	i := slices.IndexFunc(o.interfaces, func(i iface) bool { return i.name == name })
	if i < 0 {
		// For an unknown interface, LookupMethod answers with the same error as
		// the bus.
		return lookup{o, nil}, true
	}
	return lookup{o, o.interfaces[i : i+1]}, true
}

// A lookup finds methods; it implements [dbus.Interface].
type lookup struct {
	object     object
	interfaces []iface
}

func (l lookup) LookupMethod(name string) (dbus.Method, bool) {
	for _, i := range l.interfaces {
		for _, m := range i.methods {
			if m.name == name {
				return &bound{object: l.object, method: m}, true
			}
		}
	}
	return &bound{object: l.object, unusable: newError(errUnknownMethod, "the object has no method %s", name)}, true
}

// A bound is a method of one object; it implements [dbus.Method] and
// [dbus.ArgumentDecoder]. Every call ends up at one, so that every call goes
// through the line.
type bound struct {
	object   object
	method   method
	unusable error // there is no such method, or no such object
	leave    func()
}

// DecodeArguments waits for the call's turn, and checks the arguments' types.
func (b *bound) DecodeArguments(_ *dbus.Conn, sender string, msg *dbus.Message, args []any) (_ []any, err error) {
	if b.leave, err = b.object.line.enter(msg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.leave()
		}
	}()
	if b.unusable != nil {
		return nil, b.unusable
	}
	want := ""
	for _, a := range b.method.in {
		want += a.signature
	}
	if got := dbus.SignatureOf(args...).String(); got != want {
		return nil, invalidArgs("%s takes arguments of the types %q, not %q", b.method.name, want, got)
	}
	return []any{call{b.object.api, b.object.client, sender, args}}, nil
}

// Call implements [dbus.Method].
func (b *bound) Call(args ...any) ([]any, error) {
	defer b.leave()
	out, err := b.method.call(args[0].(call))
	if err != nil {
		return nil, busError(err)
	}
	return out, nil
}

// The rest of [dbus.Method] isn't used for an ArgumentDecoder.

func (b *bound) NumArguments() int     { return len(b.method.in) }
func (b *bound) NumReturns() int       { return len(b.method.out) }
func (b *bound) ArgumentValue(int) any { return nil }
func (b *bound) ReturnValue(int) any   { return nil }

// missing stands for a path that leads to no object.
type missing struct {
	handler
	path dbus.ObjectPath
}

func (m missing) LookupInterface(string) (dbus.Interface, bool) { return m, true }
func (m missing) LookupMethod(string) (dbus.Method, bool) {
	return &bound{object: object{handler: m.handler}, unusable: noObject(m.path)}, true
}
