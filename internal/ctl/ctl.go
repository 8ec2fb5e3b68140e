// Package ctl is the command mandos-ctl: it shows the clients of the Mandos
// server and controls them, over D-Bus.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mandos/internal/cmdline"
	"mandos/internal/operator"
)

// exitNotEnabled is the exit status of --is-enabled for a disabled client.
const exitNotEnabled = 1

// A Server is what the command needs of an [operator.Conn].
type Server interface {
	Clients(ctx context.Context) ([]operator.Client, error)
	Set(ctx context.Context, client operator.Client, property string, value any) error
	Approve(ctx context.Context, client operator.Client, approve bool) error
	Remove(ctx context.Context, client operator.Client) error
	Watch(ctx context.Context) (<-chan operator.Occurrence, error)
}

// A Command is one run of mandos-ctl.
type Command struct {
	Args    []string // without the command's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Version string

	// Terminal says whether Stdout is one, and Colour whether it may be
	// coloured. Width is its width in cells, 0 if it is unknown.
	Terminal bool
	Width    int
	Colour   bool

	// Connect connects to the server; trace is set with --debug.
	Connect func(ctx context.Context, trace func(string)) (Server, error)
	Now     func() time.Time
	// Interrupted returns a context that a signal ends, for --watch. All else
	// a signal ends by itself.
	Interrupted func(context.Context) (context.Context, context.CancelFunc)
}

// Run runs the command and returns its exit status: 0, 1 for a failure and
// for --is-enabled of a disabled client, 2 for a wrong command line.
func (c Command) Run(ctx context.Context) int {
	o, err := parse(c.Args, c.Stdin)
	if err != nil {
		return c.complain(err)
	}
	status, err := c.run(ctx, o)
	if err != nil {
		return c.complain(err)
	}
	return status
}

// complain writes an error and returns the exit status for it.
func (c Command) complain(err error) (status int) {
	return cmdline.Report(c.Stderr, "mandos-ctl", harmless{err})
}

// A harmless error can't steer a terminal, though it may quote what the server
// says.
type harmless struct{ err error }

func (h harmless) Error() string { return printableLines(h.err.Error()) }
func (h harmless) Unwrap() error { return h.err }

// printableLines is operator.Printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = operator.Printable(line)
	}
	return strings.Join(lines, "\n")
}

func (c Command) run(ctx context.Context, o *options) (int, error) {
	switch {
	case o.help:
		return cmdline.ExitOK, cmdline.PrintHelp(c.Stdout, o.table, synopsis, about)
	case o.version:
		_, err := fmt.Fprintf(c.Stdout, "mandos-ctl %s\n", c.Version)
		return cmdline.ExitOK, err
	case o.check:
		return cmdline.ExitOK, nil
	case o.completion != "":
		return cmdline.ExitOK, writeCompletion(c.Stdout, o.completion, o.table)
	}
	var trace func(string)
	if o.debug {
		trace = func(call string) { fmt.Fprintf(c.Stderr, "D-Bus: %s\n", call) }
	}
	server, err := c.Connect(ctx, trace)
	if err != nil {
		return cmdline.ExitFailure, err
	}
	if o.watch {
		ctx, stop := c.Interrupted(ctx)
		defer stop()
		return cmdline.ExitOK, c.watch(ctx, server, o)
	}
	clients, err := selected(ctx, server, o)
	if err != nil {
		return cmdline.ExitFailure, err
	}
	switch {
	case o.names:
		return cmdline.ExitOK, c.print(c.names(clients))
	case o.isEnabled:
		if !clients[0].Bool("Enabled") {
			return exitNotEnabled, nil
		}
		return cmdline.ExitOK, nil
	case o.why:
		return cmdline.ExitOK, c.print(why(clients[0], c.Now(), time.Local))
	case o.json:
		return cmdline.ExitOK, c.print(dump(clients))
	case len(o.actions) == 0:
		return cmdline.ExitOK, c.print(o.tableOf(clients).render(style{colour: c.Colour}))
	}
	return c.act(ctx, server, o.actions, clients)
}

// act does each action for all clients before the next, in the order of the
// command line. A failure with one client doesn't keep the others from it.
func (c Command) act(ctx context.Context, server Server, actions []action, clients []operator.Client) (int, error) {
	status := cmdline.ExitOK
	for _, a := range actions {
		for _, client := range clients {
			if err := a.do(ctx, server, client); err != nil {
				c.complain(fmt.Errorf("--%s: %w", a.option, err))
				status = cmdline.ExitFailure
			}
		}
	}
	if len(actions) == 1 && actions[0].option == "deny" {
		for _, client := range clients {
			if client.Duration("ApprovalDelay") == 0 {
				c.complain(fmt.Errorf("%s needs no approval, so --deny has no effect; --disable refuses it", operator.Printable(client.Name())))
			}
		}
	}
	return status, nil
}

func (c Command) print(text string) error {
	_, err := io.WriteString(c.Stdout, text)
	return err
}

// selected returns the clients that the command line names, in its order and
// each once, or all of them by name.
func selected(ctx context.Context, server Server, o *options) ([]operator.Client, error) {
	all, err := server.Clients(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b operator.Client) int { return strings.Compare(a.Name(), b.Name()) })
	if len(o.clients) == 0 {
		return all, nil
	}
	var clients []operator.Client
	var unknown []error
	for n, name := range o.clients {
		if slices.Contains(o.clients[:n], name) {
			continue
		}
		i := slices.IndexFunc(all, func(c operator.Client) bool { return c.Name() == name })
		if i < 0 {
			unknown = append(unknown, fmt.Errorf("the server has no client %q", name))
			continue
		}
		clients = append(clients, all[i])
	}
	return clients, errors.Join(unknown...)
}

// names are the clients' names: as they are for a program, and harmless on a
// terminal.
func (c Command) names(clients []operator.Client) string {
	var b strings.Builder
	for _, client := range clients {
		name := client.Name()
		if c.Terminal {
			name = operator.Printable(name)
		}
		b.WriteString(name + "\n")
	}
	return b.String()
}
