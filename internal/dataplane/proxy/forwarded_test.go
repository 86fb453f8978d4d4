package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// with adds "Name: value" lines to the request.
func with(x *dataplane.Exchange, lines ...string) *dataplane.Exchange {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		x.Request.Header.Add(http1.Identify([]byte(name)), []byte(name), []byte(value))
	}
	return x
}

func header(h dataplane.Header) []string {
	var lines []string
	for _, f := range h {
		lines = append(lines, string(f.Name)+": "+string(f.Value))
	}
	return lines
}

func TestForwardedFieldsAreOurs(t *testing.T) { // B3, S10, S14
	p, _ := start(t, base())
	x := with(get("shop.example.com", "/"),
		"X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /x",
		"X-Forwarded-Server: evil", "X-Real-IP: 1.1.1.1", "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "True-Client-IP: 1.1.1.1",
		"X-Client-IP: 1.1.1.1", "Forwarded: for=1.1.1.1", "Proxy: http://evil", "x-forwarded-ssl: on", "X-Forwarded: y", "Accept: */*")
	begin(p, x)
	want := []string{
		"Host: shop.example.com", "Accept: */*",
		"X-Forwarded-For: 198.51.100.9", "X-Real-IP: 198.51.100.9", "X-Forwarded-Proto: http", "X-Forwarded-Host: shop.example.com",
		"X-Forwarded-Port: 8080", `Forwarded: for=198.51.100.9;host="shop.example.com";proto=http`, "Via: 1.1 proxyd",
	}
	if d := cmp.Diff(want, header(x.Request.Header)); d != "" {
		t.Error(d)
	}
	if x.Mark.ClientIP != netip.MustParseAddr("198.51.100.9") {
		t.Errorf("client is %s", x.Mark.ClientIP)
	}
}

func TestWhoTheClientIs(t *testing.T) { // B3
	for _, c := range []struct {
		why, peer string
		lines     []string
		client    string
		chain     string // X-Forwarded-For sent on
	}{
		{"untrusted peer", "198.51.100.9", []string{"X-Forwarded-For: 1.1.1.1"}, "198.51.100.9", "198.51.100.9"},
		{"trusted peer says nothing", "10.0.0.1", nil, "10.0.0.1", "10.0.0.1"},
		{"trusted peer", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1"}, "1.1.1.1", "1.1.1.1, 10.0.0.1"},
		{"first untrusted from the right", "10.0.0.1", []string{"X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2"}, "1.1.1.1", "6.6.6.6, 1.1.1.1, 10.0.0.2, 10.0.0.1"},
		{"several lines are one list", "10.0.0.1", []string{"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.1.1.1,10.0.0.2"}, "1.1.1.1", "6.6.6.6, 1.1.1.1, 10.0.0.2, 10.0.0.1"},
		{"all trusted: the leftmost", "10.0.0.1", []string{"X-Forwarded-For: 10.0.0.3, 10.0.0.2"}, "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"},
		{"what is no address ends the chain", "10.0.0.1", []string{"X-Forwarded-For: 6.6.6.6, <script>, 1.1.1.1"}, "1.1.1.1", "1.1.1.1, 10.0.0.1"},
		{"nothing but junk", "10.0.0.1", []string{"X-Forwarded-For: unknown"}, "10.0.0.1", "10.0.0.1"},
		{"junk behind a trusted one", "10.0.0.1", []string{"X-Forwarded-For: x, 10.0.0.2"}, "10.0.0.2", "10.0.0.2, 10.0.0.1"},
		{"with ports", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1:999"}, "1.1.1.1", "1.1.1.1, 10.0.0.1"},
		{"IPv6", "10.0.0.1", []string{"X-Forwarded-For: 2001:db8::1, [2001:db8::2]:80, [2001:db8::3]"}, "2001:db8::3", "2001:db8::1, 2001:db8::2, 2001:db8::3, 10.0.0.1"},
		{"a mapped address is IPv4", "::ffff:10.0.0.1", []string{"X-Forwarded-For: ::ffff:1.1.1.1"}, "1.1.1.1", "1.1.1.1, 10.0.0.1"},
		{"Forwarded alone", "10.0.0.1", []string{`Forwarded: for="[2001:db8::1]:80";proto=https, For=1.1.1.1`}, "1.1.1.1", "2001:db8::1, 1.1.1.1, 10.0.0.1"},
		{"Forwarded hides a comma in quotes", "10.0.0.1", []string{`Forwarded: for=6.6.6.6;by="a,for=7.7.7.7", for=1.1.1.1`}, "1.1.1.1", "6.6.6.6, 1.1.1.1, 10.0.0.1"},
		{"an obfuscated node ends the chain", "10.0.0.1", []string{`Forwarded: for=_hidden, for=10.0.0.2`}, "10.0.0.2", "10.0.0.2, 10.0.0.1"},
		{"both agree", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1", "Forwarded: for=1.1.1.1"}, "1.1.1.1", "1.1.1.1, 10.0.0.1"},
		{"both disagree: neither", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1", "Forwarded: for=2.2.2.2"}, "10.0.0.1", "10.0.0.1"},
		{"one is longer: neither", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1", "Forwarded: for=1.1.1.1, for=10.0.0.2"}, "10.0.0.1", "10.0.0.1"},
		{"Connection cannot name them away", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1", "Connection: X-Forwarded-For"}, "1.1.1.1", "1.1.1.1, 10.0.0.1"}, // B2
	} {
		conf := base()
		conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		p, _ := start(t, conf)
		x := with(get("h.example", "/"), c.lines...)
		x.Client = netip.AddrPortFrom(netip.MustParseAddr(c.peer), 1234)
		begin(p, x)
		if got := x.Mark.ClientIP.String(); got != c.client {
			t.Errorf("%s: client is %s, want %s", c.why, got, c.client)
		}
		if got := string(x.Request.Header.Get(dataplane.XForwardedFor)); got != c.chain {
			t.Errorf("%s: X-Forwarded-For: %s, want %s", c.why, got, c.chain)
		}
		if got := string(x.Request.Header.Get(dataplane.XRealIP)); got != c.client {
			t.Errorf("%s: X-Real-IP: %s, want %s", c.why, got, c.client)
		}
	}
}

func TestATrustedPeerTellsSchemeHostAndPort(t *testing.T) {
	for _, c := range []struct {
		why                       string
		lines                     []string
		proto, host, port, forwrd string
	}{
		{"X-Forwarded-*", []string{"X-Forwarded-Proto: HTTPS", "X-Forwarded-Host: shop.example:8443", "X-Forwarded-Port: 8443"},
			"https", "shop.example:8443", "8443", `for=10.0.0.1;host="shop.example:8443";proto=https`},
		{"Forwarded", []string{`Forwarded: for=1.1.1.1;host=a.example;proto=http, for=10.0.0.2;host="b.example";proto=https`},
			"https", "b.example", "8080", `for=1.1.1.1, for=10.0.0.2, for=10.0.0.1;host="b.example";proto=https`},
		{"what is not well formed is not believed", []string{"X-Forwarded-Proto: gopher", `X-Forwarded-Host: a"b`, "X-Forwarded-Port: 99x"},
			"http", "h.example", "8080", `for=10.0.0.1;host="h.example";proto=http`},
	} {
		conf := base()
		conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		p, _ := start(t, conf)
		x := with(get("h.example", "/"), c.lines...)
		x.Client = netip.MustParseAddrPort("10.0.0.1:1234")
		begin(p, x)
		h := x.Request.Header
		got := []string{string(h.Get(dataplane.XForwardedProto)), string(h.Get(dataplane.XForwardedHost)), string(h.Get(dataplane.XForwardedPort)), string(h.Get(dataplane.Forwarded))}
		if d := cmp.Diff([]string{c.proto, c.host, c.port, c.forwrd}, got); d != "" {
			t.Errorf("%s: %s", c.why, d)
		}
	}
}

func TestALongChainIsCut(t *testing.T) {
	conf := base()
	conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p, _ := start(t, conf)
	x := with(get("h", "/"), "X-Forwarded-For: "+strings.Repeat("10.0.0.2, ", 500)+"10.0.0.3")
	x.Client = netip.MustParseAddrPort("10.0.0.1:1234")
	begin(p, x)
	if n := strings.Count(string(x.Request.Header.Get(dataplane.XForwardedFor)), ","); n != maxHops {
		t.Errorf("%d hops sent on, want %d", n, maxHops)
	}
}

// FuzzForwarded holds that no bytes of a trusted peer make Begin panic or send on a
// value that a server could read as something else.
func FuzzForwarded(f *testing.F) {
	f.Add([]byte("1.1.1.1, [2001:db8::1]:80"), []byte(`for=1.1.1.1;host="a";proto=https, for="[::1]:8"`))
	f.Add([]byte(","), []byte(`for="\"`))
	conf := base()
	conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p, _ := start(f, conf)
	f.Fuzz(func(t *testing.T, plain, standard []byte) {
		x := get("h.example", "/")
		x.Client = netip.MustParseAddrPort("10.0.0.1:1234")
		if len(plain) > 0 {
			x.Request.Header.Add(dataplane.XForwardedFor, nameXForwardedFor, plain)
		}
		if len(standard) > 0 {
			x.Request.Header.Add(dataplane.Forwarded, nameForwarded, standard)
		}
		begin(p, x)
		for _, part := range strings.Split(string(x.Request.Header.Get(dataplane.XForwardedFor)), ", ") {
			if _, err := netip.ParseAddr(part); err != nil {
				t.Errorf("sent on %q", part)
			}
		}
		if h := x.Request.Header.Get(dataplane.XForwardedHost); !isHost(h) {
			t.Errorf("X-Forwarded-Host: %q", h)
		}
		p.End(x, dataplane.ErrClientGone)
	})
}
