package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/signal"
	"os/user"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"mandos/internal/checker/helper"
	"mandos/internal/journal"
)

// The users of sysusers.d/mandos.conf.
const (
	daemonUser  = "mandos"
	checkerUser = "mandos-checker"
)

// serve answers the daemon's requests on the socket that systemd passed,
// until SIGTERM.
func serve() error {
	log := journal.Open("mandos-checker", journal.Levels{})
	listener, err := inherited()
	if err != nil {
		return err
	}
	asker, err := lookUp(daemonUser)
	if err != nil {
		return err
	}
	runAs, err := lookUp(checkerUser)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	scopes := &helper.Scopes{Manager: &helper.Systemd{}, UID: runAs.uid, GID: runAs.gid}
	return sweepAndServe(ctx, scopes, &helper.Server{AllowUID: asker.uid, Runner: scopes, Log: log}, listener)
}

func sweepAndServe(ctx context.Context, scopes *helper.Scopes, s *helper.Server, l *net.UnixListener) error {
	if err := scopes.Sweep(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped, and the next start sweeps
		}
		return err // systemd starts us again
	}
	_, _ = daemon.SdNotify(true, daemon.SdNotifyReady) // no socket to notify: nobody waits
	return s.Serve(ctx, l)
}

func inherited() (*net.UnixListener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("taking systemd's socket: %w", err)
	}
	if len(listeners) != 1 {
		return nil, fmt.Errorf("systemd passed %d sockets, not one: start mandos-checker.socket instead", len(listeners))
	}
	l, ok := listeners[0].(*net.UnixListener)
	if !ok || l.Addr().Network() != "unixpacket" {
		return nil, errors.New("systemd's socket isn't of the kind ListenSequentialPacket=: see mandos-checker.socket")
	}
	// systemd's to remove, not ours.
	l.SetUnlinkOnClose(false)
	return l, nil
}

type ids struct{ uid, gid uint32 }

// lookUp returns the IDs of a user that must not be root.
func lookUp(name string) (ids, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return ids{}, fmt.Errorf("looking up user %s (systemd-sysusers makes it): %w", name, err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return ids{}, fmt.Errorf("looking up user %s: %w", name, err)
	}
	if uid == 0 || gid == 0 {
		return ids{}, fmt.Errorf("user %s has uid %d and gid %d: neither may be 0", name, uid, gid)
	}
	return ids{uint32(uid), uint32(gid)}, nil
}
