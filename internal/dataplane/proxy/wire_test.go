package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// site is a configuration as an operator writes it.
const site = `
[node]
name = "edge-1"
trusted_proxies = ["10.0.0.0/8"]

[listener.web]
address = "127.0.0.1:8080"

[trace]
request_id = ""

[[route]]
name = "shop"
host = ["shop.example.com", "*.shop.example.com"]
to   = ["192.0.2.1:80"]

[[route]]
host = "shop.example.com"
path = "/admin/*"
respond = { status = 403, body = "no" }

[[route]]
host = "old.example.com"
redirect = "https"
`

var wireLimits = http1.Limits{HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100}

// forward parses raw as an engine does and returns what a server would be sent, or what
// is answered here as "status reason".
func forward(t *testing.T, p *Plane, client, raw string) string {
	t.Helper()
	x := &dataplane.Exchange{
		Listener: &dataplane.Listener{Name: "web", Address: "127.0.0.1:8080"},
		Client:   netip.MustParseAddrPort(client),
	}
	x.Times.Start = time.Now()
	x.Times.Head = x.Times.Start
	_, err := http1.ParseRequest([]byte(raw), &x.Request, wireLimits)
	var bad *dataplane.Malformed
	if errors.As(err, &bad) {
		return "malformed " + bad.Reason
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Match(x)
	defer func() { p.End(x, nil) }()
	if v := p.Begin(x); v != dataplane.Next {
		r := &x.Response
		return strings.Join(append([]string{string(http1.AppendResponse(nil, r, http1.ResponseOptions{Minor: 1, KeepAlive: !r.Close}))}, string(r.Body)), "")
	}
	defer func() { x.Response.Status = 200; p.Respond(x) }()
	return string(http1.AppendRequest(nil, &x.Request))
}

func parsed(t testing.TB, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("proxyd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func crlf(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

func TestBytesInBytesOut(t *testing.T) {
	conf := parsed(t, site)
	conf.Listener["web"].Address[0] = "127.0.0.1:0"
	p, _ := start(t, conf)
	ours := func(client, host string) []string {
		return []string{"X-Forwarded-For: " + client, "X-Real-IP: " + client, "X-Forwarded-Proto: http", "X-Forwarded-Host: " + host,
			"X-Forwarded-Port: 8080", "Forwarded: for=" + client + `;host="` + host + `";proto=http`, "Via: 1.1 proxyd"}
	}
	const client = "198.51.100.9"
	for _, c := range []struct {
		why  string
		raw  string
		want string
	}{
		{"a plain request",
			crlf("GET /a?b=c HTTP/1.1", "Host: shop.example.com", "Accept: */*"),
			crlf(append([]string{"GET /a?b=c HTTP/1.1", "Host: shop.example.com", "Accept: */*"}, ours(client, "shop.example.com")...)...)},
		{"C1, B6: one canonical form is routed on and sent",
			crlf("GET /x/../%61%2Fb//c HTTP/1.1", "Host: SHOP.Example.com."),
			crlf(append([]string{"GET /a%2Fb/c HTTP/1.1", "Host: shop.example.com"}, ours(client, "shop.example.com")...)...)},
		{"B6: the absolute form wins over Host",
			crlf("GET http://www.shop.example.com/ HTTP/1.1", "Host: other.example"),
			crlf(append([]string{"GET / HTTP/1.1", "Host: www.shop.example.com"}, ours(client, "www.shop.example.com")...)...)},
		{"C1: a way round a protected prefix",
			crlf("GET /x/..//./%61dmin/y HTTP/1.1", "Host: shop.example.com"),
			crlf("HTTP/1.1 403 Forbidden", "Content-Type: text/plain; charset=utf-8", "Content-Length: 2") + "no"},
		{"B2: Connection names fields of the client, and none of ours",
			crlf("GET / HTTP/1.1", "Host: shop.example.com", "Connection: close, X-Forwarded-For, X-Real-IP, Via, Cookie, X-User", "Cookie: a=b", "X-User: root", "X-Keep: 1"),
			crlf(append([]string{"GET / HTTP/1.1", "Host: shop.example.com", "X-Keep: 1"}, ours(client, "shop.example.com")...)...)},
		{"B4, S9: names with an underscore",
			crlf("GET / HTTP/1.1", "Host: shop.example.com", "X_Forwarded_For: 1.1.1.1", "Content_Length: 5"),
			crlf(append([]string{"GET / HTTP/1.1", "Host: shop.example.com"}, ours(client, "shop.example.com")...)...)},
		{"G2: h2c is not upgraded to",
			crlf("GET / HTTP/1.1", "Host: shop.example.com", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
			crlf(append([]string{"GET / HTTP/1.1", "Host: shop.example.com"}, ours(client, "shop.example.com")...)...)},
		{"S11: WebSocket is",
			crlf("GET / HTTP/1.1", "Host: shop.example.com", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
			crlf(append(append([]string{"GET / HTTP/1.1", "Host: shop.example.com", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, ours(client, "shop.example.com")...), "Connection: upgrade")...)},
		{"A6: a body keeps its length",
			crlf("GET / HTTP/1.1", "Host: shop.example.com", "Content-Length: 5"),
			crlf(append(append([]string{"GET / HTTP/1.1", "Host: shop.example.com"}, ours(client, "shop.example.com")...), "Content-Length: 5")...)},
		{"chunked stays chunked",
			crlf("POST / HTTP/1.1", "Host: shop.example.com", "Transfer-Encoding: chunked", "Trailer: X"),
			crlf(append(append([]string{"POST / HTTP/1.1", "Host: shop.example.com"}, ours(client, "shop.example.com")...), "Transfer-Encoding: chunked")...)},
		{"C7: a redirect stays with its host",
			crlf("GET //evil.example/%2e%2e/x?y HTTP/1.1", "Host: old.example.com:8080"),
			crlf("HTTP/1.1 308 Permanent Redirect", "Content-Type: text/plain; charset=utf-8", "Location: https://old.example.com/x?y", "Content-Length: 23") + "308 Permanent Redirect\n"},
		{"no route",
			crlf("GET / HTTP/1.1", "Host: unknown.example"),
			crlf("HTTP/1.1 404 Not Found", "Content-Type: text/plain; charset=utf-8", "Content-Length: 14") + "404 Not Found\n"},
		{"S12", crlf("CONNECT shop.example.com:443 HTTP/1.1", "Host: shop.example.com:443"), "405"},
		{"S13", crlf("TRACE / HTTP/1.1", "Host: shop.example.com"), "405"},
		{"S15: OPTIONS *", crlf("OPTIONS * HTTP/1.1", "Host: shop.example.com"),
			crlf("HTTP/1.1 200 OK", "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH", "Content-Length: 0")},
		{"RFC 9110, 7.6.2: one less to go", crlf("OPTIONS / HTTP/1.1", "Host: shop.example.com", "max-forwards: 10"),
			crlf(append([]string{"OPTIONS / HTTP/1.1", "Host: shop.example.com", "max-forwards: 9"}, ours(client, "shop.example.com")...)...)},
		{"RFC 9110, 7.6.2: none to go", crlf("OPTIONS / HTTP/1.1", "Host: shop.example.com", "Max-Forwards: 0"),
			crlf("HTTP/1.1 200 OK", "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH", "Content-Length: 0")},
		{"RFC 9110, 7.6.2: of GET it says nothing", crlf("GET / HTTP/1.1", "Host: shop.example.com", "Max-Forwards: 0"),
			crlf(append([]string{"GET / HTTP/1.1", "Host: shop.example.com", "Max-Forwards: 0"}, ours(client, "shop.example.com")...)...)},
		{"RFC 9110, 7.6.2: no number", crlf("OPTIONS / HTTP/1.1", "Host: shop.example.com", "Max-Forwards: -1"),
			crlf(append([]string{"OPTIONS / HTTP/1.1", "Host: shop.example.com", "Max-Forwards: -1"}, ours(client, "shop.example.com")...)...)},
		{"S15: GET *", crlf("GET * HTTP/1.1", "Host: shop.example.com"), "malformed"},
	} {
		got := forward(t, p, client+":4000", c.raw)
		if len(c.want) < 12 {
			if !strings.Contains(strings.SplitN(got, "\r\n", 2)[0], c.want) {
				t.Errorf("%s: got %q, want %s", c.why, got, c.want)
			}
			continue
		}
		if d := cmp.Diff(strings.Split(c.want, "\r\n"), strings.Split(got, "\r\n")); d != "" {
			t.Errorf("%s: %s", c.why, d)
		}
	}
}
