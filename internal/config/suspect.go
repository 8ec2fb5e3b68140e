package config

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"strings"

	"mandos/internal/checker"
	"mandos/internal/isodur"
	"mandos/internal/pgp"
)

// suspect warns about what is valid in a client's section, but probably a
// mistake.
func (l *loader) suspect(s *section, c *Client) {
	v := l.get(s, "timeout")
	if !v.none() && v.line == 0 {
		v = l.get(s, "interval") // of the two, the one that was written
	}
	if c.Timeout > 0 && c.Interval > 0 && c.Timeout/2 < c.Interval {
		l.warn(s, v, fmt.Sprintf("a timeout of %s holds less than two checks at an interval of %s: one lost packet may disable the client",
			isodur.Format(c.Timeout), isodur.Format(c.Interval)), "make timeout at least twice interval")
	}
	if c.Host == "" && checker.Uses(c.Checker, "host") {
		l.warn(s, value{}, "host is empty, but the checker asks for it: every check will fail", "add host = …, or a checker without %%(host)s")
	}
	if _, ok := l.lookup(s, "secret"); ok {
		if f, ok := s.get("secfile"); ok {
			l.found.add(Finding{Warning: true, File: f.file, Line: f.line, Section: s.name, Key: "secfile",
				Problem: "it is ignored, as there is a secret", Remedy: "remove one of the two"})
		}
	}
	l.suspectSecfile(s)
	l.suspectSecret(s, c)
}

// suspectKeys warns about unknown keys that no value refers to: none of the
// section or of [DEFAULT], and for a key of [DEFAULT], none at all.
func (l *loader) suspectKeys() {
	shared, all := references{}, references{}
	for _, e := range l.defaults {
		shared.add(e)
	}
	maps.Copy(all, shared)
	for _, s := range l.sections {
		own := references{}
		for i := range s.entries {
			own.add(&s.entries[i])
		}
		maps.Copy(all, own)
		for i := range s.entries {
			if e := &s.entries[i]; !l.known[e.key] && !own[e.key] && !shared[e.key] {
				l.unknownKey(e, s.name)
			}
		}
	}
	for key, e := range l.defaults {
		if !l.known[key] && !all[key] {
			l.unknownKey(e, defaultSection)
		}
	}
}

// references are the keys, in lower case, that values refer to as %(key)s.
type references map[string]bool

func (r references) add(e *entry) {
	if !e.hasPercent() {
		return
	}
	for rest := strings.ToLower(e.value()); ; {
		_, after, found := strings.Cut(rest, "%(")
		if !found {
			return
		}
		if name, end, closed := strings.Cut(after, ")"); closed && strings.HasPrefix(end, "s") {
			r[name] = true
		}
		rest = after
	}
}

func (l *loader) unknownKey(e *entry, section string) {
	shown := e.key
	if looksLikeBase64(shown) {
		shown = "…" // part of a secret that has lost its indentation
	}
	l.found.add(Finding{Warning: true, File: e.file, Line: e.line, Section: section, Key: shown,
		Problem: "no such key is known, so it is ignored", Remedy: "correct or remove it"})
}

// suspectSecfile warns about a secret that everybody may read.
func (l *loader) suspectSecfile(s *section) {
	v := l.get(s, "secfile")
	if _, ok := l.lookup(s, "secret"); ok || v.none() {
		return
	}
	path, err := secfile(v.text)
	if err != nil {
		return // said already
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&othersAny != 0 {
		l.warn(s, v, fmt.Sprintf("everybody may read or change %s (mode %04o)", path, info.Mode().Perm()), "forbid it: chmod o-rwx "+path)
	}
}

// suspectSecret warns about a secret that a client can't decrypt.
func (l *loader) suspectSecret(s *section, c *Client) {
	if c.Secret.Len() == 0 {
		return // said already
	}
	v := l.get(s, "secret")
	if v.none() {
		v = l.get(s, "secfile")
	}
	recipients, err := pgp.Recipients(c.Secret.Reveal())
	if err != nil {
		l.warn(s, v, "the secret "+err.Error(), keygen)
		return
	}
	for _, r := range recipients {
		if first, ok := l.recipients[r]; !ok {
			l.recipients[r] = firstUse{client: c.Name, place: v.place, fingerprint: c.Fingerprint}
		} else if first.fingerprint != c.Fingerprint {
			l.warn(s, v, fmt.Sprintf("the secret is encrypted to the same key as that of client %q at %s, which has another fingerprint", printable(first.client), first.place), keygen)
		}
	}
}

// suspectRecipients warns about secrets that are encrypted to another client's
// primary key. A message names its recipient by the key ID of, usually, a
// subkey, which has nothing to do with the fingerprint of the primary key; so
// only in few cases is it certain that a recipient is *not* the client.
func (l *loader) suspectRecipients() {
	byKeyID := map[uint64]*Client{}
	for i := range l.clients {
		if c := &l.clients[i]; !c.Fingerprint.IsZero() {
			id := c.Fingerprint.OpenPGPKeyID()
			byKeyID[binary.BigEndian.Uint64(id[:])] = c
		}
	}
	for r, use := range l.recipients {
		owner, ok := byKeyID[r]
		if !ok || owner.Name == use.client || owner.Fingerprint == use.fingerprint {
			continue
		}
		l.found.add(Finding{Warning: true, File: use.file, Line: use.line, Section: use.client, Key: "secret",
			Problem: fmt.Sprintf("it is encrypted to the key of client %q at %s:%d", printable(owner.Name), owner.File, owner.Line), Remedy: keygen})
	}
}
