package busapi

import (
	"math"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"mandos/internal/client"
	"mandos/internal/keyid"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// A subject is what properties are read from.
type subject struct {
	api  *api
	view registry.View
	path dbus.ObjectPath
}

// stamp formats an instant as the reference does: in UTC, without a zone, and
// always with six decimals, which mandos-monitor requires.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000")
}

func milliseconds(d time.Duration) uint64 { return uint64(max(d, 0) / time.Millisecond) }

// do returns a method that gives an event to the registry. by says who asked
// for it.
func do(event func(by string) client.Event) func(call) ([]any, error) {
	return func(c call) ([]any, error) { return nil, c.do(event) }
}

func (c call) do(event func(by string) client.Event) error {
	return c.api.registry.Do(c.object, event(c.api.actor(c.sender)))
}

// The methods of a client.
var clientMethods = []method{
	{name: "Approve", in: []arg{{"value", "b"}}, call: func(c call) ([]any, error) {
		return nil, c.do(func(by string) client.Event {
			if c.args[0].(bool) {
				return client.Approve{By: by}
			}
			return client.Deny{By: by}
		})
	}},
	{name: "CheckedOK", call: do(func(by string) client.Event { return client.CheckedOK{By: by} })},
	{name: "Enable", deprecated: true, call: do(enable)},
	{name: "Disable", deprecated: true, call: do(disable)},
	{name: "StartChecker", deprecated: true, call: do(startChecker)},
	{name: "StopChecker", deprecated: true, call: do(stopChecker)},
}

func enable(by string) client.Event       { return client.Enable{By: by} }
func disable(by string) client.Event      { return client.Disable{By: by} }
func startChecker(by string) client.Event { return client.StartChecker{By: by} }
func stopChecker(by string) client.Event  { return client.StopChecks{By: by} }

var clientSignals = []introspect.Signal{
	signal("CheckerCompleted", false, arg{"exitcode", "n"}, arg{"waitstatus", "x"}, arg{"command", "s"}),
	signal("CheckerStarted", false, arg{"command", "s"}),
	signal("GotSecret", false),
	signal("NeedApproval", false, arg{"timeout", "t"}, arg{"default", "b"}),
	signal("Rejected", false, arg{"reason", "s"}),
	signal("PropertyChanged", true, arg{"property", "s"}, arg{"value", "v"}),
}

// text, boolean and duration return properties of those kinds.

func text(name, changes string, get func(registry.View) string) property {
	return property{name: name, signature: "s", changes: changes, get: func(s subject) any { return get(s.view) }}
}

func boolean(name string, get func(registry.View) bool) property {
	return property{name: name, signature: "b", get: func(s subject) any { return get(s.view) }}
}

// onOff makes the boolean property p settable.
func onOff(p property, on, off func(by string) client.Event) property {
	p.set = func(c call, value any) error {
		yes, ok := value.(bool)
		if !ok {
			return invalidArgs("%s is a boolean (b), not %q", p.name, dbus.SignatureOf(value))
		}
		if yes {
			return c.do(on)
		}
		return c.do(off)
	}
	return p
}

func duration(name string, which client.Property, get func(client.Settings) time.Duration) property {
	return property{
		name: name, signature: "t",
		get: func(s subject) any { return milliseconds(get(s.view.Settings)) },
		set: func(c call, value any) error {
			ms, ok := integer(value)
			if !ok {
				return invalidArgs("%s is a number of milliseconds (t), not %q", name, dbus.SignatureOf(value))
			}
			if ms < 0 || ms > math.MaxInt64/int64(time.Millisecond) {
				return invalidArgs("%s can't be %v ms", name, value)
			}
			ev := client.SetDuration{Property: which, Value: time.Duration(ms) * time.Millisecond}
			return c.set(ev, func(by string) client.Event { ev.By = by; return ev })
		},
	}
}

// settable makes the text property p settable.
func settable(p property, which client.Property) property {
	p.set = func(c call, value any) error {
		s, ok := value.(string)
		if !ok {
			return invalidArgs("%s is a text (s), not %q", p.name, dbus.SignatureOf(value))
		}
		ev := client.SetText{Property: which, Value: s}
		return c.set(ev, func(by string) client.Event { ev.By = by; return ev })
	}
	return p
}

// set is do for a value that may be out of range.
func (c call) set(ev client.Event, event func(by string) client.Event) error {
	if err := client.Validate(ev); err != nil {
		return invalidArgs("%v", err)
	}
	return c.do(event)
}

// integer accepts all of D-Bus's integer types: dbus-python sends whichever the
// value fits in (mandos-ctl: int32).
func integer(value any) (int64, bool) {
	switch v := value.(type) {
	case byte:
		return int64(v), true
	case int16:
		return int64(v), true
	case uint16:
		return int64(v), true
	case int32:
		return int64(v), true
	case uint32:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(min(v, math.MaxInt64)), true
	}
	return 0, false
}

// clientProperties are those of a client, in the order of the reference's
// documentation.
var clientProperties = []property{
	duration("ApprovalDelay", client.PropApprovalDelay, func(s client.Settings) time.Duration { return s.ApprovalDelay }),
	duration("ApprovalDuration", client.PropApprovalDuration, func(s client.Settings) time.Duration { return s.ApprovalDuration }),
	boolean("ApprovalPending", func(v registry.View) bool { return v.ApprovalPending }),
	onOff(boolean("ApprovedByDefault", func(v registry.View) bool { return v.Settings.ApprovedByDefault }),
		func(by string) client.Event { return client.SetApprovedByDefault{By: by, Value: true} },
		func(by string) client.Event { return client.SetApprovedByDefault{By: by, Value: false} }),
	settable(text("Checker", "", func(v registry.View) string { return v.Settings.Checker }), client.PropChecker),
	onOff(boolean("CheckerRunning", func(v registry.View) bool { return v.CheckerRunning }), startChecker, stopChecker),
	text("Created", "const", func(v registry.View) string { return stamp(v.Created) }),
	onOff(boolean("Enabled", func(v registry.View) bool { return v.Enabled }), enable, disable),
	text("Expires", "", func(v registry.View) string { return stamp(v.Expires) }),
	duration("ExtendedTimeout", client.PropExtendedTimeout, func(s client.Settings) time.Duration { return s.ExtendedTimeout }),
	text("Fingerprint", "const", func(v registry.View) string { return keyid.Text(v.Settings.Fingerprint) }),
	settable(text("Host", "", func(v registry.View) string { return v.Settings.Host }), client.PropHost),
	duration("Interval", client.PropInterval, func(s client.Settings) time.Duration { return s.Interval }),
	text("KeyID", "const", func(v registry.View) string { return keyid.Text(v.Settings.KeyID) }),
	text("LastApprovalRequest", "", func(v registry.View) string { return stamp(v.LastApprovalRequest) }),
	lastCheckedOK(),
	{name: "LastCheckerStatus", signature: "n", get: func(s subject) any { return int16(s.view.LastCheckerStatus) }},
	text("LastEnabled", "", func(v registry.View) string { return stamp(v.LastEnabled) }),
	text("Name", "const", func(v registry.View) string { return v.Settings.Name }),
	{name: "ObjectPath", signature: "o", changes: "const", deprecated: true, get: func(s subject) any { return s.path }},
	{name: "Secret", signature: "ay", changes: "invalidates", set: setSecret},
	duration("Timeout", client.PropTimeout, func(s client.Settings) time.Duration { return s.Timeout }),
}

// lastCheckedOK takes the setting of any text as an operator's CheckedOK.
func lastCheckedOK() property {
	p := text("LastCheckedOK", "", func(v registry.View) string { return stamp(v.LastCheckedOK) })
	p.set = func(c call, value any) error {
		if _, ok := value.(string); !ok {
			return invalidArgs("%s is a text (s), not %q", p.name, dbus.SignatureOf(value))
		}
		return c.do(func(by string) client.Event { return client.CheckedOK{By: by} })
	}
	return p
}

func setSecret(c call, value any) error {
	b, ok := value.([]byte)
	if !ok {
		return invalidArgs("Secret is an array of bytes (ay), not %q", dbus.SignatureOf(value))
	}
	ev := client.SetSecret{Value: secret.New(b)}
	return c.set(ev, func(by string) client.Event { ev.By = by; return ev })
}

// ourClientProperties are those that the reference doesn't have. No signals are
// sent for them: they change along with others for which there are.
var ourClientProperties = []property{
	text("Status", "false", func(v registry.View) string { return v.Describe() }),
	text("CannotCheck", "false", func(v registry.View) string { return v.CannotCheck }),
	text("NextCheck", "false", func(v registry.View) string { return stamp(v.NextCheck) }),
	text("Decision", "false", func(v registry.View) string { return v.Decision.String() }),
	text("DecisionUntil", "false", func(v registry.View) string { return stamp(v.DecisionUntil) }),
	{name: "Protocol", signature: "s", changes: "false", get: func(s subject) any { return s.api.history.protocol(s.view.Settings.Name) }},
	{name: "Handouts", signature: "a(ss)", changes: "false", get: func(s subject) any { return s.api.history.handouts(s.view.Settings.Name) }},
	{name: "Refusals", signature: "a(sss)", changes: "false", get: func(s subject) any { return s.api.history.refusals(s.view.Settings.Name) }},
}

// clientInterfaces are the interfaces of each client's object.
var clientInterfaces []iface

func init() { // here, because their methods refer to the table itself
	clientInterfaces = []iface{
		{name: introspectable, methods: []method{introspectMethod}},
		{name: propertiesName, methods: propertiesMethods, signals: propertiesSignals},
		{name: clientName, methods: clientMethods, signals: clientSignals, properties: clientProperties},
		{name: oldClientName, methods: clientMethods, signals: clientSignals, properties: clientProperties, deprecated: true},
		{name: ourClientName, properties: ourClientProperties},
	}
}
