package registry

import (
	"context"
	"sync"
	"time"

	"mandos/internal/client"
	"mandos/internal/journal"
)

const (
	// maxSleep is the longest the loop sleeps. Go's timers stop in suspend, so
	// after one it is at most this late.
	maxSleep = 10 * time.Second
	// saveLag is how long changes of liveness may wait to be saved.
	saveLag = 500 * time.Millisecond
	// saveRetry is how long to wait after a commit that failed.
	saveRetry = 5 * time.Second
	// heartbeat is the longest time between saves of the last instant seen.
	heartbeat = 30 * time.Second
	// warnEvery is how often a lasting condition is logged again.
	warnEvery = time.Minute
	// atOnce is how many timers are served in one turn at most.
	atOnce = 1000
	// clockStep is the smallest jump that counts as setting the clock.
	clockStep = time.Second
)

// Run serves the registry until ctx ends: it expires clients, starts checkers
// and saves changes. Then it stops the checkers and saves the rest; it returns
// an error if that can't be saved.
func (r *Registry) Run(ctx context.Context) error {
	var flusher sync.WaitGroup
	flusher.Go(func() { r.flushLoop(ctx) })
	timer := time.NewTimer(r.tick())
	defer timer.Stop()
	for ctx.Err() == nil {
		var pinged chan struct{}
		select {
		case <-ctx.Done():
			continue
		case <-timer.C:
		case <-r.wake:
		case pinged = <-r.ping:
		}
		timer.Reset(r.tick())
		if pinged != nil {
			close(pinged)
		}
	}
	r.turn(func(*turn) { r.stopped = true })
	r.stop()
	r.checks.Wait()
	flusher.Wait()
	r.throttle.Flush()
	return r.flush()
}

// tick serves the timers that are due, and returns how long to sleep.
func (r *Registry) tick() (sleep time.Duration) {
	r.decide(func(t *turn) {
		r.remindCannotCheck(t)
		var due []*entry
		for e := r.timers.first(); e != nil && e.due <= t.now.Elapsed && len(due) < atOnce; e = r.timers.first() {
			r.timers.stop(e)
			due = append(due, e)
		}
		r.tickAll(t, due)
		sleep = maxSleep
		if e := r.timers.first(); e != nil {
			sleep = min(max(e.due-t.now.Elapsed, 0), maxSleep)
		}
	})
	return sleep
}

// tickAll applies a Tick to entries. Those that expire are disabled in one
// commit, and stay disabled even if it fails.
func (r *Registry) tickAll(t *turn, entries []*entry) {
	type ticked struct {
		next    client.Client
		effects []client.Effect
		urgent  bool
	}
	all := make([]ticked, len(entries))
	var b Batch
	for i, e := range entries {
		next, effects := client.Step(e.c, t.now, client.Tick{})
		urgency, any := mostUrgent(effects)
		all[i] = ticked{next, effects, any && urgency == client.Now}
		if all[i].urgent {
			b.Put = append(b.Put, e.record(&next, t.now))
		}
	}
	saved := len(b.Put) == 0 || r.commit(t, b) == nil
	for i, e := range entries {
		if saved && all[i].urgent {
			delete(r.unsaved, e)
		}
		r.install(t, e, all[i].next, all[i].effects, saved && all[i].urgent)
	}
}

// watchClock notices when the clock was set. Everything on disk is in terms of
// the old time, so it is written anew. Both locks are held, and nothing has
// been saved in terms of the new time yet.
func (r *Registry) watchClock(t *turn) {
	was := r.offset
	if d := offset(t.now) - was; d.Abs() < clockStep {
		return
	}
	r.offset = offset(t.now)
	t.log(journal.ClockStepped, journal.From(was.String()), journal.To(r.offset.String()))
	for _, e := range r.byName {
		r.save(e, client.Soon)
	}
	var b Batch
	for id, ts := range r.tombstones {
		b.PutTombstones = append(b.PutTombstones, ts.stored(id, t.now))
	}
	if len(b.PutTombstones) > 0 {
		_ = r.commit(t, b) // logged; until then the old ones count as stricter or, for a denial, shorter
	}
}

// commit writes b. Both locks are held. Without a store it does nothing.
func (r *Registry) commit(t *turn, b Batch) error {
	if r.store == nil {
		return nil
	}
	b.Seen = t.now.Wall
	err := r.store.Commit(b)
	r.committed(t, err)
	return err
}

// committed notes how a commit ended.
func (r *Registry) committed(t *turn, err error) {
	switch {
	case err == nil && r.saveError != nil:
		t.log(journal.StateSavedAgain)
	case err != nil && (r.saveError == nil || t.now.Elapsed-r.saveWarned >= warnEvery):
		r.saveWarned = t.now.Elapsed
		t.log(journal.StateNotSaved, journal.Err(err), journal.Count(len(r.unsaved)))
	}
	r.saveError = err
}

// save marks e to be written by flush.
func (r *Registry) save(e *entry, when client.Urgency) {
	if r.store == nil || e.gone {
		return
	}
	r.unsaved[e] = struct{}{}
	poke(r.dirtied)
	if when >= client.Soon {
		poke(r.hurry)
	}
}

// flushLoop saves what save has marked.
func (r *Registry) flushLoop(ctx context.Context) {
	if r.store == nil {
		return
	}
	wait := func(d time.Duration, hurry <-chan struct{}) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-hurry:
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.dirtied:
			wait(saveLag, r.hurry)
		case <-r.hurry:
		case <-time.After(heartbeat):
		}
		if r.flush() != nil {
			wait(saveRetry, nil)
			poke(r.dirtied)
		}
	}
}

// flush writes the clients that have unsaved changes, and the last instant
// seen even if there are none.
func (r *Registry) flush() error {
	if r.store == nil {
		return nil
	}
	r.disk.Lock()
	defer r.disk.Unlock()
	var b Batch
	var entries []*entry
	r.turn(func(t *turn) {
		r.watchClock(t)
		b.Seen = t.now.Wall
		for e := range r.unsaved {
			entries = append(entries, e)
			b.Put = append(b.Put, e.record(&e.c, t.now))
		}
		clear(r.unsaved)
	})
	err := r.store.Commit(b)
	r.turn(func(t *turn) {
		if err != nil {
			for _, e := range entries {
				r.unsaved[e] = struct{}{}
			}
		}
		r.committed(t, err)
	})
	return err
}
