package proxy

import (
	"slices"
	"strings"
	"testing"

	"proxyd/internal/dataplane/engine"
	"proxyd/internal/dataplane/filter"
)

// S8, C2: an encoded slash stays encoded and is no slash to the routing; a route with
// encoded_slash = "reject" answers 400 before a server sees it, however it is spelt, and no
// matter what a rewrite would make of it. Other escapes, and queries, are none.
func TestS8C2EncodedSlashes(t *testing.T) {
	const routes = `
[[route]]
name = "strict"
path = "/strict/*"
encoded_slash = "reject"
rewrite = { from = "~^/strict/(a%2Fb)$", to = "/x" }
pool = "app"
[[route]]
name = "fixed"
path = "/fixed/*"
encoded_slash = "reject"
respond = { body = "fixed" }
[[route]]
name = "parted"
path = "/parted/*"
encoded_slash = "reject"
split = { app = 1 }
`
	onEachEngine(t, func(t *testing.T, newEngine func(engine.Config) engine.Engine) {
		a := attack(t, newEngine, "")
		a.apply(to(t, routes, a.witness.address))
		for _, c := range []struct {
			target string
			status int
			sent   string // "": nothing
		}{
			{"/strict/a%2fb", 400, ""},
			{"/strict/a%2Fb", 400, ""},
			{"/x/..//strict/./a%2Fb", 400, ""},
			{"/fixed/%2F", 400, ""},
			{"/parted/%2F", 400, ""},
			{"/strict/a%252Fb", 200, "GET /strict/a%252Fb HTTP/1.1\r\n"},
			{"/strict/a?x=%2F", 200, "GET /strict/a?x=%2F HTTP/1.1\r\n"},
			{"/fixed/a", 200, ""},
			{"/strict%2Fa", 200, "GET /strict%2Fa HTTP/1.1\r\n"}, // another route's
			{"/a%2fb", 200, "GET /a%2Fb HTTP/1.1\r\n"},
		} {
			before, _ := a.witness.saw()
			r := a.send("GET "+c.target+" HTTP/1.1\r\nHost: h\r\n\r\n", 1)
			text, _ := a.witness.saw()
			if !slices.Equal(r.status, []int{c.status}) {
				t.Errorf("%s: answers %v, want %d", c.target, r.status, c.status)
			}
			if c.sent == "" && text != before || !strings.Contains(text, c.sent) {
				t.Errorf("%s: the server got %q, want %q", c.target, text, c.sent)
			}
		}
		wantSeries(t, gather(t, a.Plane), map[string]float64{`proxyd_http_local_responses_total{code="400",reason="encoded_slash",route="strict"}`: 3})
	})
}

func TestExplainSaysThatAnEncodedSlashIsRefused(t *testing.T) {
	conf := parsed(t, "[[route]]\nname = \"strict\"\nencoded_slash = \"reject\"\nto = [\"192.0.2.1:80\"]\n")
	e, err := Explain(conf, Question{Method: "GET", URL: "http://h/a%2fb"})
	if err != nil || e.Status != 400 || e.Reason != "encoded_slash" || !slices.ContainsFunc(e.Stages, func(s filter.Stage) bool { return s.Name == "encoded_slash" }) {
		t.Errorf("%+v, %v", e, err)
	}
}
