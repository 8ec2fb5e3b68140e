package checker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"mandos/internal/client"
)

// A Local runs commands as children of this process, each in its own process
// group. It is for a daemon that was started by hand.
type Local struct{}

var _ Runner = Local{}

// Environment returns the whole environment of a command: a PATH, a language,
// and the client's name.
func Environment(client string) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"MANDOS_CLIENT=" + client,
	}
}

// pipeGrace is how long output is still read if the shell has ended but
// something that it left behind keeps the pipe open.
const pipeGrace = time.Second

// Run implements [Runner].
func (Local) Run(ctx context.Context, r Request) (client.CheckResult, error) {
	if err := r.Validate(); err != nil {
		return client.CheckResult{}, err
	}
	limited, cancel := context.WithTimeout(ctx, r.Limit)
	defer cancel()
	var out outputKeeper
	cmd := exec.CommandContext(limited, "/bin/sh", "-c", r.Command)
	cmd.Dir, cmd.Env = "/", Environment(r.Client)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killGroup := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = func() error {
		if err := killGroup(); err != nil {
			return os.ErrProcessDone
		}
		return nil
	}
	cmd.WaitDelay = pipeGrace
	if err := cmd.Start(); err != nil {
		return client.CheckResult{}, fmt.Errorf("running the checker: %w", err)
	}
	err := cmd.Wait()
	_ = killGroup() // in case the shell has left anything behind
	if ctx.Err() != nil {
		return client.CheckResult{}, context.Cause(ctx)
	}
	timedOut := limited.Err() != nil
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && !errors.Is(err, exec.ErrWaitDelay) && !timedOut {
		return client.CheckResult{}, fmt.Errorf("running the checker: %w", err)
	}
	status, signal := Status(cmd.ProcessState)
	return client.CheckResult{ExitStatus: status, Signal: signal, TimedOut: timedOut, Output: printable(out.kept)}, nil
}

// Status returns the exit status of a process, or the signal that ended it.
func Status(state *os.ProcessState) (exitStatus, signal int) {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 0, int(ws.Signal())
	}
	return state.ExitCode(), 0
}
