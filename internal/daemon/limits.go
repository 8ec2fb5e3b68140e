package daemon

import (
	"math"

	"golang.org/x/sys/unix"

	"mandos/internal/server"
)

// otherFiles is how many descriptors are kept for all but clients' connections
// and checkers: the state, the bus, the journal, files that are read.
const otherFiles = 128

// limitConnections makes s hold no more connections than there are
// descriptors.
func limitConnections(s *server.Server, maxCheckers int) {
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return // the defaults, and what Accept says
	}
	// A checker that is a child has pipes; one of the helper a socket.
	spare := int(min(files.Cur, math.MaxInt32)) - otherFiles - 4*maxCheckers
	s.MaxUnproved, s.MaxProved, s.MaxWaiting = shareOut(spare)
}

// shareOut divides files among connections: at most the defaults, and if they
// are too few for those, most of all for who is served. Each gets at least 2.
func shareOut(files int) (unproved, proved, waiting int) {
	unproved = min(server.DefaultMaxUnproved, max(files/4, 2))
	proved = min(server.DefaultMaxProved, max((files-unproved)/2, 2))
	waiting = min(server.DefaultMaxWaiting, max(files-unproved-proved, 2))
	return unproved, proved, waiting
}
