// Package keygen is the command mandos-keygen: it makes the keys of a Mandos
// client, and encrypts the client's password into a section for the server's
// clients.conf.
package keygen

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"mandos/internal/clientkeys"
	"mandos/internal/cmdline"
	"mandos/internal/pgp"
)

// The directories that hold the keys unless --dir says otherwise. The second
// is taken when only it exists.
const (
	defaultDir  = "/etc/keys/mandos"
	fallbackDir = "/etc/mandos/keys"
)

type options struct {
	dir, name, email, comment, expire string
	kind, subKind, tlsKind            string
	bits, subBits                     int
	force                             bool

	password, noSSH bool
	passfile        string

	help, version bool
}

var synopsis = []string{
	"[OPTION]...",
	"{--password | --passfile FILE} [--dir DIR] [--name NAME] [--no-ssh]",
}

const about = `Make the TLS and OpenPGP keys of a Mandos client. With --password or --passfile,
encrypt a password with keys that exist, and print a section for clients.conf
on the Mandos server.`

// Options returns the option table of the command.
func Options() *pflag.FlagSet { return table(new(options)) }

func table(o *options) *pflag.FlagSet {
	fs := cmdline.New("mandos-keygen")
	fs.StringVarP(&o.dir, "dir", "d", "", "`DIR` that holds the keys (default "+defaultDir+")")
	fs.StringVarP(&o.kind, "type", "t", "RSA", "OpenPGP key `TYPE`: RSA is the only one")
	fs.IntVarP(&o.bits, "length", "l", 4096, "OpenPGP key length in `BITS`, 2048 to 8192")
	fs.StringVarP(&o.subKind, "subtype", "s", "RSA", "OpenPGP subkey `TYPE`: RSA is the only one")
	fs.IntVarP(&o.subBits, "sublength", "L", 4096, "OpenPGP subkey length in `BITS`, 2048 to 8192")
	fs.StringVarP(&o.name, "name", "n", "", "`NAME` of the client (default: fully qualified host name)")
	fs.StringVarP(&o.email, "email", "e", "", "email `ADDRESS` in the OpenPGP key")
	fs.StringVarP(&o.comment, "comment", "c", "", "comment `TEXT` in the OpenPGP key")
	fs.StringVarP(&o.expire, "expire", "x", "0", "`TIME` after which the OpenPGP key expires, as in gpg(1); 0 is never")
	fs.StringVarP(&o.tlsKind, "tls-keytype", "T", "ed25519", "TLS key `TYPE`: "+clientkeys.TLSKeyTypes)
	fs.BoolVarP(&o.force, "force", "f", false, "replace keys that exist; they are kept as numbered backups")
	fs.BoolVarP(&o.password, "password", "p", false, "ask for a password and print a section for clients.conf")
	fs.StringVarP(&o.passfile, "passfile", "F", "", "the same, with the bytes of `FILE` as the password")
	fs.BoolVarP(&o.noSSH, "no-ssh", "S", false, "with --password or --passfile: no checker with this host's SSH key")
	fs.BoolVarP(&o.version, "version", "v", false, "print the version and exit")
	fs.BoolVarP(&o.help, "help", "h", false, "print this help and exit")
	return fs
}

// A Command is one run of mandos-keygen.
type Command struct {
	Args    []string // without the command's name
	Stdin   *os.File
	Stdout  io.Writer
	Stderr  io.Writer
	Version string

	sshAddr    string        // of the SSH server to ask; empty: port 22 of localhost
	sshTimeout time.Duration // how long to wait for it; 0: sshTimeout
}

// Run runs the command and returns its exit status: 0, 1 for a failure, 2
// for a wrong command line.
func (c Command) Run(ctx context.Context) int {
	var o options
	fs := table(&o)
	err := cmdline.Parse(fs, c.Args)
	switch {
	case err != nil:
	case o.help:
		err = cmdline.PrintHelp(c.Stdout, fs, synopsis, about)
	case o.version:
		_, err = fmt.Fprintf(c.Stdout, "mandos-keygen %s\n", c.Version)
	default:
		err = c.run(ctx, o, fs.Changed("passfile"))
	}
	return cmdline.Report(c.Stderr, "mandos-keygen", err)
}

func (c Command) run(ctx context.Context, o options, fromFile bool) error {
	if o.dir == "" {
		o.dir = defaultDir
		if _, err := os.Stat(defaultDir); errors.Is(err, os.ErrNotExist) {
			if _, err := os.Stat(fallbackDir); err == nil {
				o.dir = fallbackDir
			}
		}
	}
	if o.name == "" {
		name, err := hostName(ctx)
		if err != nil {
			return fmt.Errorf("finding this host's name: %w (use --name)", err)
		}
		o.name = name
	}
	if err := checkName(o.name); err != nil {
		return cmdline.Usagef("%w", err) // --name gives another
	}
	if fromFile || o.password {
		return c.printSection(ctx, o, fromFile)
	}
	return makeKeys(ctx, o, time.Now())
}

var errInterrupted = errors.New("interrupted")

// await returns what f returns, or an error as soon as ctx ends. What f waits
// for may never come, and the program ends then.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, errInterrupted
	}
}

// makeKeys makes all four files. Until all are written, and if ctx ends before
// that, it changes none.
func makeKeys(ctx context.Context, o options, now time.Time) error {
	for _, given := range []struct {
		option, kind string
	}{{"--type", o.kind}, {"--subtype", o.subKind}} {
		if !strings.EqualFold(given.kind, "RSA") {
			return cmdline.Usagef("%s %s: RSA is the only type of OpenPGP key that mandos-keygen makes", given.option, given.kind)
		}
	}
	for _, given := range []struct {
		option string
		bits   int
	}{{"--length", o.bits}, {"--sublength", o.subBits}} {
		if given.bits < pgp.MinBits || given.bits > pgp.MaxBits {
			return cmdline.Usagef("%s: an OpenPGP key of %d bits: from %d to %d are possible", given.option, given.bits, pgp.MinBits, pgp.MaxBits)
		}
	}
	lifetime, err := pgp.ParseLifetime(o.expire, now)
	if err != nil {
		return cmdline.Usagef("--expire: %w", err)
	}
	names := []string{clientkeys.SecKey, clientkeys.PubKey, clientkeys.TLSPrivKey, clientkeys.TLSPubKey}
	there, err := clientkeys.Existing(o.dir, names...)
	if err != nil {
		return fmt.Errorf("looking for old keys: %w", err)
	}
	if len(there) > 0 && !o.force {
		return fmt.Errorf("%s exists: a client with new keys needs a new section in the server's clients.conf; use --force to replace them",
			filepath.Join(o.dir, there[0]))
	}

	tlsKey, err := await(ctx, func() (crypto.Signer, error) { return clientkeys.NewTLSKey(o.tlsKind) })
	switch {
	case errors.Is(err, errInterrupted):
		return err
	case err != nil:
		return cmdline.Usagef("--tls-keytype: %w", err)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("making the key directory: %w", err)
	}
	private, public, err := clientkeys.EncodeTLSKey(tlsKey)
	if err != nil {
		return fmt.Errorf("encoding the TLS key: %w", err)
	}
	key, err := await(ctx, func() (*pgp.Key, error) {
		return pgp.Generate(pgp.Request{
			Name: o.name, Email: o.email, Comment: o.comment,
			Bits: o.bits, SubBits: o.subBits, Created: now, Lifetime: lifetime,
		})
	})
	if err != nil {
		return err
	}
	const comment = "Mandos client key for "
	sec, err := key.ArmouredSecret(comment + o.name)
	if err != nil {
		return fmt.Errorf("encoding the OpenPGP key: %w", err)
	}
	pub, err := key.ArmouredPublic(comment + o.name)
	if err != nil {
		return fmt.Errorf("encoding the OpenPGP key: %w", err)
	}
	contents := [][]byte{sec, pub, private, public}
	files := make([]clientkeys.File, len(names))
	for i, name := range names {
		files[i] = clientkeys.File{Name: name, Data: contents[i]}
	}
	return clientkeys.Install(o.dir, files)
}

// hostName returns the fully qualified name of this host, or what it is
// called if nobody knows more.
func hostName(ctx context.Context) (string, error) {
	host, err := os.Hostname()
	if err != nil || strings.Contains(host, ".") {
		return host, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if full, err := net.DefaultResolver.LookupCNAME(ctx, host); err == nil {
		if full = strings.TrimSuffix(full, "."); strings.HasPrefix(full, host+".") {
			return full, nil
		}
	}
	return host, nil
}

// checkName refuses what can't be the name of a section in clients.conf, of
// an OpenPGP key, and on D-Bus.
func checkName(name string) error {
	switch {
	case name == "DEFAULT":
		return errors.New(`a client can't be called "DEFAULT": that section of clients.conf holds the defaults`)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("the name %q isn't UTF-8 without control characters", name)
	case strings.ContainsAny(name, "[]()<>"):
		return fmt.Errorf("the name %q: a client's name can't hold any of \"[]()<>\"", name)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("the name %q begins or ends with white space", name)
	}
	return nil
}
