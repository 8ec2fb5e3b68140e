package ctl

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"mandos/internal/isodur"
	"mandos/internal/operator"
)

// A column of the table: its title and what stands in it.
type column struct {
	title string
	cell  func(operator.Client) string
}

func textColumn(title, property string) column {
	return column{title, func(c operator.Client) string { return c.String(property) }}
}

func boolColumn(title, property string) column {
	return column{title, func(c operator.Client) string {
		if c.Bool(property) {
			return "Yes"
		}
		return "No"
	}}
}

func durationColumn(title, property string) column {
	return column{title, func(c operator.Client) string { return isodur.FormatTable(c.Duration(property)) }}
}

// The columns, in the order of Debian's mandos-ctl.
var (
	defaultColumns = []column{
		textColumn("Name", "Name"),
		boolColumn("Enabled", "Enabled"),
		durationColumn("Timeout", "Timeout"),
		textColumn("Last Successful Check", "LastCheckedOK"),
	}
	verboseColumns = append(defaultColumns[:len(defaultColumns):len(defaultColumns)],
		textColumn("Created", "Created"),
		durationColumn("Interval", "Interval"),
		textColumn("Host", "Host"),
		textColumn("Key ID", "KeyID"),
		textColumn("Fingerprint", "Fingerprint"),
		boolColumn("Check Is Running", "CheckerRunning"),
		textColumn("Last Enabled", "LastEnabled"),
		boolColumn("Approval Is Pending", "ApprovalPending"),
		boolColumn("Approved By Default", "ApprovedByDefault"),
		textColumn("Last Approval Request", "LastApprovalRequest"),
		durationColumn("Approval Delay", "ApprovalDelay"),
		durationColumn("Approval Duration", "ApprovalDuration"),
		textColumn("Checker", "Checker"),
		durationColumn("Extended Timeout", "ExtendedTimeout"),
		textColumn("Expires", "Expires"),
		column{"Last Checker Status", func(c operator.Client) string { return fmt.Sprint(c.Int("LastCheckerStatus")) }},
	)
)

// A table is text in rows and columns; the first row has the titles.
type table struct {
	rows    [][]string
	clients []operator.Client // of rows[1:]
}

func (o *options) tableOf(clients []operator.Client) table {
	columns := defaultColumns
	if o.verbose {
		columns = verboseColumns
	}
	t := table{rows: make([][]string, 1, len(clients)+1), clients: clients}
	for _, col := range columns {
		t.rows[0] = append(t.rows[0], col.title)
	}
	for _, client := range clients {
		var row []string
		for _, col := range columns {
			row = append(row, operator.Printable(col.cell(client)))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// render lays the table out: each column as wide as its widest cell, counted
// in the cells of a terminal, one blank between them.
func (t table) render(s style) string {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	var b strings.Builder
	for r, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteByte(' ')
			}
			line.WriteString(cell + strings.Repeat(" ", widths[i]-ansi.StringWidth(cell)))
		}
		if r == 0 {
			b.WriteString(s.title(line.String()))
		} else {
			b.WriteString(s.client(t.clients[r-1], line.String()))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
