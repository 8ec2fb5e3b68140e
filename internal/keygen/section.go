package keygen

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"mandos/internal/clientkeys"
	"mandos/internal/pgp"
)

// printSection prints a client's section for clients.conf.
func (c Command) printSection(ctx context.Context, o options, fromFile bool) error {
	key, err := clientkeys.ReadPGPPair(filepath.Join(o.dir, clientkeys.PubKey), filepath.Join(o.dir, clientkeys.SecKey))
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\nhost = %s\n", o.name, strings.ReplaceAll(o.name, "%", "%%"))

	// Keys that are older than raw public keys in TLS have no TLS key: their
	// client is known by the fingerprint alone.
	tlsPub := filepath.Join(o.dir, clientkeys.TLSPubKey)
	if there, err := clientkeys.Existing(o.dir, clientkeys.TLSPubKey); err != nil {
		return err
	} else if len(there) > 0 {
		id, _, err := clientkeys.ReadTLSPublic(tlsPub)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "key_id = %x\n", id[:])
	} else {
		fmt.Fprintf(c.Stderr, "mandos-keygen: %s doesn't exist: no key_id for TLS 1.3 in the section\n", tlsPub)
	}
	fmt.Fprintf(&b, "fingerprint = %v\n", key.Fingerprint())

	var password []byte
	if fromFile {
		password, err = await(ctx, func() ([]byte, error) { return c.readPassfile(o.passfile) })
	} else {
		password, err = c.askPassword(ctx)
	}
	if err != nil {
		return err
	}
	defer clear(password)
	message, err := key.Seal(password, time.Now())
	if err != nil {
		return err
	}
	b.WriteString("secret =\n")
	for line := range slices.Chunk(base64.StdEncoding.AppendEncode(nil, message), 64) {
		fmt.Fprintf(&b, "    %s\n", line)
	}

	if !o.noSSH {
		if hostKey, ok := sshHostKey(ctx, c.sshAddr, cmp.Or(c.sshTimeout, sshTimeout)); ok {
			writeChecker(&b, hostKey)
		}
	}
	if _, err := await(ctx, func() (int, error) { return io.WriteString(c.Stdout, b.String()) }); err != nil {
		return fmt.Errorf("printing the section: %w", err)
	}
	return nil
}

// writeChecker writes a checker that doesn't just ask whether the host is
// there, but whether it still has its SSH host key. The server expands
// %%(host)s at each check, shell-quoted, and %(ssh_fingerprint)s when it
// reads the file.
func writeChecker(w io.Writer, k hostKey) {
	fmt.Fprintf(w, "checker = ssh-keyscan -t %s %%%%(host)s 2>/dev/null | grep -Fxqe %%%%(host)s\" %%(ssh_fingerprint)s\"\n", k.kind)
	fmt.Fprintf(w, "ssh_fingerprint = %s\n", k.line)
}

// readPassfile reads a file; "-" is standard input, as it is for the reference.
func (c Command) readPassfile(path string) ([]byte, error) {
	f := c.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("--passfile: %w", err)
		}
		defer f.Close()
	}
	password, err := io.ReadAll(io.LimitReader(f, pgp.MaxPassword+1))
	if err != nil {
		return nil, fmt.Errorf("--passfile: %w", err)
	}
	switch {
	case len(password) == 0:
		return nil, fmt.Errorf("--passfile: %s is empty", path)
	case len(password) > pgp.MaxPassword:
		clear(password)
		return nil, fmt.Errorf("--passfile: %s has more than %d bytes", path, pgp.MaxPassword)
	}
	return password, nil
}

// askPassword asks twice on a terminal, without echo. Otherwise it reads two
// lines, which must be equal too, or one that is all there is. White space
// around the password isn't part of it.
func (c Command) askPassword(ctx context.Context) ([]byte, error) {
	read := c.lineReader(ctx)
	first, err := read("Enter password: ")
	if err == nil && len(first) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	second, err := read("Repeat password: ")
	defer clear(second)
	if err == io.EOF && !c.onTerminal() {
		return first, nil
	}
	if err != nil {
		clear(first)
		return nil, fmt.Errorf("reading the password again: %w", err)
	}
	if !bytes.Equal(first, second) {
		clear(first)
		return nil, errors.New("the two passwords differ")
	}
	return first, nil
}

func (c Command) onTerminal() bool { return term.IsTerminal(int(c.Stdin.Fd())) }

// lineReader returns a function that reads one password. At the end of the
// input it returns io.EOF. If ctx ends, a terminal gets its echo back.
func (c Command) lineReader(ctx context.Context) func(prompt string) ([]byte, error) {
	if c.onTerminal() {
		return func(prompt string) ([]byte, error) {
			fd := int(c.Stdin.Fd())
			before, err := term.GetState(fd)
			if err != nil {
				return nil, err
			}
			fmt.Fprint(c.Stderr, prompt)
			line, err := await(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
			if ctx.Err() != nil {
				err = errors.Join(err, term.Restore(fd, before))
			}
			fmt.Fprintln(c.Stderr)
			return bytes.TrimSpace(line), err
		}
	}
	lines := bufio.NewReader(io.LimitReader(c.Stdin, 2*pgp.MaxPassword))
	return func(string) ([]byte, error) {
		line, err := await(ctx, func() ([]byte, error) { return lines.ReadBytes('\n') })
		if err == io.EOF && len(line) > 0 {
			err = nil
		}
		return bytes.TrimSpace(line), err
	}
}
