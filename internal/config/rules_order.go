package config

import (
	"fmt"
	"iter"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// A spot is one host and path on one listener; "" is every one.
type spot struct{ listener, host, path string }

// A plan is the routes of a file by what they take, to find those that get in each
// other's way. Routes of which a condition was refused are not in it.
type plan struct {
	d        *decoder
	routes   []*Route
	names    []string // of the listeners
	at       spots
	regexes  map[spot][]int // by listener and host; path is ""
	prefixes map[spot][]int // likewise; empty where there are no regular expressions
	below    map[spot][]int // by each wildcard above a route's host, and by "", where some route has it with a path
	forms    map[int]*form  // of routes whose path is a regular expression
	bound    bool           // some routes name a listener
}

// spots are the routes at each, in the order of the file. Most spots have one.
type spots struct {
	first map[spot]int32 // the place in links of the first
	links []link
}

type link struct {
	route      int32
	next, last int32 // places in links; next is 0 behind the last one, last counts in the first alone
}

func (ss *spots) add(s spot, route int) {
	n := int32(len(ss.links))
	ss.links = append(ss.links, link{route: int32(route), last: n})
	if first, there := ss.first[s]; there {
		ss.links[ss.links[first].last].next = n
		ss.links[first].last = n
	} else {
		ss.first[s] = n
	}
}

func (ss *spots) has(s spot) bool {
	_, ok := ss.first[s]
	return ok
}

// of yields the routes at a spot.
func (ss *spots) of(s spot) iter.Seq[int] {
	return func(yield func(int) bool) {
		n, there := ss.first[s]
		for there && yield(int(ss.links[n].route)) {
			n = ss.links[n].next
			there = n > 0
		}
	}
}

// A form is what is known of a regular expression.
type form struct {
	expression string
	compiled   *regexp.Regexp
	begins     string // what every path that it matches begins with
	example    string // a path that it matches
}

func (d *decoder) newPlan(c *Config) *plan {
	p := &plan{d: d, routes: c.Route, names: sortedKeys(c.Listener), forms: map[int]*form{}, at: spots{first: make(map[spot]int32, len(c.Route))},
		regexes: map[spot][]int{}, prefixes: map[spot][]int{}, below: map[spot][]int{}}
	wide := map[string]bool{} // hosts that take others, of routes with a path
	for i, r := range c.Route {
		if d.unclear(i) {
			continue
		}
		p.bound = p.bound || len(r.Listener) > 0
		if expression, ok := r.Regex(); ok {
			example, _ := d.overlap.common(expression, "^/")
			p.forms[i] = &form{expression, regexp.MustCompile(expression), beginning(expression), example}
		}
		for _, h := range orAny(r.Host) {
			if r.Path != "" && (h == "" || h[0] == '*') {
				wide[h] = true
			}
		}
	}
	for i, r := range c.Route {
		if d.unclear(i) {
			continue
		}
		for s := range spotsOf(r) {
			p.at.add(s, i)
			switch all := (spot{s.listener, s.host, ""}); {
			case p.forms[i] != nil:
				p.regexes[all] = append(p.regexes[all], i)
			case len(p.forms) > 0 && strings.HasSuffix(r.Path, "/*"):
				p.prefixes[all] = append(p.prefixes[all], i)
			}
			if len(wide) == 0 {
				continue
			}
			for _, host := range above(s.host) {
				if wide[host] {
					s := spot{s.listener, host, s.path}
					p.below[s] = append(p.below[s], i)
				}
			}
		}
	}
	return p
}

// unclear says whether it is not known which requests a route takes, since one of its
// conditions was refused.
func (d *decoder) unclear(i int) bool {
	if len(d.refused)+len(d.gone) == 0 {
		return false
	}
	p := to("route").at(i)
	conditions := []string{"host", "path", "listener", "priority", "method", "header", "query", "client", "regex_first"}
	return slices.ContainsFunc(conditions, func(key string) bool { return d.spoilt(p.key(key)) })
}

// spotsOf are what a route matches.
func spotsOf(r *Route) iter.Seq[spot] {
	return func(yield func(spot) bool) {
		for _, l := range orAny(r.Listener) {
			for _, h := range orAny(r.Host) {
				if !yield(spot{l, h, r.Path}) {
					return
				}
			}
		}
	}
}

func orAny(names []string) []string {
	if len(names) == 0 {
		return []string{""}
	}
	return names
}

// above lists the wildcards that a host is within, and "" for every host.
func above(host string) []string {
	var hosts []string
	for rest := strings.TrimPrefix(host, "*."); rest != "" && rest[0] != '['; {
		_, after, more := strings.Cut(rest, ".")
		if !more {
			break
		}
		hosts, rest = append(hosts, "*."+after), after
	}
	if host == "" {
		return nil
	}
	return append(hosts, "")
}

// shorter lists the prefix routes' paths that take a path, or all that begins with it,
// without the path itself.
func shorter(path string) []string {
	var prefixes []string
	key := strings.TrimSuffix(path, "/*")
	if key == path {
		prefixes = append(prefixes, path+"/*")
	}
	for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
		prefixes = append(prefixes, key[:i]+"/*")
	}
	return append(prefixes, "")
}

// checkOrder finds routes that no rule tells apart, routes that never get a request, and
// routes that get fewer than they seem to.
func (d *decoder) checkOrder(c *Config) {
	p := d.newPlan(c)
	for i := range c.Route {
		if !d.unclear(i) && !p.tied(i) && !p.hidden(c, i) {
			p.cut(c, i)
			p.hiddenOnHosts(c, i)
		}
	}
}

// tied reports a route that matches the requests of one before it in the file.
func (p *plan) tied(i int) bool {
	r := p.routes[i]
	where := to("route").at(i)
	for s := range spotsOf(r) {
		for k := range p.at.of(s) {
			if k < i && ranks(p.routes[k], r) == 0 && !exclude(p.routes[k], r) {
				p.d.report(p.d.where(where), where, "%slines %s and %d match the same requests (%q and %q): change one, or give one a priority",
					p.d.in(where), strings.TrimPrefix(p.d.line(k, i), "line "), r.Line, p.routes[k].Name, r.Name)
				return true
			}
		}
		if p.forms[i] == nil {
			continue
		}
		for _, k := range p.regexes[spot{s.listener, s.host, ""}] {
			o := p.routes[k]
			if k >= i || o.Path == r.Path || o.RegexFirst != r.RegexFirst || ranks(o, r) != 0 || exclude(o, r) {
				continue
			}
			example, is := p.common(i, k)
			switch is {
			case disjoint:
				continue
			case common:
				example = "match " + example
			case unclear:
				example = "may match the same paths"
			}
			p.d.report(p.d.where(where), where, "%sthe regular expressions of lines %s and %d both %s, and their order in the file does not count: give one a priority",
				p.d.in(where), strings.TrimPrefix(p.d.line(k, i), "line "), r.Line, example)
			return true
		}
	}
	return false
}

// common is overlap.common of the expressions of two routes, with the easy answers first.
func (p *plan) common(i, k int) (string, answer) {
	a, b := p.forms[i], p.forms[k]
	switch {
	case !strings.HasPrefix(a.begins, b.begins) && !strings.HasPrefix(b.begins, a.begins):
		return "", disjoint
	case a.example != "" && b.compiled.MatchString(a.example):
		return a.example, common
	case b.example != "" && a.compiled.MatchString(b.example):
		return b.example, common
	}
	return p.d.overlap.common(a.expression, b.expression)
}

// hidden reports a route that never gets a request.
func (p *plan) hidden(c *Config, i int) bool {
	r, where := p.routes[i], to("route").at(i)
	why, warning := "", true
	for s := range spotsOf(r) {
		if k := p.hiddenAt(i, s); k >= 0 && p.routes[k].Conditions() == r.Conditions() {
			why = p.d.line(k, i) + " matches the same requests with a higher priority"
			continue
		}
		warning = false
		if k := p.hiddenAt(i, s); k >= 0 {
			why = p.d.line(k, i) + " goes first, as it has more conditions, and takes all of its requests"
		} else if k := p.hiddenByPrefix(i, s); k >= 0 {
			why = fmt.Sprintf("%s (%q) goes first, as a prefix does, and takes every path that it matches; regex_first = true turns it round", p.d.line(k, i), p.routes[k].Path)
		} else if k := p.hiddenByBound(i, s); k >= 0 {
			why = p.d.line(k, i) + " goes first, as it names the listener, and takes all of its requests; so it is on every listener"
		} else {
			return false
		}
	}
	if warning {
		p.d.warn(c, where, "can never match: %s", why)
	} else {
		p.d.report(p.d.where(where), where, "%scan never match: %s", p.d.in(where), why)
	}
	return true
}

// hiddenAt returns a route of the same spot that goes first and takes everything, or -1.
func (p *plan) hiddenAt(i int, s spot) int {
	return p.find(s, func(k int) bool {
		return p.routes[k].RegexFirst == p.routes[i].RegexFirst && ranks(p.routes[k], p.routes[i]) > 0 && covers(p.routes[k], p.routes[i])
	})
}

// hiddenByPrefix returns a prefix route that takes every path of a regular expression.
func (p *plan) hiddenByPrefix(i int, s spot) int {
	f := p.forms[i]
	if f == nil || p.routes[i].RegexFirst {
		return -1
	}
	for j, c := range f.begins {
		if c != '/' || j == 0 {
			continue
		}
		if k := p.find(spot{s.listener, s.host, f.begins[:j] + "/*"}, func(k int) bool { return covers(p.routes[k], p.routes[i]) }); k >= 0 {
			return k
		}
	}
	return -1
}

// hiddenByBound returns one of the routes that, bound to the listeners, together take
// what a route for every listener wants; -1 if some is left.
func (p *plan) hiddenByBound(i int, s spot) int {
	by := -1
	if s.listener != "" || !p.bound {
		return by
	}
	paths := []string{s.path, ""}
	if p.forms[i] == nil && s.path != "" {
		paths = append(shorter(s.path), s.path)
	}
	for _, name := range p.names {
		found := -1
		for _, host := range append(above(s.host), s.host) {
			for _, path := range paths {
				found = max(found, p.find(spot{name, host, path}, func(k int) bool { return covers(p.routes[k], p.routes[i]) }))
			}
		}
		if found < 0 {
			return -1
		}
		by = max(by, found)
	}
	return by
}

// find returns the first route at a spot that is so, or -1.
func (p *plan) find(s spot, is func(int) bool) int {
	for k := range p.at.of(s) {
		if is(k) {
			return k
		}
	}
	return -1
}

// cut warns of the prefixes that go before a regular expression.
func (p *plan) cut(c *Config, i int) {
	f, r := p.forms[i], p.routes[i]
	if f == nil || r.RegexFirst {
		return
	}
	var by []int
	var words []string
	for s := range spotsOf(r) {
		for _, k := range p.prefixes[spot{s.listener, s.host, ""}] {
			o := p.routes[k]
			if exclude(o, r) || slices.Contains(by, k) {
				continue
			}
			if example, ok := p.cuts(f, o.Path); ok {
				by = append(by, k)
				words = append(words, fmt.Sprintf("%s (%q, as for %s)", p.d.line(k, i), o.Path, example))
			}
		}
	}
	if len(words) > 0 {
		p.d.warn(c, to("route").at(i), "a prefix goes before a regular expression: not asked where %s takes the request; regex_first = true turns it round", join(words))
	}
}

// cuts finds a path that a regular expression matches and a prefix takes.
func (p *plan) cuts(f *form, prefix string) (string, bool) {
	key := strings.TrimSuffix(prefix, "/*")
	if easy := key + f.example; f.example != "" && f.compiled.MatchString(easy) {
		return easy, true
	}
	if !strings.HasPrefix(f.begins, key) && !strings.HasPrefix(key, f.begins) {
		return "", false
	}
	example, is := p.d.overlap.common(f.expression, under(prefix))
	return example, is == common
}

// hiddenOnHosts warns of the hosts on which a route with a path and without a host, or
// with a wildcard, is not asked, since a route of that host takes its paths.
func (p *plan) hiddenOnHosts(c *Config, i int) {
	const named, counted = 3, 100
	r := p.routes[i]
	var words []string
	more := 0
	paths := []string{""}
	if p.forms[i] == nil {
		paths = shorter(r.Path)
	}
	seen := map[string]bool{}
	for s := range spotsOf(r) {
		if s.path == "" || s.host != "" && s.host[0] != '*' {
			continue
		}
		listeners := []string{s.listener}
		if s.listener == "" {
			listeners = append(listeners, p.names...)
		}
		for _, l := range listeners {
			for _, path := range paths {
				for _, k := range p.below[spot{l, s.host, path}] {
					if more == counted {
						break
					}
					o := p.routes[k]
					for _, h := range o.Host {
						if seen[h] || !slices.Contains(above(h), s.host) || p.at.has(spot{l, h, s.path}) || !covers(o, r) {
							continue
						}
						seen[h] = true
						if len(words) == named {
							more++
							continue
						}
						words = append(words, fmt.Sprintf("%s (%s)", h, p.d.line(k, i)))
					}
				}
			}
		}
	}
	if len(words) == 0 {
		return
	}
	text := join(words)
	switch {
	case more == counted:
		text += " and many more"
	case more > 0:
		text += fmt.Sprintf(" and %d more", more)
	}
	p.d.warn(c, to("route").at(i), "a host goes before a path: not asked on %s, where another route takes its paths", text)
}

// beginning returns what every path that an expression matches begins with.
func beginning(expression string) string {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return ""
	}
	tree = tree.Simplify()
	if tree.Op != syntax.OpConcat || len(tree.Sub) < 2 || tree.Sub[0].Op != syntax.OpBeginText && tree.Sub[0].Op != syntax.OpBeginLine {
		return ""
	}
	if l := tree.Sub[1]; l.Op == syntax.OpLiteral && l.Flags&syntax.FoldCase == 0 {
		return string(l.Rune)
	}
	return ""
}
