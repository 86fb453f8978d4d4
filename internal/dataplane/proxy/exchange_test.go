package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

func TestHopByHopFieldsStopHere(t *testing.T) { // B2, S11
	p, _ := start(t, base())
	x := with(get("h", "/"), "Connection: keep-alive", "Keep-Alive: 5", "TE: trailers", "Upgrade: h2c", "Accept: */*")
	begin(p, x)
	got := header(x.Request.Header)[:2]
	if d := cmp.Diff([]string{"Host: h", "Accept: */*"}, got); d != "" || len(x.Request.Header) != 9 {
		t.Errorf("sent on %q", header(x.Request.Header))
	}
	respond(p, x, 200)
	x.Response.Header = nil
	x.Response.Header.Add(dataplane.Connection, []byte("Connection"), []byte("close"))
	x.Response.Header.Add(dataplane.Upgrade, []byte("Upgrade"), []byte("h2c"))
	p.Respond(x)
	if d := cmp.Diff([]string{"Via: 1.1 proxyd"}, header(x.Response.Header)); d != "" {
		t.Error(d)
	}
}

func TestUpgradeIsKeptForWebSocketOnly(t *testing.T) { // S11, G1
	for _, c := range []struct {
		why       string
		webSocket bool
		upgrade   []string
		want      bool
	}{
		{"well formed, route allows", true, []string{"websocket"}, true},
		{"not well formed", false, []string{"websocket"}, false},
		{"route does not allow", true, nil, false},
	} {
		conf := base()
		conf.Route[0].Upgrade = c.upgrade
		p, _ := start(t, conf)
		x := with(get("h", "/"), "Connection: Upgrade", "Upgrade: websocket")
		x.Request.WebSocket = c.webSocket
		begin(p, x)
		if got := x.Request.Header.Get(dataplane.Upgrade) != nil; got != c.want {
			t.Errorf("%s: Upgrade sent on = %v", c.why, got)
		}
	}
}

func TestAnswersMadeHere(t *testing.T) {
	conf := base()
	conf.Limits.Body = 1000
	conf.Pool["none"] = pool("none")
	conf.Route = append(conf.Route,
		&config.Route{Name: "hello", Path: "/hello", Respond: &config.Respond{Status: 201, Type: "text/html", Body: "<p>"}},
		&config.Route{Name: "https", Path: "/https/*", Redirect: &config.Redirect{To: "https", Status: 301}},
		&config.Route{Name: "other", Path: "/other", Redirect: &config.Redirect{To: "https://b.example/x{path}?q={query}&h={host}"}},
		&config.Route{Name: "none", Path: "/none", Pool: "none"},
	)
	conf.Route[0].Host = []string{"known"}
	conf.Route[0].Path = "/*"
	p, _ := start(t, conf)
	for _, c := range []struct {
		why    string
		change func(x *dataplane.Exchange)
		host   string
		path   string
		status int
		body   string
		header string
		reason string
	}{
		{"no route", nil, "unknown", "/", 404, "404 Not Found\n", "Content-Type: text/plain; charset=utf-8", "no_route"},
		{"respond", nil, "known2", "/hello", 201, "<p>", "Content-Type: text/html", "respond"},
		{"redirect to https", nil, "a.example", "/https/x", 301, "301 Moved Permanently\n", "Location: https://a.example/https/x", "redirect"},
		{"redirect with a query", func(x *dataplane.Exchange) { x.Request.Query = []byte("a=b&c") }, "a.example", "/https/x", 301, "301 Moved Permanently\n", "Location: https://a.example/https/x?a=b&c", "redirect"},
		{"redirect with an empty query", func(x *dataplane.Exchange) { x.Request.Query = []byte{} }, "a.example", "/https/x", 301, "301 Moved Permanently\n", "Location: https://a.example/https/x?", "redirect"},
		{"template", func(x *dataplane.Exchange) { x.Request.Query = []byte("1") }, "a.example", "/other", 308, "308 Permanent Redirect\n", "Location: https://b.example/x/other?q=1&h=a.example", "redirect"},
		{"B1: a query that breaks out", func(x *dataplane.Exchange) { x.Request.Query = []byte("1\r\nSet-Cookie: x") }, "a.example", "/other", 500, "500 Internal Server Error\n", "", "template"},
		{"redirect without a host", nil, "", "/https/x", 400, "400 Bad Request\n", "", "host"},
		{"S12 CONNECT", func(x *dataplane.Exchange) { x.Request.Method = dataplane.CONNECT }, "known", "/", 405, "405 Method Not Allowed\n", "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH", "method"},
		{"S13 TRACE", func(x *dataplane.Exchange) { x.Request.Method = dataplane.TRACE }, "known", "/", 405, "405 Method Not Allowed\n", "", "method"},
		{"S15 OPTIONS *", func(x *dataplane.Exchange) { x.Request.Method = dataplane.OPTIONS }, "known", "*", 200, "", "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH", "options"},
		{"body too large", func(x *dataplane.Exchange) { x.Request.Length = 1001 }, "known", "/", 413, "413 Content Too Large\n", "", "too_large"},
		{"no server", nil, "x", "/none", 503, "503 Service Unavailable\n", "", "no_server"},
	} {
		x := get(c.host, c.path)
		if c.change != nil {
			c.change(x)
		}
		if v := begin(p, x); v != dataplane.Answer {
			t.Errorf("%s: Begin = %v, want Answer", c.why, v)
			continue
		}
		r := &x.Response
		if r.Status != c.status || string(r.Body) != c.body || r.Length != int64(len(c.body)) || x.Mark.Reason != c.reason || !x.Mark.Local {
			t.Errorf("%s: answered %d %q (%s), want %d %q (%s)", c.why, r.Status, r.Body, x.Mark.Reason, c.status, c.body, c.reason)
		}
		if c.header != "" && !slices.Contains(header(r.Header), c.header) {
			t.Errorf("%s: header %q lacks %q", c.why, header(r.Header), c.header)
		}
		for _, f := range r.Header {
			if strings.ContainsAny(string(f.Value), "\r\n\x00") {
				t.Errorf("%s: %s: %q", c.why, f.Name, f.Value)
			}
		}
		p.End(x, nil)
	}
}

func TestRedirectsThatCompileRefuses(t *testing.T) { // C7
	for _, to := range []string{"", "/path", "//evil", "{uri}", "https://{path}", "https://{query}/", "https:///x", "https://a/{nope}", "https://a/{uri", "https://a/\r\nX: y", "ftp://a/"} {
		if _, err := newTemplate(&config.Redirect{To: to}); err == nil {
			t.Errorf("redirect to %q was taken", to)
		}
	}
}

func TestWhichHostAServerIsSent(t *testing.T) {
	for _, c := range []struct{ rule, host, port, want string }{
		{"client", "a.example", "", "a.example"},
		{"client", "a.example", "8080", "a.example:8080"},
		{"", "a.example", "", "a.example"},
		{"client", "", "", "192.0.2.1:80"},
		{"server", "a.example", "", "192.0.2.1:80"},
		{"b.example", "a.example", "", "b.example"},
	} {
		conf := base()
		conf.Pool["app"].Host = c.rule
		p, _ := start(t, conf)
		x := get(c.host, "/")
		x.Request.Port = []byte(c.port)
		x.Request.Header[0].Value = []byte("As-Sent.example.")
		if c.host == "" {
			x.Request.Header = nil
		}
		begin(p, x)
		if got := string(x.Request.Header.Get(dataplane.Host)); got != c.want {
			t.Errorf("host = %q: sent %q, want %q", c.rule, got, c.want)
		}
		if c.rule == "server" {
			p.Retry(x, dataplane.ErrConnect)
			if got := string(x.Request.Header.Get(dataplane.Host)); got != "192.0.2.2:80" {
				t.Errorf("retry on the second server with Host %q", got)
			}
		}
	}
}

func TestEveryAttemptThatMayBeAskedForIsRemembered(t *testing.T) {
	if maxAttempts != config.MaxAttempts {
		t.Errorf("an exchange has %d attempts, the configuration lets %d through", maxAttempts, config.MaxAttempts)
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		why        string
		method     dataplane.Method
		err        error
		sent       bool
		replayable bool
		want       dataplane.Verdict
		status     int
		reason     string
	}{
		{"connect refused", dataplane.GET, dataplane.ErrConnect, false, true, dataplane.Again, 0, ""},
		{"connect refused, POST: nothing was sent", dataplane.POST, dataplane.ErrConnect, false, true, dataplane.Again, 0, ""},
		{"connect timed out", dataplane.GET, dataplane.ErrConnectTime, false, true, dataplane.Again, 0, ""},
		{"broke off", dataplane.GET, dataplane.ErrRead, true, true, dataplane.Again, 0, ""},
		{"broke off, DELETE", dataplane.DELETE, dataplane.ErrRead, true, true, dataplane.Again, 0, ""},
		{"broke off, POST", dataplane.POST, dataplane.ErrRead, true, true, dataplane.Answer, 502, "broken"},
		{"broke off, PATCH", dataplane.PATCH, dataplane.ErrSend, true, true, dataplane.Answer, 502, "broken"},
		{"unknown method", dataplane.MethodOther, dataplane.ErrSend, true, true, dataplane.Answer, 502, "broken"},
		{"body is gone", dataplane.PUT, dataplane.ErrConnect, false, false, dataplane.Answer, 502, "connect"},
		{"slow server, POST", dataplane.POST, dataplane.ErrReadTime, true, true, dataplane.Answer, 504, "timeout"},
		{"bad response, POST", dataplane.POST, dataplane.ErrResponse, true, true, dataplane.Answer, 502, "bad_response"},
		{"time is up", dataplane.GET, dataplane.ErrTotalTime, true, true, dataplane.Answer, 504, "timeout"},
		{"client's body is bad", dataplane.PUT, dataplane.ErrClientBody, true, true, dataplane.Answer, 400, "client_body"},
		{"client's body is too large", dataplane.PUT, dataplane.ErrTooLarge, true, true, dataplane.Answer, 413, "too_large"},
		{"client too slow", dataplane.PUT, dataplane.ErrClientSlow, true, true, dataplane.Answer, 408, "client_slow"},
		{"client gone", dataplane.GET, dataplane.ErrClientGone, true, true, dataplane.Close, 0, ""},
	} {
		p, _ := start(t, base())
		x := get("h", "/")
		x.Request.Method = c.method
		begin(p, x)
		first := x.Server
		x.Sent, x.Replayable = c.sent, c.replayable
		err := fmt.Errorf("%w: because", c.err)
		if v := p.Retry(x, err); v != c.want {
			t.Errorf("%s: Retry = %v, want %v", c.why, v, c.want)
		}
		if c.want == dataplane.Again && (x.Server == first || x.Attempt != 2) {
			t.Errorf("%s: attempt %d on the same server %v", c.why, x.Attempt, x.Server == first)
		}
		if x.Response.Status != c.status || x.Mark.Reason != c.reason {
			t.Errorf("%s: answered %d %q, want %d %q", c.why, x.Response.Status, x.Mark.Reason, c.status, c.reason)
		}
		if strings.Contains(string(x.Response.Body), "192.0.2") {
			t.Errorf("%s: the answer names a server: %q", c.why, x.Response.Body)
		}
		p.End(x, err)
		for _, s := range p.Pools()[0].Servers {
			if s.Active != 0 {
				t.Errorf("%s: %s still has %d exchanges", c.why, s.Name, s.Active)
			}
		}
	}
}

// statuses makes statuses of servers a reason to ask another one.
func statuses(on ...string) *config.Config {
	c := base()
	c.Pool["app"].Retry.On = on
	return c
}

func TestRetryOnAStatusAsksAnotherServer(t *testing.T) {
	p, _ := start(t, statuses("503"))
	x := get("h", "/")
	begin(p, x)
	first := x.Server
	if v := respond(p, x, 503); v != dataplane.Again || x.Server == first || x.Attempt != 2 || x.Response.Status != 0 {
		t.Fatalf("Respond to 503 = %v, attempt %d, same server %v", v, x.Attempt, x.Server == first)
	}
	if v := respond(p, x, 200); v != dataplane.Next {
		t.Fatalf("Respond to 200 = %v", v)
	}
	p.End(x, nil)
	servers := p.Pools()[0].Servers
	if servers[0].Requests != 1 || servers[1].Requests != 1 || servers[0].Active != 0 || servers[1].Active != 0 {
		t.Errorf("servers %+v: want an attempt each, both over", servers)
	}
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_upstream_retries_total{pool="app",result="ok"}`:                             1,
		`proxyd_upstream_retries_total{pool="app",result="failed"}`:                         0,
		`proxyd_http_requests_total{code="200",listener="web",method="GET",route="all"}`:    1,
		`proxyd_upstream_requests_total{code_class="5xx",pool="app",server="192.0.2.1:80"}`: 1,
	})
}

func TestRetryOnAStatusPassesTheLastAnswerOn(t *testing.T) {
	p, _ := start(t, statuses("503"))
	x := get("h", "/")
	begin(p, x)
	respond(p, x, 503)
	if v := respond(p, x, 503); v != dataplane.Next || x.Response.Status != 503 {
		t.Errorf("the second 503 of two attempts: %v, status %d", v, x.Response.Status)
	}
	p.End(x, nil)
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_upstream_retries_total{pool="app",result="failed"}`: 1})
}

func TestRetryOnAStatusHasItsLimits(t *testing.T) {
	for _, c := range []struct {
		why    string
		on     string
		status int
		change func(x *dataplane.Exchange)
		want   dataplane.Verdict
	}{
		{"a GET", "503", 503, func(*dataplane.Exchange) {}, dataplane.Again},
		{"another status", "503", 502, func(*dataplane.Exchange) {}, dataplane.Next},
		{"a status below 500", "429", 429, func(*dataplane.Exchange) {}, dataplane.Again},
		{"not asked for", "connect", 503, func(*dataplane.Exchange) {}, dataplane.Next},
		{"a POST was sent", "503", 503, func(x *dataplane.Exchange) { x.Request.Method = dataplane.POST }, dataplane.Next},
		{"the body is gone", "503", 503, func(x *dataplane.Exchange) { x.Replayable = false }, dataplane.Next},
		{"the client has got a byte", "503", 503, func(x *dataplane.Exchange) { x.Bytes.Out = 25 }, dataplane.Next},
	} {
		p, _ := start(t, statuses(c.on))
		x := get("h", "/")
		c.change(x)
		begin(p, x)
		if v := respond(p, x, c.status); v != c.want {
			t.Errorf("%s: Respond = %v, want %v", c.why, v, c.want)
		}
		p.End(x, nil)
	}
}

func TestRetryNeverAfterTheClientGotAByte(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	x.Sent, x.Bytes.Out = true, 25 // an interim response
	if v := p.Retry(x, dataplane.ErrRead); v != dataplane.Answer {
		t.Errorf("Retry = %v after an interim response, want Answer", v)
	}
	p.End(x, nil)
}

func TestRetryNeverAsksAServerTwice(t *testing.T) {
	c := base()
	c.Pool["app"].Server = append(c.Pool["app"].Server, config.Server{Addr: "192.0.2.3:80", Weight: 1})
	c.Pool["app"].Retry.Attempts = 5
	p, _ := start(t, c)
	x := get("h", "/")
	begin(p, x)
	asked := map[*dataplane.Server]bool{x.Server: true}
	for range 2 {
		if v := p.Retry(x, dataplane.ErrConnect); v != dataplane.Again || asked[x.Server] {
			t.Fatalf("Retry = %v, a server asked before: %v", v, asked[x.Server])
		}
		asked[x.Server] = true
	}
	if v := p.Retry(x, dataplane.ErrConnect); v != dataplane.Answer {
		t.Errorf("Retry = %v after all three servers", v)
	}
	p.End(x, nil)
}

func TestRetryFollowsItsList(t *testing.T) {
	for _, c := range []struct {
		on   []string
		err  error
		want dataplane.Verdict
	}{
		{[]string{"connect"}, dataplane.ErrConnect, dataplane.Again},
		{[]string{"connect"}, dataplane.ErrRead, dataplane.Again},
		{[]string{"connect"}, dataplane.ErrReadTime, dataplane.Answer},
		{[]string{"connect"}, dataplane.ErrConnectTime, dataplane.Answer},
		{[]string{"timeout"}, dataplane.ErrReadTime, dataplane.Again},
		{[]string{"timeout"}, dataplane.ErrConnect, dataplane.Answer},
		{[]string{"503"}, dataplane.ErrConnect, dataplane.Answer},
		{nil, dataplane.ErrConnect, dataplane.Answer},
		{nil, dataplane.ErrServerDown, dataplane.Again},
	} {
		p, _ := start(t, statuses(c.on...))
		x := get("h", "/")
		begin(p, x)
		x.Sent = true
		if v := p.Retry(x, c.err); v != c.want {
			t.Errorf("retry.on = %q, %v: %v, want %v", c.on, c.err, v, c.want)
		}
		p.End(x, nil)
	}
}

func TestAServerThatWasGivenUpIsNotBlamedAgain(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	x.Sent = true
	p.Retry(x, dataplane.ErrServerDown)
	p.End(x, nil)
	if s := p.Pools()[0].Servers[0]; s.Failures != 0 || s.Requests != 1 || s.Active != 0 {
		t.Errorf("%+v: want one request without an answer that does not count as a failure", s)
	}
}

func TestABudgetEndsRetries(t *testing.T) {
	conf := base()
	conf.Pool["app"].Passive.MaxFails = 0
	p, _ := start(t, conf)
	again := 0
	for range 200 {
		x := get("h", "/")
		begin(p, x)
		if p.Retry(x, dataplane.ErrConnect) == dataplane.Again {
			again++
			respond(p, x, 200)
		}
		p.End(x, nil)
	}
	// A fifth of the requests, and three a second of the ten that are looked at.
	if again < 60 || again > 75 {
		t.Errorf("%d of 200 requests were tried again, want about 70", again)
	}
}

func TestClientsDoNotHurtServers(t *testing.T) {
	p, _ := start(t, base())
	for range 20 {
		for _, err := range []error{dataplane.ErrClientGone, dataplane.ErrClientSlow, dataplane.ErrClientBody, dataplane.ErrTooLarge, dataplane.ErrDrained, errors.New("panic")} {
			x := get("h", "/")
			begin(p, x)
			p.Retry(x, err)
			p.End(x, err)

			x = get("h", "/")
			begin(p, x)
			respond(p, x, 200)
			p.End(x, err)
		}
	}
	for _, s := range p.Pools()[0].Servers {
		if s.State != "up" || s.Failures != 0 {
			t.Errorf("%s is %s with %d failures", s.Name, s.State, s.Failures)
		}
	}
}

func TestAnswersThatBreakOffHurtServers(t *testing.T) {
	p, _ := start(t, base())
	for range 6 {
		x := get("h", "/")
		begin(p, x)
		respond(p, x, 200)
		p.End(x, dataplane.ErrRead)
	}
	for _, s := range p.Pools()[0].Servers {
		if s.State != "ejected" || s.Failures != 3 {
			t.Errorf("%s is %s with %d failures, want ejected with 3", s.Name, s.State, s.Failures)
		}
	}
}

func TestAServerThatBreaksOffAfterAnInterimResponseIsBlamed(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	p.End(x, dataplane.ErrRead)
	if s := p.Pools()[0].Servers[0]; s.Failures != 1 || s.Requests != 1 || s.Active != 0 {
		t.Errorf("%+v: want one request, failed and over", s)
	}
}

func TestAnUpgradeThatTheServerDeclinesIsNone(t *testing.T) { // G1
	for status, want := range map[int]int{101: 2, 200: 1, 426: 1} {
		p, _ := start(t, base())
		x := get("h", "/")
		x.Request.WebSocket = true
		begin(p, x)
		x.Response.Header.Add(dataplane.Upgrade, []byte("Upgrade"), []byte("websocket"))
		respond(p, x, status)
		if got := len(x.Response.Header); got != want {
			t.Errorf("%d: passed on %q", status, header(x.Response.Header))
		}
	}
}

func TestAStatusInTheListHurtsServers(t *testing.T) {
	p, _ := start(t, base())
	for range 6 {
		x := get("h", "/")
		begin(p, x)
		respond(p, x, 503)
		p.End(x, nil)
	}
	for _, s := range p.Pools()[0].Servers {
		if s.State != "ejected" || s.Reason != "status 503" {
			t.Errorf("%s is %s, %q", s.Name, s.State, s.Reason)
		}
	}
	x := get("h", "/")
	if begin(p, x) != dataplane.Next {
		t.Error("with every server out, none is tried")
	}
}

func TestStatusOfAnExchangeWithoutAnswer(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{{dataplane.ErrClientGone, `"status":499,"reason":"client_gone"`}, {dataplane.ErrDrained, `"status":503,"reason":"drain"`}, {dataplane.ErrReadTime, `"status":504,"reason":"timeout"`}, {dataplane.ErrRead, `"status":502,"reason":"broken"`}, {errors.New("panic"), `"status":500,"reason":"internal"`}, {nil, `"status":500`}} {
		p, log := start(t, base())
		x := get("h", "/")
		begin(p, x)
		p.End(x, c.err)
		p.Shutdown(context.Background())
		if !strings.Contains(log.String(), c.want) {
			t.Errorf("%v: log %s lacks %s", c.err, log, c.want)
		}
	}
}

func TestEveryCauseHasAPlainAnswer(t *testing.T) {
	for word, a := range newAnswers() {
		if a.reason != word || (len(a.body) > 0 && string(a.body) != fmt.Sprintf("%d %s\n", a.status, http1.Reason(a.status))) {
			t.Errorf("%s: %d %q", word, a.status, a.body)
		}
	}
}

// plain is an exchange as a browser's small request makes it, used again and again.
func plain() *dataplane.Exchange {
	return with(get("shop.example.com", "/api/items"), "User-Agent: Mozilla/5.0", "Accept: */*", "Accept-Encoding: gzip", "Connection: keep-alive")
}

func run(p *Plane, x *dataplane.Exchange, request dataplane.Header, response dataplane.Header) {
	x.Request.Header = append(x.Request.Header[:0], request...)
	x.Text, x.Mark = x.Text[:0], dataplane.Mark{}
	p.Match(x)
	p.Begin(x)
	x.Times.Sent, x.Times.FirstByte = x.Times.Head, x.Times.Head
	x.Response.Header = append(x.Response.Header[:0], response...)
	x.Response.Status = 200
	p.Respond(x)
	p.End(x, nil)
}

func TestAllocs(t *testing.T) {
	p, _ := start(t, base())
	x := plain()
	request, response := slices.Clone(x.Request.Header), dataplane.Header{{Name: []byte("Content-Type"), Value: []byte("text/plain")}}
	for _, tells := range []bool{false, true} {
		x.Listener.ProxyStatus, x.Listener.ServerTiming = tells, tells
		run(p, x, request, response)
		// The access log's buffers grow once; its writer takes turns with the test.
		if n := testing.AllocsPerRun(2000, func() { run(p, x, request, response) }); n > 0.1 {
			t.Errorf("Match, Begin, Respond and End allocate %v times (with Proxy-Status: %v)", n, tells)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, v := range []struct {
		logged bool
		trace  config.Trace
	}{{}, {logged: true}, {trace: config.Trace{RequestID: "X-Request-Id"}}, {trace: config.Trace{RequestID: "X-Request-Id", Context: true}}} {
		b.Run(fmt.Sprintf("log=%v,id=%v,trace=%v", v.logged, v.trace.RequestID != "", v.trace.Context), func(b *testing.B) {
			c := base()
			c.Route[0].Log, c.Trace = v.logged, v.trace
			p := New(Options{Engine: stillEngine{}, AccessLog: io.Discard})
			if err := p.Apply(c); err != nil {
				b.Fatal(err)
			}
			defer p.Shutdown(context.Background())
			x := plain()
			request, response := slices.Clone(x.Request.Header), dataplane.Header{{Name: []byte("Content-Type"), Value: []byte("text/plain")}}
			b.ReportAllocs()
			for b.Loop() {
				run(p, x, request, response)
			}
		})
	}
}
