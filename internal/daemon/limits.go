package daemon

import (
	"math"

	"golang.org/x/sys/unix"

	"mandos/internal/server"
)

// otherFiles is how many descriptors are kept for everything but clients'
// connections and checkers: the state, the bus, the journal, files that are
// read.
const otherFiles = 128

// limitConnections keeps s from having more connections open than there are
// descriptors for.
func limitConnections(s *server.Server, maxCheckers int) {
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return // the defaults hold; Accept reports the rest
	}
	// A checker that is a child process takes pipes; one run by the helper, a
	// socket.
	spare := int(min(files.Cur, math.MaxInt32)) - otherFiles - 4*maxCheckers
	s.MaxUnproved, s.MaxProved, s.MaxWaiting = shareOut(spare)
}

// shareOut divides files between the kinds of connections: the defaults at
// most, and if there are too few for those, most go to the connections that are
// served. Each kind gets at least 2.
func shareOut(files int) (unproved, proved, waiting int) {
	unproved = min(server.DefaultMaxUnproved, max(files/4, 2))
	proved = min(server.DefaultMaxProved, max((files-unproved)/2, 2))
	waiting = min(server.DefaultMaxWaiting, max(files-unproved-proved, 2))
	return unproved, proved, waiting
}
