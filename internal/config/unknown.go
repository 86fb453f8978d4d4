package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// unknown reports a key that the schema does not have, with the likely cure: the same
// key in another table (a header above swallows what follows it), or a near one here.
func (d *decoder) unknown(p path, name string, table reflect.Type) {
	near := nearest(name, keysOf(table))
	home := homeOf(name)
	at := d.places.at(p)
	switch {
	case near == name+"s" || near+"s" == name: // of host and hosts, two tables have one each
		d.report(at.key, p, "unknown key %q%s; did you mean %q?", name, p.parent().inTable(), near)
	case home != "" && at.header != "" && !at.inline:
		d.report(at.key, p, "%q is inside %s because it follows that header; %s", name, at.header, home)
	case near != "":
		d.report(at.key, p, "unknown key %q%s; did you mean %q?", name, p.parent().inTable(), near)
	case home != "" && p.parent() == root:
		d.report(at.key, p, "unknown key %q; %s", name, home)
	default:
		d.report(at.key, p, "unknown key %q%s", name, p.parent().inTable())
	}
}

// homeOf says where a key belongs that its own table does not know, or "". A key that
// many tables have says nothing.
func homeOf(name string) string {
	if name == "include" {
		return "it stands above the first header"
	}
	schema := reflect.TypeFor[Config]()
	var homes []string
	for i := range schema.NumField() {
		section := schema.Field(i).Tag.Get("toml")
		if section == "" || section == "-" {
			continue
		}
		header, table := "["+section+"]", schema.Field(i).Type
		switch table.Kind() {
		case reflect.Map:
			header, table = "["+section+".NAME]", table.Elem().Elem()
		case reflect.Slice:
			header, table = "[["+section+"]]", table.Elem().Elem()
		}
		if name == section {
			return "it is a table of its own: write it above the first header, or as " + header
		}
		keys := keysOf(table)
		if key, ok := strings.CutPrefix(name, section+"_"); ok && slices.Contains(keys, key) {
			return fmt.Sprintf("it belongs to %s as %q", header, key)
		}
		if slices.Contains(keys, name) {
			homes = append(homes, header)
		}
	}
	if slices.Contains(unbuiltKeys(""), name) {
		return "it is a table of its own, and not built yet in this version"
	}
	if len(homes) == 0 || len(homes) > 2 {
		return ""
	}
	return "it belongs to " + strings.Join(homes, " or ")
}

// in is what a message about the value at p begins with: `pool "api": check.timeout `.
func (d *decoder) in(p path) string {
	parts := p.parts()
	switch {
	case len(parts) > 1 && namedTable(parts[0]):
		return fmt.Sprintf("%s %q: ", parts[0], parts[1]) + spaced(parts[2:])
	case len(parts) > 0 && tableList(parts[0]):
		label := "[[" + parts[0] + "]]"
		if n, labels := p.element(), d.labels[parts[0]]; n >= 0 && n < len(labels) && labels[n] != "" {
			label += fmt.Sprintf(" %q", labels[n])
		}
		return label + ": " + spaced(parts[1:])
	}
	return spaced(parts)
}

func spaced(parts []string) string {
	if len(parts) == 0 {
		return ""
	}
	return strings.Join(parts, ".") + " "
}

// nearest returns the word that name is most likely meant to be, or "" if none is near:
// a third of its letters may be wrong, one at least.
func nearest(name string, words []string) string {
	best, limit := "", max(1, len(name)/3)
	for _, w := range words {
		n := distance(name, w)
		if len(name) > 2 && len(w) > 2 && (strings.HasPrefix(w, name) || strings.HasPrefix(name, w)) {
			n = 1
		}
		if n <= limit {
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
