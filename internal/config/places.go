package config

import (
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A position is a place in one of the texts of a configuration. Line and column are
// counted from 1, the column in characters.
type position struct {
	line, col int32
	file      int32 // of joiner.sources
}

// A place is where a key and its value stand.
type place struct {
	key, value position
	header     string // the [header] that the key follows, as written; "" above the first
	inline     bool   // inside { }
}

// places tells where every key of a file is. What is in a [[list]] of tables goes by the
// list and the place in it, as there may be very many of one kind with few keys each.
type places struct {
	others map[path]place
	lists  map[path][]element
	words  map[path]path // what spotted.below has
}

// An element is one table of a list: the places of the table itself and of its own keys.
// Those for which it has no room, and those of keys further down, are among the others.
type element []spotted

type spotted struct {
	below path // the element
	place
}

// maxSpotted bounds an element, which is searched from its beginning to its end.
const maxSpotted = 32

func newPlaces() *places {
	return &places{others: map[path]place{}, lists: map[path][]element{}, words: map[path]path{}}
}

// split parts the path of an element of a list at the root, or of a key of one.
func (p path) split() (list path, i int, below path, ok bool) {
	end := p.step(0)
	if end == len(p) || p[end] == '\x00' {
		return "", 0, "", false
	}
	next := p.step(end)
	if next < len(p) && (p[next] == '\x01' || p.step(next) < len(p)) {
		return "", 0, "", false
	}
	i, err := strconv.Atoi(string(p[end+1 : next]))
	return p[:end], i, p[next:], err == nil
}

// step returns where the key or the place in an array ends that begins at i.
func (p path) step(i int) int {
	for i++; i < len(p) && p[i] > '\x01'; i++ {
	}
	return min(i, len(p))
}

// get returns the place of p, if the file has it.
func (ps *places) get(p path) (place, bool) {
	if list, i, below, ok := p.split(); ok {
		if all := ps.lists[list]; i < len(all) {
			for k := range all[i] {
				if e := &all[i][k]; e.below == below {
					return e.place, true
				}
			}
			if len(all[i]) < maxSpotted {
				return place{}, false
			}
		}
	}
	at, ok := ps.others[p]
	return at, ok
}

// at returns the place of p, the zero one if the file does not have it.
func (ps *places) at(p path) place {
	at, _ := ps.get(p)
	return at
}

// put notes the place of p.
func (ps *places) put(p path, at place) {
	list, i, below, ok := p.split()
	if !ok {
		ps.others[p] = at
		return
	}
	all := ps.lists[list]
	if i >= len(all) {
		all = append(all, make([]element, i+1-len(all))...)
		ps.lists[list] = all
	}
	for k := range all[i] {
		if e := &all[i][k]; e.below == below {
			e.place = at
			return
		}
	}
	switch {
	case len(all[i]) == maxSpotted:
		ps.others[p] = at
		return
	case all[i] == nil:
		all[i] = make(element, 0, 4)
	}
	all[i] = append(all[i], spotted{ps.word(below), at})
}

// word returns a text equal to p that does not keep the longer one alive of which p is a part.
func (ps *places) word(p path) path {
	w, ok := ps.words[p]
	if !ok {
		w = path(strings.Clone(string(p)))
		ps.words[w] = w
	}
	return w
}

// all yields every place, in no order.
func (ps *places) all() iter.Seq2[path, place] {
	return func(yield func(path, place) bool) {
		for p, at := range ps.others {
			if !yield(p, at) {
				return
			}
		}
		for list, all := range ps.lists {
			for i, e := range all {
				for k := range e {
					if !yield(list.at(i)+e[k].below, e[k].place) {
						return
					}
				}
			}
		}
	}
}

// forget drops a key and what is below it. The key is in no list.
func (ps *places) forget(gone path) {
	in := func(p path) bool {
		rest, ok := strings.CutPrefix(string(p), string(gone))
		return ok && (rest == "" || rest[0] <= '\x01')
	}
	maps.DeleteFunc(ps.others, func(p path, _ place) bool { return in(p) })
	maps.DeleteFunc(ps.lists, func(list path, _ []element) bool { return in(list) })
}

// without returns the places after some elements of a list are gone.
func (ps *places) without(list path, gone map[int]bool) *places {
	last := slices.Sorted(maps.Keys(gone))
	out := newPlaces()
	for p, at := range ps.all() {
		q := p.moved(list, func(i int) int {
			before, is := slices.BinarySearch(last, i)
			if is {
				return -1
			}
			return i - before
		})
		if q != "" {
			out.put(q, at)
		}
	}
	return out
}
