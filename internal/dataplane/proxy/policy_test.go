package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// use is base with policies, which its one route uses in that order.
func use(policies ...*config.Policy) *config.Config {
	c := base()
	c.Policy = map[string]*config.Policy{}
	for _, p := range policies {
		c.Policy[p.Name] = p
		c.Route[0].Use = append(c.Route[0].Use, p.Name)
	}
	return c
}

func headers(name string, h config.Headers) *config.Policy {
	return &config.Policy{Name: name, Headers: h}
}

func TestPolicyHeadersCannotBeNamedAway(t *testing.T) { // B2
	p, _ := start(t, use(headers("edge", config.Headers{RequestSet: map[string]string{"X-User": "proxyd"}})))
	x := with(get("h", "/"), "Connection: X-User, Cookie", "X-User: admin", "Cookie: a=b")
	x.Request.Nominated = true
	begin(p, x)
	if got := header(x.Request.Header); got[1] != "X-User: proxyd" || slices.Contains(got, "Cookie: a=b") {
		t.Errorf("sent on %q", got)
	}
	respond(p, x, 200)
}

func TestPolicyHeadersOfBothHeads(t *testing.T) {
	p, _ := start(t, use(headers("edge", config.Headers{
		RequestSet:     map[string]string{"X-Region": "eu", "X-Was": "{header.X-Region}"},
		RequestRemove:  []string{"Accept-Encoding"},
		ResponseAdd:    map[string]string{"X-Served-By": "{node} {route} {status} {scheme}://{host}{uri} {client}"},
		ResponseRemove: []string{"server"},
	})))
	x := with(get("h", "/a"), "X-Region: us", "Accept-Encoding: br")
	x.Request.Query = []byte("b=c")
	begin(p, x)
	if d := cmp.Diff([]string{"Host: h", "X-Region: eu", "X-Was: us"}, header(x.Request.Header)[:3]); d != "" {
		t.Error(d)
	}
	x.Response.Header.Add(dataplane.ServerField, []byte("Server"), []byte("inside/1.0"))
	respond(p, x, 200)
	if d := cmp.Diff([]string{"X-Served-By: edge-1 all 200 http://h/a?b=c 198.51.100.9", "Via: 1.1 proxyd"}, header(x.Response.Header)); d != "" {
		t.Error(d)
	}
}

func TestPolicyHeadersAreOnAnswersMadeHere(t *testing.T) {
	c := use(headers("edge", config.Headers{ResponseSet: map[string]string{"X-Frame-Options": "DENY"}}))
	c.Route[0].Pool = ""
	c.Route[0].Respond = &config.Respond{Body: "hello"}
	c.Route = append(c.Route, &config.Route{Name: "none", Path: "/none", Pool: "none", Use: []string{"edge"}})
	c.Pool["none"] = pool("none")
	p, _ := start(t, c)
	for path, status := range map[string]int{"/": 200, "/none": 503} {
		x := get("h", path)
		begin(p, x)
		if got := header(x.Response.Header); x.Response.Status != status || !slices.Contains(got, "X-Frame-Options: DENY") {
			t.Errorf("%s: answered %d %q", path, x.Response.Status, got)
		}
		p.End(x, nil)
	}
}

func TestAValueThatBreaksOutIsNeverSent(t *testing.T) { // B1
	for why, h := range map[string]config.Headers{
		"request":  {RequestSet: map[string]string{"X-A": "{header.X-Evil}"}},
		"response": {ResponseSet: map[string]string{"X-A": "{query}"}},
	} {
		p, _ := start(t, use(headers("edge", h)))
		x := with(get("h", "/"), "X-Evil: a\r\nSet-Cookie: b=c")
		x.Request.Query = []byte("a\x00b")
		v := begin(p, x)
		if why == "response" {
			v = respond(p, x, 200)
		}
		if v != dataplane.Answer || x.Response.Status != 500 || x.Mark.Reason != "template" || !x.Mark.Local {
			t.Errorf("%s: verdict %v, status %d, reason %q", why, v, x.Response.Status, x.Mark.Reason)
		}
		p.End(x, nil)
	}
}

func TestPoliciesCostNoAllocation(t *testing.T) {
	p, _ := start(t, use(headers("edge", config.Headers{
		RequestSet:  map[string]string{"X-Region": "eu", "X-From": "{client}"},
		ResponseSet: map[string]string{"X-Path": "{uri}"},
	})))
	x := plain()
	request, response := slices.Clone(x.Request.Header), dataplane.Header{{Name: []byte("Content-Type"), Value: []byte("text/plain")}}
	run(p, x, request, response)
	if n := testing.AllocsPerRun(2000, func() { run(p, x, request, response) }); n > 0.1 {
		t.Errorf("an exchange with policies allocates %v times", n)
	}
}

func TestErrorPagesOfAnswersMadeHere(t *testing.T) {
	sorry := map[int]*config.Page{
		503: {Type: "text/html; charset=utf-8", Body: []byte("<p>Sorry.")},
		500: {Type: "text/plain", Body: nil},
		404: {Type: "application/json", Body: []byte("{}")},
	}
	c := use(headers("edge", config.Headers{ResponseAdd: map[string]string{"X-S": "{status}", "X-Q": "{query}"}}))
	c.Trace.RequestID = "X-Id"
	c.Pool["none"] = pool("none")
	c.Route[0].Pages = sorry
	c.Route = append(c.Route,
		&config.Route{Name: "none", Path: "/none", Pool: "none", Use: []string{"edge"}, Pages: sorry},
		&config.Route{Name: "gone", Path: "/gone", Respond: &config.Respond{Status: 404}, Pages: sorry},
		&config.Route{Name: "text", Path: "/text", Respond: &config.Respond{Status: 404, Body: "ours"}, Pages: sorry},
		&config.Route{Name: "plain", Path: "/plain", Pool: "none"},
	)
	p, _ := start(t, c)
	for _, e := range []struct {
		path, query string
		status      int
		body, kind  string
	}{
		{"/none", "", 503, "<p>Sorry.", "text/html; charset=utf-8"},
		{"/none", "\r\n", 500, "", ""}, // B1, on top of the 503
		{"/gone", "", 404, "{}", "application/json"},
		{"/text", "", 404, "ours", "text/plain; charset=utf-8"},
		{"/plain", "", 503, "503 Service Unavailable\n", "text/plain; charset=utf-8"},
	} {
		x := get("h", e.path)
		x.Request.Query = []byte(e.query)
		begin(p, x)
		r := &x.Response
		if r.Status != e.status || string(r.Body) != e.body || r.Length != int64(len(e.body)) || string(r.Header.Find("Content-Type")) != e.kind || string(r.Header.Find("X-Id")) != string(x.Mark.RequestID) {
			t.Errorf("%s: answered %d %q %q", e.path, r.Status, header(r.Header), r.Body)
		}
		p.End(x, nil)
	}
	x := get("h", "/")
	begin(p, x)
	x.Response.Header.Add(dataplane.Other, []byte("Content-Type"), []byte("text/plain"))
	x.Response.Length = 7
	if v := respond(p, x, 503); v != dataplane.Next || x.Response.Length != 7 || x.Response.Body != nil {
		t.Errorf("a server's own 503 was replaced: %v %+v", v, x.Response)
	}
	p.End(x, nil)
	y := get("h", "/")
	begin(p, y)
	for p.Retry(y, dataplane.ErrConnect) == dataplane.Again {
	}
	if y.Response.Status != 502 || string(y.Response.Header.Find("X-S")) != "502" {
		t.Errorf("after a failed server: %d %q", y.Response.Status, header(y.Response.Header))
	}
	p.End(y, nil)
}

// Nothing that a client gets says which servers there are (part 1 of the safety rules).
func TestAnswersMadeHereNameNoServer(t *testing.T) {
	p, _ := start(t, base())
	for _, err := range []error{dataplane.ErrConnect, dataplane.ErrConnectTime, dataplane.ErrRead, dataplane.ErrReadTime, dataplane.ErrResponse, dataplane.ErrSend} {
		x := get("h", "/")
		begin(p, x)
		for p.Retry(x, fmt.Errorf("%w: dial 192.0.2.1:80: refused", err)) == dataplane.Again {
		}
		text := string(x.Response.Body) + strings.Join(header(x.Response.Header), "\n")
		if x.Response.Status < 500 || strings.Contains(text, "192.0.2") || strings.Contains(text, "app") {
			t.Errorf("%v: answered %d %s", err, x.Response.Status, text)
		}
		p.End(x, nil)
	}
}

func TestPlaceholdersAreWhatTheClientAskedFor(t *testing.T) {
	c := use(headers("edge", config.Headers{
		RequestSet:  map[string]string{"X-Asked": "{path} {query} {uri}"},
		ResponseSet: map[string]string{"X-Asked": "{path} {query} {uri}"},
	}))
	c.Route[0].StripPrefix = "/v1"
	p, _ := start(t, c)
	x := get("h", "/v1/a")
	x.Request.Query = []byte("b=c")
	begin(p, x)
	x.Response.Header.Add(dataplane.Location, []byte("Location"), []byte("/login"))
	respond(p, x, 302)
	const want = "/v1/a b=c /v1/a?b=c"
	if q, r := string(x.Request.Header.Find("X-Asked")), string(x.Response.Header.Find("X-Asked")); q != want || r != want || string(x.Request.Path) != "/a" {
		t.Errorf("%q and %q for %s, want %q", q, r, x.Request.Path, want)
	}
	if got := string(x.Response.Header.Get(dataplane.Location)); got != "/v1/login" {
		t.Errorf("Location %q", got)
	}
}
