package fetch

import (
	"fmt"
	"io"
	"sync"
)

// notes writes lines for a person at the console.
type notes struct {
	mu    sync.Mutex
	w     io.Writer
	debug bool
	last  map[string]string // the last error of each server
}

// Write implements [io.Writer]; it is given whole lines.
func (n *notes) Write(line []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.w.Write(line)
}

func (n *notes) line(format string, args ...any) {
	fmt.Fprintf(n, commandName+": "+format+"\n", args...)
}

// tell writes with --debug only.
func (n *notes) tell(format string, args ...any) {
	if n.debug {
		n.line(format, args...)
	}
}

func (n *notes) warn(format string, args ...any) { n.line("warning: "+format, args...) }

// error writes an error about a server, unless it is the one that the server
// had before: a server may be asked for hours.
func (n *notes) error(about string, err error) {
	text := err.Error()
	n.mu.Lock()
	repeated := n.last[about] == text
	if n.last == nil || len(n.last) > 1000 { // servers come and go
		n.last = map[string]string{}
	}
	n.last[about] = text
	n.mu.Unlock()
	if !repeated || n.debug {
		n.line("%s: %s", about, text)
	}
}
