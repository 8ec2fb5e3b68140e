package bench

import (
	"fmt"
	"strings"
)

// Table prints what was measured as tables in Markdown: by number of clients,
// and by number of hosts that ask at once.
func (r *Results) Table() string {
	var b strings.Builder
	row := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	rows := func(what string, figures func(name string) []string) {
		what += ": "
		for _, name := range []string{"debian", "ours"} {
			row(append([]string{what + legends[name]}, figures(name)...)...)
			what = strings.Repeat("\u00a0", 4)
		}
	}
	bySize := func(what string, f func(*Server) string) {
		rows(what, func(name string) (cells []string) {
			for _, n := range sizes {
				cells = append(cells, r.figure(name, n, f))
			}
			return cells
		})
	}
	byCrowd := func(what string, f func(*Load) string) {
		rows(what, func(name string) (cells []string) {
			for _, n := range crowds {
				cells = append(cells, r.figure(name, 1, func(s *Server) string { return f(s.load(n)) }))
			}
			return cells
		})
	}

	row("clients", "1", "1,000", "10,000", "100,000")
	row("---", "---:", "---:", "---:", "---:")
	bySize("secrets per second, 8 hosts at once", func(s *Server) string { return perSecond(s.load(8)) })
	bySize("memory", memory)
	bySize("start to ready", ready)
	bySize("all hosts boot at once, time until the last has its secret", r.lastOfStorm)
	b.WriteByte('\n')
	row("hosts at once, 1 client", "1", "8", "16", "64", "256")
	row("---", "---:", "---:", "---:", "---:", "---:")
	byCrowd("secrets per second", perSecond)
	byCrowd("wait (median, 99th percentile, longest)", wait)
	byCrowd("CPU time per secret", cpuPer)
	return b.String()
}

// crowds are how many hosts asked at once.
var crowds = []int{1, 8, 16, 64, 256}

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

func perSecond(l *Load) string {
	if l == nil {
		return ""
	}
	if l.InTime == 0 {
		return "none in " + short(l.Duration)
	}
	return number(l.PerSecond())
}

func wait(l *Load) string {
	if l == nil {
		return ""
	}
	text := short(l.P50) + ", " + short(l.P99) + ", " + short(l.Worst)
	if n := sum(l.Failed); n > 0 {
		text += fmt.Sprintf(" (%d gave up)", n)
	}
	return text
}

func cpuPer(l *Load) string {
	if l == nil {
		return ""
	}
	return short(l.CPUPer())
}

func memory(s *Server) string { return fmt.Sprintf("%.0f MiB", float64(s.Memory)/(1<<20)) }

func ready(s *Server) string {
	var texts []string
	for _, start := range s.Starts {
		texts = append(texts, short(start.Ready))
	}
	return strings.Join(texts, ", then ")
}

// lastOfStorm returns when the last host was served, beside the best that was
// possible.
func (r *Results) lastOfStorm(s *Server) string {
	for _, storm := range s.Storms {
		switch {
		case storm.Source != OwnAddresses:
		case storm.Served < storm.Hosts:
			return fmt.Sprintf("%s served in %s", thousands(storm.Served), short(storm.Cap))
		default:
			return fmt.Sprintf("%s; %s at best", short(storm.Last), short(r.shortest(storm)))
		}
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

// Section is the README's section: where it was measured, the chart, the
// tables, and which statements aren't met.
func (r *Results) Section(chart string) string {
	m := r.Machine
	var b strings.Builder
	fmt.Fprintf(&b, `Measured on %s at commit %s by `+"`%s`"+`, on %d cores (%s), %.0f GiB,
Linux %s, %s; the requesting hosts share these cores with the server. Both servers, ours and
Debian's %s, have the same clients and keys, secrets of %s bytes, a D-Bus system bus and a journal;
checks hardly ever run. Figures that are compared closely (the floor, and the loads with 1 and 100,000
clients) were measured alternately, in %d rounds, because the machine's speed varies.

![Secrets per second by number of clients; 99th percentile of the wait, by hosts at once](%s)

%s
Memory is PSS. "Start to ready" gives the first start, then one with saved state. A host that gave
up had waited for at least 10 s. "At best" is the time it would have taken if server and hosts had
kept all cores busy.
`, r.Date[:10], r.Commit, r.Command, m.Cores, m.CPU, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Debian,
		thousands(SecretSize), r.Rounds, chart, r.Table())
	fmt.Fprintf(&b, "Of our CPU time per secret, %s is the floor: cryptography that no server can do\nwithout. The hashing that RFC 8446 requires adds %s, and a bare connection in the kernel %s.",
		short(r.Floor.Sum()), short(r.Floor.Hashing), short(r.Floor.Connection))
	if s := r.server("ours", len(Kinds)); s != nil {
		var texts []string
		for _, what := range Kinds {
			texts = append(texts, what+" "+cpuPer(s.kind(what)))
		}
		fmt.Fprintf(&b, " CPU time depends\non the host's key: %s.", strings.Join(texts, ", "))
	}
	if share := r.others(); share > 0.05 {
		fmt.Fprintf(&b, " Other processes\nused up to %.0f %% of the machine meanwhile.", 100*share)
	}
	all := r.Statements()
	var unmet []Statement
	for _, s := range all {
		if !s.Met {
			unmet = append(unmet, s)
		}
	}
	fmt.Fprintf(&b, "\n\nOf the %d targets that `%s` checks, %d are met.", len(all), r.Command, len(all)-len(unmet))
	if len(unmet) > 0 {
		fmt.Fprint(&b, " These are not:\n\n")
		for _, s := range unmet {
			fmt.Fprintf(&b, "- %s. Measured: %s.\n", s.Text, s.Figure)
		}
	} else {
		fmt.Fprintln(&b)
	}
	return b.String()
}

// others is the largest share of the machine that other processes had during
// a load on our server.
func (r *Results) others() (share float64) {
	for _, s := range r.Servers {
		for _, l := range s.Loads {
			if s.Name == "ours" {
				share = max(share, l.Others.Seconds()/l.Duration.Seconds()/float64(r.Machine.Cores))
			}
		}
	}
	return share
}
