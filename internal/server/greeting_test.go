package server

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// greetings are greetings with what parseGreeting should return for them.
var greetings = []struct {
	in      string
	n       int
	wantErr string
}{
	{in: "", n: 0},
	{in: "1", n: 0},
	{in: "1\n", n: 2},
	{in: "1\r\n", n: 3},
	{in: "1\r", n: 2},
	{in: "1\r\r\n", n: 2},
	{in: "0\n", n: 2},
	{in: "-3\n", n: 3},
	{in: "+1\n", n: 3},
	{in: "001\n", n: 4},
	{in: "-99999999999999999999\n", n: 22},
	{in: " \t1 anything 2\r\n", n: 16},
	{in: "0 x\n", n: 4},
	{in: "1\tx\n", n: 4},
	{in: "1\n\x16\x03", n: 2},
	{in: strings.Repeat(" ", 126) + "1\n", n: 128},
	{in: "1" + strings.Repeat(" ", 126), n: 0},

	{in: "\n", wantErr: "an empty line"},
	{in: "\r\n", wantErr: "an empty line"},
	{in: " \t\n", wantErr: "an empty line"},
	{in: "2\n", wantErr: "version 2 of the protocol"},
	{in: "10\n", wantErr: "version 10 of the protocol"},
	{in: "99999999999999999999\n", wantErr: "version 99999999999999999999"},
	{in: "GET / HTTP/1.1\r\n", wantErr: `"GET" is no version number`},
	{in: "1.0\n", wantErr: `"1.0" is no version number`},
	{in: "1_0\n", wantErr: "no version number"},
	{in: "-\n", wantErr: "no version number"},
	{in: "--1\n", wantErr: "no version number"},
	{in: "+-1\n", wantErr: "no version number"},
	{in: "\x16\x03\x01\x00\n", wantErr: "no version number"},
	{in: "1\x00\n", wantErr: "no version number"},
	{in: strings.Repeat(" ", 127) + "1\n", wantErr: "no line end in its first 128 bytes"},
	{in: strings.Repeat("1", 500), wantErr: "no line end"},
}

func TestParseGreeting(t *testing.T) {
	for _, tt := range greetings {
		n, err := parseGreeting([]byte(tt.in))
		if tt.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) || n != 0 {
				t.Errorf("%.40q: %d, error %v, want one with %q", tt.in, n, err, tt.wantErr)
			}
		} else if n != tt.n || err != nil {
			t.Errorf("%.40q: %d, error %v, want %d", tt.in, n, err, tt.n)
		}
	}
}

// FuzzParseGreeting: the verdict on a greeting doesn't depend on how it is
// split, and no more than its line is consumed.
func FuzzParseGreeting(f *testing.F) {
	for _, tt := range greetings {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseGreeting(b)
		switch {
		case n < 0 || n > len(b) || n > maxGreeting+1:
			t.Fatalf("%q: takes %d bytes", b, n)
		case err != nil && n != 0:
			t.Fatalf("%q: %d bytes and error %v", b, n, err)
		case n > 0 && b[n-1] != '\n' && b[n-1] != '\r':
			t.Fatalf("%q: %d bytes have no line end", b, n)
		case n == 0 && err == nil && (len(b) >= maxGreeting || bytes.ContainsAny(b, "\r\n")):
			t.Fatalf("%q: waits for more", b)
		}
		// The verdict on a line is the same however it is split.
		for i := range b[:min(len(b), maxGreeting)] {
			early, earlyErr := parseGreeting(b[:i])
			if early > 0 || earlyErr != nil {
				if (earlyErr == nil) != (err == nil) || early > n {
					t.Fatalf("%q: %d, %v after %d bytes, %d, %v after all", b, early, earlyErr, i, n, err)
				}
				return
			}
		}
	})
}

// TestReadGreeting sends greetings in segments, and then the first byte of a
// TLS record, which must be what is read next.
func TestReadGreeting(t *testing.T) {
	const tlsByte = "\x16"
	for _, tt := range []struct {
		segments []string
		wantErr  string
	}{
		{segments: []string{"1\n"}},
		{segments: []string{"1", "\r\n"}}, // Debian's client
		{segments: []string{"1", "\r", "\n"}},
		{segments: []string{"1\r"}},
		{segments: []string{" ", "1", " ", "x", "\r\n"}},
		{segments: []string{"1\r\r\n"}, wantErr: "more than one line"},
		{segments: []string{"1\n1\n"}, wantErr: "more than one line"},
		{segments: []string{"1\n\x16"}, wantErr: "more than one line"},
		{segments: []string{"2\n"}, wantErr: "version 2"},
		{segments: []string{strings.Repeat("1", 64), strings.Repeat("1", 64)}, wantErr: "no line end"},
		{segments: []string{"1", ""}, wantErr: "in the middle"}, // "": hangs up
		{segments: []string{""}, wantErr: "without a word"},
	} {
		t.Run(strings.Join(tt.segments, "|"), func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			go func() {
				defer theirs.Close()
				for _, segment := range append(tt.segments, tlsByte) {
					if segment == "" {
						return
					}
					if _, err := io.WriteString(theirs, segment); err != nil {
						return
					}
				}
			}()
			conn, err := readGreeting(ours)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(conn)
			if err != nil || string(rest) != tlsByte {
				t.Errorf("after the greeting comes %q (%v), want %q", rest, err, tlsByte)
			}
		})
	}
}
