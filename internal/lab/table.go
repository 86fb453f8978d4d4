package lab

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// A Table is rows of text under a head.
type Table struct {
	Head []string
	Rows [][]string
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

func (t *Table) widths() []int {
	w := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		for i, c := range row {
			w[i] = max(w[i], utf8.RuneCountInString(c))
		}
	}
	return w
}

// WriteText writes the table in columns. Cells that begin with a figure are set to the
// right, except in the first column.
func (t *Table) WriteText(w io.Writer) error {
	width := t.widths()
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		var b strings.Builder
		for i, c := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i > 0 {
				b.WriteString("  ")
			}
			if i > 0 && t.figures(i) {
				b.WriteString(space + c)
			} else {
				b.WriteString(c + space)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// WriteMarkdown writes the table for a document.
func (t *Table) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	line := func(cells []string) {
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(t.Head)
	rule := make([]string, len(t.Head))
	for i := range rule {
		rule[i] = "---"
		if i > 0 && t.figures(i) {
			rule[i] = "---:"
		}
	}
	line(rule)
	for _, row := range t.Rows {
		line(row)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// figures reports whether a column has figures in every row.
func (t *Table) figures(column int) bool {
	for _, row := range t.Rows {
		c := strings.TrimPrefix(row[column], "< ")
		if c != "" && c != "-" && (c[0] < '0' || c[0] > '9') {
			return false
		}
	}
	return len(t.Rows) > 0
}
