package proxy

import (
	"bytes"
	"slices"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// rewriting is a configuration with one route that takes everything.
func rewriting(path, strip, from, to string) *config.Config {
	c := base()
	c.Route[0].Path, c.Route[0].StripPrefix = path, strip
	if from != "" {
		c.Route[0].Rewrite = &config.Rewrite{From: from, To: to}
	}
	return c
}

func TestWhatAPathBecomes(t *testing.T) {
	for _, c := range []struct{ why, path, strip, from, to, asked, query, want string }{
		{"strip", "/v1/*", "/v1", "", "", "/v1/items/7", "", "/items/7"},
		{"strip to the root", "/v1/*", "/v1", "", "", "/v1", "a=b", "/?a=b"},
		{"strip to the root with its slash", "/v1/*", "/v1", "", "", "/v1/", "", "/"},
		{"strip less than the path", "/a/b/*", "/a", "", "", "/a/b/c", "", "/b/c"},
		{"a group", "", "", `~^/items/(\d+)$`, "/item/$1", "/items/7", "", "/item/7"},
		{"into the query", "", "", `~^/items/(\d+)$`, "/item?id=$1", "/items/7", "", "/item?id=7"},
		{"into the query, the client's behind", "", "", `~^/items/(\d+)$`, "/item?id=$1", "/items/7", "x=1&id=8", "/item?id=7&x=1&id=8"},
		{"into the query, without the client's", "", "", `~^/items/(\d+)$`, "/item?id=$1?", "/items/7", "x=1", "/item?id=7"},
		{"the query dropped", "", "", `~^/items/(\d+)$`, "/item?", "/items/7", "x=1", "/item"},
		{"the query kept", "", "", `~^/items/(\d+)$`, "/item", "/items/7", "x=1", "/item?x=1"},
		{"by name", "", "", `~^/(?P<lang>[a-z]{2})/(.*)`, "/$2/${lang}", "/de/a/b", "", "/a/b/de"},
		{"no match", "", "", `~^/items/(\d+)$`, "/item/$1", "/items/x", "q", "/items/x?q"},
		{"after strip_prefix", "/v1/*", "/v1", `~^/items/(\d+)$`, "/item?id=$1", "/v1/items/7", "", "/item?id=7"},
		{"a dollar", "", "", `~^/a$`, "/$$1", "/a", "", "/$1"},
		{"a group that took no part", "", "", `~^/(a)?(b)?`, "/x$2/$1", "/a", "", "/x/a"},
		{"slashes collapse", "", "", `~^/(a)(/?.*)`, "/$2", "/a/b", "", "/b"},
		{"C2 an escape stays", "", "", `~^/(.*)`, "/x/$1", "/a%2Fb", "", "/x/a%2Fb"},
		{"B1 a part of a path ends no parameter", "", "", `~^/(.*)`, "/x?p=$1", "/a&admin=1;b+c", "", "/x?p=a%26admin%3D1%3Bb%2Bc"},
	} {
		p, _ := start(t, rewriting(c.path, c.strip, c.from, c.to))
		x := get("h", c.asked)
		if c.query != "" {
			x.Request.Query = []byte(c.query)
		}
		if v := begin(p, x); v != dataplane.Next {
			t.Errorf("%s: Begin = %v", c.why, v)
			continue
		}
		got := string(x.Request.Path)
		if x.Request.Query != nil {
			got += "?" + string(x.Request.Query)
		}
		if got != c.want {
			t.Errorf("%s: %s became %s, want %s", c.why, c.asked, got, c.want)
		}
		if path, query := x.Asked(); string(path) != c.asked || string(query) != c.query {
			t.Errorf("%s: the client asked for %s?%s, and %s?%s is said", c.why, c.asked, c.query, path, query)
		}
		x.Response.Reset()
		p.End(x, nil)
	}
}

// What a rewrite makes is looked at again: what is no normal path goes nowhere.
func TestC3RewritesThatLeaveTheAllowedFormAreRefused(t *testing.T) {
	for _, c := range []struct{ why, from, to, asked string }{
		{"dots from two groups", `~^/(a*)(\.)(\.)$`, "/x/$2$3/admin", "/.."},
		{"dots in front", `~^/x(.*)$`, "/a/.$1", "/x./admin"},
		{"a dot alone", `~^/x(.*)$`, "/a/.$1", "/x/admin"},
		{"half an escape", `~^/(.)`, "/a/$1", "/%2F"},
		{"an escape put together", `~^/x(.*)$`, "/a/%5$1", "/xC"},
		{"dots behind an escaped slash", `~^/x(.*)$`, "/a%2F.$1", "/x."},
	} {
		p, _ := start(t, rewriting("", "", c.from, c.to))
		x := get("h", c.asked)
		if v := begin(p, x); v != dataplane.Answer || x.Response.Status != 400 || x.Mark.Reason != "rewrite" {
			t.Errorf("%s: %s became %s, want 400", c.why, c.asked, x.Request.Path)
		}
		p.End(x, nil)
	}
}

// Whatever the path, what goes on is in its normal form and has no way out.
func FuzzC3Rewrite(f *testing.F) {
	f.Add(`^/(.*)/(.*)$`, "/a/$2/$1?x=$2", "/v1/x/y%2Fz")
	f.Add(`(.)(.)`, "/$2$1", "/v1/../..")
	f.Fuzz(func(t *testing.T, from, to, path string) {
		r := &config.Route{StripPrefix: "/v1", Rewrite: &config.Rewrite{From: "~" + from, To: to}}
		w, err := newRewrite(r)
		if err != nil {
			return
		}
		normal, err := http1.AppendPath(nil, []byte(path))
		if err != nil {
			return
		}
		x := get("h", string(normal))
		if !w.apply(x) {
			return
		}
		again, err := http1.AppendPath(nil, x.Request.Path)
		if err != nil || !bytes.Equal(again, x.Request.Path) {
			t.Errorf("%s became %q, which is not normal: %v", normal, x.Request.Path, err)
		}
		if clean(x.Request.Query) != nil || bytes.IndexByte(x.Request.Query, '#') >= 0 {
			t.Errorf("%s: query %q", normal, x.Request.Query)
		}
	})
}

func TestServersAreToldWhatWasTakenOff(t *testing.T) { // B3
	conf := rewriting("/v1/*", "/v1", "", "")
	conf.Node.TrustedProxies = networks("198.51.100.0/24")
	for _, c := range []struct{ client, said, want string }{
		{"192.0.2.7:1", "", "X-Forwarded-Prefix: /v1"},
		{"192.0.2.7:1", "/evil", "X-Forwarded-Prefix: /v1"},
		{"198.51.100.9:1", "/outer", "X-Forwarded-Prefix: /outer/v1"},
		{"198.51.100.9:1", "/outer/", "X-Forwarded-Prefix: /v1"},
		{"198.51.100.9:1", "//evil.example", "X-Forwarded-Prefix: /v1"},
		{"198.51.100.9:1", "/a/../b", "X-Forwarded-Prefix: /v1"},
	} {
		p, _ := start(t, conf)
		x := get("h", "/v1/x")
		x.Client = addrPort(c.client)
		if c.said != "" {
			with(x, "X-Forwarded-Prefix: "+c.said)
		}
		begin(p, x)
		got := slices.DeleteFunc(header(x.Request.Header), func(l string) bool { return len(l) < 18 || l[:18] != "X-Forwarded-Prefix" })
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%s saying %q: %q sent on, want %q", c.client, c.said, got, c.want)
		}
	}
	p, _ := start(t, base())
	x := with(get("h", "/"), "X-Forwarded-Prefix: /evil")
	begin(p, x)
	if x.Request.Header.Find("X-Forwarded-Prefix") != nil {
		t.Error("a stranger's prefix is sent on")
	}
}

func TestARedirectSeesTheRewrittenPath(t *testing.T) {
	conf := rewriting("/old/*", "/old", "~^/(.*)$", "/new/$1")
	conf.Route[0].Pool, conf.Route[0].Redirect = "", &config.Redirect{To: "https://b.example{uri}", Status: 301}
	p, _ := start(t, conf)
	x := get("h", "/old/a")
	x.Request.Query = []byte("q=1")
	begin(p, x)
	if got := string(x.Response.Header.Get(dataplane.Location)); got != "https://b.example/new/a?q=1" {
		t.Errorf("Location: %s", got)
	}
}

func TestUnknownHosts(t *testing.T) {
	conf := base()
	conf.Listener = map[string]*config.Listener{}
	for name, unknown := range map[string]config.Unknown{"web": "", "plain": "404", "strict": "421", "dark": "close"} {
		conf.Listener[name] = &config.Listener{Name: name, Address: []string{"127.0.0.1:0"}, Unknown: unknown}
	}
	conf.Route[0].Host, conf.Route[0].Path = []string{"known.example", "*.wild.example"}, "/a/*"
	p, _ := start(t, conf)
	for _, c := range []struct {
		listener, host string
		verdict        dataplane.Verdict
		status         int
		reason         string
	}{
		{"web", "other.example", dataplane.Answer, 404, "no_route"},
		{"plain", "other.example", dataplane.Answer, 404, "no_route"},
		{"strict", "other.example", dataplane.Answer, 421, "unknown_host"},
		{"strict", "", dataplane.Answer, 421, "unknown_host"},
		{"strict", "known.example", dataplane.Answer, 404, "no_route"},
		{"strict", "x.wild.example", dataplane.Answer, 404, "no_route"},
		{"strict", "wild.example", dataplane.Answer, 421, "unknown_host"},
		{"dark", "other.example", dataplane.Close, 444, "unknown_host"},
		{"dark", "known.example", dataplane.Answer, 404, "no_route"},
	} {
		x := get(c.host, "/b")
		x.Listener = &dataplane.Listener{Name: c.listener, Address: "127.0.0.1:8080"}
		if v := begin(p, x); v != c.verdict || x.Response.Status != c.status || x.Mark.Reason != c.reason {
			t.Errorf("%s on %s: %v %d %s, want %v %d %s", c.host, c.listener, v, x.Response.Status, x.Mark.Reason, c.verdict, c.status, c.reason)
		}
		if x.Route.Name != unmatchedName {
			t.Errorf("route %q", x.Route.Name)
		}
		p.End(x, nil)
	}
}
