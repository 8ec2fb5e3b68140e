package main

import "strings"

const blanks = " \t"

// daemonArgs returns the words of DAEMON_ARGS in the text of an
// EnvironmentFile=, as "ExecStart=mandos $DAEMON_ARGS" passes them on. See
// systemd.exec(5) and systemd.service(5), "COMMAND LINES".
func daemonArgs(text string) (words []string) {
	text = strings.ReplaceAll(text, "\\\n", "") // a line that goes on
	for line := range strings.Lines(text) {
		line = strings.Trim(line, blanks+"\r\n")
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if ok && strings.TrimRight(name, blanks) == "DAEMON_ARGS" {
			words = split(unquote(strings.TrimLeft(value, blanks)))
		}
	}
	return words
}

// unquote takes the quotes off a value of the file.
func unquote(s string) string {
	var b strings.Builder
	scan(s, func(c byte, _ bool) { b.WriteByte(c) })
	return b.String()
}

// split splits at blanks outside of quotes, and takes the quotes off.
func split(s string) (words []string) {
	var b strings.Builder
	open := false // in a word, be it empty
	end := func() {
		if open {
			words = append(words, b.String())
		}
		b.Reset()
		open = false
	}
	scan(s, func(c byte, quoted bool) {
		if !quoted && strings.IndexByte(blanks+"\n", c) >= 0 {
			end()
			return
		}
		b.WriteByte(c)
		open = true
	})
	end()
	return words
}

// scan calls f for each byte that s means, and whether it was quoted.
func scan(s string, f func(c byte, quoted bool)) {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			f(s[i], true)
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		default:
			f(c, quote != 0)
		}
	}
}
