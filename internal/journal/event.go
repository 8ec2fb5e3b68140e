// Package journal writes the log: to the systemd journal with fields when
// stderr is connected to it, otherwise as plain lines with time stamps.
//
// The contract: the text of a message is constant, begins in lower case and
// ends without a full stop; whatever varies is an attribute and becomes a
// journal field; an event that an operator may wait for or search for has a
// MESSAGE_ID, which the catalog in systemd/ explains. No secret, session key or
// password is ever an attribute.
package journal

import (
	"context"
	"log/slog"
	"time"
)

// Levels beyond slog's own.
const (
	LevelNotice   = slog.LevelInfo + 2
	LevelCritical = slog.LevelError + 4
	// LevelAudit passes every filter and is written with the priority "notice":
	// whatever decides who gets a secret is always logged.
	LevelAudit = slog.Level(100)
)

// An Event is a kind of log entry with a stable identity.
type Event struct {
	ID    string // MESSAGE_ID: 32 lower-case hexadecimal digits, made with systemd-id128 new
	Level slog.Level
	Text  string // constant
}

// Log writes e to l with attrs.
func (e Event) Log(ctx context.Context, l *slog.Logger, attrs ...slog.Attr) {
	l.LogAttrs(ctx, e.Level, e.Text, append(attrs, slog.String(keyMessageID, e.ID))...)
}

// Keys of attributes; the handler writes each as the journal field that it names.
const (
	keyMessageID = "MESSAGE_ID"
	keyClient    = "MANDOS_CLIENT"
	keyKeyID     = "MANDOS_KEY_ID"
	keyPeer      = "MANDOS_PEER"
	keyProtocol  = "MANDOS_PROTOCOL"
	keyReason    = "MANDOS_REASON"
	keyService   = "MANDOS_SERVICE"
	keyError     = "MANDOS_ERROR"
)

// Client is the attribute for a client's name.
func Client(name string) slog.Attr { return slog.String(keyClient, name) }

// KeyID is the attribute for a key ID or fingerprint.
func KeyID(id interface{ String() string }) slog.Attr { return slog.String(keyKeyID, id.String()) }

// Peer is the attribute for a peer's address and port.
func Peer(addr interface{ String() string }) slog.Attr { return slog.String(keyPeer, addr.String()) }

// Protocol is the attribute for the protocol by which a peer proved its
// identity.
func Protocol(id interface{ Protocol() string }) slog.Attr {
	return slog.String(keyProtocol, id.Protocol())
}

// Service is the attribute for the name under which Zeroconf announces the
// server.
func Service(name string) slog.Attr { return slog.String(keyService, name) }

// Reason is the attribute for why something was refused or changed.
func Reason(why string) slog.Attr { return slog.String(keyReason, why) }

// Err is the attribute for an error.
func Err(err error) slog.Attr { return slog.String(keyError, err.Error()) }

// Write is Log, but returns the handler's error: it is for what may only happen
// once it has been logged.
func (e Event) Write(ctx context.Context, l *slog.Logger, attrs ...slog.Attr) error {
	r := slog.NewRecord(time.Now(), e.Level, e.Text, 0)
	r.AddAttrs(attrs...)
	r.AddAttrs(slog.String(keyMessageID, e.ID))
	return l.Handler().Handle(ctx, r)
}

// Actor is the attribute for who did something, such as "uid 0 over D-Bus".
func Actor(who string) slog.Attr { return slog.String("MANDOS_ACTOR", who) }

// Expires is the attribute for when a client will be disabled.
func Expires(at time.Time) slog.Attr {
	return slog.String("MANDOS_EXPIRES", at.UTC().Format(time.RFC3339))
}

// Count is the attribute for how many of something there are.
func Count(n int) slog.Attr { return slog.Int("MANDOS_COUNT", n) }

// ExitStatus is the attribute for how a checker ended.
func ExitStatus(status int) slog.Attr { return slog.Int("MANDOS_EXIT_STATUS", status) }

// Output is the attribute for what a checker wrote, already escaped.
func Output(text string) slog.Attr { return slog.String("MANDOS_OUTPUT", text) }

// Setting is the attribute for the name of a changed setting.
func Setting(name string) slog.Attr { return slog.String("MANDOS_SETTING", name) }

// From is the attribute for a setting's old value.
func From(value string) slog.Attr { return slog.String("MANDOS_FROM", value) }

// To is the attribute for a setting's new value.
func To(value string) slog.Attr { return slog.String("MANDOS_TO", value) }

// Finding is the attribute for what is wrong in a configuration, with file and
// line.
func Finding(f interface{ String() string }) slog.Attr {
	return slog.String("MANDOS_FINDING", f.String())
}

// Interface is the attribute for a network interface.
func Interface(name string) slog.Attr { return slog.String("MANDOS_INTERFACE", name) }
