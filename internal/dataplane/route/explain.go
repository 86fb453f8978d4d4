package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"proxyd/internal/dataplane"
)

// A Verdict is what a look-up thinks of one route.
type Verdict struct {
	Index   int    // place among those that New was given
	Matches bool   // the route would take the request if no other did
	Host    bool   // it is for the request's host and listener
	Why     string // how it matches, or why it does not
	Less    string // if it matches and is not taken: what the route that is taken has before it
}

// Explain returns what Find returns, and a verdict on every route: the one that is taken
// first, then those that match, then those of the request's host.
func (t *Table) Explain(listener string, r *dataplane.Request, from From) (taken int, all []Verdict) {
	taken = t.Find(listener, r, from)
	a := ask{r, from}
	ranks := make(map[int]rank, len(t.entries))
	for _, e := range t.entries {
		v := Verdict{Index: e.index}
		rank, why, host := e.judge(listener, &a)
		v.Matches, v.Why, v.Host = rank.matches, why, host
		ranks[e.index] = rank
		all = append(all, v)
	}
	for i := range all {
		if v := &all[i]; v.Matches && v.Index != taken && taken != None {
			v.Less = ranks[taken].over(ranks[v.Index])
		}
	}
	slices.SortStableFunc(all, func(a, b Verdict) int {
		return cmp.Or(boolean(b.Index == taken)-boolean(a.Index == taken), boolean(b.Matches)-boolean(a.Matches), boolean(b.Host)-boolean(a.Host),
			ranks[b.Index].compare(ranks[a.Index]))
	})
	return taken, all
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A rank is how specific a route is for one request, in the order in which that counts.
type rank struct {
	matches              bool
	listener, host, path int
	conditions, priority int
}

const (
	exactly  = 1 << 20 // an exact host or path
	earlier  = 1 << 19 // an expression with regex_first
	ordinary = 1       // an expression
)

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(r.listener, o.listener), cmp.Compare(r.host, o.host), cmp.Compare(r.path, o.path),
		cmp.Compare(r.conditions, o.conditions), cmp.Compare(r.priority, o.priority))
}

// over says what r has before o.
func (r rank) over(o rank) string {
	switch {
	case r.listener != o.listener:
		return "the taken one names the listener"
	case r.host != o.host:
		return "the taken one has a more specific host"
	case r.path != o.path:
		return "the taken one has a more specific path"
	case r.conditions != o.conditions:
		return "the taken one has more conditions"
	case r.priority != o.priority:
		return "the taken one has a higher priority"
	}
	return "the conditions of the taken one come first in the alphabet"
}

// judge says how specific a route is for a request, and how it matches or why it does not.
func (e *entry) judge(listener string, a *ask) (r rank, why string, host bool) {
	var words []string
	r.conditions, r.priority = e.conf.Conditions(), e.conf.Priority
	if len(e.conf.Listener) > 0 {
		if !slices.Contains(e.conf.Listener, listener) {
			return r, "listener differs", false
		}
		r.listener = 1
		words = append(words, "listener "+listener)
	}
	name := ""
	if name, r.host = e.bestHost(string(a.Host)); r.host < 0 {
		return r, "host differs", false
	}
	words = append(words, name)
	if name, r.path = e.pathRank(a.Path); r.path < 0 {
		return r, name, true
	}
	words = append(words, name)
	if e.conditions != nil {
		if failing := e.failing(a); failing != nothing {
			return r, e.describe(failing, a), true
		}
		words = append(words, e.asked()...)
	}
	r.matches = true
	return r, strings.Join(words, ", "), true
}

func (e *entry) bestHost(host string) (word string, rank int) {
	if len(e.conf.Host) == 0 {
		return "any host", 0
	}
	best := -1
	for _, h := range e.conf.Host {
		h = strings.ToLower(strings.TrimSuffix(h, "."))
		switch rest, wild := strings.CutPrefix(h, "*."); {
		case h == host && host != "":
			return "host " + h, exactly
		case wild && len(host) > len(rest)+1 && strings.HasSuffix(host, "."+rest) && len(rest) > best:
			best, word = len(rest), "host "+h
		}
	}
	return word, best
}

func (e *entry) pathRank(path []byte) (word string, rank int) {
	if e.regex != nil {
		switch {
		case !e.regex.match(path):
			return "path does not match " + e.conf.Path[1:], -1
		case e.conf.RegexFirst:
			return "path " + e.conf.Path + " (regex_first)", earlier
		}
		return "path " + e.conf.Path, ordinary
	}
	key, whole, _ := pathKey(e.conf.Path)
	switch {
	case key == "" && !whole:
		return "any path", 0
	case whole && string(path) == key:
		return "path " + key, exactly
	case !whole && strings.HasPrefix(string(path), key) && (len(path) == len(key) || path[len(key)] == '/'):
		return "prefix " + key + "/", ordinary + len(key)
	}
	return "path differs", -1
}

// describe says why a condition does not hold.
func (c *conditions) describe(r reason, a *ask) string {
	switch r.kind {
	case "method":
		return "method " + string(a.MethodText) + " is not asked for"
	case "client":
		return fmt.Sprintf("client %v is elsewhere", a.Client)
	case "query":
		p := &c.parameters[r.at]
		any := condition{name: p.name, any: true}
		if !any.inQuery(a.Request) {
			return "query " + p.name + " is absent"
		}
		return "query " + p.name + " is not " + p.text
	}
	f := &c.fields[r.at]
	value, lines := f.field(a)
	switch {
	case lines == 0 && a.Header.Find(f.name) != nil:
		return "header " + f.name + " counts from trusted proxies only"
	case lines == 0:
		return "header " + f.name + " is absent"
	}
	return fmt.Sprintf("header %s is %q, not %s", f.name, value, f.text)
}

// asked lists the conditions.
func (e *entry) asked() (words []string) {
	if len(e.conf.Method) > 0 {
		words = append(words, "method "+strings.Join(e.conf.Method, "|"))
	}
	if len(e.conf.Client) > 0 {
		words = append(words, "client")
	}
	for _, f := range e.fields {
		words = append(words, "header "+f.name+" "+f.text)
	}
	for _, p := range e.parameters {
		words = append(words, "query "+p.name+" "+p.text)
	}
	return words
}
