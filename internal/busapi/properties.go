package busapi

import (
	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"mandos/internal/sysbus"
)

var introspectMethod = method{name: "Introspect", out: []arg{{"xml_data", "s"}}, call: func(c call) ([]any, error) {
	text, err := describeNode(c.interfaces(), c.children())
	return []any{text}, err
}}

// interfaces returns the interfaces of the object that is called.
func (c call) interfaces() []iface {
	if c.object != "" {
		return clientInterfaces
	}
	return serverInterfaces
}

func (c call) children() []string {
	if c.object != "" {
		return nil
	}
	return []string{"clients"}
}

// propertiesMethods are those of org.freedesktop.DBus.Properties (D-Bus
// Specification, "Standard Interfaces").
var propertiesMethods = []method{
	{name: "Get", in: []arg{{"interface_name", "s"}, {"property_name", "s"}}, out: []arg{{"value", "v"}}, call: func(c call) ([]any, error) {
		p, err := c.property()
		if err != nil {
			return nil, err
		}
		if p.get == nil {
			return nil, newError(errPropertyAccess, "%s can't be read", p.name)
		}
		s, err := c.subject()
		if err != nil {
			return nil, err
		}
		return []any{dbus.MakeVariant(p.get(s))}, nil
	}},
	{name: "Set", in: []arg{{"interface_name", "s"}, {"property_name", "s"}, {"value", "v"}}, call: func(c call) ([]any, error) {
		p, err := c.property()
		if err != nil {
			return nil, err
		}
		if p.set == nil {
			return nil, newError(errPropertyAccess, "%s can't be written", p.name)
		}
		return nil, p.set(c, c.args[2].(dbus.Variant).Value())
	}},
	{name: "GetAll", in: []arg{{"interface_name", "s"}}, out: []arg{{"props", "a{sv}"}}, call: func(c call) ([]any, error) {
		s, err := c.subject()
		if err != nil {
			return nil, err
		}
		all := map[string]dbus.Variant{}
		for _, i := range c.interfaces() {
			// The empty name stands for all of them.
			if name := c.args[0].(string); name == "" || name == i.name {
				for name, v := range i.values(s) {
					all[name] = v
				}
			}
		}
		return []any{all}, nil
	}},
}

var propertiesSignals = []introspect.Signal{
	signal("PropertiesChanged", false, arg{"interface_name", "s"}, arg{"changed_properties", "a{sv}"}, arg{"invalidated_properties", "as"}),
}

// list reads all of an interface's properties that can be read.
func (i iface) list(s subject) sysbus.Properties {
	return i.appendTo(make(sysbus.Properties, 0, len(i.properties)), s)
}

// appendTo appends to list what i.list returns.
func (i iface) appendTo(list sysbus.Properties, s subject) sysbus.Properties {
	for _, p := range i.properties {
		if p.get != nil {
			list = append(list, sysbus.Property{Name: p.name, Value: p.get(s)})
		}
	}
	return list
}

// values is list in the form for an answer.
func (i iface) values(s subject) map[string]dbus.Variant {
	values := make(map[string]dbus.Variant, len(i.properties))
	for _, p := range i.list(s) {
		values[p.Name] = dbus.MakeVariant(p.Value)
	}
	return values
}

// property finds the property that the first two arguments name. An empty
// interface name stands for any that has it.
func (c call) property() (property, error) {
	of, name := c.args[0].(string), c.args[1].(string)
	for _, i := range c.interfaces() {
		if of != "" && of != i.name {
			continue
		}
		for _, p := range i.properties {
			if p.name == name {
				return p, nil
			}
		}
	}
	return property{}, newError(errPropertyNotFound, "there is no property %s of interface %s", name, of)
}

// subject returns what the properties of the called object are read from.
func (c call) subject() (subject, error) {
	if c.object == "" {
		return subject{api: c.api, path: rootPath}, nil
	}
	v, ok := c.api.registry.Get(c.object)
	if !ok {
		return subject{}, newError(errUnknownObject, "there is no client %q any more", c.object)
	}
	return subject{c.api, v, c.api.paths.Path(c.object)}, nil
}
