package keytls

import (
	"errors"
	"fmt"
	"io"

	"mandos/internal/keytls/schedule"
	"mandos/internal/keytls/wire"
)

// An AlertError is an error that ends a connection. Its text says which side
// erred, and how.
type AlertError struct {
	Alert  wire.Alert // as sent or, if Remote, as received
	Remote bool       // the peer sent the alert
	err    error
}

func (e *AlertError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *AlertError) Unwrap() error { return e.err }

// fault makes an error for which an alert must be sent. The code that runs the
// handshake or reads records sends it, once.
func fault(a wire.Alert, format string, args ...any) error {
	return &AlertError{Alert: a, err: fmt.Errorf(format, args...)}
}

// malformed turns an error from package wire into one with its alert.
func (c *Conn) malformed(err error) error {
	alert := wire.DecodeError // RFC 8446, section 6.2
	if errors.Is(err, wire.ErrDuplicate) || errors.Is(err, wire.ErrKeyUpdate) {
		alert = wire.IllegalParameter
	}
	return fault(alert, "%s sent nonsense: %w", c.peer(), err)
}

// unprotected turns an error from package schedule into one with its alert.
func (c *Conn) unprotected(err error) error {
	alert := wire.InternalError
	switch {
	case errors.Is(err, schedule.ErrMAC):
		alert = wire.BadRecordMAC
	case errors.Is(err, schedule.ErrOverflow):
		alert = wire.RecordOverflow
	case errors.Is(err, schedule.ErrUnexpected):
		alert = wire.UnexpectedMessage
	}
	return fault(alert, "%s sent a bad record: %w", c.peer(), err)
}

// hungUp returns the error for a connection that ended without close_notify.
func (c *Conn) hungUp(during string) error {
	return fmt.Errorf("%s closed the connection %s: %w", c.peer(), during, io.ErrUnexpectedEOF)
}
