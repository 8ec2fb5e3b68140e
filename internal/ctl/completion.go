package ctl

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// completions are the shells that there are completions for.
var completions = map[string]func(*pflag.FlagSet) string{"bash": bash, "zsh": zsh, "fish": fish}

// writeCompletion writes a shell's completions, made of the option table.
// The clients' names are asked of the server at the time.
func writeCompletion(w io.Writer, shell string, table *pflag.FlagSet) error {
	_, err := io.WriteString(w, completions[shell](table))
	return err
}

func bash(table *pflag.FlagSet) string {
	var words, files, values []string
	table.VisitAll(func(f *pflag.Flag) {
		names := []string{"--" + f.Name}
		if f.Shorthand != "" {
			names = append(names, "-"+f.Shorthand)
		}
		words = append(words, names[0])
		switch {
		case f.NoOptDefVal != "":
		case f.Name == "secret":
			files = append(files, names...)
		case f.Name != "completion":
			values = append(values, names...)
		}
	})
	return fmt.Sprintf(`# bash completion for mandos-ctl
_mandos_ctl() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    COMPREPLY=()
    case $prev in
        %s) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --completion) mapfile -t COMPREPLY < <(compgen -W 'bash zsh fish' -- "$cur"); return ;;
        %s) return ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '%s' -- "$cur")
        return
    fi
    local name
    while IFS= read -r name; do
        [[ $name == "$cur"* ]] && COMPREPLY+=("$(printf '%%q' "$name")")
    done < <(mandos-ctl --names 2>/dev/null)
}
complete -F _mandos_ctl mandos-ctl
`, strings.Join(files, "|"), strings.Join(values, "|"), strings.Join(words, " "))
}

func zsh(table *pflag.FlagSet) string {
	var specs []string
	table.VisitAll(func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		argument := ""
		switch {
		case f.NoOptDefVal != "":
		case f.Name == "secret":
			argument = ":" + value + ":_files"
		case f.Name == "completion":
			argument = ":" + value + ":(bash zsh fish)"
		default:
			argument = ":" + value + ": "
		}
		usage = strings.NewReplacer("'", "", "[", "(", "]", ")", ":", " -").Replace(usage)
		for _, name := range []string{"--" + f.Name, "-" + f.Shorthand} {
			if name == "-" {
				continue
			}
			specs = append(specs, fmt.Sprintf("        '%s[%s]%s'", name, usage, argument))
		}
	})
	return fmt.Sprintf(`#compdef mandos-ctl
_mandos_ctl_clients() {
    local -a clients
    clients=(${(f)"$(mandos-ctl --names 2>/dev/null)"})
    compadd -a clients
}
_mandos_ctl() {
    _arguments -S \
%s \
        '*:CLIENT:_mandos_ctl_clients'
}
_mandos_ctl "$@"
`, strings.Join(specs, " \\\n"))
}

func fish(table *pflag.FlagSet) string {
	var b strings.Builder
	b.WriteString("# fish completion for mandos-ctl\ncomplete -c mandos-ctl -f -a '(mandos-ctl --names 2>/dev/null)'\n")
	table.VisitAll(func(f *pflag.Flag) {
		_, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "complete -c mandos-ctl -l %s", f.Name)
		if f.Shorthand != "" {
			fmt.Fprintf(&b, " -s %s", f.Shorthand)
		}
		switch {
		case f.NoOptDefVal != "":
		case f.Name == "secret":
			b.WriteString(" -r -F")
		case f.Name == "completion":
			b.WriteString(" -x -a 'bash zsh fish'")
		default:
			b.WriteString(" -x")
		}
		fmt.Fprintf(&b, " -d '%s'\n", strings.ReplaceAll(usage, "'", `\'`))
	})
	return b.String()
}
