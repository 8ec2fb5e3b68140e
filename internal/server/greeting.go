package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
)

// maxGreeting is how many bytes the greeting may have, including the line end.
const maxGreeting = 128

// A greetingError says what is wrong with a greeting.
type greetingError string

func (e greetingError) Error() string { return string(e) }

// parseGreeting looks for the client's greeting in b, which is everything
// received so far: a line whose first word is the number of the protocol
// version. It returns the length of the line including its end, or 0 if the
// line isn't complete yet.
//
// The line ends with "\n", "\r\n" or "\r". As a lone "\r" is enough, a "\n"
// that comes later belongs to it too: see greeted. Versions up to 1 are
// accepted; the rest of the line is ignored.
func parseGreeting(b []byte) (n int, err error) {
	end := bytes.IndexAny(b[:min(len(b), maxGreeting)], "\r\n")
	if end < 0 {
		if len(b) >= maxGreeting {
			return 0, greetingError(fmt.Sprintf("no line end in its first %d bytes", maxGreeting))
		}
		return 0, nil
	}
	version, _, _ := strings.Cut(strings.TrimLeft(string(b[:end]), blanks), " ")
	if i := strings.IndexAny(version, blanks); i >= 0 {
		version = version[:i]
	}
	if version == "" {
		return 0, greetingError("an empty line instead of a version")
	}
	digits, negative := strings.CutPrefix(version, "-")
	if !negative {
		digits = strings.TrimPrefix(version, "+")
	}
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, greetingError(fmt.Sprintf("%q is no version number", version))
	}
	if digits = strings.TrimLeft(digits, "0"); !negative && digits != "" && digits != "1" {
		return 0, greetingError(fmt.Sprintf("version %s of the protocol, this server knows 1", digits))
	}
	n = end + 1
	if b[end] == '\r' && len(b) > n && b[n] == '\n' {
		n++
	}
	return n, nil
}

const blanks = " \t\v\f"

// readGreeting reads the greeting from conn and returns the connection to
// go on with.
func readGreeting(conn net.Conn) (net.Conn, error) {
	var buf [maxGreeting]byte
	for have := 0; ; {
		more, err := conn.Read(buf[have:])
		have += more
		n, badGreeting := parseGreeting(buf[:have])
		switch {
		case badGreeting != nil:
			return nil, badGreeting
		case n > 0 && n < have:
			return nil, greetingError("more than one line before the server's turn")
		case n > 0 && buf[n-1] == '\r':
			return &greeted{Conn: conn}, nil
		case n > 0:
			return conn, nil
		case err == io.EOF && have == 0:
			return nil, errNoGreeting
		case err == io.EOF:
			return nil, greetingError("hung up in the middle of it")
		case err != nil:
			return nil, err
		}
	}
}

// greeted is a connection whose greeting ended with "\r": if the next byte is
// the "\n" that belongs to it, it is dropped. No TLS record begins with that
// byte (RFC 8446, section 5.1: types 20 to 23).
type greeted struct {
	net.Conn
	begun bool
}

func (c *greeted) Read(b []byte) (int, error) {
	if c.begun || len(b) == 0 {
		return c.Conn.Read(b)
	}
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.begun = true
		if b[0] == '\n' {
			n = copy(b, b[1:n])
			if n == 0 && err == nil {
				return c.Conn.Read(b)
			}
		}
	}
	return n, err
}
