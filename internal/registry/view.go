package registry

import (
	"slices"
	"strings"
	"time"

	"mandos/internal/client"
	"mandos/internal/secret"
)

// A View is what may be seen of a client at one moment.
type View struct {
	Settings client.Settings // Secret is empty, Enabled is what clients.conf says
	client.Facts
	Expires         time.Time // wall clock; zero when disabled
	NextCheck       time.Time // wall clock; zero when disabled
	ApprovalPending bool
	CheckerRunning  bool
	CannotCheck     string // why the last check could not run; empty when it could
}

// Counts are what STATUS shows.
type Counts struct {
	Clients     int
	Enabled     int
	Disabled    int
	Waiting     int  // clients for which at least one connection waits for approval
	CannotCheck int  // clients whose last check could not run
	Unsaved     bool // the state can't be saved at the moment
}

// view returns what may be seen of c. Its instants in the future are told by
// the offset between the clocks as it was when it was last looked at: read
// again, they are the same to the nanosecond. mu is held.
func (r *Registry) view(c *client.Client) View {
	st := &c.Status
	v := View{
		Settings:        c.Settings,
		Facts:           st.Facts,
		ApprovalPending: st.Pending > 0,
		CheckerRunning:  st.Check == client.Running,
		CannotCheck:     st.CannotCheck,
	}
	v.Settings.Secret = secret.Secret{}
	if st.Enabled {
		v.Expires = r.wall(st.Deadline)
		v.NextCheck = r.wall(st.NextCheck)
	}
	return v
}

func (r *Registry) wall(elapsed time.Duration) time.Time {
	between := offset(r.clock.Now())
	if (between - r.offset).Abs() < clockStep { // else the clock was set, just now
		between = r.offset
	}
	return time.Unix(0, int64(between+elapsed)).UTC()
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
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list()
}

func (r *Registry) list() []View {
	views := make([]View, 0, len(r.byName))
	for _, e := range r.byName {
		views = append(views, r.view(&e.c))
	}
	slices.SortFunc(views, func(a, b View) int { return strings.Compare(a.Settings.Name, b.Settings.Name) })
	return views
}

// Counts returns how many clients there are. It is cheap.
func (r *Registry) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	c.Unsaved = r.saveError != nil
	return c
}

// count adds n times what c counts for.
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
