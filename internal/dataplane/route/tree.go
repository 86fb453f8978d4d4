package route

import "bytes"

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

// A leaf is where routes of equal host and path stand, best first.
type leaf struct{ routes []int }

// pick returns the first route of the leaf that takes the request. Host and path are
// all the conditions a route can have, so the first is the one.
func (l *leaf) pick() int { return l.routes[0] }

// find walks down as far as the path leads and takes the most specific leaf it met.
func (t *tree) find(path []byte) int {
	n, rest := &t.root, path
	best := n.prefix // the root's stands for every path, "*" too
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
			best = n.prefix
		}
		if len(rest) == 0 && n.exact != nil {
			return n.exact.pick()
		}
	}
	if best == nil {
		return None
	}
	return best.pick()
}

func (t *tree) add(key string, whole bool, index int) {
	n := t.root.at(key)
	l := &n.prefix
	if whole {
		l = &n.exact
	}
	if *l == nil {
		*l = &leaf{}
	}
	(*l).routes = append((*l).routes, index)
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

// each calls do for every leaf at and below n, until it returns an error.
func (n *node) each(do func(*leaf) error) error {
	for _, l := range []*leaf{n.exact, n.prefix} {
		if l == nil {
			continue
		}
		if err := do(l); err != nil {
			return err
		}
	}
	for _, c := range n.children {
		if err := c.each(do); err != nil {
			return err
		}
	}
	return nil
}
