package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"runtime"
	"runtime/debug"
	"syscall"

	"mandos/internal/cmdline"
	"mandos/internal/config"
	"mandos/internal/journal"
	"mandos/internal/memory"
)

const commandName = "mandos"

// A Command is one invocation of mandos.
type Command struct {
	Args           []string // without the command's name
	Stdout, Stderr io.Writer
	Version        string
}

// Run does what the arguments ask for and returns the exit status.
func (c Command) Run(ctx context.Context) int {
	cl, err := config.ParseArgs(c.Args)
	if err != nil {
		return cmdline.Report(c.Stderr, commandName, err)
	}
	switch cl.Action {
	case config.ShowHelp:
		err = config.WriteHelp(c.Stdout)
	case config.ShowVersion:
		_, err = fmt.Fprintf(c.Stdout, "%s %s\n", commandName, c.Version)
	case config.SelfTest:
		err = selfTest(ctx, c.Stdout)
	case config.CheckConfig:
		err = c.checkConfig(cl)
	default:
		return c.serve(ctx, cl)
	}
	return cmdline.Report(c.Stderr, commandName, err)
}

// checkConfigDir returns an error if somebody named a folder that doesn't
// exist: its files may be missing, but a missing folder is a slip.
func checkConfigDir(cl *config.CommandLine) error {
	dir := cl.ConfigDir()
	info, err := os.Stat(dir)
	switch {
	case dir == systemConfigDir && errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--configdir: %w", err)
	case !info.IsDir():
		return fmt.Errorf("--configdir: %s is no folder", dir)
	}
	return nil
}

// checkConfig prints everything that is wrong or suspect, and fails if anything
// is wrong.
func (c Command) checkConfig(cl *config.CommandLine) error {
	if err := checkConfigDir(cl); err != nil {
		return err
	}
	opts := config.LoadOptions{Suspect: true, Priority: checkPriority}
	// Root can read what the service can't.
	if u, err := user.Lookup(serviceUser); err == nil && os.Geteuid() == 0 && cl.ConfigDir() == systemConfigDir {
		opts.Unreadable = unreadableBy(u, hidden)
	}
	cfg, _, found := config.Load(cl, opts)
	if _, err := io.WriteString(c.Stdout, found.String()); err != nil {
		return err
	}
	if n := len(found.Errors()); n > 0 {
		return fmt.Errorf("errors in the configuration in %s: %d", cl.ConfigDir(), n)
	}
	_, err := policy(cfg)
	return err
}

// serve runs the daemon.
func (c Command) serve(ctx context.Context, cl *config.CommandLine) int {
	defer runtime.KeepAlive(make([]byte, ballast))
	gcPercent := debug.SetGCPercent(startGCPercent)
	memory.Hide()
	// From the start: a SIGHUP must never end the daemon.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	opts := config.LoadOptions{Priority: checkPriority}
	cfg, clients, found := config.Load(cl, opts)
	levels := journal.Levels{}
	if cfg != nil {
		if levels = cfg.Levels; cfg.Debug {
			levels = journal.Debug()
		}
	}
	log := journal.Open(commandName, levels)
	defer journal.Settle(log) // so that journalctl -u shows why we didn't start
	if err := checkConfigDir(cl); err != nil {
		return failed(ctx, log, err)
	}
	logFindings(log, found)
	if found.Err() != nil {
		return cmdline.ExitFailure
	}
	err := Run(ctx, Options{
		Config: cfg, Clients: clients, Log: log, Version: c.Version,
		Reload: hangups, Started: func() { debug.SetGCPercent(gcPercent) },
		Load: func() (*config.Server, config.Clients, config.Findings) {
			return config.Load(cl, opts)
		},
	})
	if _, usage := errors.AsType[*cmdline.UsageError](err); err != nil && !usage {
		return failed(ctx, log, err)
	}
	return cmdline.Report(c.Stderr, commandName, err)
}

func failed(ctx context.Context, log *slog.Logger, err error) int {
	journal.Failed.Log(ctx, log.With(journal.Component("daemon")), journal.Err(err))
	return cmdline.ExitFailure
}

func logFindings(log *slog.Logger, found config.Findings) {
	log = log.With(journal.Component("config"))
	for _, f := range found {
		event := journal.ConfigBroken
		if f.Warning {
			event = journal.ConfigSuspect
		}
		event.Log(context.Background(), log, journal.Finding(f))
	}
}
