package config

import (
	"slices"
	"strconv"
	"strings"
)

// add takes one more text in. No two may say the same thing.
func (j *joiner) add(s *source) {
	offset := map[path]int{}
	for _, key := range sortedKeys(s.tree) {
		p := to(key)
		have, there := j.tree[key]
		if !there {
			j.tree[key] = s.tree[key]
			continue
		}
		if tableList(key) {
			j.append(j.tree, s.tree, p, offset)
			continue
		}
		mine, ok1 := have.(map[string]any)
		more, ok2 := s.tree[key].(map[string]any)
		if !ok1 || !ok2 {
			j.twice(s, p)
			continue
		}
		for _, name := range sortedKeys(more) {
			if _, there := mine[name]; there {
				j.twice(s, p.key(name))
				continue
			}
			mine[name] = more[name]
		}
	}
	j.take(s, offset)
}

// append puts the elements of an array behind those that are there.
func (j *joiner) append(have, more map[string]any, p path, offset map[path]int) {
	a, ok1 := elements(have[p.last()])
	b, ok2 := elements(more[p.last()])
	if !ok1 || !ok2 {
		return // the rules say what is wrong with what is no list
	}
	have[p.last()] = slices.Concat(a, b)
	offset[p] = len(a)
}

// twice reports what two texts say.
func (j *joiner) twice(s *source, p path) {
	j.report(s.places.at(p).key, "%s is given at %s too; one of the two must go", said(p), j.at(j.places.at(p).key))
}

// said is how a message names a key or a thing.
func said(p path) string {
	parts := p.parts()
	if len(parts) == 2 && namedTable(parts[0]) {
		return p.table()
	}
	return strings.Join(parts, ".")
}

// take adds the places of s, those of elements that were put behind others moved as far.
func (j *joiner) take(s *source, offset map[path]int) {
	for p, at := range s.places.all() {
		for list, n := range offset {
			p = p.moved(list, func(i int) int { return i + n })
		}
		if _, there := j.places.get(p); !there {
			j.places.put(p, at)
		}
	}
}

// moved returns p with its place in list, if it is there, as to says. A negative one is
// no place: "" is returned.
func (p path) moved(list path, to func(int) int) path {
	rest, ok := strings.CutPrefix(string(p), string(list)+"\x01")
	if !ok {
		return p
	}
	end := strings.IndexAny(rest, "\x00\x01")
	if end < 0 {
		end = len(rest)
	}
	i, err := strconv.Atoi(rest[:end])
	if err != nil {
		return p
	}
	if i = to(i); i < 0 {
		return ""
	}
	return list.at(i) + path(rest[end:])
}
