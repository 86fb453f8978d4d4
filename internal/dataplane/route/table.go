// Package route finds the route of a request. What a look-up costs depends on the
// length of the host and the path, not on how many routes there are.
package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// None is what Find returns when no route takes the request.
const None = -1

// A Table finds routes by how specific they are, never by their place in the file: a
// route bound to the listener before one that is not; then exact host, longest
// wildcard, no host; then exact path, longest prefix, no path. It is immutable and
// may be used by any number of goroutines.
type Table struct {
	bound map[string]*hosts // routes that name a listener, by its name; nil if none does
	any   *hosts            // routes for every listener
}

// hosts are the routes of one listener, or of all.
type hosts struct {
	exact       map[string]*tree
	wild        map[string]*tree // keyed by what follows "*."
	longestWild int              // bytes of the longest key of wild
	none        *tree            // routes without a host; nil if there is none
}

// New compiles the routes. What Find returns are places in that list. Two routes that
// no rule tells apart and that have equal priority are an error.
func New(routes []*config.Route) (*Table, error) {
	t := &Table{any: newHosts()}
	for i, r := range routes {
		listeners := r.Listener
		if len(listeners) == 0 {
			if err := t.any.add(r, i); err != nil {
				return nil, err
			}
		}
		for _, name := range listeners {
			if t.bound == nil {
				t.bound = make(map[string]*hosts)
			}
			if t.bound[name] == nil {
				t.bound[name] = newHosts()
			}
			if err := t.bound[name].add(r, i); err != nil {
				return nil, err
			}
		}
	}
	if err := t.any.finish(routes); err != nil {
		return nil, err
	}
	for _, h := range t.bound {
		if err := h.finish(routes); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Find returns the place of the route for r among those that New was given, or None.
// It reads only the canonical forms, Host and Path.
func (t *Table) Find(listener string, r *dataplane.Request) int {
	if t.bound != nil {
		if h := t.bound[listener]; h != nil {
			if i := h.find(r); i != None {
				return i
			}
		}
	}
	return t.any.find(r)
}

func newHosts() *hosts {
	return &hosts{exact: make(map[string]*tree), wild: make(map[string]*tree)}
}

func (h *hosts) find(r *dataplane.Request) int {
	if len(r.Host) > 0 {
		if t := h.exact[string(r.Host)]; t != nil {
			if i := t.find(r.Path); i != None {
				return i
			}
		}
		if h.longestWild > 0 {
			if i := h.findWild(r); i != None {
				return i
			}
		}
	}
	if h.none == nil {
		return None
	}
	return h.none.find(r.Path)
}

// findWild tries what follows each dot of the host, the longest first. A wildcard
// stands for one label or more.
func (h *hosts) findWild(r *dataplane.Request) int {
	host := r.Host
	for i := max(1, len(host)-h.longestWild-1); i < len(host); i++ {
		if host[i] != '.' {
			continue
		}
		if t := h.wild[string(host[i+1:])]; t != nil {
			if found := t.find(r.Path); found != None {
				return found
			}
		}
	}
	return None
}

func (h *hosts) add(r *config.Route, index int) error {
	key, whole, err := pathKey(r.Path)
	if err != nil {
		return fmt.Errorf("route %q: %w", r.Name, err)
	}
	names := r.Host
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		t, err := h.tree(name)
		if err != nil {
			return fmt.Errorf("route %q: %w", r.Name, err)
		}
		t.add(key, whole, index)
	}
	return nil
}

// tree returns the paths of a host as a configuration writes it, made if need be.
func (h *hosts) tree(name string) (*tree, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || name == "*" {
		if h.none == nil {
			h.none = &tree{}
		}
		return h.none, nil
	}
	set := h.exact
	if rest, ok := strings.CutPrefix(name, "*."); ok && rest != "" {
		set, name = h.wild, rest
		h.longestWild = max(h.longestWild, len(rest))
	}
	if strings.ContainsRune(name, '*') {
		return nil, fmt.Errorf("host %q: a wildcard is \"*.\" and a domain", name)
	}
	if set[name] == nil {
		set[name] = &tree{}
	}
	return set[name], nil
}

// finish orders the candidates of every leaf.
func (h *hosts) finish(routes []*config.Route) error {
	order := func(l *leaf) error {
		slices.SortStableFunc(l.routes, func(a, b int) int {
			return cmp.Compare(routes[b].Priority, routes[a].Priority)
		})
		for i := 1; i < len(l.routes); i++ {
			a, b := routes[l.routes[i-1]], routes[l.routes[i]]
			if a.Priority == b.Priority {
				return fmt.Errorf("routes %q (line %d) and %q (line %d) match the same requests: give one a priority", a.Name, a.Line, b.Name, b.Line)
			}
		}
		return nil
	}
	finish := func(t *tree) error {
		if t == nil {
			return nil
		}
		return t.root.each(order)
	}
	for _, set := range []map[string]*tree{h.exact, h.wild} {
		for _, t := range set {
			if err := finish(t); err != nil {
				return err
			}
		}
	}
	return finish(h.none)
}

// pathKey turns a path of the configuration into a key of the tree: the bytes that
// must match, and whether they are the whole path or a prefix that ends at a slash.
func pathKey(path string) (key string, whole bool, err error) {
	if path == "" {
		return "", false, nil
	}
	key, prefix := strings.CutSuffix(path, "/*")
	if path[0] != '/' || strings.ContainsRune(key, '*') {
		return "", false, fmt.Errorf("path %q: want \"/exact\" or \"/prefix/*\"", path)
	}
	return key, !prefix, nil
}
