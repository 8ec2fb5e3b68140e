package checker

import "context"

// A Queue lets a limited number of checks run at once; the others wait their
// turn, first come, first served.
type Queue struct {
	runner Runner
	slots  chan struct{} // Go serves blocked senders in their order
}

var _ Runner = (*Queue)(nil)

// NewQueue returns a Queue that runs at most n checks at once, n >= 1.
func NewQueue(runner Runner, n int) *Queue {
	return &Queue{runner, make(chan struct{}, n)}
}

// Run implements [Runner]. The time spent in the queue isn't counted against
// the request's limit.
func (q *Queue) Run(ctx context.Context, r Request) (Result, error) {
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
	defer func() { <-q.slots }()
	return q.runner.Run(ctx, r)
}
