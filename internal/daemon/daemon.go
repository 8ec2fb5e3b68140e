// Package daemon puts the server together. It is the only package that knows
// all its parts.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mandos/internal/avahi"
	"mandos/internal/busapi"
	"mandos/internal/checker"
	"mandos/internal/client"
	"mandos/internal/cmdline"
	"mandos/internal/config"
	"mandos/internal/journal"
	"mandos/internal/keytls"
	"mandos/internal/memory"
	"mandos/internal/registry"
	"mandos/internal/sd"
	"mandos/internal/server"
)

// Options are what Run needs.
type Options struct {
	Config  *config.Server
	Clients config.Clients
	Log     *slog.Logger
	Reload  <-chan os.Signal // each value asks for a reload
	Load    func() (*config.Server, config.Clients, config.Findings)
	Version string
	Started func() // called when clients are served; may be nil
}

// A daemon is a running server.
type daemon struct {
	Options
	log      *slog.Logger
	registry *registry.Registry
	server   *server.Server
	addrs    []netip.AddrPort // the addresses it listens on
	paths    busapi.Paths
	untold   atomic.Bool // see notify
}

// Run serves clients until ctx ends, and then stops in good order, which takes
// at most some six seconds. A *cmdline.UsageError is about the command line.
func Run(ctx context.Context, o Options) error {
	d := &daemon{Options: o, log: o.Log.With(journal.Component("daemon"))}

	policy, err := policy(o.Config)
	if err != nil {
		return err
	}
	d.log.Debug("what TLS may use", slog.String("policy", policy.String()))

	// Done as root, if we are root: sockets, state, PID file. Nothing after
	// that is.
	other := sd.PassedTo()
	sockets, err := sd.Sockets()
	if err != nil {
		return err
	}
	if other != "" && underSystemd() {
		d.log.Warn("systemd passed its sockets to another process, so this one listens for itself; a wrapper in ExecStart= has to exec mandos",
			slog.String("process", other))
	}
	if err := o.Config.CheckReachable(len(sockets) > 0); err != nil {
		return err
	}
	listeners, err := d.listen(sockets)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	var state registry.Store
	if d.Config.Restore {
		file, err := d.openState()
		if err != nil {
			return err
		}
		defer file.Close()
		state = file
	} else {
		state = d.leftAside()
	}
	defer writePIDFile(pidFile)()
	if err := d.dropPrivileges(); err != nil {
		return err
	}
	memory.Hide() // changing the user undoes it

	if err := d.newRegistry(ctx, state); err != nil {
		return err
	}
	d.Clients, o.Clients, state = nil, nil, nil // the registry has taken what it needs from them
	d.server = &server.Server{Directory: d.registry, TLS: clientTLS(policy), Log: o.Log.With(journal.Component("server"))}
	limitConnections(d.server, d.Config.MaxCheckers)
	return d.run(ctx, listeners)
}

// clientTLS returns the function that makes the server's TLS connections, in
// which it has the TLS client's role.
func clientTLS(policy keytls.Policy) func(net.Conn) server.TLS {
	cfg := &keytls.Config{Policy: policy, HoldFinished: true}
	return func(conn net.Conn) server.TLS { return keytls.Client(conn, cfg) }
}

func checkPriority(s string) error {
	_, err := keytls.ParsePriority(s)
	return err
}

// policy reads the priority string. A *cmdline.UsageError is about the command
// line.
func policy(cfg *config.Server) (keytls.Policy, error) {
	p, err := keytls.ParsePriority(cfg.Priority)
	if err == nil {
		return p, nil
	}
	where := cfg.Where("priority")
	err = fmt.Errorf("%s: %w", where, err)
	if strings.HasPrefix(where, "--") {
		err = &cmdline.UsageError{Err: err}
	}
	return p, err
}

func (d *daemon) newRegistry(ctx context.Context, state registry.Store) (err error) {
	o := registry.Options{
		Settings:  settings(d.Clients),
		Store:     state,
		NoRestore: !d.Config.Restore,
		Checker:   checker.Checks{Runner: d.checkRunner()},
		Log:       d.Options.Log.With(journal.Component("registry")),
		Path:      func(name string) string { return string(d.paths.Path(name)) },
		MaxChecks: d.Config.MaxCheckers,
	}
	d.registry, err = registry.New(ctx, o)
	return err
}

// checkRunner returns what runs checkers. Under systemd this is always the
// helper: a checker that inherited our sandbox would fail, and every client
// would seem to be down.
func (d *daemon) checkRunner() checker.Runner {
	if underSystemd() {
		return checker.Remote{Path: checker.SocketPath}
	}
	d.log.Warn("not started by systemd, so checkers run as children of this process, with its privileges")
	return checker.Local{}
}

// underSystemd reports whether this process was started as a systemd service.
func underSystemd() bool {
	return os.Getenv("SYSTEMD_EXEC_PID") == fmt.Sprint(os.Getpid()) || os.Getenv("NOTIFY_SOCKET") != ""
}

func settings(clients config.Clients) []client.Settings {
	all := make([]client.Settings, len(clients))
	for i := range clients {
		all[i] = clients[i].Settings
	}
	return all
}

// run runs all parts until ctx ends or an essential one fails.
func (d *daemon) run(ctx context.Context, listeners []net.Listener) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	// The registry outlives the sessions, which tell it how they ended.
	registryCtx, stopRegistry := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRegistry()
	registryEnded := make(chan error, 1)
	go func() { registryEnded <- d.registry.Run(registryCtx) }()

	var parts sync.WaitGroup
	parts.Go(func() {
		if err := d.server.Serve(ctx, listeners...); err != nil {
			fail(err)
		}
	})
	if d.Config.Zeroconf {
		service := avahi.Service{Name: d.Config.ServiceName, Interface: d.Config.Interface, Addrs: d.addrs}
		parts.Go(func() { avahi.Announce(ctx, service, d.Options.Log.With(journal.Component("avahi"))) })
	}
	if d.Config.DBus {
		parts.Go(func() { d.serveBus(ctx) })
	}
	parts.Go(func() { d.showStatus(ctx) })
	parts.Go(func() { d.watchdog(ctx) })

	d.notify(sd.Ready(d.status()))
	journal.Ready.Log(ctx, d.log, journal.Count(d.registry.Counts().Clients))
	if d.Started != nil {
		d.Started()
	}
	parts.Go(func() {
		d.registry.LogStart(ctx)
		giveBackMemory(ctx) // reading the configuration takes several times what is kept of it
	})
	d.reloadUntil(ctx)

	d.notify(sd.Stopping())
	journal.Stopping.Log(ctx, d.log)
	parts.Wait()
	stopRegistry()
	err := <-registryEnded
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// serveBus offers the clients over D-Bus.
func (d *daemon) serveBus(ctx context.Context) {
	busapi.Serve(ctx, busapi.Options{
		Registry: d.registry,
		Paths:    &d.paths,
		Log:      d.Options.Log.With(journal.Component("busapi")),
		Version:  d.Version,
	})
}

// reloadUntil re-reads the configuration whenever asked to, until ctx ends.
func (d *daemon) reloadUntil(ctx context.Context) {
	for {
		select {
		case <-d.Reload:
			d.notify(sd.Reloading())
			d.reload(ctx)
			d.notify(sd.Ready(d.status()))
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

// reload puts a new clients.conf into effect: all of it, or nothing. No
// session, check or state is dropped.
func (d *daemon) reload(ctx context.Context) {
	cfg, clients, found := d.Load()
	logFindings(d.Options.Log, found)
	err := found.Err()
	if err != nil {
		err = fmt.Errorf("it has errors: %d", len(found.Errors()))
	}
	var summary registry.Summary
	if err == nil {
		summary, err = d.registry.Reload(settings(clients))
	}
	if err != nil {
		journal.ReloadFailed.Log(ctx, d.log, journal.Err(err))
		return
	}
	journal.Reloaded.Log(ctx, d.log, slog.String("changes", summary.String()))
	for _, key := range changed(d.Config, cfg) {
		journal.NeedsRestart.Log(ctx, d.log, journal.Setting(key))
	}
}

// changed returns the keys of mandos.conf whose values differ between a and b.
func changed(a, b *config.Server) []string {
	var keys []string
	for key, same := range map[string]bool{
		"interface": a.Interface == b.Interface, "address": a.Address == b.Address, "port": a.Port == b.Port,
		"socket": a.Socket == b.Socket, "debug": a.Debug == b.Debug, "debuglevel": a.Levels.String() == b.Levels.String(),
		"priority": a.Priority == b.Priority, "servicename": a.ServiceName == b.ServiceName, "max_checkers": a.MaxCheckers == b.MaxCheckers, "statedir": a.StateDir == b.StateDir,
		"use_dbus": a.DBus == b.DBus, "use_ipv6": a.IPv6 == b.IPv6, "restore": a.Restore == b.Restore, "zeroconf": a.Zeroconf == b.Zeroconf,
	} {
		if !same {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// showStatus keeps systemd's status line up to date.
func (d *daemon) showStatus(ctx context.Context) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	feed := d.registry.Subscribe(1) // it matters only that something changed, not what
	defer feed.Close()
	shown := d.status()
	for {
		select {
		case <-feed.C:
		case <-ctx.Done():
			return
		}
		// Changes often come in bursts.
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		if now := d.status(); now != shown {
			shown = now
			d.notify(sd.Status(now))
		}
	}
}

// status describes the server's state in one line.
func (d *daemon) status() string {
	c := d.registry.Counts()
	if c.Clients == 0 {
		return "no clients in " + d.Config.ConfigDir
	}
	s := fmt.Sprintf("clients: %d enabled, %d disabled, %d waiting for approval", c.Enabled, c.Disabled, c.Waiting)
	if c.CannotCheck > 0 {
		s += fmt.Sprintf("; checks can't run for %d", c.CannotCheck)
	}
	if c.Unsaved {
		s += "; state can't be saved"
	}
	return s
}

// watchdog keeps telling systemd that the essential parts respond.
func (d *daemon) watchdog(ctx context.Context) {
	log := d.Options.Log.With(journal.Component("sd"))
	err := sd.Watchdog(ctx, func(err error) { journal.WatchdogSilent.Log(ctx, log, journal.Err(err)) },
		sd.Probe{Name: "registry", Ping: d.registry.Ping},
		sd.Probe{Name: "server", Ping: d.server.Ping})
	if err != nil {
		d.notify(err)
	}
}

// notify logs an err from telling systemd something, but only the first in a
// row; none is a reason to stop.
func (d *daemon) notify(err error) {
	if was := d.untold.Swap(err != nil); err != nil && !was {
		d.log.Warn("could not talk to systemd", journal.Err(err))
	}
}

func (d *daemon) listening(listeners []net.Listener) {
	var names []string
	for _, l := range listeners {
		names = append(names, l.Addr().String())
		d.addrs = append(d.addrs, l.Addr().(*net.TCPAddr).AddrPort())
	}
	journal.Listening.Log(context.Background(), d.log, slog.String("address", strings.Join(names, " ")))
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}
