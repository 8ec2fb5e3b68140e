package registry

import (
	"context"
	"log/slog"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
)

// killTime is how long after its limit a checker that still hasn't returned is
// abandoned.
const killTime = 10 * time.Second

// A run is a checker that was started.
type run struct {
	cancel    context.CancelFunc
	abandoned bool // how it ends is of no interest
}

// startQueued starts queued checkers, up to maxChecks at a time.
func (r *Registry) startQueued(t *turn) {
	for len(r.queue) > 0 && r.running < r.maxChecks && !r.stopped {
		e := r.queue[0]
		r.queue[0] = nil
		r.queue = r.queue[1:]
		// An entry whose last run is still being killed is queued again once
		// that is over.
		if e.queued && !e.gone && e.run == nil {
			e.queued = false
			r.startCheck(t, e)
		}
	}
}

func (r *Registry) startCheck(t *turn, e *entry) {
	values := e.c.Variables(t.now)
	if r.path != nil {
		values["dbus_object_path"] = r.path(e.name())
	}
	command, err := r.checker.Expand(e.c.Settings.Checker, values)
	if err != nil {
		r.step(t, e, client.CheckerNotRun{Why: err.Error()})
		return
	}
	limit := e.c.Settings.CheckLimit()
	ctx, cancel := context.WithTimeout(r.checkCtx, limit+killTime)
	run := &run{cancel: cancel}
	e.run = run
	r.running++
	r.step(t, e, client.CheckerStarted{Command: command})
	name := e.name()
	r.checks.Go(func() {
		defer cancel()
		result, err := r.checker.Run(ctx, name, command, limit)
		r.turn(func(t *turn) { r.checkEnded(t, e, command, result, err) })
	})
}

func (r *Registry) checkEnded(t *turn, e *entry, command string, result client.CheckResult, err error) {
	run := e.run
	e.run = nil
	r.running--
	switch {
	case e.gone || r.stopped:
		return
	case run.abandoned:
		if e.queued {
			r.queue = append(r.queue, e)
		}
		return
	case err != nil:
		r.step(t, e, client.CheckerNotRun{Why: err.Error()})
		return
	}
	event := journal.CheckerEnded
	if result.OK() {
		event.Level = slog.LevelDebug
	}
	t.log(event, journal.Client(e.name()), journal.ExitStatus(result.Status()), journal.Output(result.Output))
	r.step(t, e, client.CheckerDone{Command: command, Result: result})
}

// reportCannotCheck logs when checks become impossible and when they run again;
// before is how many clients were affected until now.
func (r *Registry) reportCannotCheck(t *turn, e *entry, before int) {
	switch after := r.counts.CannotCheck; {
	case before == 0 && after > 0:
		r.checkWarned = t.now.Elapsed
		t.log(journal.ChecksCannotRun, journal.Client(e.name()), journal.Reason(e.c.Status.CannotCheck))
	case before > 0 && after == 0:
		t.log(journal.ChecksRunAgain)
	}
}

// remindCannotCheck repeats that report for as long as checks are impossible.
func (r *Registry) remindCannotCheck(t *turn) {
	if n := r.counts.CannotCheck; n > 0 && t.now.Elapsed-r.checkWarned >= warnEvery {
		r.checkWarned = t.now.Elapsed
		t.log(journal.ChecksCannotRun, journal.Count(n))
	}
}
