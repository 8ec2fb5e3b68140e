// Package sysbus connects to the system bus, and protects the process from what
// other users may send over it. It also sends many signals cheaply.
package sysbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Connect connects to the system bus: DBUS_SYSTEM_BUS_ADDRESS, or else the
// usual socket. Unlike [dbus.ConnectSystemBus] it doesn't offer to receive file
// descriptors, so the bus delivers no message that carries any. Any user may
// send a signal to any connection, and godbus panics over a list of
// descriptors, and never closes those that nobody asked for. Signals that are
// sent to this connection alone are dropped, too: the rest has the sender that
// a match rule asks for, or is from the bus.
func Connect(opts ...dbus.ConnOption) (*dbus.Conn, error) {
	conn, _, err := connect(false, opts)
	return conn, err
}

// ConnectDirected is Connect for callers that want the signals sent to this
// connection alone. They may be from anybody, and have at most 4 KiB.
func ConnectDirected(opts ...dbus.ConnOption) (*dbus.Conn, error) {
	conn, _, err := connect(true, opts)
	return conn, err
}

// ConnectSignals is Connect for callers that send many signals.
func ConnectSignals(opts ...dbus.ConnOption) (*dbus.Conn, *Signals, error) {
	return connect(false, opts)
}

func connect(directed bool, opts []dbus.ConnOption) (*dbus.Conn, *Signals, error) {
	address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if address == "" {
		address = "unix:path=/var/run/dbus/system_bus_socket"
	}
	c, err := dial(address)
	if err != nil {
		return nil, nil, err
	}
	signals := NewSignals(c)
	opts = append(slices.Clip(opts), dbus.WithSerialGenerator(signals.serials))
	conn, err := dbus.NewConn(incomingOf(c, directed), opts...)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	// Otherwise godbus would wait for a write that a hung bus doesn't accept.
	context.AfterFunc(conn.Context(), func() { c.Close() })
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, signals, nil
}

// dial connects to the first of the addresses that can be reached (D-Bus
// Specification, "Server Addresses").
func dial(addresses string) (net.Conn, error) {
	var errs []error
	for address := range strings.SplitSeq(addresses, ";") {
		name, err := socket(address)
		if err == nil {
			var c net.Conn
			if c, err = net.Dial("unix", name); err == nil {
				return c, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// socket returns the name of an address's socket, in the form for package net.
func socket(address string) (string, error) {
	transport, keys, _ := strings.Cut(address, ":")
	for pair := range strings.SplitSeq(keys, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		switch {
		case transport != "unix" || value == "" || err != nil:
		case key == "path":
			return value, nil
		case key == "abstract":
			return "@" + value, nil
		}
	}
	return "", fmt.Errorf("the address %q of the system bus is neither unix:path= nor unix:abstract=", address)
}
