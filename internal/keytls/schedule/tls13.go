package schedule

import (
	"crypto/hkdf"
	"crypto/hmac"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"

	"mandos/internal/secret"
)

// The stages of RFC 8446, section 7.1, without PSK and 0-RTT:
//
//	Early --(EC)DHE, hash of ClientHello..ServerHello--> Handshake
//	Handshake --hash of ClientHello..server Finished--> Application
//
// A stage is used up by making the next one.

// Early is the first stage. Without a PSK it holds no secret: only the hash
// decides.
type Early struct{ suite *Suite }

// NewEarly starts the schedule for a suite.
func NewEarly(s *Suite) Early { return Early{s} }

// Handshake is the second stage: it has the keys of the handshake.
type Handshake struct {
	Client, Server Traffic // client_ and server_handshake_traffic_secret

	suite  *Suite
	secret secret.Secret
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
	zeros := make([]byte, s.newHash().Size())
	early := extract(s, zeros, nil)
	salt := derive(s, early, "derived", s.newHash().Sum(nil))
	master := extract(s, shared, salt)
	clear(shared)
	return &Handshake{
		Client: Traffic{s, secret.New(derive(s, master, "c hs traffic", transcript))},
		Server: Traffic{s, secret.New(derive(s, master, "s hs traffic", transcript))},
		suite:  s,
		secret: secret.New(master),
	}
}

// Application makes the last stage from the hash of ClientHello..server
// Finished. The handshake's own traffic secrets stay usable until wiped; h can
// make nothing more.
func (h *Handshake) Application(transcript []byte) (a *Application) {
	secret.Do(func() { a = h.application(transcript) })
	return a
}

func (h *Handshake) application(transcript []byte) *Application {
	s := h.suite
	zeros := make([]byte, s.newHash().Size())
	salt := derive(s, h.secret.Reveal(), "derived", s.newHash().Sum(nil))
	master := extract(s, zeros, salt)
	h.secret.Wipe()
	clear(salt)
	defer clear(master)
	return &Application{
		Client: Traffic{s, secret.New(derive(s, master, "c ap traffic", transcript))},
		Server: Traffic{s, secret.New(derive(s, master, "s ap traffic", transcript))},
	}
}

// Wipe overwrites what h holds.
func (h *Handshake) Wipe() {
	h.secret.Wipe()
	h.Client.Wipe()
	h.Server.Wipe()
}

// Traffic is one direction's traffic secret (RFC 8446, section 7.1).
type Traffic struct {
	suite  *Suite
	secret secret.Secret
}

// Protection returns the record protection that belongs to t (RFC 8446,
// section 7.3), at sequence number 0.
func (t *Traffic) Protection() (p *Protection) {
	secret.Do(func() { p = t.protection() })
	return p
}

func (t *Traffic) protection() *Protection {
	s := t.suite
	key := expandLabel(s, t.secret.Reveal(), "key", nil, s.keyLen)
	iv := expandLabel(s, t.secret.Reveal(), "iv", nil, nonceLen)
	defer clear(key)
	defer clear(iv)
	return newProtection(s, key, iv)
}

// Finished returns the verify_data that t's side sends for a transcript's hash
// (RFC 8446, section 4.4.4). t is a secret of the Handshake stage.
func (t *Traffic) Finished(transcript []byte) (verifyData []byte) {
	secret.Do(func() { verifyData = t.finished(transcript) })
	return verifyData
}

func (t *Traffic) finished(transcript []byte) []byte {
	s := t.suite
	key := expandLabel(s, t.secret.Reveal(), "finished", nil, s.newHash().Size())
	defer clear(key)
	mac := hmac.New(s.newHash, key)
	mac.Write(transcript)
	return mac.Sum(nil)
}

// Update replaces the secret by the next one, as a KeyUpdate asks (RFC 8446,
// section 7.2), and wipes the old one.
func (t *Traffic) Update() {
	secret.Do(func() {
		next := expandLabel(t.suite, t.secret.Reveal(), "traffic upd", nil, t.suite.newHash().Size())
		t.secret.Wipe()
		t.secret = secret.New(next)
	})
}

// Wipe overwrites the secret.
func (t *Traffic) Wipe() { t.secret.Wipe() }

// The methods below keep keys out of every verb of fmt.

func (t Traffic) Format(f fmt.State, _ rune)     { redact(f, "traffic secret") }
func (h Handshake) Format(f fmt.State, _ rune)   { redact(f, "handshake keys") }
func (a Application) Format(f fmt.State, _ rune) { redact(f, "application keys") }

func redact(w io.Writer, what string) { _, _ = io.WriteString(w, "["+what+"]") }

// derive is Derive-Secret, given the transcript's hash.
func derive(s *Suite, prk []byte, label string, transcript []byte) []byte {
	return expandLabel(s, prk, label, transcript, s.newHash().Size())
}

// extract is HKDF-Extract with the suite's hash.
func extract(s *Suite, ikm, salt []byte) []byte {
	prk, err := hkdf.Extract(s.newHash, ikm, salt)
	return must(prk, err)
}

// expandLabel is HKDF-Expand-Label (RFC 8446, section 7.1).
func expandLabel(s *Suite, prk []byte, label string, context []byte, length int) []byte {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, 2+1+6+len(label)+1+len(context)))
	b.AddUint16(uint16(length))
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddBytes([]byte("tls13 "))
		b.AddBytes([]byte(label))
	})
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(context) })
	info := must(b.Bytes())
	out, err := hkdf.Expand(s.newHash, prk, string(info), length)
	return must(out, err)
}

// must unwraps results that can only fail for lengths that this package never
// uses.
func must(b []byte, err error) []byte {
	if err != nil {
		panic("keytls/schedule: " + err.Error())
	}
	return b
}
