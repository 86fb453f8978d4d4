package config

import (
	"fmt"
	"reflect"
)

// unknown reports a key that the schema does not have, with the likely cure.
func (d *decoder) unknown(p path, name string, table reflect.Type) {
	msg := fmt.Sprintf("unknown key %q%s", name, p.parent().inTable())
	if near := nearest(name, keysOf(table)); near != "" {
		msg += fmt.Sprintf("; did you mean %q?", near)
	}
	d.report(d.places[p].key, p, "%s", msg)
}

// nearest returns the word that name is most likely meant to be, or "" if none is near:
// a third of its letters may be wrong, one at least.
func nearest(name string, words []string) string {
	best, limit := "", max(1, len(name)/3)
	for _, w := range words {
		if n := distance(name, w); n <= limit {
			best, limit = w, n-1
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			n := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, rows[i-2][j-2]+1)
			}
			rows[i][j] = n
		}
	}
	return rows[len(a)][len(b)]
}
