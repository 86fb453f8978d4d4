package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/upstream"
)

// A guess makes configurations and requests that are likely to meet.
type guess struct{ *rand.Rand }

func (g guess) one(of ...string) string { return of[g.IntN(len(of))] }
func (g guess) rarely() bool            { return g.IntN(5) == 0 }

func (g guess) config() *config.Config {
	c := base()
	c.Limits.HeaderBytes, c.Limits.URIBytes, c.Limits.Fields = 1<<15, 1<<13, 100
	c.Trace.RequestID, c.Trace.Context = g.one("", "X-Request-Id"), g.rarely()
	c.Node.Zone = g.one("", "z1")
	c.Node.TrustedProxies = networks("198.51.100.0/24")
	c.Listener["alt"] = &config.Listener{Name: "alt", Address: []string{"127.0.0.1:0"}, Unknown: config.Unknown(g.one("404", "421", "close"))}
	c.Policy = map[string]*config.Policy{
		"edge": headers("edge", config.Headers{RequestSet: map[string]string{"X-Region": "eu", "X-Who": "{client} {header.X-Key}"}, RequestRemove: []string{"Cookie"}}),
		"late": {Name: "late", Expires: &config.Expires{After: 1e9}, Headers: config.Headers{ResponseSet: map[string]string{"X-Node": "{node}"}, RequestAdd: map[string]string{"X-Uri": "{uri}"}}},
	}
	for i := range 4 {
		name := fmt.Sprint("p", i)
		p := pool(name)
		p.Balance = g.one("", "round_robin", "least_conn", "hash", "first", "random", "ewma")
		if p.Balance == "hash" {
			p.HashKey = g.one("ip", "uri", "header:X-Key", "cookie:k")
		}
		p.Host = g.one("client", "server", "inside.example")
		for n := range g.IntN(7) {
			p.Server = append(p.Server, config.Server{Addr: fmt.Sprintf("192.0.2.%d:80", n+1), Weight: 1 + g.IntN(5), Backup: g.rarely(), Zone: g.one("z1", "z2"), MaxConns: g.IntN(3)})
		}
		if g.rarely() {
			p.Queue = &config.Queue{Size: 1 + g.IntN(2), Wait: 1e10}
		}
		if g.rarely() {
			p.Sticky = &config.Sticky{Cookie: "at", TTL: 1e12}
		}
		c.Pool[name] = p
	}
	if c.Route = nil; g.rarely() {
		c.Route = base().Route
	}
	for i := range 1 + g.IntN(12) {
		c.Route = append(c.Route, g.route(i))
	}
	return c
}

func (g guess) route(i int) *config.Route {
	r := &config.Route{Name: fmt.Sprint("r", i), Priority: i + 1, Log: true, Path: g.one("", "/a", "/a/*", "/a/b/*", "~^/a", `~\.x$`)}
	if g.IntN(3) > 0 {
		r.Host = []string{g.one("a", "b.a", "*.a")}
	}
	if g.rarely() {
		r.Listener = []string{"alt"}
	}
	if g.rarely() {
		r.Method = []string{g.one("GET", "POST")}
	}
	if g.rarely() {
		r.Header = map[string]string{"X-Key": g.one("1", "*", "~^2")}
	}
	if g.rarely() {
		r.Query = map[string]string{"v": g.one("1", "*")}
	}
	if g.rarely() {
		r.Client = networks("203.0.113.0/25")
	}
	for _, name := range []string{"edge", "late"} {
		if g.IntN(2) == 0 {
			r.Use = append(r.Use, name)
		}
	}
	if strings.HasPrefix(r.Path, "/a/") && g.rarely() {
		r.StripPrefix = "/a"
	}
	if g.rarely() {
		r.Rewrite = &config.Rewrite{From: `~^/(\w+)/(.*)$`, To: g.one("/$2?was=$1", "/$2/$1?", "/.$2.", "/x")}
	}
	if g.rarely() {
		r.Upgrade = []string{"websocket"}
	}
	switch g.IntN(8) {
	case 0:
		r.Respond = &config.Respond{Status: 200 + g.IntN(300), Body: "hello"}
	case 1:
		r.Redirect = &config.Redirect{To: g.one("https", "https://other.example{uri}"), Status: 301}
	case 2:
		r.Split = map[string]int{"p0": g.IntN(3), "p1": 1 + g.IntN(3), "p2": g.IntN(2)}
	default:
		r.Pool = g.one("p0", "p1", "p2", "p3")
	}
	return r
}

// wishes are of operators, about servers and routes of c.
func (g guess) wishes(c *config.Config) Steering {
	s := Steering{Servers: map[ServerName]ServerOverride{}, Routes: map[string]Maintenance{}}
	for name, p := range c.Pool {
		for _, server := range p.Server {
			if g.IntN(3) == 0 {
				s.Servers[ServerName{name, server.Addr}] = ServerOverride{Mode: []upstream.Mode{upstream.Serve, upstream.Drain, upstream.Disable}[g.IntN(3)], Weight: g.IntN(4)}
			}
		}
	}
	for _, r := range c.Route {
		if g.rarely() {
			s.Routes[r.Name] = Maintenance{Status: 503, RetryAfter: 1e9, Allow: networks("203.0.113.0/26")}
		}
	}
	return s
}

func (g guess) question() Question {
	q := Question{Method: g.one("GET", "GET", "HEAD", "POST", "PURGE", "TRACE"), Listener: g.one("web", "alt")}
	q.URL = "http://" + g.one("a", "A:8080", "b.a", "c.b.a.", "other") + g.one("", "/", "/a", "/a/", "/a/b", "//a/./b/c", "/a/b/i.x", "/a/../c", "/a/%2e%2e/b", "/a/b%2Fc", "/q.x", "/a%00") +
		g.one("", "?", "?v=1", "?v=2&w", "?w=a%20b")
	q.Client = g.one("203.0.113.7", "203.0.113.200", "198.51.100.1", "2001:db8::7")
	for _, f := range []string{"X-Key: 1", "X-Key: 21", "Cookie: k=v", "X-Forwarded-For: 203.0.113.9", "X-Request-Id: abcdefgh", "Connection: X-Key", "Accept: */*", "Content-Length: 0",
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Forwarded-Proto: https", "Content-Length: 9999999"} {
		if g.IntN(6) == 0 {
			q.Header = append(q.Header, f)
		}
	}
	return q
}

// arrives is the request of q as an engine hands it to Match.
func arrives(t *testing.T, p *Plane, q Question) *dataplane.Exchange {
	t.Helper()
	host, target := strings.TrimPrefix(q.URL, "http://"), "/"
	if i := strings.IndexAny(host, "/?"); i >= 0 {
		host, target = host[:i], host[i:]
	}
	if target[0] == '?' {
		target = "/" + target
	}
	head := q.Method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(q.Header, "\r\n"), "\r\n")
	l, err := p.current.Load().listenerFor(q.Listener, "", "http")
	if err != nil {
		t.Fatal(err)
	}
	x := &dataplane.Exchange{Listener: l, Client: netip.AddrPortFrom(netip.MustParseAddr(q.Client), 40000), Replayable: true, Resume: func() {}}
	x.Times.Start = p.opt.Now()
	x.Times.Head = x.Times.Start
	if n, err := http1.ParseRequest([]byte(head), &x.Request, http1.Limits{HeaderBytes: 1 << 15, URIBytes: 1 << 13, Fields: 100}); err != nil {
		return nil
	} else if n != len(head) {
		t.Fatalf("%q is parsed up to %d", head, n)
	}
	return x
}

// ids are made anew for every exchange.
var ids = regexp.MustCompile(`(?i)(X-Request-Id: |traceparent: ..-)[0-9a-f-]{16,}`)

func TestExplainTellsWhatMatchAndBeginDo(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		g := guess{rand.New(rand.NewPCG(seed, 7))}
		conf := g.config()
		conf.Node.State = t.TempDir() // for the key of cookies
		p, _ := start(t, conf)
		if err := p.Steer(g.wishes(conf)); err != nil {
			t.Fatal(err)
		}
		var open []*dataplane.Exchange
		var cookies []string // of sticky pools
		for range 60 {
			q := g.question()
			if len(cookies) > 0 && g.IntN(2) == 0 {
				q.Header = append(q.Header, "Cookie: "+cookies[g.IntN(len(cookies))])
			}
			e, err := p.Explain(q)
			if err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, q, err)
			}
			x := arrives(t, p, q)
			if x == nil || e.Refused != "" {
				if x != nil || e.Refused == "" {
					t.Fatalf("seed %d: %+v: refused %q, but the parser differs", seed, q, e.Refused)
				}
				seen["refused"]++
				continue
			}
			v := begin(p, x)
			name := unmatchedName
			if e.Route != nil {
				name = e.Route.Name
			}
			if name != x.Route.Name || v == dataplane.Next && e.Pool != x.Route.Pool {
				t.Fatalf("seed %d: %+v: explained as %s to %q, taken by %s to %q", seed, q, name, e.Pool, x.Route.Name, x.Route.Pool)
			}
			if e.Status != x.Response.Status || e.Status != 0 && e.Reason != x.Mark.Reason || (e.Status == 0) != (v == dataplane.Next || v == dataplane.Wait) || e.Waits != (v == dataplane.Wait) {
				t.Fatalf("seed %d: %+v: %d (%s) explained, %d (%s) answered", seed, q, e.Status, e.Reason, x.Response.Status, x.Mark.Reason)
			}
			if v == dataplane.Wait {
				seen["waits"]++
				open = append(open, x)
				continue
			}
			told, done := e.Answer, header(x.Response.Header)
			if v == dataplane.Next {
				told = e.Sends
				if next := chosen(e); next != x.Server.Name && !e.Drawn {
					t.Fatalf("seed %d: %+v: %q explained as next of %+v by %s, %s picked", seed, q, next, e.Servers, e.Balance, x.Server.Name)
				}
				done = strings.Split(strings.TrimRight(string(http1.AppendRequest(nil, &x.Request)), "\r\n"), "\r\n")
				open = append(open, x)
			}
			if d := cmp.Diff(masked(done, e.Drawn), masked(told, e.Drawn)); d != "" {
				t.Fatalf("seed %d: %+v: (-done +told)\n%s", seed, q, d)
			}
			if x.Mark.Kept != nil && x.Mark.Kept == x.Server {
				seen["kept"]++
			}
			seen[fmt.Sprint(v == dataplane.Close, " ", e.Reason)]++
			if v != dataplane.Next {
				p.End(x, nil)
			}
			for len(open) > g.IntN(12) { // servers have something to do meanwhile
				if open[0].Server == nil {
					p.End(open[0], dataplane.ErrClientGone) // it has waited
				} else {
					respond(p, open[0], 200)
					if cookie, _, ok := strings.Cut(string(open[0].Response.Header.Get(dataplane.SetCookie)), ";"); ok {
						cookies = append(cookies, cookie)
					}
					p.End(open[0], nil)
				}
				open = open[1:]
			}
		}
		for _, x := range open {
			p.End(x, dataplane.ErrClientGone)
		}
	}
	for _, want := range []string{"refused", "waits", "kept", "false ", "false queue_full", "false respond", "false redirect", "false maintenance", "false no_server", "false method",
		"false rewrite", "false no_route", "false unknown_host", "true unknown_host", "false too_large"} {
		if seen[want] == 0 {
			t.Errorf("never came to %s: %v", want, seen)
		}
	}
}

func chosen(e *Explanation) string {
	for _, s := range e.Servers {
		if s.Chosen {
			return s.Name
		}
	}
	return ""
}

// masked hides what no two exchanges have alike: ids, and the server where chance decides.
func masked(lines []string, drawn bool) string {
	text := ids.ReplaceAllString(strings.Join(lines, "\n"), "${1}ID")
	if drawn {
		text = regexp.MustCompile(`(?m)^Host: 192\.0\.2\.\d+:80$`).ReplaceAllString(text, "Host: DRAWN")
	}
	return text
}
