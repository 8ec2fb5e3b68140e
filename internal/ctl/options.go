package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"mandos/internal/cmdline"
	"mandos/internal/isodur"
	"mandos/internal/operator"
)

var synopsis = []string{
	"[--verbose | --dump-json | --watch] [CLIENT...]",
	"ACTION... {--all | CLIENT...}",
	"{--is-enabled | --why} CLIENT",
	"--completion {bash|zsh|fish}",
}

const about = `Show the clients of the Mandos server, and control them. Several actions are
done in the order of the command line, each for all the clients named.`

// options are what a command line says.
type options struct {
	table   *pflag.FlagSet
	clients []string
	actions []action

	all, verbose, json, watch, names, isEnabled, why bool
	help, version, debug, check                      bool
	completion                                       string
}

// An action is one thing to do with a client.
type action struct {
	option string // by which it was asked for, without the dashes
	do     func(context.Context, Server, operator.Client) error
}

// Options returns the option table of the command.
func Options() *pflag.FlagSet { return newOptions(nil).table }

func newOptions(stdin io.Reader) *options {
	o := &options{}
	fs := cmdline.New("mandos-ctl")
	o.table = fs
	set := func(property string, value any) func(context.Context, Server, operator.Client) error {
		return func(ctx context.Context, s Server, c operator.Client) error { return s.Set(ctx, c, property, value) }
	}
	// pflag calls functions in the order of the command line.

	// An option without a value that asks for an action.
	simple := func(long, short, help string, do func(context.Context, Server, operator.Client) error) {
		fs.BoolFuncP(long, short, help, func(string) error {
			o.actions = append(o.actions, action{long, do})
			return nil
		})
	}
	// One with a value, which read turns into that of a property.
	valued := func(long, short, help, property string, read func(string) (any, error)) {
		fs.FuncP(long, short, help, func(s string) error {
			v, err := read(s)
			if err != nil {
				return err
			}
			o.actions = append(o.actions, action{long, set(property, v)})
			return nil
		})
	}
	approve := func(yes bool) func(context.Context, Server, operator.Client) error {
		return func(ctx context.Context, s Server, c operator.Client) error { return s.Approve(ctx, c, yes) }
	}

	fs.BoolVarP(&o.all, "all", "a", false, "act on all clients")
	fs.BoolVarP(&o.verbose, "verbose", "v", false, "show all columns")
	fs.BoolVarP(&o.json, "dump-json", "j", false, "print the clients as JSON")
	fs.BoolVar(&o.watch, "watch", false, "keep showing the clients as they change")
	fs.BoolVarP(&o.isEnabled, "is-enabled", "V", false, "exit with status 0 if the client is enabled, else with 1")
	fs.BoolVar(&o.why, "why", false, "say why the client would get its secret now, or not")
	simple("enable", "e", "enable the client", set("Enabled", true))
	simple("disable", "d", "disable the client", set("Enabled", false))
	simple("bump-timeout", "b", "count as a successful check", set("LastCheckedOK", ""))
	simple("start-checker", "", "start the checker now", set("CheckerRunning", true))
	simple("stop-checker", "", "kill the running checker", set("CheckerRunning", false))
	simple("approve", "A", "approve the hand-out that the client waits for", approve(true))
	simple("deny", "D", "deny it", approve(false))
	simple("remove", "r", "remove the client from the server", func(ctx context.Context, s Server, c operator.Client) error { return s.Remove(ctx, c) })
	valued("checker", "c", "set the checker's `COMMAND`", "Checker", text)
	valued("host", "H", "set the `HOST` that is checked", "Host", text)
	valued("timeout", "t", "set the `TIME` without a successful check after which the client is disabled", "Timeout", duration)
	valued("extended-timeout", "", "set the `TIME` that a client has to boot after a hand-out", "ExtendedTimeout", duration)
	valued("interval", "i", "set the `TIME` between checks", "Interval", duration)
	valued("approval-delay", "", "set the `TIME` that a hand-out waits for approval", "ApprovalDelay", duration)
	valued("approval-duration", "", "set the `TIME` for which an approval or denial lasts", "ApprovalDuration", duration)
	simple("approve-by-default", "", "approve when nobody decides", set("ApprovedByDefault", true))
	simple("deny-by-default", "", "deny when nobody decides", set("ApprovedByDefault", false))
	valued("secret", "s", "set the secret to the bytes of `FILE`", "Secret",
		func(name string) (any, error) { return readSecret(name, stdin) })
	fs.StringVar(&o.completion, "completion", "", "print the completions for `SHELL`: bash, zsh or fish")
	fs.BoolVar(&o.debug, "debug", false, "print each D-Bus call")
	fs.BoolVar(&o.check, "check", false, "do nothing and exit with status 0")
	fs.BoolVar(&o.names, "names", false, "print the clients' names, one per line")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	fs.BoolVarP(&o.help, "help", "h", false, "print this help and exit")
	return o
}

func parse(args []string, stdin io.Reader) (*options, error) {
	o := newOptions(stdin)
	operands, err := cmdline.ParseOperands(o.table, args)
	if err != nil {
		return nil, err
	}
	o.clients = operands
	if err := o.validate(); err != nil {
		return nil, &cmdline.UsageError{Err: err}
	}
	return o, nil
}

// exclusive are pairs of options of which a command line may have one.
var exclusive = [][2]string{
	{"enable", "disable"},
	{"start-checker", "stop-checker"},
	{"approve", "deny"},
	{"approve-by-default", "deny-by-default"},
}

func (o *options) validate() error {
	given := func(name string) bool { return o.table.Changed(name) }
	switch {
	case o.help || o.version:
		return nil
	case given("completion"):
		if completions[o.completion] == nil {
			return fmt.Errorf("--completion: there is none for %q, only for bash, zsh and fish", o.completion)
		}
		return nil
	}
	for _, pair := range exclusive {
		if given(pair[0]) && given(pair[1]) {
			return fmt.Errorf("--%s and --%s exclude each other", pair[0], pair[1])
		}
	}
	var shows []string
	for _, name := range []string{"verbose", "dump-json", "watch", "is-enabled", "why", "names"} {
		if given(name) {
			shows = append(shows, name)
		}
	}
	switch {
	case len(shows) > 1:
		return fmt.Errorf("--%s and --%s exclude each other", shows[0], shows[1])
	case len(shows) == 1 && len(o.actions) > 0:
		return fmt.Errorf("--%s can't go with --%s", shows[0], o.actions[0].option)
	case o.all && len(o.clients) > 0:
		return errors.New("--all can't go with the names of clients")
	case o.all && len(o.actions) == 0:
		return errors.New("--all needs something to do")
	case len(o.actions) > 0 && !o.all && len(o.clients) == 0:
		return fmt.Errorf("--%s needs the names of clients, or --all", o.actions[0].option)
	case (o.isEnabled || o.why) && len(o.clients) != 1:
		return fmt.Errorf("--%s needs the name of one client", shows[0])
	}
	return o.validateRemove()
}

// validateRemove allows --deny beside --remove, and puts it first: a client
// that waits must not be served on its way out.
func (o *options) validateRemove() error {
	if !o.table.Changed("remove") {
		return nil
	}
	var deny, remove []action
	for _, a := range o.actions {
		switch a.option {
		case "remove":
			remove = []action{a}
		case "deny":
			deny = []action{a}
		default:
			return fmt.Errorf("--remove can't go with --%s", a.option)
		}
	}
	o.actions = append(deny, remove...)
	return nil
}

func text(s string) (any, error) { return s, nil }

var bareNumber = regexp.MustCompile(`^[0-9]+$`)

// runTogether is the old form without blanks, "1h30m", which only this
// command has ever taken.
var runTogether = regexp.MustCompile(`^([0-9]+[wdhms])+$`)

var afterUnit = regexp.MustCompile(`[wdhms]`)

// duration reads PT5M or "5m"; a bare number is milliseconds, as it always
// was for this command.
func duration(s string) (any, error) {
	if s == "" { // as of a variable that isn't set: 0 would disable the client
		return nil, errors.New("it is empty")
	}
	if bareNumber.MatchString(s) {
		ms, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return nil, err
		}
		return ms, nil
	}
	if runTogether.MatchString(s) {
		s = afterUnit.ReplaceAllString(s, "$0 ")
	}
	d, err := isodur.Parse(s)
	if err != nil {
		return nil, err
	}
	if d < 0 {
		return nil, fmt.Errorf("%q is negative", s)
	}
	return uint64(d / time.Millisecond), nil
}

// maxSecret is more than any password needs, and less than a bus message
// may have.
const maxSecret = 16 << 20

// readSecret reads a file; "-" is standard input, as it is for the reference.
func readSecret(name string, stdin io.Reader) (any, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	// Of a pipe or a device nobody knows the size before.
	secret, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return nil, err
	}
	if len(secret) > maxSecret {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxSecret)
	}
	return secret, nil
}
