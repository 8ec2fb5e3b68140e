package busapi

import (
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/client"
	"mandos/internal/registry"
	"mandos/internal/sysbus"
)

// A signaller turns the registry's notices into signals, in the order and
// number in which the reference sends them. After an error it does nothing.
type signaller struct {
	api *api
	out sender
	err error

	// announced has the clients that were announced; the value is false if
	// changes have been missed since then.
	announced map[string]bool
	behind    []string // clients that catchUp has yet to look at
	happened  bool     // something has happened since catchUp last worked

	room sysbus.Properties // the last client's, to be reused
}

// A sender is a [sysbus.Signals].
type sender interface {
	Add(path dbus.ObjectPath, interfaces []string, member string, values ...any) error
	Flush() error
}

const (
	// catchUpTime is how long catchUp works at most before it rests,
	// catchUpPause times as long as it has worked, or catchUpYield times if
	// something has happened meanwhile: a large site's clients have to be
	// announced just when its hosts come for their secrets. The bus's own work
	// comes on top.
	catchUpTime  = 2 * time.Millisecond
	catchUpPause = 8
	catchUpYield = 50
	// goodbyeTime is how long to spend on signalling for each client that it is
	// gone. That the server's name has gone says the same.
	goodbyeTime = time.Second
)

// catchUp sends signals for some of the clients in behind, and returns how long
// to leave the others. Notices of what happens meanwhile come first.
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
		case !there: // a notice says so
		case !announced:
			s.added(v)
		default:
			s.announced[name] = true
			sub := subject{s.api, v, s.api.paths.Path(name)}
			s.send(sub.path, propertiesNames, "PropertiesChanged", clientName, clientInterface().list(sub), []string{"Secret"})
		}
	}
	return s.rest(time.Since(begin))
}

// rest returns how long catchUp rests after it has worked for worked.
func (s *signaller) rest(worked time.Duration) time.Duration {
	if s.happened {
		s.happened = false
		return catchUpYield * worked
	}
	return catchUpPause * worked
}

// goodbye signals that all clients are gone.
func (s *signaller) goodbye() {
	begin := time.Now()
	for name := range s.announced {
		if time.Since(begin) > goodbyeTime {
			return
		}
		s.removed(name)
	}
}

// send queues a signal for each of the interfaces, to be sent at the next
// flush.
func (s *signaller) send(path dbus.ObjectPath, interfaces []string, member string, values ...any) {
	if s.err == nil {
		s.err = s.out.Add(path, interfaces, member, values...)
	}
}

func (s *signaller) flush() {
	if s.err == nil {
		s.err = s.out.Flush()
	}
}

// The interfaces of signals. The reference's have two names.
var (
	serverNames     = []string{serverName, oldServerName}
	propertiesNames = []string{propertiesName}
	managerNames    = []string{objectManager}
)

// waiting handles the notices that wait in feed.
func (s *signaller) waiting(feed *registry.Feed) {
	for range len(feed.C) {
		s.notice(<-feed.C, time.Now())
	}
}

func (s *signaller) notice(n *registry.Notice, now time.Time) {
	s.api.history.note(n, now)
	s.happened = true
	name := n.Client.Settings.Name
	switch n.Kind {
	case registry.ClientAdded:
		s.added(n.Client)
	case registry.ClientRemoved:
		s.removed(name)
		s.api.paths.Forget(name)
	case registry.ClientChanged:
		s.changed(n.Client, n.Changes) // announced or not: others may have found the client by asking
	case registry.ClientNotFound:
		s.send(rootPath, serverNames, "ClientNotFound", n.Caller.Identity.String(), n.Caller.Addr.Addr().String())
	case registry.Lost:
		s.resync()
	}
}

func (s *signaller) added(v registry.View) {
	sub := subject{s.api, v, s.api.paths.Path(v.Settings.Name)}
	s.announced[v.Settings.Name] = true
	all := make(sysbus.Interfaces, 0, len(clientInterfaces))
	from := 0
	s.room = s.room[:0]
	for _, i := range clientInterfaces {
		if i.name != oldClientName { // it has the same properties as the one before
			from = len(s.room)
			s.room = i.appendTo(s.room, sub)
		}
		all = append(all, sysbus.Interface{Name: i.name, Properties: s.room[from:]})
	}
	s.send(rootPath, managerNames, "InterfacesAdded", sub.path, all)
	s.send(rootPath, serverNames, "ClientAdded", sub.path)
}

func (s *signaller) removed(name string) {
	path := s.api.paths.Path(name)
	delete(s.announced, name)
	var names []string
	for _, i := range clientInterfaces {
		names = append(names, i.name)
	}
	s.send(rootPath, managerNames, "InterfacesRemoved", path, names)
	s.send(rootPath, serverNames, "ClientRemoved", path, name)
}

// resync has the whole state sent after changes were missed.
func (s *signaller) resync() {
	s.behind = s.api.registry.Names()
	for name := range s.announced {
		if contains(s.behind, name) {
			s.announced[name] = false
		} else {
			s.removed(name)
		}
	}
	s.api.keep(s.behind)
}

func (s *signaller) changed(v registry.View, changes []client.Notice) {
	sub := subject{s.api, v, s.api.paths.Path(v.Settings.Name)}
	for _, change := range changes {
		switch change := change.(type) {
		case client.PropertyChanged:
			s.property(sub, string(change.Property))
		case client.CheckerStartedNotice:
			s.send(sub.path, clientNames, "CheckerStarted", change.Command)
		case client.CheckerCompleted:
			exit, wait := waitStatus(change.Result)
			s.send(sub.path, clientNames, "CheckerCompleted", exit, wait, change.Command)
		case client.GotSecret:
			s.send(sub.path, clientNames, "GotSecret")
		case client.NeedApproval:
			s.send(sub.path, clientNames, "NeedApproval", milliseconds(change.Delay), change.Default)
		case client.RejectedNotice:
			s.send(sub.path, clientNames, "Rejected", string(change.Reason))
		}
	}
}

// property signals one property's new value.
func (s *signaller) property(sub subject, name string) {
	for _, p := range clientProperties {
		if p.name != name {
			continue
		}
		var changed sysbus.Properties
		var invalidated []string
		if p.get == nil {
			invalidated = append(invalidated, name)
		} else {
			value := p.get(sub)
			changed = append(changed, sysbus.Property{Name: name, Value: value})
			s.send(sub.path, clientNames, "PropertyChanged", name, sysbus.Variant{Value: value})
		}
		s.send(sub.path, propertiesNames, "PropertiesChanged", clientName, changed, invalidated)
		return
	}
}

// waitStatus returns the two numbers of CheckerCompleted; if a signal ended the
// checker, they follow a quirk of the reference.
func waitStatus(r client.CheckResult) (exit int16, wait int64) {
	status := int64(r.Status())
	signo := int64(r.Signal)
	if status >= 0 {
		signo = 0
	}
	return int16(status), status<<8 | signo
}
