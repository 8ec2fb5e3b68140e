package ctl

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"mandos/internal/operator"
)

// jsonKeys are the keys of a client, in the order of Debian's mandos-ctl.
var jsonKeys = []string{
	"Name", "Enabled", "Timeout", "LastCheckedOK", "Created", "Interval", "Host", "KeyID", "Fingerprint",
	"CheckerRunning", "LastEnabled", "ApprovalPending", "ApprovedByDefault", "LastApprovalRequest",
	"ApprovalDelay", "ApprovalDuration", "Checker", "ExtendedTimeout", "Expires", "LastCheckerStatus",
}

// dump writes the clients as Debian's mandos-ctl does, to the byte: the keys
// in their order, four blanks a level, and ASCII only. encoding/json can do
// none of the three with an object whose keys are data.
func dump(clients []operator.Client) string {
	if len(clients) == 0 {
		return "{}\n"
	}
	var b strings.Builder
	for i, c := range clients {
		fmt.Fprintf(&b, "%s\n    %s: {", separator(i, "{"), quote(c.Name()))
		for j, key := range jsonKeys {
			fmt.Fprintf(&b, "%s\n        %s: %s", separator(j, ""), quote(key), jsonValue(c, key))
		}
		b.WriteString("\n    }")
	}
	b.WriteString("\n}\n")
	return b.String()
}

func separator(i int, first string) string {
	if i == 0 {
		return first
	}
	return ","
}

func jsonValue(c operator.Client, key string) string {
	switch v := c.Props[key].Value().(type) {
	case string:
		return quote(v)
	case bool:
		return strconv.FormatBool(v)
	default:
		return fmt.Sprint(c.Int(key))
	}
}

// quote writes s as JSON in ASCII (RFC 8259, section 7).
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < 0x20 || r > 0x7e && r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
