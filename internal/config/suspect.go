package config

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mandos/internal/checker"
	"mandos/internal/isodur"
	"mandos/internal/keyid"
)

// suspect warns about what is valid in a client's section, but hardly meant.
func (l *loader) suspect(s *section, c *Client) {
	v := l.get(s, "timeout")
	if c.Timeout > 0 && c.Interval > 0 && c.Timeout/2 < c.Interval {
		l.warn(s, v, fmt.Sprintf("a timeout of %s holds less than two checks at an interval of %s: one lost packet may disable the client",
			isodur.Format(c.Timeout), isodur.Format(c.Interval)), "make timeout at least twice the interval")
	}
	if c.Host == "" && checker.Uses(c.Checker, "host") {
		l.warn(s, nil, "host is empty, but the checker asks for it: every check will fail", "add host = …, or a checker without %%(host)s")
	}
	if _, ok := l.lookup(s, "secret"); ok {
		if f, ok := s.get("secfile"); ok {
			l.found.add(Finding{Warning: true, File: f.file, Line: f.line, Section: s.name, Key: "secfile",
				Problem: "it is ignored, as there is a secret", Remedy: "remove one of the two"})
		}
	}
	l.suspectKeys(s)
	l.suspectSecret(s, c)
}

// suspectKeys warns about keys of s that mean nothing and that no value
// refers to; of [DEFAULT] if s is nil.
func (l *loader) suspectKeys(s *section) {
	if s == nil {
		for key, e := range l.defaults {
			if !l.known[key] && !l.refersTo(nil, key) {
				l.unknownKey(e, defaultSection)
			}
		}
		return
	}
	for i := range s.entries {
		if e := &s.entries[i]; !l.known[e.key] && !l.refersTo(s, e.key) {
			l.unknownKey(e, s.name)
		}
	}
}

func (l *loader) unknownKey(e *entry, section string) {
	shown := e.key
	if looksLikeBase64(shown) {
		shown = "…" // of a secret whose indentation was lost
	}
	l.found.add(Finding{Warning: true, File: e.file, Line: e.line, Section: section, Key: shown,
		Problem: "no such key is known, so it is ignored", Remedy: "correct or remove it"})
}

// refersTo reports whether a value of s or of [DEFAULT] has %(key)s; with s
// nil, whether one of any section has.
func (l *loader) refersTo(s *section, key string) bool {
	reference := "%(" + key + ")s"
	refers := func(e *entry) bool {
		return strings.IndexByte(e.value, '%') >= 0 && strings.Contains(strings.ToLower(e.value), reference)
	}
	for _, e := range l.defaults {
		if refers(e) {
			return true
		}
	}
	sections := l.sections
	if s != nil {
		sections = []*section{s}
	}
	for _, s := range sections {
		for i := range s.entries {
			if refers(&s.entries[i]) {
				return true
			}
		}
	}
	return false
}

// suspectSecret warns about a secret that a client can't decrypt.
func (l *loader) suspectSecret(s *section, c *Client) {
	if c.Secret.Len() == 0 {
		return // said already
	}
	v := l.get(s, "secret")
	if v == nil {
		v = l.get(s, "secfile")
	}
	recipients, problem := readMessage(c.Secret.Reveal())
	if problem != "" {
		l.warn(s, v, "the secret "+problem, keygen)
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

// suspectRecipients warns about secrets that are encrypted to another
// client's primary key. A message names its recipient by the key ID of, as a
// rule, a subkey, which has nothing to do with the fingerprint of the primary
// key; so that a recipient is *not* the client can be said in few cases only.
func (l *loader) suspectRecipients() {
	byKeyID := map[uint64]*Client{}
	for i := range l.clients {
		if c := &l.clients[i]; !c.Fingerprint.IsZero() {
			byKeyID[longKeyID(c.Fingerprint)] = c
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

// longKeyID is the key ID of a version 4 key (RFC 9580, section 5.5.4.2).
func longKeyID(f keyid.Fingerprint) uint64 { return binary.BigEndian.Uint64(f[len(f)-8:]) }

// Tags of OpenPGP packets (RFC 9580, section 5).
const (
	tagPKESK      = 1
	tagSKESK      = 3
	tagSecretKey  = 5
	tagPublicKey  = 6
	tagEncrypted  = 9
	tagMarker     = 10
	tagProtected  = 18
	tagAEAD       = 20
	tagPadding    = 21
	anonymous     = 0 // the key ID of a recipient that isn't named
	pkeskV3Header = 1 + 8
)

// readMessage returns the key IDs to which an OpenPGP message, binary or
// armoured, is encrypted, or what keeps it from being one that a client can
// decrypt. It says nothing about what it doesn't understand.
func readMessage(secret []byte) (recipients []uint64, problem string) {
	const noMessage = "is no OpenPGP message"
	if bytes.HasPrefix(bytes.TrimSpace(secret), []byte("-----BEGIN PGP ")) {
		block, err := armor.Decode(bytes.NewReader(secret))
		if err != nil {
			return nil, noMessage
		}
		if secret, err = io.ReadAll(block.Body); err != nil {
			return nil, "is damaged: " + err.Error()
		}
	}
	if len(secret) == 0 || secret[0]&0x80 == 0 {
		return nil, noMessage
	}
	passphrase, keys := false, 0
	packets := packet.NewOpaqueReader(bytes.NewReader(secret))
	for {
		p, err := packets.Next()
		switch {
		case err == io.EOF:
			return nil, "has no encrypted data: it is cut off, or no OpenPGP message"
		case err == io.ErrUnexpectedEOF:
			return nil, "is cut off"
		case err != nil:
			return nil, noMessage
		}
		switch p.Tag {
		case tagPKESK:
			keys++
			if len(p.Contents) > pkeskV3Header && p.Contents[0] == 3 {
				if id := binary.BigEndian.Uint64(p.Contents[1:]); id != anonymous {
					recipients = append(recipients, id)
				}
			}
		case tagSKESK:
			passphrase = true
		case tagMarker, tagPadding:
		case tagEncrypted, tagProtected, tagAEAD:
			if keys == 0 && passphrase {
				return nil, "is encrypted with a passphrase, which no client knows, and to no key"
			}
			if keys == 0 {
				return nil, "doesn't say to which key it is encrypted"
			}
			return recipients, ""
		case tagSecretKey, tagPublicKey:
			return nil, "is an OpenPGP key, not a message"
		default:
			return nil, "is not encrypted, or no OpenPGP message"
		}
	}
}
