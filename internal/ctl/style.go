package ctl

import (
	"github.com/charmbracelet/x/ansi"

	"mandos/internal/operator"
)

// A style colours lines for a terminal, or leaves them alone.
type style struct {
	colour bool
	width  int // cells in a line; 0: as many as it takes
}

const (
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	reset  = "\x1b[m"
)

// fit cuts a line to the terminal's width; elsewhere nothing is cut.
func (s style) fit(line string) string {
	if s.width > 0 {
		return ansi.Truncate(line, s.width, "…")
	}
	return line
}

func (s style) paint(colour, line string) string {
	line = s.fit(line)
	if !s.colour {
		return line
	}
	return colour + line + reset
}

func (s style) title(line string) string { return s.paint(bold, line) }

// client paints a line by the state of its client.
func (s style) client(c operator.Client, line string) string {
	switch {
	case !c.Bool("Enabled"):
		return s.paint(red, line)
	case c.Bool("ApprovalPending"), c.Int("LastCheckerStatus") > 0, c.Int("LastCheckerStatus") == -1:
		return s.paint(yellow, line)
	}
	return s.paint(green, line)
}
