package checker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Variables are the names that a checker's command line may contain as
// %(name)s. Whoever calls Expand must supply a value for each of them;
// dbus_object_path has one even with --no-dbus.
var Variables = []string{
	"approval_delay", "approval_duration", "created", "dbus_object_path",
	"enabled", "expires", "fingerprint", "host", "interval", "key_id",
	"last_approval_request", "last_checked_ok", "last_enabled", "name",
	"timeout",
}

// Expand replaces each %(name)s in template with the value of that name in
// vars, quoted for the shell, and each %% with %, as Python's % operator does
// with a mapping. Any other use of % is an error, and so is a name that is not
// in vars.
func Expand(template string, vars map[string]string) (string, error) {
	var b strings.Builder
	err := scan(template, func(text, name string) error {
		b.WriteString(text)
		if name == "" {
			return nil
		}
		value, ok := vars[name]
		if !ok {
			return fmt.Errorf("%%(%s)s has no value", name)
		}
		b.WriteString(Quote(value))
		return nil
	})
	if err != nil {
		return "", err
	}
	return b.String(), nil
}

// Validate returns an error if template can't be expanded with Variables and
// run by a shell.
func Validate(template string) error {
	if strings.ContainsRune(template, 0) {
		return errors.New("a command line can't hold a NUL")
	}
	return scan(template, func(_, name string) error {
		if name != "" && !slices.Contains(Variables, name) {
			return fmt.Errorf("%%(%s)s is not known; the names are %s", name, strings.Join(Variables, ", "))
		}
		return nil
	})
}

// Uses reports whether template, which must be valid, contains %(name)s.
func Uses(template, name string) bool {
	found := false
	_ = scan(template, func(_, n string) error {
		found = found || n == name
		return nil
	})
	return found
}

// scan calls yield with each piece of plain text and the name after it, which
// is empty after the last piece and after a %%.
func scan(template string, yield func(text, name string) error) error {
	for {
		text, rest, found := strings.Cut(template, "%")
		if !found {
			return yield(text, "")
		}
		switch {
		case strings.HasPrefix(rest, "%"):
			if err := yield(text+"%", ""); err != nil {
				return err
			}
			template = rest[1:]
		case strings.HasPrefix(rest, "("):
			name, after, closed := strings.Cut(rest[1:], ")")
			if !closed || name == "" || !strings.HasPrefix(after, "s") {
				return fmt.Errorf("%q is wrong: it must read %%(name)s, with an s", "%"+clip(rest))
			}
			if err := yield(text, name); err != nil {
				return err
			}
			template = after[1:]
		default:
			return fmt.Errorf("after %%, at %q, there must be %% or (name)s", "%"+clip(rest))
		}
	}
}

// clip shortens s for an error message.
func clip(s string) string {
	const most = 20
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// Quote returns s as one word of a POSIX shell's command line, in the same
// form as Python's shlex.quote.
func Quote(s string) string {
	if s == "" {
		return "''"
	}
	plain := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_@%+=:,./-", c) >= 0
	}
	for i := range len(s) {
		if !plain(s[i]) {
			return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
		}
	}
	return s
}
