package operator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"mandos/internal/sysbus"
)

const (
	objectManager = "org.freedesktop.DBus.ObjectManager"
	properties    = "org.freedesktop.DBus.Properties"
)

// callTimeout bounds one call, and the time to connect: a server or a bus that
// hangs must not hang its operator.
const callTimeout = 25 * time.Second

// A Conn is a connection to the system bus.
type Conn struct {
	bus *dbus.Conn
	// Trace, if set, is told of each call before it is made.
	Trace func(call string)
}

// Connect connects to the system bus (DBUS_SYSTEM_BUS_ADDRESS, else the
// usual socket).
func Connect(ctx context.Context) (*Conn, error) { return connect(ctx, callTimeout) }

func connect(ctx context.Context, timeout time.Duration) (*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(timeout, cancel) // which closes the connection
	// The default handler tells signals out of order when there are many at a
	// time, and the last value of a property would not be the last heard.
	bus, err := sysbus.Connect(dbus.WithContext(ctx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if !late.Stop() {
		err = fmt.Errorf("no answer within %v", timeout)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connecting to the system bus: %w", err)
	}
	return &Conn{bus: bus}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.bus.Close() }

// Clients returns all clients, in no order.
func (c *Conn) Clients(ctx context.Context) ([]Client, error) {
	var objects map[dbus.ObjectPath]map[string]map[string]dbus.Variant
	if err := c.call(ctx, ServerPath, objectManager, "GetManagedObjects").Store(&objects); err != nil {
		return nil, explain("listing the clients", err)
	}
	var clients []Client
	for path, interfaces := range objects {
		if client, ok := newClient(path, interfaces); ok {
			clients = append(clients, client)
		}
	}
	return clients, nil
}

// newClient makes a Client of an object's interfaces, if it is one.
func newClient(path dbus.ObjectPath, interfaces map[string]map[string]dbus.Variant) (Client, bool) {
	props := maps.Clone(interfaces[ClientInterface])
	if props == nil {
		return Client{}, false
	}
	maps.Copy(props, interfaces[OurClientInterface])
	return Client{path, props}, true
}

// Set changes a property.
func (c *Conn) Set(ctx context.Context, client Client, property string, value any) error {
	err := c.call(ctx, client.Path, properties, "Set", ClientInterface, property, dbus.MakeVariant(value)).Err
	return explain(fmt.Sprintf("setting %s of client %q", property, client.Name()), err)
}

// Approve approves or denies the hand-out that the client waits for, or will
// ask for while the word is remembered.
func (c *Conn) Approve(ctx context.Context, client Client, approve bool) error {
	err := c.call(ctx, client.Path, ClientInterface, "Approve", approve).Err
	doing := "denying"
	if approve {
		doing = "approving"
	}
	return explain(fmt.Sprintf("%s client %q", doing, client.Name()), err)
}

// Remove removes the client from the server.
func (c *Conn) Remove(ctx context.Context, client Client) error {
	err := c.call(ctx, ServerPath, ServerInterface, "RemoveClient", client.Path).Err
	return explain(fmt.Sprintf("removing client %q", client.Name()), err)
}

func (c *Conn) call(ctx context.Context, path dbus.ObjectPath, iface, method string, args ...any) *dbus.Call {
	if c.Trace != nil {
		var words []string
		for _, arg := range args {
			if v, ok := arg.(dbus.Variant); ok {
				if _, isSecret := v.Value().([]byte); isSecret {
					arg = "[secret]"
				}
			}
			words = append(words, fmt.Sprint(arg))
		}
		c.Trace(fmt.Sprintf("%s %s.%s(%s)", path, iface, method, strings.Join(words, ", ")))
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.bus.Object(BusName, path).CallWithContext(ctx, iface+"."+method, 0, args...)
}

// Errors of the bus that a person can mend.
var (
	ErrNoServer = errors.New("no Mandos server is on the system bus (systemctl status mandos)")
	ErrDenied   = errors.New("only root may speak with the server")
)

func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[dbus.Error](err); ok {
		switch e.Name {
		case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
			err = ErrNoServer
		case "org.freedesktop.DBus.Error.AccessDenied":
			err = ErrDenied
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// An Occurrence is one thing heard from the server.
type Occurrence struct {
	Kind Kind
	Path dbus.ObjectPath // of the client; "/" otherwise
	// Changed are new values for Changed and Added.
	Changed map[string]dbus.Variant
	// Args are the arguments of a Signal.
	Member string
	Args   []any
}

// A Kind says what an Occurrence tells.
type Kind uint8

// The kinds.
const (
	Changed  Kind = iota // properties of a client have changed
	Added                // there is a new client; Changed has its properties
	Removed              // a client is gone
	Signal               // Member of the client's or server's interface, with Args
	Appeared             // a server has come to the bus: everything has to be read anew
	Vanished             // the server has left the bus
)

// Watch returns what is heard from the server until ctx ends or the
// connection is lost; then the channel is closed.
func (c *Conn) Watch(ctx context.Context) (<-chan Occurrence, error) {
	matches := [][]dbus.MatchOption{
		{dbus.WithMatchSender(BusName)},
		{dbus.WithMatchSender("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, BusName)},
	}
	for _, m := range matches {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		err := c.bus.AddMatchSignalContext(limited, m...)
		cancel()
		if err != nil {
			return nil, explain("listening to the server", err)
		}
	}
	signals := make(chan *dbus.Signal, 1024)
	c.bus.Signal(signals)
	heard := make(chan Occurrence)
	go func() {
		defer close(heard)
		defer c.bus.RemoveSignal(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case s, open := <-signals:
				if !open {
					return
				}
				o, ok := occurrence(s)
				if !ok {
					continue
				}
				select {
				case heard <- o:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return heard, nil
}

// occurrence reads a signal. What isn't of use to an operator, or not of the
// right form, is left out.
func occurrence(s *dbus.Signal) (Occurrence, bool) {
	i := strings.LastIndexByte(s.Name, '.')
	if i < 0 {
		return Occurrence{}, false
	}
	iface, member := s.Name[:i], s.Name[i+1:]
	switch iface {
	case "org.freedesktop.DBus":
		var name, before, after string
		if member != "NameOwnerChanged" || dbus.Store(s.Body, &name, &before, &after) != nil || name != BusName {
			return Occurrence{}, false
		}
		kind := Appeared
		if after == "" {
			kind = Vanished
		}
		return Occurrence{Kind: kind, Path: ServerPath}, true
	case properties:
		var of string
		var changed map[string]dbus.Variant
		var invalidated []string
		if dbus.Store(s.Body, &of, &changed, &invalidated) != nil || of != ClientInterface && of != OurClientInterface {
			return Occurrence{}, false
		}
		return Occurrence{Kind: Changed, Path: s.Path, Changed: changed}, true
	case objectManager:
		var path dbus.ObjectPath
		if member == "InterfacesAdded" {
			var interfaces map[string]map[string]dbus.Variant
			if dbus.Store(s.Body, &path, &interfaces) != nil {
				return Occurrence{}, false
			}
			client, ok := newClient(path, interfaces)
			return Occurrence{Kind: Added, Path: path, Changed: client.Props}, ok
		}
		var interfaces []string
		if dbus.Store(s.Body, &path, &interfaces) != nil || !slices.Contains(interfaces, ClientInterface) {
			return Occurrence{}, false
		}
		return Occurrence{Kind: Removed, Path: path}, true
	case ClientInterface, ServerInterface:
		if member == "PropertyChanged" || member == "ClientAdded" || member == "ClientRemoved" {
			return Occurrence{}, false // the deprecated twins of others
		}
		return Occurrence{Kind: Signal, Path: s.Path, Member: member, Args: s.Body}, true
	}
	return Occurrence{}, false
}
