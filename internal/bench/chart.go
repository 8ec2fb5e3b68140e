package bench

import (
	"fmt"
	"math"
	"strings"
)

// Chart draws two panels as SVG: hand-outs per second by number of clients, and
// the 99th percentile of the wait, by hosts at once. All axes are logarithmic.
func (r *Results) Chart() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">`+"\n",
		2*panelWidth, panelHeight, 2*panelWidth, panelHeight)
	fmt.Fprintln(&b, `<rect width="100%" height="100%" rx="6" fill="#ffffff"/>`)
	rates, waits := map[string][]point{}, map[string][]point{}
	for _, name := range []string{"debian", "ours"} {
		for _, n := range sizes {
			if l := r.load(name, n, 8); l != nil && l.InTime > 0 {
				rates[name] = append(rates[name], point{float64(n), l.PerSecond()})
			}
		}
		for _, n := range crowds {
			if l := r.load(name, 1, n); l != nil && l.Served > 0 {
				waits[name] = append(waits[name], point{float64(n), l.P99.Seconds()})
			}
		}
	}
	panel{
		title: "Secrets per second, 8 hosts at once", x: "clients in clients.conf",
		left: 0, first: true, xs: axis{1, 100_000, 10}, ys: axis{0.01, 10_000, 10},
		lines: rates, format: func(v float64) string { return plain(v) },
	}.draw(&b)
	panel{
		title: "99th percentile of the wait, 1 client", x: "hosts at once",
		left: panelWidth, xs: axis{1, 256, 4}, ys: axis{0.001, 100, 10},
		lines: waits, format: func(v float64) string {
			if v < 1 {
				return plain(v*1000) + " ms"
			}
			return plain(v) + " s"
		},
	}.draw(&b)
	fmt.Fprintln(&b, "</svg>")
	return b.String()
}

// Sizes in pixels.
const (
	panelWidth, panelHeight = 400, 300
	marginLeft, marginRight = 62, 24
	marginTop, marginBottom = 44, 48
)

var (
	colours = map[string]string{"debian": "#a80030", "ours": "#00758f"}
	legends = map[string]string{"debian": "Debian's", "ours": "here"}
)

type point struct{ x, y float64 }

// An axis goes from min to max; a step multiplies.
type axis struct{ min, max, step float64 }

// at returns where v is, from 0 to 1.
func (a axis) at(v float64) float64 {
	v = min(max(v, a.min), a.max)
	return math.Log(v/a.min) / math.Log(a.max/a.min)
}

type panel struct {
	title, x string
	left     float64
	first    bool // a line has its name at its first point, else at its last
	xs, ys   axis
	lines    map[string][]point
	format   func(float64) string
}

func (p panel) draw(b *strings.Builder) {
	const width, height = panelWidth - marginLeft - marginRight, panelHeight - marginTop - marginBottom
	at := func(q point) (x, y float64) {
		return p.left + marginLeft + width*p.xs.at(q.x), marginTop + height*(1-p.ys.at(q.y))
	}
	text := func(x, y float64, anchor, colour, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, colour, s)
	}
	text(p.left+marginLeft, 24, "start", "#222222", p.title)
	const nearly = 1.0001 // steps are floating-point
	for v := p.ys.min; v <= p.ys.max*nearly; v *= p.ys.step {
		x, y := at(point{p.xs.min, v})
		fmt.Fprintf(b, `<path d="M%.1f %.1fh%d" stroke="#dddddd"/>`+"\n", x, y, width)
		text(x-6, y+4, "end", "#555555", p.format(v))
	}
	for v := p.xs.min; v <= p.xs.max*nearly; v *= p.xs.step {
		x, y := at(point{v, p.ys.min})
		text(x, y+18, "middle", "#555555", plain(v))
	}
	text(p.left+marginLeft+width/2, panelHeight-10, "middle", "#555555", p.x)
	for _, name := range []string{"debian", "ours"} {
		points := p.lines[name]
		if len(points) == 0 {
			continue
		}
		var path strings.Builder
		for i, q := range points {
			x, y := at(q)
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(i, 1)], x, y)
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x, y, colours[name])
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", &path, colours[name])
		if p.first {
			x, y := at(points[0])
			text(x+8, y-8, "start", colours[name], legends[name])
		} else {
			x, y := at(points[len(points)-1])
			text(x-6, y-9, "end", colours[name], legends[name])
		}
	}
}

// plain prints a tick of an axis.
func plain(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%.2g", v)
	}
	return thousands(int(v + 0.5))
}
