// Package route finds the route of a request. What a look-up costs depends on the
// length of the host and the path, not on how many routes there are.
package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// None is what Find returns when no route takes the request.
const None = -1

// A Table finds routes by how specific they are, never by their place in the file: a
// route bound to the listener before one that is not; then exact host, longest
// wildcard, no host; then exact path, longest prefix, regular expression, no path; then
// more conditions. Where a route's conditions do not hold, the search goes on. A Table
// is immutable and may be used by any number of goroutines.
type Table struct {
	entries  []*entry
	bound    map[string]*hosts // routes that name a listener, by its name; nil if none does
	any      *hosts            // routes for every listener
	bySender bool
}

// An entry is one route.
type entry struct {
	index int
	conf  *config.Route
	regex *expression // of a path that is one
	*conditions
}

// hosts are the routes of one listener, or of all.
type hosts struct {
	exact       map[string]*paths
	wild        map[string]*paths // keyed by what follows "*."
	longestWild int               // bytes of the longest key of wild
	none        *paths            // routes without a host; nil if there is none
}

// paths are the routes of one host.
type paths struct {
	tree
	first []*entry // regular expressions that go before prefixes, in their order
	last  []*entry // the other regular expressions, in their order
}

// From is what is known of a request's sender.
type From struct {
	Client  netip.Addr // found through trusted proxies
	Trusted bool       // the peer is a trusted proxy, so that its X-Forwarded fields are true
}

// An ask is one look-up.
type ask struct {
	*dataplane.Request
	From
}

// New compiles routes of a checked configuration. What Find returns are places in that
// list.
func New(routes []*config.Route) (*Table, error) {
	t := &Table{any: newHosts()}
	for i, r := range routes {
		e := &entry{index: i, conf: r}
		var err error
		if e.conditions, err = newConditions(r); err == nil {
			if text, ok := r.Regex(); ok {
				e.regex, err = newExpression(text)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
		t.entries = append(t.entries, e)
		t.bySender = t.bySender || len(r.Client)+len(r.Header) > 0
		if len(r.Listener) == 0 {
			err = t.any.add(e)
		}
		for _, name := range r.Listener {
			if t.bound == nil {
				t.bound = make(map[string]*hosts)
			}
			if t.bound[name] == nil {
				t.bound[name] = newHosts()
			}
			err = cmp.Or(err, t.bound[name].add(e))
		}
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Name, err)
		}
	}
	t.any.finish()
	for _, h := range t.bound {
		h.finish()
	}
	return t, nil
}

// BySender reports whether any route asks who sent the request, so that From must say it.
func (t *Table) BySender() bool { return t.bySender }

// Find returns the place of the route for r among those that New was given, or None.
// Of host and path it reads only the canonical forms. It may append to r.Text.
func (t *Table) Find(listener string, r *dataplane.Request, from From) int {
	a := ask{r, from}
	if t.bound != nil {
		if h := t.bound[listener]; h != nil {
			if e := h.find(&a); e != nil {
				return e.index
			}
		}
	}
	if e := t.any.find(&a); e != nil {
		return e.index
	}
	return None
}

// Knows reports whether a route of the listener names the host, exactly or by a
// wildcard.
func (t *Table) Knows(listener string, host []byte) bool {
	return len(host) > 0 && (t.any.knows(host) || t.bound[listener] != nil && t.bound[listener].knows(host))
}

func newHosts() *hosts {
	return &hosts{exact: make(map[string]*paths), wild: make(map[string]*paths)}
}

func (h *hosts) find(a *ask) *entry {
	if len(a.Host) > 0 {
		if p := h.exact[string(a.Host)]; p != nil {
			if e := p.find(a); e != nil {
				return e
			}
		}
		for at, p := h.nextWild(a.Host, 0); p != nil; at, p = h.nextWild(a.Host, at) {
			if e := p.find(a); e != nil {
				return e
			}
		}
	}
	if h.none == nil {
		return nil
	}
	return h.none.find(a)
}

func (h *hosts) knows(host []byte) bool {
	_, wild := h.nextWild(host, 0)
	return h.exact[string(host)] != nil || wild != nil
}

// nextWild returns the longest wildcard that takes the host and begins behind its place
// after, and that wildcard's place; nil if there is none. A wildcard stands for one
// label or more.
func (h *hosts) nextWild(host []byte, after int) (int, *paths) {
	if h.longestWild == 0 {
		return 0, nil
	}
	for i := max(1, len(host)-h.longestWild-1, after+1); i < len(host); i++ {
		if host[i] == '.' {
			if p := h.wild[string(host[i+1:])]; p != nil {
				return i, p
			}
		}
	}
	return 0, nil
}

// find goes through what takes the path, the most specific first.
func (p *paths) find(a *ask) *entry {
	exact, prefix := p.walk(a.Path)
	if exact != nil {
		if e := exact.pick(a); e != nil {
			return e
		}
	}
	if e := pickRegex(p.first, a); e != nil {
		return e
	}
	for ; prefix != nil && prefix != p.root.prefix; prefix = prefix.shorter {
		if e := prefix.pick(a); e != nil {
			return e
		}
	}
	if e := pickRegex(p.last, a); e != nil {
		return e
	}
	if p.root.prefix == nil {
		return nil
	}
	return p.root.prefix.pick(a)
}

func pickRegex(among []*entry, a *ask) *entry {
	for _, e := range among {
		if e.regex.match(a.Path) && e.hold(a) {
			return e
		}
	}
	return nil
}

func (h *hosts) add(e *entry) error {
	key, whole, err := "", false, error(nil)
	if e.regex == nil {
		if key, whole, err = pathKey(e.conf.Path); err != nil {
			return err
		}
	}
	names := e.conf.Host
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		p, err := h.paths(name)
		switch {
		case err != nil:
			return err
		case e.regex == nil:
			p.add(key, whole, e)
		case e.conf.RegexFirst:
			p.first = append(p.first, e)
		default:
			p.last = append(p.last, e)
		}
	}
	return nil
}

// paths returns those of a host as a configuration writes it, made if need be.
func (h *hosts) paths(name string) (*paths, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || name == "*" {
		if h.none == nil {
			h.none = &paths{}
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
		set[name] = &paths{}
	}
	return set[name], nil
}

// finish puts what stands at the same place in its order.
func (h *hosts) finish() {
	for _, set := range []map[string]*paths{h.exact, h.wild, {"": h.none}} {
		for _, p := range set {
			if p != nil {
				p.root.finish(nil)
				slices.SortFunc(p.first, before)
				slices.SortFunc(p.last, before)
			}
		}
	}
}

func before(a, b *entry) int {
	return cmp.Or(config.Before(a.conf, b.conf), cmp.Compare(a.index, b.index))
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
