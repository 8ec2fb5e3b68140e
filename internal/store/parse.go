package store

import (
	"bytes"
	"time"
)

// A parser reads an item's JSON as seal writes it, several times faster than
// encoding/json, which is what a start with many clients waits for. It is no
// parser of all JSON: at white space, an escape, an unknown key or anything
// else unusual it gives up, and encoding/json reads the item.
type parser struct {
	rest   []byte
	gaveUp bool
}

// parse reads all of b by f, and reports whether it could.
func parse(b []byte, f func(*parser)) bool {
	p := parser{rest: b}
	f(&p)
	return !p.gaveUp && len(p.rest) == 0
}

func (p *parser) giveUp() { p.gaveUp, p.rest = true, nil }

// next takes c if it comes next, and reports whether it did.
func (p *parser) next(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *parser) want(c byte) {
	if !p.next(c) {
		p.giveUp()
	}
}

// object reads an object. field reads the value of each key.
func (p *parser) object(field func(key []byte)) {
	p.want('{')
	if p.next('}') {
		return
	}
	for !p.gaveUp {
		key := p.text()
		p.want(':')
		field(key)
		if p.next('}') {
			return
		}
		p.want(',')
	}
}

// text reads a string of printable ASCII.
func (p *parser) text() []byte {
	p.want('"')
	for i, c := range p.rest {
		switch {
		case c == '"':
			s := p.rest[:i]
			p.rest = p.rest[i+1:]
			return s
		case c < ' ' || c > '~' || c == '\\':
			p.giveUp()
			return nil
		}
	}
	p.giveUp()
	return nil
}

func (p *parser) string(v *string) { *v = string(p.text()) }

func (p *parser) time(v *time.Time) {
	if v.UnmarshalText(p.text()) != nil { // what encoding/json does
		p.giveUp()
	}
}

func (p *parser) bool(v *bool) {
	if *v = len(p.rest) > 0 && p.rest[0] == 't'; *v {
		p.word("true")
	} else {
		p.word("false")
	}
}

func (p *parser) word(w string) {
	rest, ok := bytes.CutPrefix(p.rest, []byte(w))
	if p.rest = rest; !ok {
		p.giveUp()
	}
}

// integer reads one of at most 18 digits, which always fit.
func integer[T ~int | ~int64](p *parser, v *T) {
	minus := p.next('-')
	digits := p.rest
	var n int64
	for len(p.rest) > 0 && '0' <= p.rest[0] && p.rest[0] <= '9' && len(digits)-len(p.rest) < 18 {
		n = 10*n + int64(p.rest[0]-'0')
		p.rest = p.rest[1:]
	}
	if minus {
		n = -n
	}
	length := len(digits) - len(p.rest)
	if *v = T(n); length == 0 || length > 1 && digits[0] == '0' || int64(*v) != n { // 007 is no JSON
		p.giveUp()
	}
}

func (whole *recordV1) parse(b []byte) bool {
	var v recordV1
	ok := parse(b, func(p *parser) {
		p.object(func(key []byte) {
			switch string(key) {
			case "configured":
				v.Configured.read(p)
			case "secret_digest":
				p.string(&v.Digest)
			case "current":
				if v.Current == nil {
					v.Current = new(settingsV1)
				}
				v.Current.read(p)
			case "status":
				v.Status.read(p)
			default: // a secret that was changed at run time, too: few have one
				p.giveUp()
			}
		})
	})
	if ok { // of an item that it gives up, nothing is left for encoding/json to build on
		*whole = v
	}
	return ok
}

func (whole *graveV1) parse(b []byte) bool {
	var v graveV1
	ok := parse(b, func(p *parser) {
		p.object(func(key []byte) {
			switch string(key) {
			case "status":
				v.Status.read(p)
			case "removed":
				p.bool(&v.Removed)
			default:
				p.giveUp()
			}
		})
	})
	if ok { // of an item that it gives up, nothing is left for encoding/json to build on
		*whole = v
	}
	return ok
}

func (v *settingsV1) read(p *parser) {
	p.object(func(key []byte) {
		switch string(key) {
		case "key_id":
			p.string(&v.KeyID)
		case "fingerprint":
			p.string(&v.Fingerprint)
		case "host":
			p.string(&v.Host)
		case "checker":
			p.string(&v.Checker)
		case "timeout":
			integer(p, &v.Timeout)
		case "extended_timeout":
			integer(p, &v.ExtendedTimeout)
		case "interval":
			integer(p, &v.Interval)
		case "approval_delay":
			integer(p, &v.ApprovalDelay)
		case "approval_duration":
			integer(p, &v.ApprovalDuration)
		case "approved_by_default":
			p.bool(&v.ApprovedByDefault)
		case "enabled":
			p.bool(&v.Enabled)
		case "only_tls13":
			p.bool(&v.OnlyTLS13)
		case "allow_expired_key":
			p.bool(&v.AllowExpiredKey)
		default:
			p.giveUp()
		}
	})
}

func (v *statusV1) read(p *parser) {
	p.object(func(key []byte) {
		switch string(key) {
		case "enabled":
			p.bool(&v.Enabled)
		case "changed_at":
			p.time(&v.ChangedAt)
		case "changed_by":
			p.string(&v.ChangedBy)
		case "changed_why":
			p.string(&v.ChangedWhy)
		case "created":
			p.time(&v.Created)
		case "last_enabled":
			p.time(&v.LastEnabled)
		case "last_checked_ok":
			p.time(&v.LastCheckedOK)
		case "last_approval_request":
			p.time(&v.LastApprovalRequest)
		case "last_checker_status":
			integer(p, &v.LastCheckerStatus)
		case "last_checker_signal":
			integer(p, &v.LastCheckerSignal)
		case "grace":
			p.bool(&v.Grace)
		case "at":
			p.time(&v.At)
		case "expires":
			p.time(&v.Expires)
		case "decision":
			p.string(&v.Decision)
		case "decision_until":
			p.time(&v.DecisionUntil)
		default:
			p.giveUp()
		}
	})
}
