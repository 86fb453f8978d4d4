package route

import (
	"fmt"
	"net/netip"
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
		if i := table.Find(c.listener, request(c.host, c.path), From{}); i != None {
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
		if i := table.Find("web", r, From{}); i != None {
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
	if i := table.Find("web", request("h", "/a"), From{}); i != 1 {
		t.Errorf("Find = %d, want the route with the higher priority", i)
	}
	general := named("general", nil, "/*")
	general.Priority = 100
	table, err = New([]*config.Route{general, named("special", nil, "/a")})
	if err != nil {
		t.Fatal(err)
	}
	if i := table.Find("web", request("h", "/a"), From{}); i != 1 {
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
					if table.Find("web", r, From{}) == None {
						b.Fatal("none")
					}
				}
			})
		}
	}
}

// BenchmarkFindBesides looks what the other kinds of routes of a host cost.
func BenchmarkFindBesides(b *testing.B) {
	table, err := New(kinds())
	if err != nil {
		b.Fatal(err)
	}
	for name, head := range pleas {
		b.Run(name, func(b *testing.B) {
			r := parsed(b, head)
			b.ReportAllocs()
			for b.Loop() {
				table.Find("web", r, From{Client: netip.IPv6LinkLocalAllNodes()})
			}
		})
	}
}

var pleas = map[string]string{
	"prefix past an expression": "GET /assets/app/main HTTP/1.1\r\nHost: h\r\n\r\n",
	"expression":                "GET /assets/images/2026/picture-of-a-cat.png HTTP/1.1\r\nHost: h\r\n\r\n",
	"conditions":                "GET /api/v1/items HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nX-Version: 7\r\n\r\n",
	"conditions that fail":      "GET /api/v1/items?v=9&w=2 HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nX-Version: 8\r\n\r\n",
}

func kinds() []*config.Route {
	host := []string{"h"}
	images := named("images", host, `~(?i)\.(jpg|jpeg|png|gif|css|js)$`)
	images.RegexFirst = true
	version := named("version", host, "/api/*")
	version.Header = map[string]string{"X-Version": "7"}
	query := named("query", host, "/api/*")
	query.Query, query.Method = map[string]string{"v": "1"}, []string{"GET"}
	client := named("client", host, "/api/*")
	client.Client, client.Priority = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 1
	return []*config.Route{images, version, query, client, named("assets", host, "/assets/*"), named("api", host, "/api/*")}
}

func TestFindAllocatesNothing(t *testing.T) {
	for _, routes := range [][]*config.Route{many(100), kinds()} {
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		all := []*dataplane.Request{request("other.example.com", "/api/v3/things/17")}
		for _, head := range pleas {
			all = append(all, parsed(t, head))
		}
		for _, r := range all {
			if n := testing.AllocsPerRun(100, func() { table.Find("web", r, From{}) }); n != 0 {
				t.Errorf("Find(%s) allocates %v times", r.Path, n)
			}
		}
	}
}
