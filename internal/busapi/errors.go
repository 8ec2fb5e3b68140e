package busapi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"

	"mandos/internal/registry"
)

// Names of errors. Those with "Python" are the ones that Debian's server sends.
const (
	errInvalidArgs      = "org.freedesktop.DBus.Error.InvalidArgs"
	errUnknownObject    = "org.freedesktop.DBus.Error.UnknownObject"
	errUnknownMethod    = "org.freedesktop.DBus.Error.UnknownMethod"
	errLimits           = "org.freedesktop.DBus.Error.LimitsExceeded"
	errFailed           = "org.freedesktop.DBus.Error.Failed"
	errPropertyNotFound = "org.freedesktop.DBus.Python.DBusPropertyNotFound"
	errPropertyAccess   = "org.freedesktop.DBus.Python.DBusPropertyAccessException"
	errKey              = "org.freedesktop.DBus.Python.KeyError"
)

// maxErrorText is the maximum length of an error's text, in bytes: it may
// repeat what the caller sent, and the bus hangs up on an answer that is too
// long.
const maxErrorText = 1 << 10

func newError(name, format string, args ...any) dbus.Error {
	text := fmt.Sprintf(format, args...)
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return dbus.Error{Name: name, Body: []any{text}}
}

func invalidArgs(format string, args ...any) dbus.Error {
	return newError(errInvalidArgs, format, args...)
}

func noObject(path dbus.ObjectPath) dbus.Error {
	return newError(errUnknownObject, "there is no object %s", path)
}

// busError turns any error into a D-Bus error.
func busError(err error) dbus.Error {
	if e, ok := errors.AsType[dbus.Error](err); ok {
		return e
	}
	if errors.Is(err, registry.ErrNoClient) {
		return newError(errUnknownObject, "%v", err)
	}
	return newError(errFailed, "%v", err)
}
