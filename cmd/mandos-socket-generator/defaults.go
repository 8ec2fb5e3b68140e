package main

import "strings"

const (
	blanks   = " \t"
	newlines = "\n\r"
)

// daemonArgs returns the words of DAEMON_ARGS in the text of an
// EnvironmentFile=, as "ExecStart=mandos $DAEMON_ARGS" passes them on. See
// systemd.exec(5) and systemd.service(5), "COMMAND LINES".
func daemonArgs(text string) (words []string) {
	for {
		text = strings.TrimLeft(text, blanks+newlines)
		switch i := strings.IndexAny(text, "="+newlines); {
		case strings.HasPrefix(text, "#"), strings.HasPrefix(text, ";"):
			text = text[comment(text):]
		case i < 0:
			return words
		case text[i] != '=':
			text = text[i:]
		default:
			name := strings.TrimRight(text[:i], blanks)
			value, n := value(text[i+1:])
			if name == "DAEMON_ARGS" {
				words = split(value)
			}
			text = text[i+1+n:]
		}
	}
}

// comment returns the length of the comment that text begins with.
func comment(text string) int {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++ // a line that goes on
		case strings.IndexByte(newlines, text[i]) >= 0:
			return i
		}
	}
	return len(text)
}

// value returns the value that text begins with, without its quotes, and its
// length there. A quote begins a value, or follows one in quotes, and can go
// on for lines.
func value(text string) (string, int) {
	var v []byte
	var quote byte
	kept := 0       // v[:kept] has no blanks at its end but those in quotes
	inWord := false // within what isn't in quotes
	for i := 0; i < len(text); i++ {
		c := text[i]
		newline := strings.IndexByte(newlines, c) >= 0
		switch {
		case quote != 0 && c == quote:
			quote = 0
			continue
		case quote == '"' && c == '\\' && i+1 < len(text):
			i++
			if c = text[i]; c == '\n' {
				continue
			}
			if strings.IndexByte("\"\\`$", c) < 0 {
				v = append(v, '\\')
			}
		case quote != 0:
		case newline:
			return string(v[:kept]), i
		case c == '\\':
			inWord = true
			i++
			if i == len(text) || strings.IndexByte(newlines, text[i]) >= 0 {
				continue
			}
			c = text[i]
		case !inWord && (c == '"' || c == '\''):
			quote = c
			continue
		case strings.IndexByte(blanks, c) >= 0:
			if inWord {
				v = append(v, c)
			}
			continue
		default:
			inWord = true
		}
		v = append(v, c)
		kept = len(v)
	}
	return string(v[:kept]), len(text)
}

// split splits at blanks outside of quotes, and takes the quotes off.
func split(s string) (words []string) {
	var b strings.Builder
	var quote byte
	open := false // in a word, be it empty
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
		case quote != 0 && c == quote:
			quote = 0
			continue
		case quote == 0 && (c == '"' || c == '\''):
			quote, open = c, true
			continue
		case quote == 0 && strings.IndexByte(blanks+newlines, c) >= 0:
			if open {
				words = append(words, b.String())
			}
			b.Reset()
			open = false
			continue
		}
		b.WriteByte(c)
		open = true
	}
	if open {
		words = append(words, b.String())
	}
	return words
}
