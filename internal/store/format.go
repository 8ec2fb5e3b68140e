package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unique"

	"mandos/internal/client"
	"mandos/internal/registry"
	"mandos/internal/secret"
)

// A coder writes the fields of an item, or reads them. In version 2 of the
// items, one function does both and names each field once, in the order of the
// file. Version 2 must not change: anything else needs a version 3.
//
// Numbers are varints of package encoding/binary, texts are preceded by their
// length, times are seconds and nanoseconds since 1970.
type coder struct {
	reading bool
	rest    []byte // still to be read
	out     []byte // written
	err     error  // the first
}

// encoded returns what f writes.
func encoded(f func(*coder)) []byte {
	var c coder
	f(&c)
	return c.out
}

// decode has f read all of b.
func decode(b []byte, f func(*coder)) error {
	c := coder{reading: true, rest: b}
	f(&c)
	if c.err == nil && len(c.rest) > 0 {
		return errors.New("it is too long")
	}
	return c.err
}

// fail gives up reading: all further fields are zero.
func (c *coder) fail(why string) {
	if c.err == nil {
		c.err, c.rest = errors.New(why), nil
	}
}

// take returns the next n bytes.
func (c *coder) take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.fail("it is too short")
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

// fixed is for fields whose length never varies.
func (c *coder) fixed(b []byte) {
	if !c.reading {
		c.out = append(c.out, b...)
		return
	}
	clear(b)
	copy(b, c.take(uint64(len(b))))
}

func integer[T ~int | ~int32 | ~int64](c *coder, v *T) {
	if !c.reading {
		c.out = binary.AppendVarint(c.out, int64(*v))
		return
	}
	n, length := binary.Varint(c.rest)
	if *v = T(n); length <= 0 || int64(*v) != n {
		c.fail("it has no number where there should be one")
		return
	}
	c.rest = c.rest[length:]
}

func (c *coder) natural(v *uint64) {
	if !c.reading {
		c.out = binary.AppendUvarint(c.out, *v)
		return
	}
	n, length := binary.Uvarint(c.rest)
	if *v = n; length <= 0 {
		c.fail("it has no number where there should be one")
		return
	}
	c.rest = c.rest[length:]
}

func (c *coder) bool(v *bool) {
	var b [1]byte
	if *v {
		b[0] = 1
	}
	c.fixed(b[:])
	if *v = b[0] == 1; b[0] > 1 {
		c.fail("it says neither yes nor no where it should")
	}
}

// bytes returns b or, when reading, a part of the input, which must be copied
// to be kept.
func (c *coder) bytes(b []byte) []byte {
	n := uint64(len(b))
	c.natural(&n)
	if !c.reading {
		c.out = append(c.out, b...)
		return b
	}
	return c.take(n)
}

// text, when reading, leaves *v alone if it is that text already.
func (c *coder) text(v *string) {
	if !c.reading {
		c.natural(new(uint64(len(*v))))
		c.out = append(c.out, *v...)
	} else if b := c.bytes(nil); string(b) != *v {
		*v = string(b)
	}
}

// common is text that many clients have in common, kept in memory once.
func (c *coder) common(v *string) {
	if c.text(v); c.reading {
		*v = unique.Make(*v).Value()
	}
}

func (c *coder) time(v *time.Time) {
	seconds, nanoseconds := v.Unix(), int32(v.Nanosecond())
	integer(c, &seconds)
	integer(c, &nanoseconds)
	if c.reading {
		*v = time.Unix(seconds, int64(nanoseconds)).UTC()
	}
}

func (c *coder) record(r *registry.Record) {
	from := len(c.out)
	c.settings(&r.Configured.Settings)
	to := len(c.out)
	c.fixed(r.Configured.SecretDigest[:])
	changed := false // at run time
	if !c.reading {
		changed = !bytes.Equal(c.out[from:to], encoded(func(c *coder) { c.settings(&r.Current) }))
	}
	if c.bool(&changed); c.reading {
		r.Current = r.Configured.Settings
	}
	if changed {
		c.settings(&r.Current)
	}
	if c.bool(&r.OwnSecret); r.OwnSecret {
		s := c.bytes(r.Current.Secret.Reveal())
		if c.reading {
			r.Current.Secret = secret.New(bytes.Clone(s))
		}
	}
	c.saved(&r.Saved)
}

// settings codes everything but the name and the secret.
func (c *coder) settings(s *client.Settings) {
	c.fixed(s.KeyID[:])
	c.fixed(s.Fingerprint[:])
	if c.reading {
		s.Host = s.Name // usually the same, and then the string is shared
	}
	c.text(&s.Host)
	c.common(&s.Checker)
	integer(c, &s.Timeout)
	integer(c, &s.ExtendedTimeout)
	integer(c, &s.Interval)
	integer(c, &s.ApprovalDelay)
	integer(c, &s.ApprovalDuration)
	c.bool(&s.ApprovedByDefault)
	c.bool(&s.Enabled)
	onlyTLS13 := s.Generation == client.OnlyTLS13
	c.bool(&onlyTLS13)
	if s.Generation = client.AnyGeneration; onlyTLS13 {
		s.Generation = client.OnlyTLS13
	}
	c.bool(&s.AllowExpiredKey)
}

// decisions maps decisions to their texts, the same in all versions.
var decisions = map[client.Decision]string{client.Undecided: "", client.Approved: "approved", client.Disapproved: "denied"}

// decision returns the decision that text means.
func decision(text string) (client.Decision, error) {
	for d, is := range decisions {
		if is == text {
			return d, nil
		}
	}
	return client.Undecided, errors.New("it has an unknown decision")
}

func (c *coder) saved(s *client.Saved) {
	c.bool(&s.Enabled)
	c.time(&s.Change.At)
	c.common(&s.Change.By)
	c.common(&s.Change.Why)
	c.time(&s.Created)
	c.time(&s.LastEnabled)
	c.time(&s.LastCheckedOK)
	c.time(&s.LastApprovalRequest)
	integer(c, &s.LastCheckerStatus)
	integer(c, &s.LastCheckerSignal)
	c.bool(&s.Grace)
	c.time(&s.At)
	c.time(&s.Expires)
	text := decisions[s.Decision]
	c.text(&text)
	var err error
	if s.Decision, err = decision(text); err != nil {
		c.fail(err.Error())
	}
	c.time(&s.DecisionUntil)
}

func (c *coder) tombstone(ts *registry.Tombstone) {
	c.saved(&ts.Saved)
	c.bool(&ts.Removed)
}

func tombstoneKey(id registry.Identity) []byte {
	return []byte(string(id.Kind) + "\x00" + id.Value)
}

// A summary tells whether all items are there.
type summary struct {
	Seen  time.Time `json:"seen"` // as in version 1
	Items uint64    `json:"items"`
	Sum   uint64    `json:"sum"` // of the checksums, modulo 2 to the 64
}

func (c *coder) summary(s *summary) {
	c.time(&s.Seen)
	c.natural(&s.Items)
	c.natural(&s.Sum)
}

// The functions below read an item of any version.

func readRecord(version byte, key, body []byte) (r registry.Record, err error) {
	r.Name = string(key)
	r.Configured.Settings.Name = r.Name
	switch version {
	case 1:
		r, err = readRecordV1(r.Name, body)
	case 2:
		err = decode(body, func(c *coder) { c.record(&r) })
	default:
		err = unknown(version)
	}
	return r, err
}

func readTombstone(version byte, key, body []byte) (ts registry.Tombstone, err error) {
	kind, value, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return ts, errors.New("it has no kind")
	}
	ts.Identity = registry.Identity{Kind: registry.Kind(kind), Value: string(value)}
	switch version {
	case 1:
		err = readTombstoneV1(&ts, body)
	case 2:
		err = decode(body, func(c *coder) { c.tombstone(&ts) })
	default:
		err = unknown(version)
	}
	return ts, err
}

func readSummary(version byte, _, body []byte) (s summary, err error) {
	switch version {
	case 1:
		err = json.Unmarshal(body, &s)
	case 2:
		err = decode(body, func(c *coder) { c.summary(&s) })
	default:
		err = unknown(version)
	}
	return s, err
}

func unknown(version byte) error { return fmt.Errorf("it has the version %d", version) }
