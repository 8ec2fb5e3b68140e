package busapi

import (
	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// serverMethods are the methods of se.recompile.Mandos.
var serverMethods = []method{
	{name: "GetAllClients", out: []arg{{"", "ao"}}, deprecated: true, call: func(c call) ([]any, error) {
		paths := []dbus.ObjectPath{}
		for _, v := range c.api.registry.List() {
			paths = append(paths, c.api.paths.Path(v.Settings.Name))
		}
		return []any{paths}, nil
	}},
	{name: "GetAllClientsWithProperties", out: []arg{{"", "a{oa{sv}}"}}, deprecated: true, call: func(c call) ([]any, error) {
		clients := map[dbus.ObjectPath]map[string]dbus.Variant{}
		size := 0
		for _, s := range c.api.subjects() {
			clients[s.path] = clientInterface().values(s)
			if size += sizeOf(clients[s.path]); size > maxAnswer {
				return nil, tooMany()
			}
		}
		return []any{clients}, nil
	}},
	{name: "RemoveClient", in: []arg{{"object_path", "o"}}, call: func(c call) ([]any, error) {
		path := c.args[0].(dbus.ObjectPath)
		name, ok := c.api.paths.Name(path)
		if !ok {
			return nil, newError(errKey, "no client has the path %s", path)
		}
		return nil, c.api.registry.Remove(name, c.api.actor(c.sender))
	}},
}

func clientInterface() iface { return clientInterfaces[2] }

var serverSignals = []introspect.Signal{
	signal("ClientAdded", false, arg{"objpath", "o"}),
	signal("ClientNotFound", false, arg{"key_id", "s"}, arg{"address", "s"}),
	signal("ClientRemoved", true, arg{"objpath", "o"}, arg{"name", "s"}),
}

var objectManagerMethods = []method{
	{name: "GetManagedObjects", out: []arg{{"objpath_interfaces_and_properties", "a{oa{sa{sv}}}"}}, call: func(c call) ([]any, error) {
		objects := map[dbus.ObjectPath]map[string]map[string]dbus.Variant{}
		size := 0
		for _, s := range c.api.subjects() {
			objects[s.path] = s.interfaces()
			for _, values := range objects[s.path] {
				size += sizeOf(values)
			}
			if size > maxAnswer {
				return nil, tooMany()
			}
		}
		return []any{objects}, nil
	}},
}

var objectManagerSignals = []introspect.Signal{
	signal("InterfacesAdded", false, arg{"object_path", "o"}, arg{"interfaces_and_properties", "a{sa{sv}}"}),
	signal("InterfacesRemoved", false, arg{"object_path", "o"}, arg{"interfaces", "as"}),
}

// maxAnswer is the maximum length of an answer, in bytes: the system bus
// disconnects a sender of more than 32 MiB. It is enough for 10,000 clients.
const maxAnswer = 30 << 20

func tooMany() error {
	return newError(errLimits, "there are too many clients for one answer of D-Bus")
}

// sizeOf estimates how many bytes values take in a message, rather too many
// than too few.
func sizeOf(values map[string]dbus.Variant) int {
	n := 80 // the path, the interface and the overhead
	for name, v := range values {
		n += len(name) + 20
		switch v := v.Value().(type) {
		case string:
			n += len(v)
		case []handout:
			n += len(v) * 128
		case []refusal:
			n += len(v) * 192
		}
	}
	return n
}

// interfaces returns all interfaces of a client's object with their properties.
func (s subject) interfaces() map[string]map[string]dbus.Variant {
	all := make(map[string]map[string]dbus.Variant, len(clientInterfaces))
	for _, i := range clientInterfaces {
		all[i.name] = i.values(s)
	}
	return all
}

// subjects returns all clients.
func (a *api) subjects() []subject {
	views := a.registry.List()
	subjects := make([]subject, len(views))
	for i, v := range views {
		subjects[i] = subject{a, v, a.paths.Path(v.Settings.Name)}
	}
	return subjects
}

func count(name string, get func(*api) uint64) property {
	return property{name: name, signature: "t", changes: "false", get: func(s subject) any { return get(s.api) }}
}

// ourServerProperties are totals; they are not signalled.
var ourServerProperties = []property{
	{name: "Version", signature: "s", changes: "const", get: func(s subject) any { return s.api.version }},
	count("Clients", func(a *api) uint64 { return uint64(a.registry.Counts().Clients) }),
	count("Enabled", func(a *api) uint64 { return uint64(a.registry.Counts().Enabled) }),
	count("Disabled", func(a *api) uint64 { return uint64(a.registry.Counts().Disabled) }),
	count("Waiting", func(a *api) uint64 { return uint64(a.registry.Counts().Waiting) }),
	count("CannotCheck", func(a *api) uint64 { return uint64(a.registry.Counts().CannotCheck) }),
	count("Handouts", func(a *api) uint64 { return a.history.totals().handouts }),
	count("Refusals", func(a *api) uint64 { return a.history.totals().refusals }),
	count("UnknownKeys", func(a *api) uint64 { return a.history.totals().unknownKeys }),
}

// The interfaces of "/" and of "/clients".
var serverInterfaces, nodeInterfaces []iface

func init() { // here, because their methods refer to the tables themselves
	serverInterfaces = []iface{
		{name: introspectable, methods: []method{introspectMethod}},
		{name: propertiesName, methods: propertiesMethods, signals: propertiesSignals},
		{name: objectManager, methods: objectManagerMethods, signals: objectManagerSignals},
		{name: serverName, methods: serverMethods, signals: serverSignals},
		{name: oldServerName, methods: serverMethods, signals: serverSignals, deprecated: true},
		{name: ourServerName, properties: ourServerProperties},
	}
	nodeInterfaces = []iface{{name: introspectable, methods: []method{
		{name: "Introspect", out: []arg{{"xml_data", "s"}}, call: func(c call) ([]any, error) {
			var children []string
			for _, s := range c.api.subjects() {
				children = append(children, string(s.path[len(clientsPath)+1:]))
			}
			text, err := describeNode(nil, children)
			return []any{text}, err
		}},
	}}}
}
