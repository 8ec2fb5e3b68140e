package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"mandos/internal/checker"
	"mandos/internal/client"
	"mandos/internal/cmdline"
	"mandos/internal/config"
)

var version = "(devel)" // set by the linker

const commandName = "mandos-checker"

// Exit statuses of "test", for scripts, beside those of all commands.
const (
	exitNotAlive = 1 // the checker says that the client isn't alive
	exitNotRun   = 3 // the checker could not be run
)

var synopsis = []string{"", "[--configdir DIR] test CLIENT"}

const about = `Run the checkers of the Mandos server, for which systemd starts this command.
With "test CLIENT", ask it as the server would to run the client's checker, and
show the result.`

type options struct {
	configdir     string
	help, version bool
}

func table(o *options) *pflag.FlagSet {
	fs := cmdline.New(commandName)
	fs.StringVar(&o.configdir, "configdir", "/etc/mandos", "`DIR` with clients.conf")
	fs.BoolVarP(&o.version, "version", "v", false, "print the version and exit")
	fs.BoolVarP(&o.help, "help", "h", false, "print this help and exit")
	return fs
}

// run is the command; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	var o options
	fs := table(&o)
	operands, err := cmdline.ParseOperands(fs, args)
	switch {
	case err != nil:
	case o.help:
		err = cmdline.PrintHelp(stdout, fs, synopsis, about)
	case o.version:
		_, err = fmt.Fprintf(stdout, "%s %s\n", commandName, version)
	case len(operands) == 0:
		err = serve()
	case len(operands) == 2 && operands[0] == "test":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		alive, err := test(ctx, o.configdir, operands[1], stdout)
		switch {
		case err != nil:
			cmdline.Report(stderr, commandName, err)
			return exitNotRun
		case !alive:
			return exitNotAlive
		}
		return cmdline.ExitOK
	default:
		err = cmdline.Usagef(`expected nothing, or "test" and the name of one client`)
	}
	return cmdline.Report(stderr, commandName, err)
}

// test runs one client's checker as the daemon would: it becomes the
// daemon's user and asks the helper. The client's status isn't known here:
// %(expires)s and the like are None.
func test(ctx context.Context, configdir, name string, stdout io.Writer) (alive bool, err error) {
	clients, findings := config.LoadClients(configdir, config.LoadOptions{})
	if err := findings.Err(); err != nil {
		return false, err
	}
	settings, ok := find(clients, name)
	if !ok {
		return false, fmt.Errorf("there is no client %q in %s", name, filepath.Join(configdir, "clients.conf"))
	}
	now := time.Now()
	c := client.Client{Settings: settings}
	values := c.Variables(client.Instant{Wall: now})
	values["dbus_object_path"] = ""
	command, err := checker.Expand(settings.Checker, values)
	if err != nil {
		return false, fmt.Errorf("client %q: %w", name, err)
	}
	asker, err := lookUp(daemonUser)
	if err != nil {
		return false, err
	}
	if err := become(asker); err != nil {
		return false, err
	}
	checks := checker.Checks{Runner: checker.Remote{Path: checker.SocketPath}}
	fmt.Fprintf(stdout, "command: %s\n", command)
	result, err := checks.Run(ctx, name, command, settings.CheckLimit())
	if err != nil {
		return false, err
	}
	if result.Output != "" {
		fmt.Fprintf(stdout, "output:\n%s\n", result.Output)
	}
	fmt.Fprintf(stdout, "result: %s, after %v\n", describe(result), time.Since(now).Round(time.Millisecond))
	return result.OK(), nil
}

func find(clients config.Clients, name string) (settings client.Settings, ok bool) {
	for _, c := range clients {
		if c.Settings.Name == name {
			return c.Settings, true
		}
	}
	return client.Settings{}, false
}

// become gives up root for the user that the helper answers.
func become(who ids) error {
	if syscall.Geteuid() == int(who.uid) {
		return nil
	}
	err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(int(who.gid)), syscall.Setuid(int(who.uid)))
	if err != nil {
		return fmt.Errorf("becoming user %s, whom the helper answers (run this as root): %w", daemonUser, err)
	}
	return nil
}

func describe(r client.CheckResult) string {
	switch {
	case r.TimedOut:
		return "killed, because it took too long: not alive"
	case r.Signal != 0:
		return fmt.Sprintf("ended by signal %d: not alive", r.Signal)
	case r.ExitStatus == 0:
		return "exit status 0: alive"
	}
	return fmt.Sprintf("exit status %d: not alive", r.ExitStatus)
}
