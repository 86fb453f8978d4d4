package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func request(host, path string) *dataplane.Request {
	return &dataplane.Request{Host: []byte(host), Path: []byte(path)}
}

func named(name string, host []string, path string, listener ...string) *config.Route {
	return &config.Route{Name: name, Host: host, Path: path, Listener: listener}
}

func TestFindTakesTheMostSpecific(t *testing.T) {
	routes := []*config.Route{
		named("any", nil, ""),
		named("any-health", nil, "/health"),
		named("shop", []string{"Shop.example.com."}, ""),
		named("shop-a", []string{"shop.example.com"}, "/a/*"),
		named("shop-a-exact", []string{"shop.example.com"}, "/a"),
		named("shop-ab", []string{"shop.example.com"}, "/a/b/*"),
		named("shop-root", []string{"shop.example.com"}, "/"),
		named("wild", []string{"*.example.com"}, "/*"),
		named("wild-long", []string{"*.eu.example.com"}, "/only/*"),
		named("v6", []string{"[2001:db8::1]"}, ""),
		named("bound", nil, "/bound/*", "inner"),
	}
	table, err := New(routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ why, listener, host, path, want string }{
		{"exact host, no path", "web", "shop.example.com", "/x", "shop"},
		{"exact path before prefix", "web", "shop.example.com", "/a", "shop-a-exact"},
		{"prefix takes what is below it", "web", "shop.example.com", "/a/x", "shop-a"},
		{"prefix takes its slash", "web", "shop.example.com", "/a/", "shop-a"},
		{"prefix does not cut a word", "web", "shop.example.com", "/ab", "shop"},
		{"longest prefix", "web", "shop.example.com", "/a/b/c", "shop-ab"},
		{"longest prefix without slash", "web", "shop.example.com", "/a/b", "shop-ab"},
		{"a longer word falls back to the shorter prefix", "web", "shop.example.com", "/a/bc", "shop-a"},
		{"the root alone", "web", "shop.example.com", "/", "shop-root"},
		{"wildcard", "web", "www.example.com", "/", "wild"},
		{"wildcard, several labels", "web", "a.b.example.com", "/", "wild"},
		{"longest wildcard", "web", "x.eu.example.com", "/only", "wild-long"},
		{"a wildcard whose paths do not fit gives way", "web", "x.eu.example.com", "/else", "wild"},
		{"a wildcard needs a label", "web", "example.com", "/", "any"},
		{"an empty label is none", "web", ".example.com", "/", "any"},
		{"no host asked", "web", "", "/health", "any-health"},
		{"other host", "web", "other.org", "/q", "any"},
		{"address", "web", "[2001:db8::1]", "/", "v6"},
		{"asterisk", "web", "other.org", "*", "any"},
		{"bound to the listener goes first", "inner", "shop.example.com", "/bound/x", "bound"},
		{"bound to another", "web", "shop.example.com", "/bound/x", "shop"},
		{"bound listener, other path", "inner", "shop.example.com", "/x", "shop"},
	} {
		got := "none"
		if i := table.Find(c.listener, request(c.host, c.path)); i != None {
			got = routes[i].Name
		}
		if got != c.want {
			t.Errorf("%s: Find(%q, %q, %q) = %s, want %s", c.why, c.listener, c.host, c.path, got, c.want)
		}
	}
}

func TestFindReturnsNone(t *testing.T) {
	table, err := New([]*config.Route{named("a", []string{"a.example"}, "/a/*")})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*dataplane.Request{request("a.example", "/b"), request("b.example", "/a"), request("", "/a"), request("a.example", "*")} {
		if i := table.Find("web", r); i != None {
			t.Errorf("Find(%q, %q) = %d, want None", r.Host, r.Path, i)
		}
	}
}

func TestPriorityDecidesTiesOnly(t *testing.T) {
	low, high := named("low", nil, "/a"), named("high", nil, "/a")
	high.Priority = 1
	table, err := New([]*config.Route{low, high})
	if err != nil {
		t.Fatal(err)
	}
	if i := table.Find("web", request("h", "/a")); i != 1 {
		t.Errorf("Find = %d, want the route with the higher priority", i)
	}
	low.Priority = 1
	if _, err := New([]*config.Route{low, high}); err == nil {
		t.Error("New took two routes that nothing tells apart")
	}
	general := named("general", nil, "/*")
	general.Priority = 100
	table, err = New([]*config.Route{general, named("special", nil, "/a")})
	if err != nil {
		t.Fatal(err)
	}
	if i := table.Find("web", request("h", "/a")); i != 1 {
		t.Errorf("Find = %d: a priority moved a less specific route forward", i)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, r := range []*config.Route{
		named("relative", nil, "a"),
		named("star inside", nil, "/a*b"),
		named("star at a word", nil, "/a*"),
		named("wild inside", []string{"a.*.example"}, ""),
	} {
		if _, err := New([]*config.Route{r}); err == nil {
			t.Errorf("New took the route %q", r.Name)
		}
	}
	if _, err := New([]*config.Route{named("a", nil, ""), named("b", nil, "/*")}); err == nil {
		t.Error("New took \"\" beside \"/*\", which are the same")
	}
}

// dumb is the specification of Find in the fewest words: of all routes that match, the
// one with the highest rank.
func dumb(routes []*config.Route, listener string, r *dataplane.Request) int {
	best, bestRank := None, [4]int{-1}
	host, path := string(r.Host), string(r.Path)
	for i, c := range routes {
		hosts, listeners := c.Host, c.Listener
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		if len(listeners) == 0 {
			listeners = []string{""}
		}
		for _, l := range listeners {
			if l != "" && l != listener {
				continue
			}
			for _, h := range hosts {
				rank := [4]int{len(l), 0, 0, c.Priority}
				switch {
				case h == "":
				case h == host:
					rank[1] = 1000
				case strings.HasPrefix(h, "*.") && strings.HasSuffix(host, h[1:]) && len(host) > len(h)-1:
					rank[1] = len(h)
				default:
					continue
				}
				prefix, wild := strings.CutSuffix(c.Path, "/*")
				switch {
				case c.Path == "" || c.Path == "/*":
				case !wild && c.Path == path:
					rank[2] = 1000
				case wild && (path == prefix || strings.HasPrefix(path, prefix+"/")):
					rank[2] = len(prefix)
				default:
					continue
				}
				if less(bestRank, rank) {
					best, bestRank = i, rank
				}
			}
		}
	}
	return best
}

func less(a, b [4]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func TestFindAgreesWithTheDumbOne(t *testing.T) {
	words := []string{"a", "b", "ab", "abc", "ba"}
	rnd := rand.New(rand.NewPCG(1, 2))
	path := func() string {
		var b strings.Builder
		for range 1 + rnd.IntN(3) {
			b.WriteString("/" + words[rnd.IntN(len(words))])
		}
		return b.String()
	}
	host := func() string {
		var labels []string
		for range 1 + rnd.IntN(3) {
			labels = append(labels, words[rnd.IntN(len(words))])
		}
		return strings.Join(labels, ".")
	}
	for world := range 300 {
		var routes []*config.Route
		for i := range 1 + rnd.IntN(60) {
			r := named(fmt.Sprint(i), nil, "")
			for range rnd.IntN(3) {
				r.Host = append(r.Host, []string{"", "*."}[rnd.IntN(2)]+host())
			}
			r.Path = []string{"", "/", "/*", path(), path() + "/*", path() + "/*"}[rnd.IntN(6)]
			if rnd.IntN(4) == 0 {
				r.Listener = []string{"x"}
			}
			r.Priority = i // no two tie
			routes = append(routes, r)
		}
		table, err := New(routes)
		if err != nil {
			// A route that names a host twice ties with itself.
			continue
		}
		for range 300 {
			r := request(host(), path())
			if rnd.IntN(5) == 0 {
				r.Path = append(r.Path, '/')
			}
			for _, l := range []string{"x", "y"} {
				if got, want := table.Find(l, r), dumb(routes, l, r); got != want {
					t.Fatalf("world %d: Find(%q, %q, %q) = %d, want %d", world, l, r.Host, r.Path, got, want)
				}
			}
		}
	}
}

func many(n int) []*config.Route {
	var routes []*config.Route
	for i := range n {
		r := named(fmt.Sprint(i), []string{fmt.Sprintf("host%d.example.com", i%(n/10+1))}, fmt.Sprintf("/api/v%d/things/*", i))
		routes = append(routes, r)
	}
	return append(routes, named("wild", []string{"*.example.com"}, ""), named("oneHost", []string{"one.example.com"}, ""))
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		routes := many(n)
		for i := range n { // the worst host has them all
			routes = append(routes, named(fmt.Sprint("one", i), []string{"one.example.com"}, fmt.Sprintf("/api/v%d/things/*", i)))
		}
		table, err := New(routes)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range []struct{ name, host, path string }{
			{"many-hosts", "host0.example.com", "/api/v0/things/17"},
			{"one-host", "one.example.com", fmt.Sprintf("/api/v%d/things/17", n/2)},
			{"wildcard", "other.example.com", "/api/v3/things/17"},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				r := request(c.host, c.path)
				b.ReportAllocs()
				for b.Loop() {
					if table.Find("web", r) == None {
						b.Fatal("none")
					}
				}
			})
		}
	}
}

func TestFindAllocatesNothing(t *testing.T) {
	table, err := New(many(100))
	if err != nil {
		t.Fatal(err)
	}
	r := request("other.example.com", "/api/v3/things/17")
	if n := testing.AllocsPerRun(100, func() { table.Find("web", r) }); n != 0 {
		t.Errorf("Find allocates %v times", n)
	}
}
