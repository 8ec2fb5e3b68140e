package bench

import (
	"fmt"
	"slices"
	"time"
)

// A Statement is something that we hold ourselves to, and what was found.
type Statement struct {
	Text   string
	Figure string
	Met    bool
}

func (s Statement) String() string {
	met := "NOT MET"
	if s.Met {
		met = "met"
	}
	return fmt.Sprintf("%-7s  %s: %s", met, s.Text, s.Figure)
}

// Statements checks what was measured. What wasn't measured, isn't there.
func (r *Results) Statements() []Statement {
	c := checker{results: r}
	for _, s := range []struct{ clients, times int }{{1, 20}, {1000, 1000}} {
		ours, debians := c.load("ours", s.clients, 8), c.load("debian", s.clients, 8)
		if ours == nil || debians == nil {
			continue
		}
		ratio := ours.PerSecond() / debians.PerSecond()
		c.add(ratio >= float64(s.times), "%.0f times (%s and %s per second)", ratio, number(ours.PerSecond()), number(debians.PerSecond()))(
			"%s: at least %d times as many hand-outs per second as Debian's, 8 hosts at once", clients(s.clients), s.times)
	}
	if one, many := c.load("ours", 1, 8), c.load("ours", 100_000, 8); one != nil && many != nil {
		ratio := many.PerSecond() / one.PerSecond()
		c.add(ratio >= 0.9, "%.0f %% (%.0f and %.0f per second)", 100*ratio, many.PerSecond(), one.PerSecond())(
			"100,000 clients: hand-outs per second within 10 %% of those with 1")
	}
	for _, n := range []int{1, 100_000} {
		few, many := c.load("ours", n, 8), c.load("ours", n, 256)
		if few == nil || many == nil {
			continue
		}
		ratio := float64(many.P99) / float64(few.P99)
		c.add(ratio < 20, "%.1f times (%s and %s)", ratio, short(many.P99), short(few.P99))(
			"%s: p99 with 256 hosts at once under 20 times that with 8", clients(n))
	}
	for _, n := range []int{1, 100_000} {
		l := c.load("ours", n, 8)
		if l == nil {
			continue
		}
		ratio := float64(l.CPUPer()) / float64(r.Floor.Sum())
		c.add(ratio <= 1.5, "%.2f times (%s; the floor is %s)", ratio, short(l.CPUPer()), short(r.Floor.Sum()))(
			"%s: CPU time per hand-out at most 1.5 times the floor", clients(n))
	}
	for _, s := range []struct {
		clients int
		limit   time.Duration
	}{{10_000, 300 * time.Millisecond}, {100_000, 3 * time.Second}} {
		m := r.server("ours", s.clients)
		if m == nil {
			continue
		}
		for _, start := range m.Starts {
			c.add(start.Ready < s.limit, "%s", short(start.Ready))(
				"%s: ready in under %s, %s", clients(s.clients), short(s.limit), states[start.State])
		}
	}
	for _, n := range []int{10_000, 100_000} {
		one, many := r.server("ours", 1), r.server("ours", n)
		if one == nil || many == nil {
			continue
		}
		each := (many.Memory-one.Memory)/int64(n-1) - SecretSize
		c.add(each <= 2<<10, "%d bytes", each)(
			"%s: at most 2 KiB each besides its secret", clients(n))
	}
	if m := r.server("ours", 10_000); m != nil {
		for _, s := range m.Storms {
			c.add(s.Served == s.Hosts && s.Last < 15*time.Second, "%d served, the last after %s; the shortest possible is %s",
				s.Served, short(s.Last), short(r.shortest(s)))(
				"storm of %s hosts from %s: all served within 15 s", thousands(s.Hosts), s.Source)
		}
	}
	return c.found
}

// states are the values of Start.State in words.
var states = map[string]string{"none": "for the first time", "saved": "with saved state"}

// A checker collects statements.
type checker struct {
	results *Results
	found   []Statement
}

// add adds a figure, and returns what adds its text.
func (c *checker) add(met bool, figure string, args ...any) func(text string, args ...any) {
	s := Statement{Figure: fmt.Sprintf(figure, args...), Met: met}
	return func(text string, args ...any) {
		s.Text = fmt.Sprintf(text, args...)
		c.found = append(c.found, s)
	}
}

func (c *checker) load(name string, clients, atOnce int) *Load {
	return c.results.load(name, clients, atOnce)
}

func (r *Results) server(name string, clients int) *Server {
	i := slices.IndexFunc(r.Servers, func(s Server) bool { return s.Name == name && s.Clients == clients })
	if i < 0 {
		return nil
	}
	return &r.Servers[i]
}

func (r *Results) load(name string, clients, atOnce int) *Load {
	s := r.server(name, clients)
	if s == nil {
		return nil
	}
	return s.load(atOnce)
}

// load returns what was measured with so many ordinary hosts at once, or nil.
func (s *Server) load(atOnce int) *Load {
	i := slices.IndexFunc(s.Loads, func(l Load) bool { return l.What == "" && l.AtOnce == atOnce })
	if i < 0 {
		return nil
	}
	return &s.Loads[i]
}

// kind returns what was measured with hosts of a kind, or nil.
func (s *Server) kind(what string) *Load {
	i := slices.IndexFunc(s.Loads, func(l Load) bool { return l.What == what })
	if i < 0 {
		return nil
	}
	return &s.Loads[i]
}

// shortest is how long a storm takes at least: its own processor time, had all
// cores been busy with it all the time.
func (r *Results) shortest(s Storm) time.Duration {
	return (s.ServerCPU + s.LoadCPU) / time.Duration(max(1, r.Machine.Cores))
}

func clients(n int) string {
	if n == 1 {
		return "1 client"
	}
	return thousands(n) + " clients"
}

// thousands prints n with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short prints d with two or three digits.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
