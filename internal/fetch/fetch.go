// Package fetch is the command mandos-client: it fetches this host's password
// from a Mandos server, decrypts it, and prints it.
//
// What goes where: the password, and nothing else, goes to standard output.
// Errors go to standard error, one line each, a repeated one only once; with
// --debug, all that happens does. Neither a key nor a password is ever
// written there.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"mandos/internal/clientkeys"
	"mandos/internal/cmdline"
	"mandos/internal/keytls"
	"mandos/internal/keytls/wire"
)

const keyDir = "/conf/conf.d/mandos"

type options struct {
	connect         string
	interfaces      []string
	pubkey, seckey  string
	tlsPub, tlsPriv string
	priority        string
	dhBits          int
	dhParams        string
	delay, retry    float64 // seconds
	hookDir         string
	debug           bool

	help, usage, version bool
}

var synopsis = []string{
	"[OPTION]...",
	"--connect ADDRESS:PORT [OPTION]...",
}

const about = `Ask Mandos servers for the password of this host's encrypted root file system,
and print it. Servers are found on the local network, or one is given with
--connect. They are asked again and again until one answers.`

// Options returns the option table of the command.
func Options() *pflag.FlagSet { return table(new(options)) }

func table(o *options) *pflag.FlagSet {
	fs := cmdline.New("mandos-client")
	fs.StringVarP(&o.connect, "connect", "c", "", "ask only the server at `ADDRESS:PORT`; the last colon separates the two")
	fs.StringSliceVarP(&o.interfaces, "interface", "i", nil, "network interfaces to use, `NAME[,NAME]...` (default: all that suit); those after the word none aren't brought up")
	fs.StringVarP(&o.pubkey, "pubkey", "p", filepath.Join(keyDir, clientkeys.PubKey), "OpenPGP public key `FILE`")
	fs.StringVarP(&o.seckey, "seckey", "s", filepath.Join(keyDir, clientkeys.SecKey), "OpenPGP secret key `FILE`")
	fs.StringVarP(&o.tlsPub, "tls-pubkey", "T", filepath.Join(keyDir, clientkeys.TLSPubKey), "TLS public key `FILE`")
	fs.StringVarP(&o.tlsPriv, "tls-privkey", "t", filepath.Join(keyDir, clientkeys.TLSPrivKey), "TLS private key `FILE`")
	fs.StringVar(&o.priority, "priority", "", "GnuTLS priority `STRING` for TLS 1.3 (default: what all Mandos servers take)")
	fs.IntVar(&o.dhBits, "dh-bits", 0, "accepted and ignored, like its `BITS`: the key exchange uses elliptic curves")
	fs.StringVar(&o.dhParams, "dh-params", "", "accepted and ignored, like its `FILE`")
	fs.Float64Var(&o.delay, "delay", 2.5, "wait at most `SECONDS` for an interface that was brought up")
	fs.Float64Var(&o.retry, "retry", 10, "wait `SECONDS` before asking a server again")
	fs.StringVar(&o.hookDir, "network-hook-dir", "/lib/mandos/network-hooks.d", "accepted: the hooks in `DIR` aren't run; if there are any, a warning says so")
	fs.BoolVar(&o.debug, "debug", false, "report on standard error what happens")
	fs.BoolVar(&o.usage, "usage", false, "print a short help and exit")
	fs.BoolVarP(&o.version, "version", "V", false, "print the version and exit")
	fs.BoolVarP(&o.help, "help", "?", false, "print this help and exit")
	return fs
}

const commandName = "mandos-client"

// A Command is one run of mandos-client.
type Command struct {
	Args    []string // without the command's name
	Stdout  io.Writer
	Stderr  io.Writer
	Version string
}

// Run runs the command until a server has answered or ctx ends, and returns
// its exit status: 0 when the password was printed, 1 for a failure, 2 for a
// wrong command line.
func (c Command) Run(ctx context.Context) int {
	var o options
	fs := table(&o)
	log := &notes{w: c.Stderr}
	err := cmdline.Parse(fs, c.Args)
	switch {
	case err != nil:
	case o.help:
		err = cmdline.PrintHelp(c.Stdout, fs, synopsis, about)
	case o.usage:
		_, err = fmt.Fprintf(c.Stdout, "Usage: mandos-client %s\n", strings.Join(synopsis, "\n       mandos-client "))
	case o.version:
		_, err = fmt.Fprintf(c.Stdout, "mandos-client %s\n", c.Version)
	default:
		log.debug = o.debug
		err = c.run(ctx, o, log)
	}
	return cmdline.Report(log, commandName, err)
}

func (c Command) run(ctx context.Context, o options, log *notes) error {
	retry, err := seconds("--retry", o.retry, 0.001)
	if err != nil {
		return err
	}
	delay, err := seconds("--delay", o.delay, 0)
	if err != nil {
		return err
	}
	use, err := parseInterfaces(o.interfaces)
	if err != nil {
		return err
	}
	var fixed server
	if o.connect != "" {
		if fixed, err = parseConnect(o.connect, use); err != nil {
			return err
		}
	}
	var policy keytls.Policy
	if o.priority != "" {
		if policy, err = keytls.ParsePriority(o.priority); err != nil {
			return cmdline.Usagef("--priority: %w", err)
		}
		if !slices.Contains(policy.Versions, wire.VersionTLS13) {
			return cmdline.Usagef("--priority %s: it leaves no TLS 1.3, and this client speaks nothing else", o.priority)
		}
	}
	warnOfIgnored(o, log)

	signer, err := clientkeys.ReadTLSPair(o.tlsPub, o.tlsPriv)
	if err != nil {
		return err
	}
	key, err := clientkeys.ReadPGPPair(o.pubkey, o.seckey)
	if err != nil {
		return err
	}
	a := &asker{tls: &keytls.Config{Key: signer, Policy: policy}, key: key, log: log}

	if o.connect == "" || !fixed.addr.Addr().IsLoopback() {
		down := bringUp(ctx, use, o.connect != "", delay, log)
		defer down()
	}
	h := &hunt{ask: a.ask, retry: retry, log: log}
	var password []byte
	if o.connect != "" {
		password, err = h.only(ctx, newTarget(fixed))
	} else {
		password, err = h.discover(ctx, use)
	}
	if err != nil {
		return err
	}
	return c.print(ctx, password)
}

// print writes the password. A reader that doesn't read mustn't keep the end
// of ctx from ending the program.
func (c Command) print(ctx context.Context, password []byte) error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Stdout.Write(password)
		clear(password)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("printing the password: %w", err)
		}
		return nil
	case <-ctx.Done():
		return errors.New("interrupted while printing the password")
	}
}

func seconds(option string, s, least float64) (time.Duration, error) {
	// Beyond a year, NaN and infinity: nobody means that.
	if math.IsNaN(s) || s < least || s > 365*24*3600 {
		return 0, cmdline.Usagef("%s %v: it must be from %v to %d seconds", option, s, least, 365*24*3600)
	}
	return time.Duration(s * float64(time.Second)), nil
}

// warnOfIgnored tells of options that are taken so that a configuration made
// for the reference works, but do nothing here.
func warnOfIgnored(o options, log *notes) {
	if o.dhBits != 0 || o.dhParams != "" {
		log.tell("--dh-bits and --dh-params are ignored: key exchange is on elliptic curves")
	}
	if hooks := hooksIn(o.hookDir); len(hooks) > 0 {
		log.warn("the network hooks in %s aren't run (%s): bring their interfaces up before this program starts",
			o.hookDir, strings.Join(hooks, ", "))
	}
}

// hooksIn returns the names of the runnable files in dir that the reference
// would run as hooks.
func hooksIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !strings.ContainsFunc(e.Name(), notInHookName) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

func notInHookName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-')
}
