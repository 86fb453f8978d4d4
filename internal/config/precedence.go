package config

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Conditions is how many conditions a route has besides listener, host and path: each
// field and each parameter is one, the methods are one, the clients are one.
func (r *Route) Conditions() int {
	n := len(r.Header) + len(r.Query)
	if len(r.Method) > 0 {
		n++
	}
	if len(r.Client) > 0 {
		n++
	}
	return n
}

// Before orders routes that take the same listener, host and path: more conditions go
// first, then the higher priority. What is equal then has conditions that exclude each
// other, as long as a request says each thing once; for one that does not, their text
// decides, so that the order of the file never does.
func Before(a, b *Route) int {
	return cmp.Or(-ranks(a, b), strings.Compare(a.sortText(), b.sortText()))
}

// ranks is Before without its last resort; above 0 if a goes first.
func ranks(a, b *Route) int {
	return cmp.Or(cmp.Compare(a.Conditions(), b.Conditions()), cmp.Compare(a.Priority, b.Priority))
}

func (r *Route) sortText() string {
	words := []string{r.Path, strings.Join(r.Method, ",")}
	for _, m := range []map[string]string{r.Header, r.Query} {
		for _, name := range sortedKeys(m) {
			words = append(words, name+"="+m[name])
		}
	}
	for _, c := range r.Client {
		words = append(words, c.String())
	}
	return strings.Join(append(words, r.Name), "\x00")
}

// TakesMethod says whether one of a route's methods is m. GET is HEAD too.
func TakesMethod(methods []string, m string) bool {
	return len(methods) == 0 || slices.Contains(methods, m) || m == "HEAD" && slices.Contains(methods, "GET")
}

// exclude says whether no request that says each thing once meets the conditions of both.
func exclude(a, b *Route) bool {
	takes := func(r *Route) func(string) bool {
		return func(m string) bool { return TakesMethod(r.Method, m) }
	}
	if !slices.ContainsFunc(a.Method, takes(b)) && !slices.ContainsFunc(b.Method, takes(a)) && len(a.Method)*len(b.Method) > 0 {
		return true
	}
	near := func(p netip.Prefix) bool { return slices.ContainsFunc(b.Client, p.Overlaps) }
	if len(a.Client)*len(b.Client) > 0 && !slices.ContainsFunc(a.Client, near) {
		return true
	}
	return excludeIn(a.Header, b.Header, strings.EqualFold) || excludeIn(a.Query, b.Query, func(x, y string) bool { return x == y })
}

// excludeIn says whether two sets of patterns ask for different values under one name.
func excludeIn(a, b map[string]string, same func(x, y string) bool) bool {
	for name, p := range a {
		for other, q := range b {
			if same(name, other) && excludePatterns(p, q) {
				return true
			}
		}
	}
	return false
}

func excludePatterns(p, q string) bool {
	_, wildP := regex(p)
	_, wildQ := regex(q)
	switch {
	case p == "*" || q == "*" || wildP && wildQ:
		return false
	case wildP:
		return !implies(q, p)
	case wildQ:
		return !implies(p, q)
	}
	return p != q
}

// implies says whether every value that meets the pattern p surely meets q too.
func implies(p, q string) bool {
	expression, wild := regex(q)
	if p == q || q == "*" || !wild {
		return p == q || q == "*"
	}
	if _, also := regex(p); also || p == "*" {
		return false
	}
	re, err := regexp.Compile(expression)
	return err == nil && re.MatchString(p)
}

// covers says whether every request that meets b's conditions surely meets a's.
func covers(a, b *Route) bool {
	if len(a.Method) > 0 && (len(b.Method) == 0 || slices.ContainsFunc(b.Method, func(m string) bool { return !TakesMethod(a.Method, m) })) {
		return false
	}
	within := func(p netip.Prefix) bool {
		return slices.ContainsFunc(a.Client, func(q netip.Prefix) bool { return q.Overlaps(p) && q.Bits() <= p.Bits() })
	}
	if len(a.Client) > 0 && (len(b.Client) == 0 || slices.ContainsFunc(b.Client, func(p netip.Prefix) bool { return !within(p) })) {
		return false
	}
	for name, q := range a.Header {
		if !slices.ContainsFunc(sortedKeys(b.Header), func(n string) bool { return strings.EqualFold(n, name) && implies(b.Header[n], q) }) {
			return false
		}
	}
	for name, q := range a.Query {
		if p, ok := b.Query[name]; !ok || !implies(p, q) {
			return false
		}
	}
	return true
}
