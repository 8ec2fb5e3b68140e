package monitor

import (
	"context"
	"errors"
	"sync"
	"time"

	"mandos/internal/operator"
)

// A Server is what the monitor needs of an [operator.Conn].
type Server interface {
	Clients(ctx context.Context) ([]operator.Client, error)
	Set(ctx context.Context, client operator.Client, property string, value any) error
	Approve(ctx context.Context, client operator.Client, approve bool) error
	Remove(ctx context.Context, client operator.Client) error
	Watch(ctx context.Context) (<-chan operator.Occurrence, error)
	Close() error
}

const (
	// retry is how long to wait before the bus is tried again.
	retry = 2 * time.Second
	// gather is how long signals are gathered before they are shown at once:
	// the screen is drawn 20 times a second at most, however many come.
	gather = 50 * time.Millisecond
	// gatherMost bounds how many are gathered, but not while the clients are
	// read: then they are gathered until that is done.
	gatherMost = 4096
)

// A follower keeps a connection to the server and tells what it hears.
type follower struct {
	connect func(ctx context.Context) (Server, error)
	tell    func(msg any)

	mu     sync.Mutex
	server Server // nil while there is no bus
}

// run follows the server until ctx ends, over all restarts of it and of the
// bus. It returns early, with an error, if this user may not speak with it.
func (f *follower) run(ctx context.Context) error {
	for {
		err := f.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, operator.ErrDenied) {
			return err
		}
		f.tell(lost{err})
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// session follows the server on one connection to the bus.
func (f *follower) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	server, err := f.connect(ctx)
	if err != nil {
		cancel()
		return err
	}
	var running sync.WaitGroup
	defer func() {
		cancel()
		f.use(nil)
		server.Close()
		running.Wait()
	}()
	heardOf, err := server.Watch(ctx)
	if err != nil {
		return err
	}
	f.use(server)

	type answer struct {
		clients []operator.Client
		err     error
	}
	answers := make(chan answer)
	reading, again := false, false // the clients are being read, and must be once more
	read := func() {
		if reading {
			again = true
			return
		}
		reading, again = true, false
		running.Go(func() {
			clients, err := server.Clients(ctx)
			select {
			case answers <- answer{clients, err}:
			case <-ctx.Done():
			}
		})
	}
	read()

	var gathered heard
	var flush <-chan time.Time
	send := func() {
		if len(gathered) > 0 {
			f.tell(gathered)
		}
		gathered, flush = nil, nil
	}
	for {
		// While the clients are read, signals wait: told after what was read,
		// they end with each property's last value.
		in, due := heardOf, flush
		switch {
		case reading:
			due = nil
		case len(gathered) >= gatherMost:
			in = nil
		}
		select {
		case o, open := <-in:
			if !open {
				return errors.New("the connection to the system bus was lost")
			}
			switch o.Kind {
			case operator.Appeared:
				gathered = nil // of the server before
				read()
				continue
			case operator.Vanished:
				send()
				f.tell(lost{operator.ErrNoServer})
				continue
			}
			gathered = append(gathered, o)
			if flush == nil {
				flush = time.After(gather)
			}
		case a := <-answers:
			reading = false
			switch {
			case again:
				read()
				continue
			case errors.Is(a.err, operator.ErrNoServer):
				gathered = nil
				f.tell(lost{operator.ErrNoServer})
			case a.err != nil:
				return a.err
			default:
				f.tell(loaded(a.clients))
			}
			send()
		case <-due:
			send()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *follower) use(server Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = server
}

// do does what the operator has asked for.
func (f *follower) do(ctx context.Context, r request) error {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	switch {
	case server == nil:
		return errors.New("there is no connection to the system bus")
	case r.remove:
		return server.Remove(ctx, r.client)
	case r.approve != nil:
		return server.Approve(ctx, r.client, *r.approve)
	}
	return server.Set(ctx, r.client, r.property, r.value)
}
