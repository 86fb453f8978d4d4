package route

import (
	"net/netip"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// parsed reads a request head as the engine does.
func parsed(t testing.TB, head string) *dataplane.Request {
	t.Helper()
	r := &dataplane.Request{}
	n, err := http1.ParseRequest([]byte(head), r, http1.Limits{HeaderBytes: 1 << 15, URIBytes: 1 << 13, Fields: 100})
	if err != nil || n == 0 {
		t.Fatalf("ParseRequest(%q) = %d, %v", head, n, err)
	}
	return r
}

func TestConditions(t *testing.T) {
	method := func(m ...string) *config.Route { return &config.Route{Name: "r", Method: m} }
	field := func(value string) *config.Route {
		return &config.Route{Name: "r", Header: map[string]string{"X-Key": value}}
	}
	query := func(name, value string) *config.Route {
		return &config.Route{Name: "r", Query: map[string]string{name: value}}
	}
	client := func(p ...string) *config.Route {
		r := &config.Route{Name: "r"}
		for _, p := range p {
			r.Client = append(r.Client, netip.MustParsePrefix(p))
		}
		return r
	}
	for _, c := range []struct {
		why    string
		route  *config.Route
		line   string
		fields string
		want   bool
	}{
		{"method", method("GET", "PUT"), "PUT / HTTP/1.1", "", true},
		{"GET is HEAD too", method("GET"), "HEAD / HTTP/1.1", "", true},
		{"HEAD is not GET", method("HEAD"), "GET / HTTP/1.1", "", false},
		{"another method", method("GET"), "POST / HTTP/1.1", "", false},
		{"a method that proxyd does not know", method("PURGE"), "PURGE / HTTP/1.1", "", true},
		{"known ones are not unknown ones", method("PURGE"), "GET / HTTP/1.1", "", false},
		{"unknown ones are not known ones", method("GET"), "PURGE / HTTP/1.1", "", false},

		{"field", field("one"), "GET / HTTP/1.1", "X-Key: one\r\n", true},
		{"its name in any case", field("one"), "GET / HTTP/1.1", "x-kEY: one\r\n", true},
		{"its value as it is", field("one"), "GET / HTTP/1.1", "X-Key: One\r\n", false},
		{"no field", field("one"), "GET / HTTP/1.1", "", false},
		{"any value", field("*"), "GET / HTTP/1.1", "X-Key:\r\n", true},
		{"any value, no field", field("*"), "GET / HTTP/1.1", "", false},
		{"an empty value", field(""), "GET / HTTP/1.1", "X-Key:\r\n", true},
		{"an expression", field("~^o.e$"), "GET / HTTP/1.1", "X-Key: ore\r\n", true},
		{"an expression that does not match", field("~^o.e$"), "GET / HTTP/1.1", "X-Key: ores\r\n", false},
		{"two lines are one value", field("one"), "GET / HTTP/1.1", "X-Key: one\r\nX-Key: two\r\n", false},
		{"joined", field("one, two"), "GET / HTTP/1.1", "X-Key: one\r\nA: b\r\nX-Key: two\r\n", true},
		{"joined, by an expression", field("~two$"), "GET / HTTP/1.1", "X-Key: one\r\nX-Key: two\r\n", true},

		{"parameter", query("v", "1"), "GET /?v=1 HTTP/1.1", "", true},
		{"among others", query("v", "1"), "GET /?a=b&v=1&c HTTP/1.1", "", true},
		{"of several, any", query("v", "2"), "GET /?v=1&v=2 HTTP/1.1", "", true},
		{"another value", query("v", "1"), "GET /?v=11 HTTP/1.1", "", false},
		{"another name", query("v", "1"), "GET /?vv=1&V=1 HTTP/1.1", "", false},
		{"no query", query("v", "*"), "GET / HTTP/1.1", "", false},
		{"without a value", query("v", "*"), "GET /?v HTTP/1.1", "", true},
		{"an empty value is no value", query("v", ""), "GET /?v HTTP/1.1", "", true},
		{"decoded", query("a b", "ü&=+"), "GET /?a+b=%C3%BC%26%3d%2B HTTP/1.1", "", true},
		{"decoded, by an expression", query("v", "~^a b$"), "GET /?v=a%20b HTTP/1.1", "", true},
		{"an escape that is none", query("v", "%zz%2"), "GET /?v=%zz%2 HTTP/1.1", "", true},
		{"a semicolon parts nothing", query("v", "1;w=2"), "GET /?v=1;w=2 HTTP/1.1", "", true},
		{"an empty name is none", query("v", "*"), "GET /?=v&&=& HTTP/1.1", "", false},

		{"client", client("192.0.2.0/24"), "GET / HTTP/1.1", "", true},
		{"one of several", client("2001:db8::/32", "192.0.2.7/32"), "GET / HTTP/1.1", "", true},
		{"elsewhere", client("192.0.2.8/32", "::/0"), "GET / HTTP/1.1", "", false},
	} {
		table, err := New([]*config.Route{c.route})
		if err != nil {
			t.Fatal(err)
		}
		r := parsed(t, c.line+"\r\nHost: h\r\n"+c.fields+"\r\n")
		if got := table.Find("web", r, From{Client: netip.MustParseAddr("192.0.2.7")}) == 0; got != c.want {
			t.Errorf("%s: taken = %v, want %v", c.why, got, c.want)
		}
	}
}

// What a client says of former hops decides nothing (B3).
func TestB3ForwardedFieldsCountFromTrustedProxiesOnly(t *testing.T) {
	for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Anything", "Forwarded", "X-Real-IP"} {
		table, err := New([]*config.Route{{Name: "r", Header: map[string]string{name: "*"}}})
		if err != nil {
			t.Fatal(err)
		}
		r := parsed(t, "GET / HTTP/1.1\r\nHost: h\r\n"+name+": x\r\n\r\n")
		if table.Find("web", r, From{}) != None {
			t.Errorf("%s of anyone was believed", name)
		}
		if table.Find("web", r, From{Trusted: true}) == None {
			t.Errorf("%s of a trusted proxy was not believed", name)
		}
	}
}

func TestASearchGoesOnWhereConditionsFail(t *testing.T) {
	post := func(name, host, path string) *config.Route {
		r := named(name, []string{host}, path)
		r.Method = []string{"POST"}
		return r
	}
	regex := post("regex", "a.example.com", "~^/x/")
	first := post("first", "a.example.com", "~/y$")
	first.RegexFirst, first.Method = true, []string{"PUT"}
	routes := []*config.Route{
		post("exact", "a.example.com", "/x/y"), post("prefix", "a.example.com", "/x/*"), regex, first,
		post("wild", "*.example.com", "/x/*"), named("fallback", nil, "/x/*"),
	}
	get := post("get", "*.com", "/x/*")
	get.Method = []string{"GET"}
	routes = append(routes, get)
	table, err := New(routes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, host, want string }{
		{"POST", "a.example.com", "exact"},
		{"PUT", "a.example.com", "first"},
		{"GET", "a.example.com", "get"},
		{"DELETE", "a.example.com", "fallback"},
		{"POST", "b.example.com", "wild"},
	} {
		r := parsed(t, c.method+" /x/y HTTP/1.1\r\nHost: "+c.host+"\r\n\r\n")
		if i := table.Find("web", r, From{}); i == None || routes[i].Name != c.want {
			t.Errorf("%s on %s: found %d, want %s", c.method, c.host, i, c.want)
		}
	}
}

func TestRegexGoesBetweenPrefixAndNothing(t *testing.T) {
	host := []string{"h"}
	first := named("first", host, `~\.png$`)
	first.RegexFirst = true
	routes := []*config.Route{named("exact", host, "/a/x.png"), named("prefix", host, "/a/*"), named("regex", host, `~^/a|^/b`), named("any", host, ""), first}
	table, err := New(routes)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/a/x.png": "exact", "/a/y.png": "first", "/a/y": "prefix", "/ab": "regex", "/b": "regex", "/c.png": "first", "/c": "any",
	} {
		if i := table.Find("web", request("h", path), From{}); i == None || routes[i].Name != want {
			t.Errorf("%s: found %d, want %s", path, i, want)
		}
	}
}

func TestMoreConditionsGoFirst(t *testing.T) {
	one := &config.Route{Name: "one", Priority: 9, Header: map[string]string{"A": "1"}}
	two := &config.Route{Name: "two", Header: map[string]string{"A": "1", "B": "1"}}
	three := &config.Route{Name: "three", Priority: 1, Method: []string{"GET"}}
	table, err := New([]*config.Route{{Name: "none"}, three, one, two})
	if err != nil {
		t.Fatal(err)
	}
	for fields, want := range map[string]int{"": 1, "A: 1\r\n": 2, "A: 1\r\nB: 1\r\n": 3} {
		if i := table.Find("web", parsed(t, "GET / HTTP/1.1\r\nHost: h\r\n"+fields+"\r\n"), From{}); i != want {
			t.Errorf("%q: found %d, want %d", fields, i, want)
		}
	}
}

// A request that says a thing twice may meet conditions that exclude each other. Then
// the order of the file decides nothing either.
func TestNoOrderOfTheFileDecides(t *testing.T) {
	a := &config.Route{Name: "a", Query: map[string]string{"v": "1"}}
	b := &config.Route{Name: "b", Query: map[string]string{"v": "2"}}
	r := parsed(t, "GET /?v=2&v=1 HTTP/1.1\r\nHost: h\r\n\r\n")
	for _, routes := range [][]*config.Route{{a, b}, {b, a}} {
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		if i := table.Find("web", r, From{}); routes[i] != a {
			t.Errorf("found %q", routes[i].Name)
		}
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("a=b&c=%20+", "c", "  ")
	f.Fuzz(func(t *testing.T, query, name, value string) {
		c := condition{name: name, text: value}
		r := &dataplane.Request{Query: []byte(query)}
		c.inQuery(r)
		if got := string(decoded(r, []byte(query))); !decodesTo([]byte(query), got) {
			t.Errorf("decoded(%q) = %q, which decodesTo does not find", query, got)
		}
	})
}

func parsedOrNil(head string) *dataplane.Request {
	r := &dataplane.Request{}
	if n, err := http1.ParseRequest([]byte(head), r, http1.Limits{HeaderBytes: 1 << 15, URIBytes: 1 << 13, Fields: 100}); err != nil || n == 0 {
		return nil
	}
	return r
}
