package route

import (
	"bytes"
	"slices"
)

// A tree is a radix tree over paths. It holds exact paths and prefixes together, so
// that one walk down finds both.
type tree struct{ root node }

type node struct {
	label    string  // bytes between the parent and here
	first    []byte  // first byte of each child's label
	children []*node // in the order of first
	exact    *leaf   // for the path that ends here
	prefix   *leaf   // for the path that ends here or goes on with a slash
}

// A leaf is where routes of equal host and path stand.
type leaf struct {
	entries []*entry
	shorter *leaf // of a prefix: the next shorter prefix that takes its paths too
}

// pick returns the first route of the leaf whose conditions hold, or nil.
func (l *leaf) pick(a *ask) *entry {
	for _, e := range l.entries {
		if e.hold(a) {
			return e
		}
	}
	return nil
}

// walk goes down as far as the path leads and returns the leaf of exactly that path and
// the one of the longest prefix, nil where there is none.
func (t *tree) walk(path []byte) (exact, prefix *leaf) {
	n, rest := &t.root, path
	prefix = n.prefix // the root's stands for every path, "*" too
	for len(rest) > 0 {
		i := bytes.IndexByte(n.first, rest[0])
		if i < 0 {
			break
		}
		n = n.children[i]
		if len(rest) < len(n.label) || string(rest[:len(n.label)]) != n.label {
			break
		}
		rest = rest[len(n.label):]
		if n.prefix != nil && (len(rest) == 0 || rest[0] == '/') {
			prefix = n.prefix
		}
		if len(rest) == 0 {
			exact = n.exact
		}
	}
	return exact, prefix
}

func (t *tree) add(key string, whole bool, e *entry) {
	n := t.root.at(key)
	l := &n.prefix
	if whole {
		l = &n.exact
	}
	if *l == nil {
		*l = &leaf{}
	}
	(*l).entries = append((*l).entries, e)
}

// at returns the node for key below n, splitting labels as it must.
func (n *node) at(key string) *node {
	for key != "" {
		i := bytes.IndexByte(n.first, key[0])
		if i < 0 {
			c := &node{label: key}
			n.first, n.children = append(n.first, key[0]), append(n.children, c)
			return c
		}
		c := n.children[i]
		same := shared(c.label, key)
		if same < len(c.label) {
			upper := &node{label: c.label[:same], first: []byte{c.label[same]}, children: []*node{c}}
			c.label = c.label[same:]
			n.children[i], c = upper, upper
		}
		n, key = c, key[same:]
	}
	return n
}

// shared returns how many bytes a and b begin with alike.
func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// finish orders the routes of each leaf at and below n. above is the longest prefix that
// takes the paths of n too, nil if there is none.
func (n *node) finish(above *leaf) {
	for _, l := range []*leaf{n.exact, n.prefix} {
		if l != nil {
			slices.SortFunc(l.entries, before)
		}
	}
	if n.prefix != nil {
		n.prefix.shorter = above
	}
	for _, c := range n.children {
		next := above
		if n.prefix != nil && (n.label == "" || c.label[0] == '/') { // the root has no label
			next = n.prefix
		}
		c.finish(next)
	}
}
