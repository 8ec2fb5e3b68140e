// Package avahi announces the server on the local links with Zeroconf (DNS-SD
// over multicast DNS, RFC 6763 and RFC 6762) through avahi-daemon's D-Bus API.
//
// The server serves clients with a fixed address whether or not it is
// announced, so nothing here is fatal: a missing bus or avahi-daemon is one
// warning, and the announcement follows once they are there.
package avahi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/journal"
	"mandos/internal/sysbus"
)

// ServiceType is the DNS-SD type that clients browse for.
const ServiceType = "_mandos._tcp"

// Names in avahi-daemon's D-Bus API.
const (
	busName        = "org.freedesktop.Avahi"
	serverIface    = "org.freedesktop.Avahi.Server"
	groupIface     = "org.freedesktop.Avahi.EntryGroup"
	collisionError = "org.freedesktop.Avahi.CollisionError"
)

// Protocols and the wildcard interface, in avahi-daemon's numbers.
const (
	anyInterface int32 = -1
	protocolIPv4 int32 = 0
	protocolIPv6 int32 = 1
)

// States of avahi-daemon.
const serverRunning int32 = 2

// States of an entry group.
const (
	groupEstablished int32 = 2
	groupCollision   int32 = 3
	groupFailure     int32 = 4
)

// maxRenames limits how many names are tried in a row before a pause: somebody
// on the link who claims every name that we try must not keep us busy.
const maxRenames = 16

// A Service is what Announce announces.
type Service struct {
	Name      string           // 1 to 63 bytes of UTF-8; Announce changes it if it is taken
	Interface string           // network interface to announce on; "" for all
	Addrs     []netip.AddrPort // the listeners' addresses, each giving a port and IPv6 or IPv4
}

// Announce announces s until ctx ends, and withdraws the announcement before
// it returns. It renames the service while its name is taken, and announces it
// again after a restart of avahi-daemon or of the bus.
func Announce(ctx context.Context, s Service, log *slog.Logger) {
	a := &announcer{service: s, log: log, firstDelay: time.Second, maxDelay: time.Minute,
		callTimeout: 10 * time.Second, goodbyeTime: 2 * time.Second}
	a.run(ctx)
}

type announcer struct {
	service              Service // Name is the name in use, which outlives a session
	log                  *slog.Logger
	firstDelay, maxDelay time.Duration // before another try; doubled after each failure
	callTimeout          time.Duration // for an answer from avahi-daemon
	goodbyeTime          time.Duration // the same, while ending
	lastWarning          string        // the same warning is logged once until an announcement succeeds
}

// run runs one session on the bus after another.
func (a *announcer) run(ctx context.Context) {
	delay := a.firstDelay
	for ctx.Err() == nil {
		conn, err := a.connect(ctx)
		if err == nil {
			delay = a.firstDelay
			err = newSession(a, conn).run(ctx)
			conn.Close()
		}
		if ctx.Err() != nil {
			return
		}
		a.warn(ctx, journal.BusMissing, err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
			delay = min(2*delay, a.maxDelay)
		}
	}
}

// connect connects to the system bus. The end of ctx ends the attempt; after it
// the connection lasts for as long as a goodbye may take, as neither a bus nor an
// avahi-daemon that hangs must hold us up.
func (a *announcer) connect(ctx context.Context) (*dbus.Conn, error) {
	connCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	conn, err := sysbus.ConnectDirected(dbus.WithContext(connCtx),
		dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if !stop() && err == nil {
		conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connecting to the system bus: %w", err)
	}
	stop = context.AfterFunc(ctx, func() { time.AfterFunc(a.goodbyeTime, cancel) })
	context.AfterFunc(conn.Context(), func() { // closing conn ends connCtx too
		stop()
		cancel()
	})
	return conn, nil
}

func (a *announcer) warn(ctx context.Context, e journal.Event, err error) {
	text := e.ID
	var attrs []slog.Attr
	if err != nil {
		attrs = append(attrs, journal.Err(err))
	}
	if e == journal.AnnounceFailed { // with the others, the error only varies while something is starting
		text += err.Error()
	}
	if text != a.lastWarning {
		a.lastWarning = text
		e.Log(ctx, a.log, attrs...)
	}
}

// A session is the state of one connection to the bus.
type session struct {
	*announcer
	conn    *dbus.Conn
	signals chan *dbus.Signal
	owner   string          // avahi-daemon's unique name; "" while it is not on the bus
	group   dbus.ObjectPath // our entry group; "" while there is none
	up      bool            // whether group is established: clients can find us
	renames int             // since the last success
	retry   <-chan time.Time
	delay   time.Duration // of the next retry
}

func newSession(a *announcer, conn *dbus.Conn) *session {
	return &session{announcer: a, conn: conn, signals: make(chan *dbus.Signal, 32), delay: a.firstDelay}
}

// run announces until ctx ends, when it returns nil, or the bus goes away.
func (s *session) run(ctx context.Context) error {
	s.conn.Signal(s.signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)},
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(serverIface), dbus.WithMatchMember("StateChanged")},
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(groupIface), dbus.WithMatchMember("StateChanged")},
	} {
		if err := s.conn.AddMatchSignalContext(ctx, match...); err != nil {
			return fmt.Errorf("subscribing to signals of avahi-daemon: %w", err)
		}
	}
	// Asked only now, so that no change is missed between question and subscription.
	owner, err := s.currentOwner(ctx)
	if err != nil {
		return err
	}
	s.ownerChanged(ctx, owner)
	for {
		select {
		case <-ctx.Done():
			s.withdraw(ctx)
			return nil
		case <-s.retry:
			s.retry = nil
			s.start(ctx)
		case signal, ok := <-s.signals:
			if !ok {
				return errors.New("the connection to the system bus was lost")
			}
			s.handle(ctx, signal)
		}
	}
}

func (s *session) currentOwner(ctx context.Context) (string, error) {
	var owner string
	err := s.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, busName).Store(&owner)
	if e, ok := errors.AsType[dbus.Error](err); ok && e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("asking the system bus for avahi-daemon: %w", err)
	}
	return owner, nil
}

func (s *session) handle(ctx context.Context, signal *dbus.Signal) {
	switch {
	case signal.Sender == "org.freedesktop.DBus":
		if signal.Name != "org.freedesktop.DBus.NameOwnerChanged" {
			return
		}
		var name, from, to string
		if dbus.Store(signal.Body, &name, &from, &to) == nil && name == busName {
			s.ownerChanged(ctx, to)
		}
	case s.owner == "" || signal.Sender != s.owner:
		// From an avahi-daemon that is gone, or somebody who pretends to be
		// one.
	case signal.Name == serverIface+".StateChanged":
		if state, _, ok := stateChange(signal); ok {
			s.serverChanged(ctx, state)
		}
	case signal.Name == groupIface+".StateChanged" && signal.Path == s.group:
		if state, why, ok := stateChange(signal); ok {
			s.groupChanged(ctx, state, why)
		}
	}
}

func stateChange(signal *dbus.Signal) (state int32, why string, ok bool) {
	err := dbus.Store(signal.Body, &state, &why)
	return state, why, err == nil
}

// ownerChanged handles that avahi-daemon has come or gone.
func (s *session) ownerChanged(ctx context.Context, owner string) {
	if owner == s.owner && owner != "" {
		return
	}
	s.owner, s.group, s.up, s.retry, s.renames, s.delay = owner, "", false, nil, 0, s.firstDelay
	if owner == "" {
		s.warn(ctx, journal.AvahiMissing, nil)
		return
	}
	s.start(ctx)
}

// start announces the service if avahi-daemon is ready; if not, StateChanged
// will say when it is.
func (s *session) start(ctx context.Context) {
	var state int32
	if err := s.call(ctx, "/", serverIface, "GetState").Store(&state); err != nil {
		s.tryLater(ctx, fmt.Errorf("asking avahi-daemon for its state: %w", err))
		return
	}
	s.serverChanged(ctx, state)
}

func (s *session) serverChanged(ctx context.Context, state int32) {
	s.withdraw(ctx)
	if state != serverRunning {
		return
	}
	var group dbus.ObjectPath
	if err := s.call(ctx, "/", serverIface, "EntryGroupNew").Store(&group); err != nil {
		s.tryLater(ctx, fmt.Errorf("asking avahi-daemon for an entry group: %w", err))
		return
	}
	s.group = group
	s.fill(ctx)
}

func (s *session) groupChanged(ctx context.Context, state int32, why string) {
	s.up = false
	switch state {
	case groupEstablished:
		s.up, s.renames, s.delay, s.lastWarning = true, 0, s.firstDelay, ""
		journal.Announced.Log(ctx, s.log, journal.Service(s.service.Name))
	case groupCollision:
		if err := s.rename(ctx); err != nil {
			s.tryLater(ctx, err)
			return
		}
		s.fill(ctx)
	case groupFailure:
		s.tryLater(ctx, fmt.Errorf("avahi-daemon could not register the service: %s", why))
	}
}

// fill puts the service into the empty entry group and commits it.
func (s *session) fill(ctx context.Context) {
	for {
		err := s.addServices(ctx)
		if e, ok := errors.AsType[dbus.Error](err); ok && e.Name == collisionError {
			err = s.rename(ctx)
			if err == nil {
				continue
			}
		}
		if err == nil {
			err = s.call(ctx, s.group, groupIface, "Commit").Err
		}
		if err != nil {
			s.tryLater(ctx, fmt.Errorf("announcing %q: %w", s.service.Name, err))
		}
		return
	}
}

func (s *session) addServices(ctx context.Context) error {
	index := anyInterface
	if s.service.Interface != "" {
		i, err := net.InterfaceByName(s.service.Interface)
		if err != nil {
			return fmt.Errorf("looking up interface %s: %w", s.service.Interface, err)
		}
		if i.Index > math.MaxInt32 {
			return fmt.Errorf("looking up interface %s: index %d is out of range", s.service.Interface, i.Index)
		}
		index = int32(i.Index)
	}
	for _, addr := range s.service.Addrs {
		protocol := protocolIPv6
		if addr.Addr().Unmap().Is4() { // a socket bound to ::ffff:192.0.2.1 serves IPv4 only
			protocol = protocolIPv4
		}
		const flags uint32 = 0
		const domain, host = "", "" // avahi-daemon's defaults
		err := s.call(ctx, s.group, groupIface, "AddService",
			index, protocol, flags, s.service.Name, ServiceType, domain, host, addr.Port(), [][]byte{}).Err
		if err != nil {
			return err
		}
	}
	return nil
}

// rename empties the entry group and takes the next name: "Mandos" gives "Mandos #2".
func (s *session) rename(ctx context.Context) error {
	if s.renames++; s.renames > maxRenames {
		s.renames = 0
		return fmt.Errorf("%d service names in a row were taken", maxRenames)
	}
	if err := s.call(ctx, s.group, groupIface, "Reset").Err; err != nil {
		return fmt.Errorf("emptying the entry group: %w", err)
	}
	var name string
	if err := s.call(ctx, "/", serverIface, "GetAlternativeServiceName", s.service.Name).Store(&name); err != nil {
		return fmt.Errorf("asking avahi-daemon for another service name: %w", err)
	}
	journal.Renamed.Log(ctx, s.log, journal.Service(name), journal.Reason("name taken: "+s.service.Name))
	s.service.Name = name
	return nil
}

// withdraw frees the entry group; avahi-daemon then says goodbye on the link.
func (s *session) withdraw(ctx context.Context) {
	s.retry = nil // otherwise it would withdraw what is announced by then
	if s.group == "" {
		return
	}
	group, wasUp := s.group, s.up
	s.group, s.up = "", false
	ctx = context.WithoutCancel(ctx) // this is also how we end
	if err := s.call(ctx, group, groupIface, "Free").Err; err != nil {
		s.warn(ctx, journal.AnnounceFailed, fmt.Errorf("withdrawing the announcement: %w", err))
		return
	}
	if wasUp {
		journal.Withdrawn.Log(ctx, s.log, journal.Service(s.service.Name))
	}
}

// tryLater abandons this attempt and schedules another.
func (s *session) tryLater(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	s.warn(ctx, journal.AnnounceFailed, err)
	s.withdraw(ctx)
	s.retry = time.After(s.delay)
	s.delay = min(2*s.delay, s.maxDelay)
}

// call calls avahi-daemon by its unique name, so that the bus never starts one
// that the operator has stopped.
func (s *session) call(ctx context.Context, path dbus.ObjectPath, iface, method string, args ...any) *dbus.Call {
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	return s.conn.Object(s.owner, path).CallWithContext(ctx, iface+"."+method, 0, args...)
}
