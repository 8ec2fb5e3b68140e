// Package daemontest runs programs that log, above all the daemon, as child
// processes of a test.
package daemontest

import (
	"bufio"
	"bytes"
	"os/exec"
	"regexp"
	"sync"
	"testing"
	"time"
)

// Deadline is how long a test waits for anything: only a hang takes that long.
const Deadline = 3 * time.Minute

// A Process is a process that a test started. Its standard error is its log.
type Process struct {
	T     testing.TB
	Cmd   *exec.Cmd
	Ended chan struct{} // closed when the process has ended and its log is complete

	err error // how it ended

	mu    sync.Mutex
	log   bytes.Buffer
	grown chan struct{} // closed and replaced at each line
}

// Start starts cmd, which is killed when the test ends. If the test has failed,
// the end of the log is shown.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{T: t, Cmd: cmd, grown: make(chan struct{}), Ended: make(chan struct{})}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for r := bufio.NewReader(stderr); ; {
			line, err := r.ReadString('\n')
			p.mu.Lock()
			p.log.WriteString(line)
			close(p.grown)
			p.grown = make(chan struct{})
			p.mu.Unlock()
			if err != nil {
				break
			}
		}
		p.err = cmd.Wait()
		close(p.Ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.Ended
		if log := p.Log(); t.Failed() {
			t.Logf("the end of the log of %v:\n%s", cmd.Args, log[max(0, len(log)-10_000):])
		}
	})
	return p
}

// Log returns what the process has logged so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Await waits until the log matches pattern, and returns the first match and
// its groups.
func (p *Process) Await(pattern string) []string {
	p.T.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(Deadline)
	for {
		p.mu.Lock()
		m, grown := re.FindStringSubmatch(p.log.String()), p.grown
		p.mu.Unlock()
		if m != nil {
			return m
		}
		select {
		case <-grown:
		case <-p.Ended:
			if re.MatchString(p.Log()) {
				continue
			}
			p.T.Fatalf("ended (%v) without logging %q", p.err, pattern)
		case <-timeout:
			p.T.Fatalf("doesn't log %q", pattern)
		}
	}
}

// Ready waits until the daemon serves, and returns its first address.
func (p *Process) Ready() string {
	p.T.Helper()
	p.Await("ready to serve clients")
	return p.Await(`listening for clients: address="?(\S+?)"?\s`)[1]
}

// Wait waits for the process to end and returns its exit status.
func (p *Process) Wait() int {
	p.T.Helper()
	select {
	case <-p.Ended:
	case <-time.After(Deadline):
		p.T.Fatal("doesn't end")
	}
	return p.Cmd.ProcessState.ExitCode()
}
