package schedule

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"fmt"
	"hash"
	"io"

	"mandos/internal/secret"
)

// The stages of RFC 8446, section 7.1, without PSK and 0-RTT:
//
//	Early --(EC)DHE, hash of ClientHello..ServerHello--> Handshake
//	Handshake --hash of ClientHello..server Finished--> Application
//
// A stage is used up by making the next one.

// Early is the first stage. Without a PSK it holds no secret: it depends only
// on the suite.
type Early struct{ suite *Suite }

// NewEarly starts the schedule for a suite.
func NewEarly(s *Suite) Early { return Early{s} }

// Handshake is the second stage: it has the keys of the handshake.
type Handshake struct {
	Client, Server Traffic // client_ and server_handshake_traffic_secret

	suite *Suite
	salt  secret.Secret // for the next stage's extraction
}

// Application is the last stage: it has the keys of application data.
type Application struct {
	Client, Server Traffic // client_ and server_application_traffic_secret_0
}

// Handshake makes the second stage from the shared secret of the key exchange,
// which it wipes, and the hash of ClientHello..ServerHello.
func (e Early) Handshake(shared, transcript []byte) (h *Handshake) {
	secret.Do(func() { h = e.handshake(shared, transcript) })
	return h
}

func (e Early) handshake(shared, transcript []byte) *Handshake {
	s := e.suite
	master := extract(s, shared, s.earlySalt)
	clear(shared)
	defer clear(master)
	x := newExpander(s, master)
	defer x.wipe()
	return &Handshake{
		Client: Traffic{suite: s, secret: x.secret("c hs traffic", transcript), finishes: true},
		Server: Traffic{suite: s, secret: x.secret("s hs traffic", transcript), finishes: true},
		suite:  s,
		salt:   x.secret("derived", s.emptyHash),
	}
}

// Application makes the last stage from the hash of ClientHello..server
// Finished. The handshake's own traffic secrets stay usable until wiped; h
// can't be used again otherwise.
func (h *Handshake) Application(transcript []byte) (a *Application) {
	secret.Do(func() { a = h.application(transcript) })
	return a
}

func (h *Handshake) application(transcript []byte) *Application {
	s := h.suite
	master := extract(s, s.zeros, h.salt.Reveal())
	h.salt.Wipe()
	defer clear(master)
	x := newExpander(s, master)
	defer x.wipe()
	return &Application{
		Client: Traffic{suite: s, secret: x.secret("c ap traffic", transcript)},
		Server: Traffic{suite: s, secret: x.secret("s ap traffic", transcript)},
	}
}

// Wipe overwrites what h holds.
func (h *Handshake) Wipe() {
	h.salt.Wipe()
	h.Client.Wipe()
	h.Server.Wipe()
}

// Traffic is one direction's traffic secret (RFC 8446, section 7.1).
type Traffic struct {
	suite    *Suite
	secret   secret.Secret
	finishes bool      // it is of the Handshake stage: Finished will be called
	x        *expander // of secret, kept from Protection to Finished
}

func (t *Traffic) expander() *expander {
	if t.x == nil {
		t.x = newExpander(t.suite, t.secret.Reveal())
	}
	return t.x
}

// Protection returns the record protection that belongs to t (RFC 8446,
// section 7.3), at sequence number 0.
func (t *Traffic) Protection() (p *Protection) {
	secret.Do(func() { p = t.protection() })
	return p
}

func (t *Traffic) protection() *Protection {
	x := t.expander()
	defer x.wipe()
	if !t.finishes {
		t.x = nil
	}
	iv := [nonceLen]byte(x.label("iv", nil, nonceLen))
	return newProtection(t.suite, x.label("key", nil, t.suite.keyLen), iv)
}

// Finished returns the verify_data that t's side sends for a transcript's hash
// (RFC 8446, section 4.4.4). t is a secret of the Handshake stage.
func (t *Traffic) Finished(transcript []byte) (verifyData []byte) {
	secret.Do(func() { verifyData = t.finished(transcript) })
	return verifyData
}

func (t *Traffic) finished(transcript []byte) []byte {
	s, x := t.suite, t.expander()
	defer x.wipe()
	t.x = nil
	mac := hmac.New(s.newHash, x.label("finished", nil, s.hashLen))
	mac.Write(transcript)
	return mac.Sum(nil)
}

// Update replaces the secret by the next one, as a KeyUpdate asks (RFC 8446,
// section 7.2), and wipes the old one.
func (t *Traffic) Update() {
	secret.Do(func() {
		next := expandLabel(t.suite, t.secret.Reveal(), "traffic upd", nil, t.suite.hashLen)
		t.secret.Wipe()
		t.secret = secret.New(next)
	})
}

// Wipe overwrites the secret.
func (t *Traffic) Wipe() {
	t.secret.Wipe()
	t.x = nil
}

// The methods below keep keys out of every verb of fmt.

func (t Traffic) Format(f fmt.State, _ rune)     { redact(f, "traffic secret") }
func (h Handshake) Format(f fmt.State, _ rune)   { redact(f, "handshake keys") }
func (a Application) Format(f fmt.State, _ rune) { redact(f, "application keys") }

func redact(w io.Writer, what string) { _, _ = io.WriteString(w, "["+what+"]") }

// extract is HKDF-Extract with the suite's hash.
func extract(s *Suite, ikm, salt []byte) []byte {
	prk, err := hkdf.Extract(s.newHash, ikm, salt)
	if err != nil {
		panic("keytls/schedule: " + err.Error()) // it fails only for lengths that don't occur here
	}
	return prk
}

// An expander derives keys from one secret with HKDF-Expand-Label (RFC 8446,
// section 7.1). Each is at most one hash long, so HKDF-Expand is one HMAC (RFC
// 5869, section 2.3), for which crypto/hkdf would hash the secret anew each
// time.
type expander struct {
	suite *Suite
	mac   hash.Hash // its key is the secret
	out   [maxHashLen]byte
	info  [2 + 1 + maxLabel + 1 + maxHashLen + 1]byte
}

const (
	maxHashLen = 64
	maxLabel   = len("tls13 c hs traffic")
)

func newExpander(s *Suite, secret []byte) *expander {
	return &expander{suite: s, mac: hmac.New(s.newHash, secret)}
}

// label is HKDF-Expand-Label. What it returns is valid until the next call.
func (x *expander) label(label string, context []byte, length int) []byte {
	if length > x.suite.hashLen {
		panic("keytls/schedule: more than one hash is asked for")
	}
	b := append(x.info[:0], byte(length>>8), byte(length), byte(len("tls13 ")+len(label)))
	b = append(append(b, "tls13 "...), label...)
	b = append(append(b, byte(len(context))), context...)
	b = append(b, 1) // the number of the block
	x.mac.Reset()    // the first Reset has the HMAC save its state after hashing the key
	x.mac.Write(b)
	return x.mac.Sum(x.out[:0])[:length]
}

// secret is Derive-Secret, given the transcript's hash.
func (x *expander) secret(label string, transcript []byte) secret.Secret {
	return secret.New(bytes.Clone(x.label(label, transcript, x.suite.hashLen)))
}

func (x *expander) wipe() { clear(x.out[:]) }

// expandLabel is HKDF-Expand-Label for a secret that is used for nothing else.
func expandLabel(s *Suite, secret []byte, label string, context []byte, length int) []byte {
	x := newExpander(s, secret)
	defer x.wipe()
	return bytes.Clone(x.label(label, context, length))
}
