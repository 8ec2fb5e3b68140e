package busapi

import (
	"slices"
	"time"

	"mandos/internal/client"
	"mandos/internal/registry"

	"github.com/godbus/dbus/v5"
)

// A signaller turns the registry's notices into signals, in the order and
// number in which the reference sends them. After an error it does nothing.
type signaller struct {
	api  *api
	emit func(path dbus.ObjectPath, name string, values ...any) error
	err  error

	// announced has the clients that were announced: false where changes were
	// missed since then.
	announced map[string]bool
	behind    []string // clients that catchUp has to look at
}

const (
	// catchUpTime is how long catchUp works at most, and catchUpPause how many
	// times as long it rests: all clients of a large site have to be told of
	// just when their hosts come for their secrets.
	catchUpTime  = 2 * time.Millisecond
	catchUpPause = 24
	// goodbyeTime is for telling, one by one, that all clients are gone. That
	// the server's name is gone says the same.
	goodbyeTime = time.Second
)

// catchUp tells of some of the clients that are behind, and returns how long
// to leave the others. What happens meanwhile comes first, by notice.
func (s *signaller) catchUp() (pause time.Duration) {
	begin := time.Now()
	for len(s.behind) > 0 && s.err == nil && time.Since(begin) < catchUpTime {
		name := s.behind[0]
		s.behind = s.behind[1:]
		current, announced := s.announced[name]
		if current {
			continue
		}
		v, there := s.api.registry.Get(name)
		switch {
		case !there: // there is a notice of that
		case !announced:
			s.added(v)
		default:
			s.announced[name] = true
			sub := subject{s.api, v, s.api.paths.Path(name)}
			s.send(sub.path, propertiesName+".PropertiesChanged", clientName, clientInterface().values(sub), []string{"Secret"})
		}
	}
	return catchUpPause * time.Since(begin)
}

// goodbye tells that all clients are gone.
func (s *signaller) goodbye() {
	begin := time.Now()
	for name := range s.announced {
		if time.Since(begin) > goodbyeTime {
			return
		}
		s.removed(name)
	}
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
	name := n.Client.Settings.Name
	switch n.Kind {
	case registry.ClientAdded:
		s.added(n.Client)
	case registry.ClientRemoved:
		s.removed(name)
		s.api.paths.Forget(name)
	case registry.ClientChanged:
		s.changed(n.Client, n.Changes) // whoever has asked knows it, announced or not
	case registry.ClientNotFound:
		s.sendBoth(rootPath, serverNames, "ClientNotFound", n.Caller.Identity.String(), n.Caller.Addr.Addr().String())
	case registry.Lost:
		s.resync()
	}
}

func (s *signaller) added(v registry.View) {
	sub := subject{s.api, v, s.api.paths.Path(v.Settings.Name)}
	s.announced[v.Settings.Name] = true
	s.send(rootPath, objectManager+".InterfacesAdded", sub.path, sub.interfaces())
	s.sendBoth(rootPath, serverNames, "ClientAdded", sub.path)
}

func (s *signaller) removed(name string) {
	path := s.api.paths.Path(name)
	delete(s.announced, name)
	var names []string
	for _, i := range clientInterfaces {
		names = append(names, i.name)
	}
	s.send(rootPath, objectManager+".InterfacesRemoved", path, names)
	s.sendBoth(rootPath, serverNames, "ClientRemoved", path, name)
}

// resync has the whole state told, after changes were missed.
func (s *signaller) resync() {
	s.behind = s.api.registry.Names()
	for name := range s.announced {
		if _, there := slices.BinarySearch(s.behind, name); there {
			s.announced[name] = false
		} else {
			s.removed(name)
			s.api.paths.Forget(name)
		}
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
