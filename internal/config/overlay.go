package config

import (
	"fmt"
	"slices"
	"strings"
)

// The file of changes says, in the words of the configuration, what was changed at run
// time: [remove] takes things of the file away, and after that its pools, policies,
// routes and listeners are added. A pool of which it has servers alone gets these in
// addition to its own.

// changeable are the kinds of things that can be changed at run time, in the order in
// which messages list them.
func changeable() []string { return []string{"pool", "policy", "route", "listener"} }

// layOver lays a file of changes over what is there.
func (j *joiner) layOver(s *source) {
	offset := map[path]int{}
	j.takeAway(s)
	for _, key := range sortedKeys(s.tree) {
		p := to(key)
		switch {
		case key == "remove":
			continue
		case !slices.Contains(changeable(), key):
			j.report(s.places.at(p).key, "%s cannot be changed at run time; that is for %s", said(p), strings.Join(changeable(), ", "))
			continue
		case j.tree[key] == nil:
			j.tree[key] = s.tree[key]
			continue
		case key == "route":
			j.append(j.tree, s.tree, p, offset)
			j.routesTwice(s)
			continue
		}
		mine, ok1 := j.tree[key].(map[string]any)
		more, ok2 := s.tree[key].(map[string]any)
		if !ok1 || !ok2 {
			j.twice(s, p)
			continue
		}
		for _, name := range sortedKeys(more) {
			q := p.key(name)
			have, there := mine[name]
			if !there {
				mine[name] = more[name]
			} else if !j.addServers(key, q, have, more[name], offset) {
				j.collides(s, key, name, s.places.at(q).key, j.places.at(q).key)
			}
		}
	}
	j.take(s, offset)
}

// addServers adds servers to a pool, and reports whether more was no more than that.
func (j *joiner) addServers(kind string, p path, have, more any, offset map[path]int) bool {
	a, ok1 := have.(map[string]any)
	b, ok2 := more.(map[string]any)
	if kind != "pool" || !ok1 || !ok2 || !serversAlone(b) {
		return false
	}
	for key := range b {
		if a[key] == nil {
			a[key] = b[key]
		} else {
			if text, single := a[key].(string); single {
				a[key] = []any{text}
			}
			j.append(a, b, p.key(key), offset)
		}
	}
	return true
}

// serversAlone reports whether a table of a pool says no more than some servers.
func serversAlone(pool map[string]any) bool {
	for key := range pool {
		if key != "server" && key != "servers" {
			return false
		}
	}
	return true
}

// routesTwice reports routes of a file of changes whose names are taken.
func (j *joiner) routesTwice(s *source) {
	have, _ := elements(j.tree["route"])
	more, _ := elements(s.tree["route"])
	if len(have) < len(more) {
		return
	}
	first := len(have) - len(more)
	names := routeNames(have)
	for i := range more {
		if k := slices.Index(names[:first], names[first+i]); k >= 0 {
			j.collides(s, "route", names[k], s.places.at(to("route").at(i)).key, j.places.at(to("route").at(k)).key)
		}
	}
}

// collides reports what was added at run time and is in the file by now, and the cure.
func (j *joiner) collides(s *source, kind, name string, here, there position) {
	if s != j.over {
		j.report(here, "%s %q is given at %s too; one of the two must go", kind, name, j.at(there))
		return
	}
	j.report(here, "%s %q was added at run time, and %s has it too: take it out there, or drop this one by `hactl changes drop %s %s` (while proxyd is stopped: edit %s)",
		kind, name, j.at(there), kind, name, s.name)
}

// takeAway takes away what [remove] names.
func (j *joiner) takeAway(s *source) {
	raw, there := s.tree["remove"]
	if !there {
		return
	}
	lists, ok := raw.(map[string]any)
	if !ok {
		j.report(s.places.at(to("remove")).key, "remove needs a table of lists, not %s", kindOf(raw))
		return
	}
	for _, kind := range sortedKeys(lists) {
		p := to("remove", kind)
		if kind != "server" && !slices.Contains(changeable(), kind) {
			j.report(s.places.at(p).key, "%s cannot be removed at run time; that is for server, %s", kind, strings.Join(changeable(), ", "))
			continue
		}
		names, _ := elements(lists[kind])
		for i, raw := range names {
			name, _ := raw.(string)
			if !j.removeOne(kind, name) {
				at := s.places.at(p.at(i)).value
				j.warnings = append(j.warnings, j.problem(at, "warning: %s %q was removed at run time, and is no longer in %s; `hactl changes drop %s %s` forgets that",
					kind, name, j.sources[0].name, kind, name))
			}
		}
	}
}

// removeOne removes one thing and reports whether it was there.
func (j *joiner) removeOne(kind, name string) bool {
	switch kind {
	case "route":
		all, _ := elements(j.tree["route"])
		names := routeNames(all)
		return j.removeElements(j.tree, to("route"), func(i int, _ any) bool { return names[i] == name })
	case "server":
		pool, addr, _ := strings.Cut(name, "/")
		addr = shownAddr(addr)
		table := tableAt(j.tree, "pool", pool)
		if text, single := table["servers"].(string); single {
			table["servers"] = []any{text}
		}
		is := func(_ int, e any) bool { return serverAddr(e) == addr }
		short := j.removeElements(table, to("pool", pool, "servers"), is)
		return j.removeElements(table, to("pool", pool, "server"), is) || short
	}
	things, _ := j.tree[kind].(map[string]any)
	if _, there := things[name]; !there {
		return false
	}
	delete(things, name)
	j.places.forget(to(kind, name))
	return true
}

// removeElements removes elements of a list and reports whether there were any.
func (j *joiner) removeElements(table map[string]any, list path, is func(int, any) bool) bool {
	all, ok := elements(table[list.last()])
	if !ok {
		return false
	}
	gone := map[int]bool{}
	var left []any
	for i, e := range all {
		if is(i, e) {
			gone[i] = true
		} else {
			left = append(left, e)
		}
	}
	if len(gone) == 0 {
		return false
	}
	if table[list.last()] = left; len(left) == 0 {
		delete(table, list.last())
	}
	j.places = j.places.without(list, gone)
	return true
}

// serverAddr is the address of an element of servers or server, in the form in which it is
// shown.
func serverAddr(raw any) string {
	if table, ok := raw.(map[string]any); ok {
		raw = table["addr"]
	}
	s, _ := raw.(string)
	return shownAddr(s)
}

// shownAddr is the address of a server as it is in force, and shown, however it is written.
func shownAddr(s string) string {
	if addr, err := parseServerAddr(s); err == nil {
		return addr
	}
	return s
}

// tableAt returns the table at keys, nil if there is none.
func tableAt(tree map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		tree, _ = tree[k].(map[string]any)
	}
	return tree
}

// routeNames are the names of routes, of the file or made, as they are in force.
func routeNames(routes []any) []string {
	own, base := make([]string, len(routes)), make([]string, len(routes))
	for i, raw := range routes {
		table, _ := raw.(map[string]any)
		own[i], _ = table["name"].(string)
		host, _ := table["host"].(string)
		if hosts, _ := elements(table["host"]); len(hosts) > 0 {
			host, _ = hosts[0].(string)
		}
		path, _ := table["path"].(string)
		base[i] = routeBase(host, path)
	}
	return uniqueNames(own, base)
}

// routeBase is of what a route without a name gets one.
func routeBase(host, path string) string {
	if path == "/*" {
		path = ""
	}
	if host+path == "" {
		return "*"
	}
	if _, ok := regex(path); ok {
		return nameable(host + path)
	}
	return host + path
}

// nameable is a text with what no name of a route may have replaced.
func nameable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !routeNameByte(c) {
			b[i] = '?'
		}
	}
	return string(b[:min(len(b), maxRouteName-len("#100000"))])
}

// uniqueNames gives each that has no name of its own one from its base, unique among all.
func uniqueNames(own, base []string) []string {
	taken := map[string]bool{}
	for _, name := range own {
		taken[name] = true
	}
	names, next := slices.Clone(own), map[string]int{}
	for i := range names {
		if names[i] != "" {
			continue
		}
		name := base[i]
		for taken[name] {
			next[base[i]]++
			name = fmt.Sprintf("%s#%d", base[i], next[base[i]]+1)
		}
		taken[name] = true
		names[i] = name
	}
	return names
}
