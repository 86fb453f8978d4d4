package proxy

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
	"proxyd/internal/dataplane/http1"
)

// The names of fields that no client may have a server take for ours, spelt with underscores.
var aliases = []string{"X_Forwarded_For", "X-Forwarded_Foo", "x_forwarded-prefix", "X_Real_IP", "True_Client_IP", "X_Original_URL", "Content_Length",
	"Transfer_Encoding", "X_Request_Id", "X_Trace", "Client_Cert", "client-cert_chain", "EARLY_DATA", "Max_Forwards", "X_User", "x_added", "X_Secret", "X_Own_Set", "X_Admin", "x_tenant"}

const aliasPolicy = `
[trace]
request_id = "X-Trace"
[policy.p.headers]
request_set    = { X-User = "nobody", X_Own-Set = "ours" }
request_add    = { X-Added = "1" }
request_remove = "X-Secret"
`

// S9, B4: with underscores = "keep" fields go on as they are, but for those that a server which
// tells no underscore from a hyphen would take for one of ours, or of a policy of the route.
func TestS9B4AliasesOfOurFieldsAreNotKept(t *testing.T) {
	raw := "GET /a HTTP/1.1\r\nHost: h\r\nX_Plain: kept\r\nX_Forwarded: alias\r\n"
	for _, name := range aliases {
		raw += name + ": alias\r\n"
	}
	onEachEngine(t, func(t *testing.T, newEngine func(engine.Config) engine.Engine) {
		a := attack(t, newEngine, aliasPolicy)
		c := to(t, aliasPolicy, a.witness.address)
		c.Listener["web"].Underscores = "keep"
		c.Route[0].Use = []string{"p"}
		// A request must not pass a condition by a name that its server takes for the one meant.
		admin := *c.Route[0]
		admin.Name, admin.Header = "admin", map[string]string{"X-Admin": "*"}
		c.Route = append(c.Route, &admin)
		for _, pool := range c.Pool {
			pool.Balance, pool.HashKey = "hash", "header:X-Tenant"
		}
		a.apply(c)
		r := a.send(raw+"\r\n"+next, 2)
		text, n := a.witness.saw()
		if !slices.Equal(r.status, []int{200, 200}) || n != 2 {
			t.Fatalf("answers %v, %d requests", r.status, n)
		}
		if strings.Contains(text, "alias") || !strings.Contains(text, "X_Plain: kept\r\n") || !strings.Contains(text, "X-User: nobody\r\n") || !strings.Contains(text, "X_Own-Set: ours\r\n") {
			t.Errorf("the server got %q", text)
		}
	})
}

// None is left out above: whatever servers are told by us has no alias that goes on.
func TestB4NoFieldOfOursHasAnAlias(t *testing.T) {
	c := to(t, aliasPolicy, "192.0.2.1:80")
	c.Route[0].Use = []string{"p"}
	p, _ := start(t, c)
	ours := get("h", "/")
	ours.Early = true
	begin(p, ours)
	lim := wireLimits
	lim.Underscores = dataplane.KeepUnderscores
	for _, f := range ours.Request.Header {
		name := strings.ReplaceAll(string(f.Name), "-", "_")
		if name == string(f.Name) {
			continue
		}
		x := get("h", "/")
		x.Request = dataplane.Request{}
		if _, err := http1.ParseRequest([]byte("GET / HTTP/1.1\r\nHost: h\r\n"+name+": alias\r\n\r\n"), &x.Request, lim); err != nil {
			t.Fatal(err)
		}
		begin(p, x)
		if got := header(x.Request.Header); slices.Contains(got, name+": alias") || !slices.Contains(got, "X-User: nobody") {
			t.Errorf("%s goes on: %q", name, got)
		}
	}
}

// S9: reject refuses the request before a server sees any of it, by each version of HTTP, and is
// counted by its reason.
func TestS9RejectedUnderscores(t *testing.T) {
	onEachEngine(t, func(t *testing.T, newEngine func(engine.Config) engine.Engine) {
		a := attack(t, newEngine, "")
		c := to(t, "", a.witness.address)
		c.Listener["web"].Underscores = "reject"
		a.apply(c)
		r := a.send("GET /a HTTP/1.1\r\nHost: h\r\nX_Y: z\r\n\r\n"+next, 2)
		if text, n := a.witness.saw(); !slices.Equal(r.status, []int{400}) || !r.closed || text != "" || n > 0 {
			t.Errorf("answers %v, closed %v; the server got %q", r.status, r.closed, text)
		}
		wantSeries(t, gather(t, a.Plane), map[string]float64{`proxyd_http_malformed_total{listener="web",reason="underscore"}`: 1})
	})
}

func TestS9UnderscoresByHTTP2(t *testing.T) {
	seen := make(chan http.Header, 1)
	w := inClear(t, "", server(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	for how, status := range map[string]int{"drop": 200, "keep": 200, "reject": 400} {
		c := *w.current.Load().conf
		l := *c.Listener["web"]
		l.Underscores = how
		c.Listener = map[string]*config.Listener{"web": &l}
		w.apply(&c)
		w.client.CloseIdleConnections()
		got := askWithUnderscores(t, w.client, "http://"+w.address)
		if got != status {
			t.Errorf("%s: %d, want %d", how, got, status)
		}
		if status == 200 {
			wantUnderscores(t, <-seen, how)
		}
	}
}

func TestS9UnderscoresByHTTP3(t *testing.T) {
	for how, status := range map[string]int{"drop": 200, "keep": 200, "reject": 400} {
		s := newSecureSite(t, func(c *config.Config) { withHTTP3(c); c.Listener["https"].Underscores = how })
		client, base := quicClient(t, s)
		if got := askWithUnderscores(t, client, base); got != status {
			t.Errorf("%s: %d, want %d", how, got, status)
		}
		if status == 200 {
			wantUnderscores(t, <-s.origin, how)
		}
	}
}

func askWithUnderscores(t *testing.T, client *http.Client, base string) int {
	t.Helper()
	q, err := http.NewRequest("GET", base+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header["X_Plain"] = []string{"1"}
	q.Header["X_Forwarded_For"] = []string{"192.0.2.1"}
	r, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
	return r.StatusCode
}

// wantUnderscores looks at what a server was sent of a request of askWithUnderscores.
func wantUnderscores(t *testing.T, got http.Header, how string) {
	t.Helper()
	kept, forged := false, false
	for name := range got {
		kept = kept || strings.EqualFold(name, "X_Plain")
		forged = forged || strings.EqualFold(name, "X_Forwarded_For")
	}
	if kept != (how == "keep") || forged {
		t.Errorf("%s: the server got %v", how, got)
	}
}
