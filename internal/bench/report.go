package bench

import (
	"fmt"
	"strings"
)

// Table prints what was measured as a table in Markdown: one row a figure,
// Debian's beside ours.
func (r *Results) Table() string {
	var b strings.Builder
	row := func(what, debian, ours string) { fmt.Fprintf(&b, "| %s | %s | %s |\n", what, debian, ours) }
	row("", "Debian's Mandos "+r.Machine.Debian, "here")
	row("---", "---:", "---:")
	for _, n := range sizes {
		row("secrets a second, 8 hosts at once, "+clients(n), r.figure("debian", n, perSecond), r.figure("ours", n, perSecond))
	}
	for _, atOnce := range []int{1, 8, 64, 256} {
		wait := func(s *Server) string {
			l := s.load(atOnce)
			if l == nil {
				return ""
			}
			text := fmt.Sprintf("%s / %s / %s", short(l.P50), short(l.P99), short(l.Worst))
			if n := sum(l.Failed); n > 0 {
				text += fmt.Sprintf("; %d gave up", n)
			}
			return text
		}
		row(fmt.Sprintf("wait with %d at once: median / 99 %% / worst", atOnce), r.figure("debian", 1, wait), r.figure("ours", 1, wait))
	}
	row("processor time for a secret, 1 client", r.figure("debian", 1, cpuAt8), r.figure("ours", 1, cpuAt8))
	for _, what := range Kinds[1:] {
		row("the same, "+what, "–", r.figure("ours", len(Kinds), func(s *Server) string { return cpuPer(s.kind(what)) }))
	}
	for _, n := range sizes {
		row("memory, "+clients(n), r.figure("debian", n, memory), r.figure("ours", n, memory))
	}
	for _, n := range sizes {
		row("start to ready, "+clients(n), r.figure("debian", n, ready), r.figure("ours", n, ready))
	}
	row("10,000 hosts boot at once: the last has its secret after", r.figure("debian", 10_000, lastOfStorm), r.figure("ours", 10_000, lastOfStorm))
	return b.String()
}

// sizes are the numbers of clients that were measured.
var sizes = []int{1, 1000, 10_000, 100_000}

// figure is what f makes of a server, or a dash.
func (r *Results) figure(name string, clients int, f func(*Server) string) string {
	if s := r.server(name, clients); s != nil {
		if text := f(s); text != "" {
			return text
		}
	}
	return "–"
}

func perSecond(s *Server) string {
	l := s.load(8)
	if l == nil {
		return ""
	}
	return number(l.PerSecond())
}

func cpuPer(l *Load) string {
	if l == nil {
		return ""
	}
	return short(l.CPUPer())
}

func cpuAt8(s *Server) string { return cpuPer(s.load(8)) }

func memory(s *Server) string { return fmt.Sprintf("%.0f MiB", float64(s.Memory)/(1<<20)) }

func ready(s *Server) string {
	var texts []string
	for _, start := range s.Starts {
		texts = append(texts, short(start.Ready))
	}
	return strings.Join(texts, ", then ")
}

func lastOfStorm(s *Server) string {
	for _, storm := range s.Storms {
		if storm.Source != OwnAddresses {
			continue
		}
		if storm.Served < storm.Hosts {
			return fmt.Sprintf("%s had theirs after %s", thousands(storm.Served), short(storm.Cap))
		}
		return short(storm.Last)
	}
	return ""
}

// number prints n with two digits at least.
func number(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.2g", n)
	}
	return thousands(int(n + 0.5))
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// Section is the README's section: where it was measured, the chart and the
// table.
func (r *Results) Section(chart string) string {
	m := r.Machine
	return fmt.Sprintf(`Measured on %s (commit %s) with `+"`%s`"+`: %d cores (%s), %.0f GiB, Linux %s, %s,
shared by the server and the hosts that ask. Both servers have the same keys and
clients, secrets of %s bytes, a bus, a journal, and checkers that rest.

![Secrets a second by number of clients, and how long the slowest of 100 waits](%s)

%s
Of our processor time for a secret, %s are the cryptography that no server can
do without, and %s the kernel's for a bare connection. The start is the first one,
then one with saved state. Memory is what the processes have for themselves plus
their share of the rest (PSS).
`, r.Date[:10], r.Commit, r.Command, m.Cores, m.CPU, float64(m.Memory)/(1<<30), m.Kernel, m.Go,
		thousands(SecretSize), chart, r.Table(), short(r.Floor.Sum()), short(r.Floor.Connection))
}
