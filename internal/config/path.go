package config

import (
	"strconv"
	"strings"
)

// A path names a place in the tree of a file: keys joined by "\x00", places in arrays
// by "\x01". The empty path is the root.
type path string

const root path = ""

func (p path) key(name string) path {
	if strings.ContainsAny(name, "\x00\x01") { // in quotes a key can be anything; none that there is has these
		name = noStep.Replace(name)
	}
	return p + "\x00" + path(name)
}

func (p path) at(i int) path { return p + "\x01" + path(strconv.Itoa(i)) }

var noStep = strings.NewReplacer("\x00", "\uFFFD", "\x01", "\uFFFD")

// parent is the table or the array that p is in.
func (p path) parent() path {
	i := strings.LastIndexAny(string(p), "\x00\x01")
	if i < 0 {
		return ""
	}
	return p[:i]
}

// last is the name of the key itself.
func (p path) last() string {
	return string(p[strings.LastIndexAny(string(p), "\x00\x01")+1:])
}

// parts are the keys of p without the places in arrays.
func (p path) parts() []string {
	parts := strings.Split(string(p), "\x00")[1:]
	for i := range parts {
		parts[i], _, _ = strings.Cut(parts[i], "\x01")
	}
	return parts
}

// namedTable says whether the keys of a table are names that the user invents.
func namedTable(name string) bool {
	switch name {
	case "vip", "listener", "pool", "policy", "cache", "stream":
		return true
	}
	return false
}

// tableList says whether a key is a list of tables, [[route]].
func tableList(name string) bool { return name == "route" || name == "track" || name == "cert" }

// pattern is p with "*" for each name that the user invents and without places in
// arrays, as the tables of unbuilt.go have it: "pool.*.check.path", "route.host".
func (p path) pattern() string {
	parts := p.parts()
	if len(parts) > 1 && namedTable(parts[0]) {
		parts[1] = "*"
	}
	return strings.Join(parts, ".")
}

// table is how a message names the table that p is: "[pool.api]", "[[route]]".
func (p path) table() string {
	name := strings.Join(p.parts(), ".")
	if tableList(name) {
		return "[[" + name + "]]"
	}
	return "[" + name + "]"
}

// inTable is " in [pool.api]", or nothing for the root.
func (p path) inTable() string {
	if p == root {
		return ""
	}
	return " in " + p.table()
}

// to is the path of keys from the root.
func to(keys ...string) path {
	p := root
	for _, k := range keys {
		p = p.key(k)
	}
	return p
}

// element is the first place in an array that p goes through, or -1.
func (p path) element() int {
	_, rest, ok := strings.Cut(string(p), "\x01")
	if !ok {
		return -1
	}
	digits, _, _ := strings.Cut(rest, "\x00")
	digits, _, _ = strings.Cut(digits, "\x01")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}
