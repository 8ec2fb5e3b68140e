// Package cmdline reads GNU-style command lines, with the long options
// abbreviated as getopt_long(3) allows, and reports how a command failed.
package cmdline

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Exit statuses of all commands.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2 // for a UsageError
)

// A UsageError is the fault of the command line.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a UsageError that holds what fmt.Errorf returns.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Report writes err, unless it is nil, as the last words of the command name,
// and returns the command's exit status.
func Report(stderr io.Writer, name string, err error) (status int) {
	if err == nil {
		return ExitOK
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		fmt.Fprintf(stderr, "%s: %v (see --help)\n", name, err)
		return ExitUsage
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	return ExitFailure
}

// New returns an option table for the command name. It writes nothing by
// itself.
func New(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// Parse reads args. A long option may be abbreviated as far as it stays
// unique. Arguments that belong to no option are an error. All errors are
// *UsageErrors.
func Parse(fs *pflag.FlagSet, args []string) error {
	operands, err := ParseOperands(fs, args)
	if err != nil {
		return err
	}
	if len(operands) > 0 {
		return Usagef("unexpected argument %q", operands[0])
	}
	return nil
}

// ParseOperands is like Parse, and returns the arguments that belong to no
// option; they may stand anywhere.
func ParseOperands(fs *pflag.FlagSet, args []string) ([]string, error) {
	full, err := expandAll(fs, args)
	if err == nil {
		err = inWords(fs.Parse(full))
	}
	if err != nil {
		return nil, &UsageError{err}
	}
	return fs.Args(), nil
}

// expandAll returns args with the options in full.
func expandAll(fs *pflag.FlagSet, args []string) ([]string, error) {
	full := make([]string, len(args))
	copy(full, args)
	value := false // is next: it may look like an option, and pflag takes it verbatim
	for i, arg := range full {
		if value {
			value = false
			continue
		}
		if arg == "--" {
			break
		}
		if !strings.HasPrefix(arg, "--") {
			if f := shortWithValue(fs, arg); f != nil {
				return nil, noValue(f)
			}
			value = wantsValue(fs, arg)
			continue
		}
		name, given, hasValue := strings.Cut(arg[2:], "=")
		long, err := expand(fs, name)
		if err != nil {
			return nil, err
		}
		full[i] = "--" + long
		if hasValue {
			if f := fs.Lookup(long); f.NoOptDefVal != "" {
				return nil, noValue(f)
			}
			full[i] += "=" + given
		}
		value = wantsValue(fs, full[i])
	}
	return full, nil
}

// noValue is the error of an option that takes no value and was given one.
// The library would take --debug=false, which getopt_long(3) refuses.
func noValue(f *pflag.Flag) error { return fmt.Errorf("--%s: it takes no value", f.Name) }

// shortWithValue returns the option of a cluster like -fd=1 that takes no
// value, if it is given one.
func shortWithValue(fs *pflag.FlagSet, arg string) *pflag.Flag {
	for i := 1; i < len(arg); i++ {
		f := fs.ShorthandLookup(arg[i : i+1])
		if f == nil || f.NoOptDefVal == "" {
			return nil
		}
		if i+1 < len(arg) && arg[i+1] == '=' {
			return f
		}
	}
	return nil
}

// inWords says what is wrong as all else here does: by the option's long name,
// without flags, arguments and Go's functions.
func inWords(err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		name, value, cause := e.GetFlag().Name, e.GetValue(), e.Unwrap()
		switch {
		case errors.Is(cause, strconv.ErrRange):
			cause = fmt.Errorf("%q is out of range", value)
		case errors.Is(cause, strconv.ErrSyntax):
			cause = fmt.Errorf("%q is no number", value)
		}
		return fmt.Errorf("--%s: %w", name, cause)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("--%s needs a value", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() != "" {
		return fmt.Errorf("unknown option -%s", e.GetSpecifiedName())
	}
	return err
}

func expand(fs *pflag.FlagSet, name string) (string, error) {
	if fs.Lookup(name) != nil {
		return name, nil
	}
	var matches []string
	fs.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, name) {
			matches = append(matches, f.Name)
		}
	})
	switch len(matches) {
	case 0:
		return "", fmt.Errorf("unknown option --%s", name)
	case 1:
		return matches[0], nil
	}
	return "", fmt.Errorf("option --%s is ambiguous: it could be --%s", name, strings.Join(matches, " or --"))
}

// wantsValue reports whether arg is an option whose value is the argument
// after it.
func wantsValue(fs *pflag.FlagSet, arg string) bool {
	if long, ok := strings.CutPrefix(arg, "--"); ok {
		f := fs.Lookup(long)
		return f != nil && f.NoOptDefVal == ""
	}
	if len(arg) < 2 || arg[0] != '-' {
		return false
	}
	// A cluster like -fS: the first option that takes a value takes the
	// rest of the cluster, or the next argument if there is no rest.
	for i := 1; i < len(arg); i++ {
		f := fs.ShorthandLookup(arg[i : i+1])
		if f == nil {
			return false
		}
		if f.NoOptDefVal == "" {
			return i == len(arg)-1
		}
	}
	return false
}

// PrintHelp writes the synopsis lines, what the command does, and the option
// table.
func PrintHelp(w io.Writer, fs *pflag.FlagSet, synopsis []string, about string) error {
	var b strings.Builder
	for i, line := range synopsis {
		lead := "Usage: "
		if i > 0 {
			lead = "       "
		}
		b.WriteString(strings.TrimRight(lead+fs.Name()+" "+line, " ") + "\n")
	}
	fmt.Fprintf(&b, "\n%s\n\nOptions:\n%s", strings.TrimSpace(about), fs.FlagUsagesWrapped(80))
	_, err := io.WriteString(w, b.String())
	return err
}
