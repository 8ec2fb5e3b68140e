// Package bench measures our server beside Debian's: the same hosts with the
// same keys ask both, on one machine, one server after the other, and in turns
// where figures are compared closely. `make bench-compare` measures into
// testdata/results.json; `make readme-figures` draws the README's table and
// chart of that. It is for development only.
//
// The load is made by this package, in the role of mandos-client: TLS 1.3 as
// Debian's agrees to with both servers, reduced to what hosts here need (see
// fetch). A generator in C with GnuTLS would send the same bytes, and leave the
// server less of the cores that both share. Its own CPU time is among the
// results. The hosts' keys are Ed25519, mandos-keygen's default, and made
// beforehand, as are the key pairs of the exchanges, each for one connection;
// all else that a host does at its boot, it does here each time, and each
// secret is compared with the right one.
//
// Hosts come from addresses of their own below 127.0.0.0/8, as those of a
// routed site do, so that a server that counts by source sees as many; one of
// the storms comes from a single address, which is what hosts on one link look
// like. Each server has a socket with its own backlog, a bus, the sockets of
// the journal and of the system log (read and dropped by a process of their
// own), and as many open files as mandos.service allows, where that is permitted.
// Of Debian's only the first start is measured: saving and reading its state
// takes a process of gpg for each client.
package bench

import "time"

// Results are what one run of the comparison has measured.
type Results struct {
	Date    string // RFC 3339
	Commit  string
	Command string
	Machine Machine
	Rounds  int      // in which those loads were measured that are compared closely
	Floor   Floor    // the mean of those rounds
	Servers []Server // ours and Debian's with each number of clients
}

// A Machine is where it was measured.
type Machine struct {
	CPU    string
	Cores  int
	Memory int64 // bytes
	Kernel string
	Go     string
	Debian string // version of its Mandos
}

// A Floor is the CPU time of one hand-out's cryptography, which no server can
// do without.
type Floor struct {
	KeyPair, Agreement, Verification, AEAD time.Duration

	// These aren't in the sum. Hashing is what RFC 8446 has the TLS client hash
	// with the suite that Debian's mandos-client chooses, with SHA-384: the
	// transcript and the key schedule. Connection is the kernel's part, as a
	// server without TLS has it that sends and receives as many bytes in as
	// many steps.
	Hashing, Connection time.Duration
}

// Sum is the whole.
func (f Floor) Sum() time.Duration { return f.KeyPair + f.Agreement + f.Verification + f.AEAD }

// MeanFloor is the mean of what was measured at different times.
func MeanFloor(fs []Floor) (mean Floor) {
	n := time.Duration(max(1, len(fs)))
	for _, f := range fs {
		mean.KeyPair += f.KeyPair / n
		mean.Agreement += f.Agreement / n
		mean.Verification += f.Verification / n
		mean.AEAD += f.AEAD / n
		mean.Hashing += f.Hashing / n
		mean.Connection += f.Connection / n
	}
	return mean
}

// A Server is one server, with one configuration.
type Server struct {
	Name    string // "ours" or "debian"
	Clients int
	Starts  []Start
	Memory  int64 // bytes (PSS), some seconds after the start
	Loaded  int64 // bytes (PSS), some seconds after the last load
	Loads   []Load
	Storms  []Storm
}

// A Start is how long the server took: the shortest of a few starts.
type Start struct {
	State  string        // "none": the first start; "saved": it finds its own
	Ready  time.Duration // until it says so, or, of Debian's, until it takes connections
	Secret time.Duration // until the first secret has arrived
}

// A Load is what hosts got who asked without pause.
type Load struct {
	What     string // one of Kinds; "" for the ordinary hosts, which are of the first
	AtOnce   int
	Duration time.Duration // of the load; who asked before its end may be served after it
	InTime   int           // served before its end
	Served   int
	Failed   map[string]int // tries that failed, or were given up after some time more, by why

	// Others is the CPU time of processes that have nothing to do with it.
	ServerCPU, LoadCPU, Others time.Duration

	P50, P99, Worst time.Duration // from connecting to close_notify
}

// Kinds are the keys that hosts have, and at the end what our own mandos-client
// agrees on where the server can: a hybrid with ML-KEM.
var Kinds = []string{"Ed25519", "ECDSA P-256", "RSA 3072", "Ed25519 and X25519MLKEM768"}

// PerSecond is how many secrets were handed out in a second.
func (l Load) PerSecond() float64 { return float64(l.InTime) / l.Duration.Seconds() }

// CPUPer is the server's CPU time for a hand-out.
func (l Load) CPUPer() time.Duration { return l.ServerCPU / time.Duration(max(l.Served, 1)) }

// A Storm is what became of hosts that all booted at one moment.
type Storm struct {
	Source string // where they came from: "own addresses" or "one link"
	Hosts  int
	Cap    time.Duration // when we stopped waiting
	Served int
	Failed map[string]int // tries that failed, by why

	P50, P99, Last             time.Duration // from the moment of booting, of those that were served
	ServerCPU, LoadCPU, Others time.Duration
}

// At returns the share q of waits, which are sorted.
func At(waits []time.Duration, q float64) time.Duration {
	if len(waits) == 0 {
		return 0
	}
	return waits[min(int(q*float64(len(waits))), len(waits)-1)]
}
