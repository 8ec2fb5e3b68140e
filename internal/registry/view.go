package registry

import (
	"maps"
	"slices"
	"strings"
	"time"

	"mandos/internal/client"
	"mandos/internal/secret"
)

// A View is the public state of a client at one moment.
type View struct {
	Settings client.Settings // Secret is empty, Enabled is what clients.conf says
	client.Facts
	Expires         time.Time // wall clock; zero when disabled
	NextCheck       time.Time // wall clock; zero when disabled
	Decision        client.Decision
	DecisionUntil   time.Time // wall clock; zero when Undecided
	ApprovalPending bool
	CheckerRunning  bool
	CannotCheck     string // why the last check could not run; empty when it could
}

// Counts are the figures in the service's status line.
type Counts struct {
	Clients     int
	Enabled     int
	Disabled    int
	Waiting     int  // clients for which at least one connection waits for approval
	CannotCheck int  // clients whose last check could not run
	Unsaved     bool // the state can't be saved at the moment
}

// view returns the View of c. mu is held.
func (r *Registry) view(c *client.Client) View { return view(c, r.wallOffset()) }

// wallOffset returns the offset between the clocks that turns deadlines into
// wall-clock times. It is the one last noted, so that a deadline that doesn't
// move reads the same each time, to the nanosecond. mu is held.
func (r *Registry) wallOffset() time.Duration {
	now := offset(r.clock.Now())
	if (now - r.offset).Abs() < clockStep { // otherwise the clock has just been set
		return r.offset
	}
	return now
}

func view(c *client.Client, offset time.Duration) View {
	st := &c.Status
	v := View{
		Settings:        c.Settings,
		Facts:           st.Facts,
		Decision:        st.Decision,
		ApprovalPending: st.Pending > 0,
		CheckerRunning:  st.Check == client.Running,
		CannotCheck:     st.CannotCheck,
	}
	v.Settings.Secret = secret.Secret{}
	start := time.Unix(0, int64(offset)).UTC() // a Time; as a Duration, the sums might overflow
	if st.Decision != client.Undecided {
		v.DecisionUntil = start.Add(st.DecisionUntil)
	}
	if st.Enabled {
		v.Expires = start.Add(st.Deadline)
		v.NextCheck = start.Add(st.NextCheck)
	}
	return v
}

// Get returns the view of the client called name, and whether there is one.
func (r *Registry) Get(name string) (View, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byName[name]
	if e == nil {
		return View{}, false
	}
	return r.view(&e.c), true
}

// List returns the views of all clients, sorted by name.
func (r *Registry) List() []View {
	views := r.all()
	slices.SortFunc(views, func(a, b View) int { return strings.Compare(a.Settings.Name, b.Settings.Name) })
	return views
}

func (r *Registry) all() []View {
	r.mu.Lock()
	defer r.mu.Unlock()
	views := make([]View, 0, len(r.byName))
	offset := r.wallOffset()
	for _, e := range r.byName {
		views = append(views, view(&e.c, offset))
	}
	return views
}

// Names returns the names of all clients, sorted.
func (r *Registry) Names() []string {
	r.mu.Lock()
	names := slices.Collect(maps.Keys(r.byName))
	r.mu.Unlock()
	slices.Sort(names)
	return names
}

// Counts returns how many clients there are in each state. It is cheap.
func (r *Registry) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	c.Unsaved = r.saveError != nil
	return c
}

// count adds c to the counts n times; n is 1 or -1.
func (k *Counts) count(c *client.Client, n int) {
	st := &c.Status
	k.Clients += n
	if st.Enabled {
		k.Enabled += n
	} else {
		k.Disabled += n
	}
	if st.Pending > 0 {
		k.Waiting += n
	}
	if st.CannotCheck != "" {
		k.CannotCheck += n
	}
}
