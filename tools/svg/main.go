// Command svg turns what tmux capture-pane -e prints into an SVG picture.
package main

import (
	"bufio"
	"fmt"
	"html"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Sizes of a cell, in pixels.
const (
	cellWidth  = 8.4
	cellHeight = 18
	margin     = 12
)

var colours = map[string]string{"31": "#f07178", "32": "#8ec07c", "33": "#fabd2f", "35": "#d3869b"}

const (
	foreground = "#d8dee9"
	background = "#1d2128"
)

var escape = regexp.MustCompile(`\x1b\[([0-9;]*)m`)

// A pen is how text is drawn.
type pen struct {
	colour             string
	bold, dim, reverse bool
}

// set changes the pen as the parameters of a Select Graphic Rendition say
// (ECMA-48, 8.3.117).
func (p *pen) set(parameters string) {
	for _, n := range strings.Split(parameters, ";") {
		switch n {
		case "", "0":
			*p = pen{}
		case "1":
			p.bold = true
		case "2":
			p.dim = true
		case "7":
			p.reverse = true
		case "39":
			p.colour = ""
		default:
			if c, ok := colours[n]; ok {
				p.colour = c
			}
		}
	}
}

func main() {
	var lines []string
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		lines = append(lines, in.Text())
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	columns := 0
	for _, line := range lines {
		columns = max(columns, utf8.RuneCountInString(escape.ReplaceAllString(line, "")))
	}
	width, height := float64(columns)*cellWidth+2*margin, len(lines)*cellHeight+2*margin
	fmt.Printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %d\" width=\"%.0f\" height=\"%d\" font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">\n", width, height, width, height)
	fmt.Printf("<rect width=\"100%%\" height=\"100%%\" rx=\"6\" fill=\"%s\"/>\n", background)
	var p pen
	for row, line := range lines {
		column := 0
		for line != "" {
			text := line
			at := escape.FindStringSubmatchIndex(line)
			if at != nil {
				text = line[:at[0]]
			}
			p.draw(column, row, text)
			column += utf8.RuneCountInString(text)
			if at == nil {
				break
			}
			p.set(line[at[2]:at[3]])
			line = line[at[1]:]
		}
	}
	fmt.Println("</svg>")
}

func (p pen) draw(column, row int, text string) {
	x, y := margin+float64(column)*cellWidth, margin+row*cellHeight
	colour := p.colour
	if colour == "" {
		colour = foreground
	}
	length := float64(utf8.RuneCountInString(text)) * cellWidth
	if p.reverse && text != "" {
		fmt.Printf("<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x, y, length, cellHeight, colour)
		colour = background
	}
	if strings.TrimSpace(text) == "" {
		return
	}
	style := ""
	if p.bold {
		style += " font-weight=\"bold\""
	}
	if p.dim {
		style += " opacity=\"0.6\""
	}
	fmt.Printf("<text x=\"%.1f\" y=\"%d\" textLength=\"%.1f\" fill=\"%s\"%s>%s</text>\n", x, y+cellHeight-5, length, colour, style, html.EscapeString(text))
}
