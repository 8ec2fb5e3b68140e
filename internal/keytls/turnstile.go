package keytls

import (
	"errors"
	"runtime"
	"time"
)

// A turnstile lets few do something at once. Who waits costs no processor time.
type turnstile struct {
	places chan struct{}
	wait   time.Duration // at most, for a place
}

func newTurnstile(places int, wait time.Duration) *turnstile {
	return &turnstile{make(chan struct{}, places), wait}
}

// old is what all work with keys of the old generation goes through: for one
// connection, a peer that nobody knows can ask for some tenths of a second of
// it, by a certificate with many signatures or a group of its own. So half of
// the processors always remain for the others.
var old = newTurnstile(max(1, runtime.GOMAXPROCS(0)/2), 4*time.Second)

var errCrowd = errors.New("too many handshakes of TLS 1.2 at once")

// pass calls f when there is a place, or returns errCrowd.
func (s *turnstile) pass(f func()) error {
	select {
	case s.places <- struct{}{}:
	default:
		timer := time.NewTimer(s.wait)
		defer timer.Stop()
		select {
		case s.places <- struct{}{}:
		case <-timer.C:
			return errCrowd
		}
	}
	defer func() { <-s.places }()
	f()
	return nil
}
