package busapi

import (
	"time"

	"mandos/internal/client"
	"mandos/internal/registry"

	"github.com/godbus/dbus/v5"
)

// A signaller turns the registry's notices into signals, in the order and
// number in which the reference sends them. After an error it does nothing.
type signaller struct {
	api   *api
	emit  func(path dbus.ObjectPath, name string, values ...any) error
	known map[string]bool // clients that were announced
	err   error
}

func (s *signaller) send(path dbus.ObjectPath, name string, values ...any) {
	if s.err == nil {
		s.err = s.emit(path, name, values...)
	}
}

// sendBoth sends a signal by both names of its interface.
func (s *signaller) sendBoth(path dbus.ObjectPath, names []string, member string, values ...any) {
	for _, name := range names {
		s.send(path, name+"."+member, values...)
	}
}

var serverNames = []string{serverName, oldServerName}

func (s *signaller) notice(n registry.Notice, now time.Time) {
	s.api.history.note(n, now)
	switch n.Kind {
	case registry.ClientAdded:
		s.added(n.Client)
	case registry.ClientRemoved:
		s.removed(n.Client)
		s.api.paths.Forget(n.Client.Settings.Name)
	case registry.ClientChanged:
		s.changed(n.Client, n.Changes)
	case registry.ClientNotFound:
		s.sendBoth(rootPath, serverNames, "ClientNotFound", n.Caller.Identity.String(), n.Caller.Addr.Addr().String())
	case registry.Lost:
		s.resync()
	}
}

func (s *signaller) added(v registry.View) {
	sub := subject{s.api, v, s.api.paths.Path(v.Settings.Name)}
	s.known[v.Settings.Name] = true
	s.send(rootPath, objectManager+".InterfacesAdded", sub.path, sub.interfaces())
	s.sendBoth(rootPath, serverNames, "ClientAdded", sub.path)
}

func (s *signaller) removed(v registry.View) {
	path := s.api.paths.Path(v.Settings.Name)
	delete(s.known, v.Settings.Name)
	var names []string
	for _, i := range clientInterfaces {
		names = append(names, i.name)
	}
	s.send(rootPath, objectManager+".InterfacesRemoved", path, names)
	s.sendBoth(rootPath, serverNames, "ClientRemoved", path, v.Settings.Name)
}

// resync tells the whole state, after changes were missed.
func (s *signaller) resync() {
	gone := s.known
	s.known = map[string]bool{}
	for _, sub := range s.api.subjects() {
		name := sub.view.Settings.Name
		if !gone[name] {
			s.added(sub.view)
			continue
		}
		delete(gone, name)
		s.known[name] = true
		s.send(sub.path, propertiesName+".PropertiesChanged", clientName, clientInterface().values(sub), []string{"Secret"})
	}
	for name := range gone {
		var v registry.View
		v.Settings.Name = name
		s.removed(v)
		s.api.paths.Forget(name)
	}
}

func (s *signaller) changed(v registry.View, changes []client.Notice) {
	sub := subject{s.api, v, s.api.paths.Path(v.Settings.Name)}
	for _, change := range changes {
		switch change := change.(type) {
		case client.PropertyChanged:
			s.property(sub, string(change.Property))
		case client.CheckerStartedNotice:
			s.sendBoth(sub.path, clientNames, "CheckerStarted", change.Command)
		case client.CheckerCompleted:
			exit, wait := waitStatus(change.Result)
			s.sendBoth(sub.path, clientNames, "CheckerCompleted", exit, wait, change.Command)
		case client.GotSecret:
			s.sendBoth(sub.path, clientNames, "GotSecret")
		case client.NeedApproval:
			s.sendBoth(sub.path, clientNames, "NeedApproval", milliseconds(change.Delay), change.Default)
		case client.RejectedNotice:
			s.sendBoth(sub.path, clientNames, "Rejected", string(change.Reason))
		}
	}
}

// property tells of one property's new value.
func (s *signaller) property(sub subject, name string) {
	for _, p := range clientProperties {
		if p.name != name {
			continue
		}
		changed, invalidated := map[string]dbus.Variant{}, []string{}
		if p.get == nil {
			invalidated = append(invalidated, name)
		} else {
			value := dbus.MakeVariant(p.get(sub))
			changed[name] = value
			s.sendBoth(sub.path, clientNames, "PropertyChanged", name, value)
		}
		s.send(sub.path, propertiesName+".PropertiesChanged", clientName, changed, invalidated)
		return
	}
}

// waitStatus returns the two numbers of CheckerCompleted; for a signal they
// are the reference's quirk.
func waitStatus(r client.CheckResult) (exit int16, wait int64) {
	status := int64(r.Status())
	signo := int64(r.Signal)
	if status >= 0 {
		signo = 0
	}
	return int16(status), status<<8 | signo
}
