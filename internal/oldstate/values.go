package oldstate

import (
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode/utf8"

	pickle "github.com/kisielk/og-rek"
)

// A dict is a Python dict with text for keys.
type dict map[string]any

// asDict takes a dict. Python 2 writes its keys as bytes.
func asDict(v any) (dict, error) {
	m, ok := v.(map[any]any)
	if !ok {
		return nil, fmt.Errorf("is no dict, but %s", kind(v))
	}
	d := make(dict, len(m))
	for k, value := range m {
		key, err := asText(k)
		if err != nil {
			return nil, fmt.Errorf("has a key that %w", err)
		}
		if _, twice := d[key]; twice {
			return nil, fmt.Errorf("has the key %q twice", key)
		}
		d[key] = value
	}
	return d, nil
}

// A reader reads the values of a dict, and remembers the first that is wrong.
type reader struct {
	of  string // in words, for errors
	d   dict
	err error
}

func (r *reader) fail(key string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %q %w", r.of, key, err)
	}
}

// value gives the value of key, to be taken by take.
func value[T any](r *reader, key string, take func(any) (T, error)) (t T) {
	v, ok := r.d[key]
	if !ok {
		r.fail(key, errors.New("is missing"))
		return t
	}
	t, err := take(v)
	if err != nil {
		r.fail(key, err)
	}
	return t
}

// optional is like value; without the key it gives the zero value.
func optional[T any](r *reader, key string, take func(any) (T, error)) (t T) {
	if _, ok := r.d[key]; !ok {
		return t
	}
	return value(r, key, take)
}

func asText(v any) (string, error) {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case pickle.ByteString:
		s = string(v)
	case pickle.Bytes:
		s = string(v)
	default:
		return "", fmt.Errorf("is no text, but %s", kind(v))
	}
	if !utf8.ValidString(s) {
		return "", errors.New("isn't UTF-8")
	}
	return s, nil
}

func asBytes(v any) ([]byte, error) {
	switch v := v.(type) {
	case pickle.ByteString:
		return []byte(v), nil
	case pickle.Bytes:
		return []byte(v), nil
	}
	return nil, fmt.Errorf("is no bytes, but %s", kind(v))
}

func asBool(v any) (bool, error) {
	if b, ok := v.(bool); ok {
		return b, nil
	}
	return false, fmt.Errorf("is neither True nor False, but %s", kind(v))
}

// asVerdict takes True, False or None; the latter is nil.
func asVerdict(v any) (*bool, error) {
	if _, none := v.(pickle.None); none {
		return nil, nil
	}
	b, err := asBool(v)
	return &b, err
}

func asInt(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case *big.Int:
		if v.IsInt64() {
			return v.Int64(), nil
		}
	}
	return 0, fmt.Errorf("is no usable number, but %s", kind(v))
}

// asDuration takes a datetime.timedelta: days, seconds, microseconds. One of more
// than 273 years is cut to that.
func asDuration(v any) (time.Duration, error) {
	args, ok := called(v, classTimedelta)
	if !ok || len(args) != 3 {
		return 0, fmt.Errorf("is no timedelta, but %s", kind(v))
	}
	var n [3]int64
	for i := range n {
		var err error
		if n[i], err = asInt(args[i]); err != nil {
			return 0, err
		}
	}
	const maxDays = 999_999_999 // Python's
	if n[0] < -maxDays || n[0] > maxDays || n[1] < 0 || n[1] >= 86400 || n[2] < 0 || n[2] >= 1e6 {
		return 0, fmt.Errorf("is out of range: %d days, %d seconds, %d microseconds", n[0], n[1], n[2])
	}
	const day, most = 24 * time.Hour, 100_000 // what a Duration holds, and then some years less
	return time.Duration(min(max(n[0], -most), most))*day + time.Duration(n[1])*time.Second + time.Duration(n[2])*time.Microsecond, nil
}

// asTime takes a datetime.datetime, which is UTC without saying so, or None,
// which is the zero time: year (two bytes), month, day, hour, minute, second,
// microsecond (three).
func asTime(v any) (time.Time, error) {
	if _, none := v.(pickle.None); none {
		return time.Time{}, nil
	}
	args, ok := called(v, classDatetime)
	if !ok || len(args) != 1 {
		return time.Time{}, fmt.Errorf("is no datetime, but %s", kind(v))
	}
	b, err := asBytes(args[0])
	if err != nil {
		return time.Time{}, err
	}
	if len(b) != 10 {
		return time.Time{}, fmt.Errorf("is a datetime of %d bytes", len(b))
	}
	year, micro := int(b[0])<<8|int(b[1]), int(b[7])<<16|int(b[8])<<8|int(b[9])
	t := time.Date(year, time.Month(b[2]), int(b[3]), int(b[4]), int(b[5]), int(b[6]), micro*1000, time.UTC)
	// Date takes the 40th of a month; Python doesn't.
	if t.Year() != year || t.Month() != time.Month(b[2]) || t.Day() != int(b[3]) || t.Hour() != int(b[4]) ||
		t.Minute() != int(b[5]) || t.Second() != int(b[6]) || micro >= 1e6 || year < 1 || year > 9999 {
		return time.Time{}, errors.New("is no time that there is")
	}
	return t, nil
}

// called takes what a pickle would have Python make by calling class, and
// returns the arguments.
func called(v any, class string) (pickle.Tuple, bool) {
	c, ok := v.(pickle.Call)
	if !ok || c.Callable.Module+" "+c.Callable.Name != class {
		return nil, false
	}
	return c.Args, true
}

// kind says what v is, without its content: that may be a secret.
func kind(v any) string {
	switch v := v.(type) {
	case pickle.None:
		return "None"
	case bool:
		return "a bool"
	case int64, *big.Int:
		return "a number"
	case string:
		return "text"
	case pickle.Bytes, pickle.ByteString:
		return "bytes"
	case pickle.Tuple:
		return fmt.Sprintf("a tuple of %d", len(v))
	case pickle.Call:
		return fmt.Sprintf("a %s of %d", v.Callable.Name, len(v.Args))
	case map[any]any:
		return "a dict"
	}
	return "something else"
}
