package oldstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	pickle "github.com/kisielk/og-rek"
)

const (
	// MaxSize is the size in bytes of the largest file that is read.
	MaxSize = 64 << 20
	// maxOps is how many operations a pickle may have: those of some sixteen
	// thousand clients, of about 250 each. Each may cost some hundred bytes.
	maxOps = 1 << 22
	// maxLine is the length of the longest name in a GLOBAL operation.
	maxLine = 64
)

// The classes that the old server's state has: times, and the way in which
// Python 3 writes bytes for protocol 2.
const (
	classDatetime  = "datetime datetime"
	classTimedelta = "datetime timedelta"
	classEncode    = "_codecs encode"
)

// lengths says of each operation that may occur how its operand is delimited:
// a number of bytes from 0 on, or one of the below. Operations that are not
// here can build objects or refer to things outside of the file; the old
// server's state has none of them.
var lengths = map[byte]int{
	0x80: 1, // PROTO
	'}':  0, // EMPTY_DICT
	']':  0, // EMPTY_LIST
	')':  0, // EMPTY_TUPLE
	'(':  0, // MARK
	'q':  1, // BINPUT
	'r':  4, // LONG_BINPUT
	'h':  1, // BINGET
	'j':  4, // LONG_BINGET
	'X':  counted4,
	'T':  counted4,
	'U':  counted1,
	'c':  twoLines, // GLOBAL
	'R':  0,        // REDUCE
	't':  0,        // TUPLE
	0x85: 0,        // TUPLE1
	0x86: 0,        // TUPLE2
	0x87: 0,        // TUPLE3
	'N':  0,        // NONE
	0x88: 0,        // NEWTRUE
	0x89: 0,        // NEWFALSE
	'J':  4,        // BININT
	'K':  1,        // BININT1
	'M':  2,        // BININT2
	'G':  8,        // BINFLOAT
	0x8a: long1,
	's':  0, // SETITEM
	'u':  0, // SETITEMS
	'a':  0, // APPEND
	'e':  0, // APPENDS
	'.':  0, // STOP
}

const (
	counted4 = -1 - iota // four bytes of length, little-endian, and as many bytes
	counted1             // one byte of length, and as many bytes
	long1                // the same, with at most eight bytes
	twoLines
)

var errShort = errors.New("it ends too early")

// scan looks at each operation of a pickle before anything is made of it: only
// those of lengths, only the three classes, and nothing that ends beyond the
// file.
func scan(data []byte) error {
	classes := []string{classDatetime, classTimedelta, classEncode}
	if len(data) < 2 || data[0] != 0x80 || data[1] != 2 {
		return errors.New("it is no pickle of protocol 2")
	}
	for at, ops := 0, 0; ; ops++ {
		if ops == maxOps {
			return errors.New("it has too many values")
		}
		if at == len(data) {
			return errShort
		}
		op := data[at]
		rest := data[at+1:]
		n, known := lengths[op]
		if !known {
			return fmt.Errorf("at byte %d it has the operation 0x%02x, which the old server's state never has", at, op)
		}
		switch {
		case op == '.' && len(rest) > 0:
			return errors.New("something comes after its end")
		case op == '.':
			return nil
		case n == counted4:
			if len(rest) < 4 {
				return errShort
			}
			size := binary.LittleEndian.Uint32(rest)
			if uint64(size) > uint64(len(rest)-4) {
				return errShort
			}
			n = 4 + int(size)
		case n == counted1 || n == long1:
			if len(rest) < 1 {
				return errShort
			}
			if n == long1 && rest[0] > 8 {
				return fmt.Errorf("at byte %d it has a number of %d bytes", at, rest[0])
			}
			n = 1 + int(rest[0])
		case n == twoLines:
			module, after, ok := bytes.Cut(rest[:min(len(rest), 2*maxLine)], []byte("\n"))
			name, _, ok2 := bytes.Cut(after, []byte("\n"))
			if !ok || !ok2 {
				return errShort
			}
			if class := string(module) + " " + string(name); !slices.Contains(classes, class) {
				return fmt.Errorf("at byte %d it names %q, which the old server's state never has: somebody may have tampered with it", at, class)
			}
			n = len(module) + len(name) + 2
		}
		if n > len(rest) {
			return errShort
		}
		at += 1 + n
	}
}

// decode makes values of a pickle that scan has passed. It calls nothing that
// the pickle names.
func decode(data []byte) (v any, err error) {
	if err := scan(data); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil { // whoever wrote the file may have meant harm
			v, err = nil, errors.New("it is malformed")
		}
	}()
	d := pickle.NewDecoderWithConfig(bytes.NewReader(data), &pickle.DecoderConfig{
		StrictUnicode: true,
		PersistentLoad: func(pickle.Ref) (any, error) {
			return nil, errors.New("it refers to something outside of it")
		},
	})
	v, err = d.Decode()
	if err != nil {
		return nil, fmt.Errorf("it is malformed: %s", strings.TrimPrefix(err.Error(), "pickle: "))
	}
	return v, nil
}
