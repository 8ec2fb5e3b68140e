package lab

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"strings"
	"time"
)

// A Process is a command that runs inside a host while the test goes on.
type Process struct {
	h      *Host
	name   string
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stdin  io.WriteCloser
	lines  chan string // of its standard output
	stderr bytes.Buffer
	done   chan struct{} // closed when it has ended
}

// Start starts a command inside the host; it is killed at the end of the test.
func (h *Host) Start(args ...string) *Process {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &Process{h: h, name: strings.Join(args, " "), cmd: h.command(ctx, args...), cancel: cancel,
		lines: make(chan string, 10000), done: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		p.stdin, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		cancel()
		h.t.Fatalf("%s: %s: %v", h.Name, p.name, err)
	}
	go func() {
		defer close(p.done)
		defer close(p.lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			p.lines <- s.Text()
		}
		_ = p.cmd.Wait() // its exit status is in Result
	}()
	h.t.Cleanup(p.Kill)
	return p
}

// Kill ends the command, if it still runs.
func (p *Process) Kill() {
	p.cancel()
	<-p.done
}

// Tell writes a line to the command's standard input.
func (p *Process) Tell(line string) {
	p.h.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.h.t.Fatalf("%s: telling %s: %v", p.h.Name, p.name, err)
	}
}

// Line waits for a line of the command's standard output that begins with prefix.
func (p *Process) Line(prefix string) string {
	p.h.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.h.t.Fatalf("%s: %s ended without the line %q\n%s", p.h.Name, p.name, prefix, &p.stderr)
			}
			if strings.HasPrefix(line, prefix) {
				return line
			}
		case <-timeout:
			p.h.t.Fatalf("%s: %s does not print the line %q", p.h.Name, p.name, prefix)
		}
	}
}

// Lines returns the lines of the command's standard output, for those who take
// all of them. It is closed when the command has ended.
func (p *Process) Lines() <-chan string { return p.lines }

// Wait closes the command's standard input and waits until it has ended. The
// Result has what Line has not yet taken of its standard output, without the
// last newline.
func (p *Process) Wait() Result {
	p.h.t.Helper()
	_ = p.stdin.Close() // it may have ended already
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
		p.h.t.Fatalf("%s: %s does not end\n%s", p.h.Name, p.name, &p.stderr)
	}
	var rest []string
	for line := range p.lines {
		rest = append(rest, line)
	}
	return Result{p.cmd.ProcessState.ExitCode(), strings.Join(rest, "\n"), p.stderr.String()}
}

// Running tells whether the command still runs.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
