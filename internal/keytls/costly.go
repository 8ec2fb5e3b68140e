package keytls

import (
	"errors"
	"runtime"
	"time"
)

// costly holds a token for each connection that does what a hostile peer of
// TLS 1.2 can make cost a hundred times a usual handshake: Diffie-Hellman over
// a prime of 8192 bits, the self-signatures of an OpenPGP certificate. Half of
// the processors, or the only one, do that; connections of TLS 1.3 don't wait.
var costly = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// maxCostlyWait is how long a connection waits for its turn.
const maxCostlyWait = 5 * time.Second

var errTooCostly = errors.New("too many handshakes of TLS 1.2 are under way")

// costlyTurn waits for a turn, which ends when done is called.
func costlyTurn() (done func(), err error) {
	done = func() { <-costly }
	select {
	case costly <- struct{}{}:
		return done, nil
	default:
	}
	timer := time.NewTimer(maxCostlyWait)
	defer timer.Stop()
	select {
	case costly <- struct{}{}:
		return done, nil
	case <-timer.C:
		return nil, errTooCostly
	}
}
