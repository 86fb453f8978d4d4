package proxy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// answered lets a server answer with fields and returns what the client gets of them.
func answered(p *Plane, x *dataplane.Exchange, name string, values ...string) []string {
	begin(p, x)
	for _, v := range values {
		x.Response.Header.Add(http1.Identify([]byte(name)), []byte(name), []byte(v))
	}
	respond(p, x, 302)
	p.End(x, nil)
	var got []string
	for _, f := range x.Response.Header[:len(values)] {
		got = append(got, string(f.Value))
	}
	return got
}

func located(prefix string) *config.Config {
	c := base()
	c.Pool["app"] = pool("app", "192.0.2.1:8080", "[2001:db8::5]:8080", "app.internal:9000", "127.0.0.1:3000")
	c.Pool["app"].Host = "told.internal"
	c.Route[0].StripPrefix = prefix
	return c
}

func TestPlacesThatNameAServer(t *testing.T) {
	const same = "" // passes as it is
	for _, prefix := range []string{"", "/v1"} {
		p, _ := start(t, located(prefix))
		for _, c := range []struct{ why, value, want string }{
			{"its address", "http://192.0.2.1:8080/a?b=c#d", "http://shop.example.com:81{}/a?b=c#d"},
			{"no port", "http://192.0.2.1/a", "http://shop.example.com:81{}/a"},
			{"the other scheme", "https://192.0.2.1:8080/a", "http://shop.example.com:81{}/a"},
			{"its default port", "https://192.0.2.1:443/a", "http://shop.example.com:81{}/a"},
			{"another port is another service", "http://192.0.2.1:9999/a", same},
			{"upper case", "HTTP://APP.Internal:9000/A", "http://shop.example.com:81{}/A"},
			{"closing dot", "http://app.internal.:9000/", "http://shop.example.com:81{}/"},
			{"IPv6", "http://[2001:DB8:0::5]:8080/", "http://shop.example.com:81{}/"},
			{"IPv6 without port", "http://[2001:db8::5]", "http://shop.example.com:81{}"},
			{"mapped IPv4", "http://[::ffff:192.0.2.1]:8080/", "http://shop.example.com:81{}/"},
			{"this host, as a server sees it", "http://localhost:3000/x", "http://shop.example.com:81{}/x"},
			{"the name it was told", "http://told.internal/x", "http://shop.example.com:81{}/x"},
			{"userinfo before a server", "http://user:pw@192.0.2.1:8080/", "http://shop.example.com:81{}/"},
			{"a server as userinfo", "http://192.0.2.1:8080@example.org/", same},
			{"two at signs", "http://a@b@192.0.2.1:8080/", "http://shop.example.com:81{}/"},
			{"backslashes", `http:\\192.0.2.1:8080\x`, `http://shop.example.com:81{}\x`},
			{"a backslash ends the host", `http://example.org\@192.0.2.1:8080/`, same},
			{"one slash", "http:/192.0.2.1:8080/x", "http://shop.example.com:81{}/x"},
			{"no scheme", "//192.0.2.1:8080/x", "//shop.example.com:81{}/x"},
			{"query alone", "http://192.0.2.1:8080?x=http://192.0.2.1:8080/", "http://shop.example.com:81{}?x=http://192.0.2.1:8080/"},
			{"a longer name", "http://app.internal.example.org:9000/", same},
			{"a name that ends alike", "http://my-app.internal:9000/", same},
			{"another site", "https://example.org/192.0.2.1:8080/", same},
			{"another scheme", "ftp://192.0.2.1:8080/", same},
			{"mail", "mailto:a@192.0.2.1", same},
			{"relative", "a/b", same},
			{"query", "?a=b", same},
			{"empty", "", same},
			{"absolute path", "/login", "{}/login"},
			{"ours", "http://shop.example.com:81/login", "http://shop.example.com:81{}/login"},
			{"ours by https stays https", "https://SHOP.example.com:81/login", "https://SHOP.example.com:81{}/login"},
			{"the prefix is there", "http://192.0.2.1:8080/v1/a", "http://shop.example.com:81/v1/a"},
			{"the prefix is there, path alone", "/v1?a", "/v1?a"},
			{"another segment", "/v1x", "{}/v1x"},
		} {
			want := c.want
			if want == same {
				want = c.value
			}
			for i := 0; i+1 < len(want); i++ {
				if want[i:i+2] == "{}" {
					want = want[:i] + prefix + want[i+2:]
				}
			}
			for _, name := range []string{"Location", "content-location"} {
				x := get("shop.example.com", "/")
				x.Request.Port = []byte("81")
				if got := answered(p, x, name, c.value); got[0] != want {
					t.Errorf("strip_prefix %q, %s, %s: %q became %q, want %q", prefix, name, c.why, c.value, got[0], want)
				}
			}
		}
	}
}

func TestPlacesForAClientThatNamesNoHost(t *testing.T) {
	p, _ := start(t, located(""))
	for value, want := range map[string]string{"http://192.0.2.1:8080/a": "/a", "http://192.0.2.1:8080": "/", "http://192.0.2.1:8080?a": "/?a"} {
		x := get("", "/")
		x.Request.Minor = 0
		if got := answered(p, x, "Location", value); got[0] != want {
			t.Errorf("%q became %q, want %q", value, got[0], want)
		}
	}
}

func TestPlacesAsTheClientOfATrustedProxySeesThem(t *testing.T) {
	c := located("/v1")
	c.Node.TrustedProxies = traced(false).Node.TrustedProxies
	p, _ := start(t, c)
	x := with(get("inner", "/"), "X-Forwarded-Proto: https", "X-Forwarded-Host: www.example.com")
	x.Client = netip.MustParseAddrPort("10.0.0.1:1")
	got := answered(p, x, "Location", "http://192.0.2.1:8080/a", "http://inner/a", "https://www.example.com/a")
	if d := cmp.Diff([]string{"https://www.example.com/v1/a", "http://inner/v1/a", "https://www.example.com/v1/a"}, got); d != "" {
		t.Error(d)
	}
}

func TestRefreshThatNamesAServer(t *testing.T) {
	p, _ := start(t, located("/v1"))
	for value, want := range map[string]string{
		"5":                                    "5",
		"5; url=http://192.0.2.1:8080/a":       "5; url=http://h/v1/a",
		"5;URL = 'http://192.0.2.1:8080/a'; x": "5;URL = 'http://h/v1/a'; x",
		`0, url="http://app.internal:9000"`:    `0, url="http://h/v1"`,
		"0;http://192.0.2.1:8080/":             "0;http://h/v1/",
		"0; url=":                              "0; url=",
		"0; url='/a":                           "0; url='/v1/a",
		"1; url=https://example.org/":          "1; url=https://example.org/",
	} {
		if got := answered(p, get("h", "/"), "Refresh", value); got[0] != want {
			t.Errorf("%q became %q, want %q", value, got[0], want)
		}
	}
}

func TestCookiesThatNameAServer(t *testing.T) {
	for prefix, cases := range map[string]map[string]string{
		"": {
			"a=b":                              "a=b",
			"a=b; Path=/; HttpOnly":            "a=b; Path=/; HttpOnly",
			"a=b; Domain=app.internal; Path=/": "a=b; Domain=shop.example.com; Path=/",
			"a=b;domain=.APP.internal":         "a=b; domain=shop.example.com",
			"a=b; Domain=192.0.2.1; Secure":    "a=b; Domain=shop.example.com; Secure",
			"a=b; Domain=example.org":          "a=b; Domain=example.org",
			"domain=app.internal; x":           "domain=app.internal; x",
			"a=\"; Domain=app.internal":        "a=\"; Domain=shop.example.com",
		},
		"/v1": {
			"a=b; Path=/; Domain=app.internal": "a=b; Path=/v1; Domain=shop.example.com",
			"a=b; path=/x":                     "a=b; path=/v1/x",
			"a=b; Path=/v1/x":                  "a=b; Path=/v1/x",
			"a=b; Path=; Secure":               "a=b; Path=; Secure",
			"__Host-a=b; Path=/; Secure":       "__Host-a=b; Path=/; Secure",
		},
	} {
		p, _ := start(t, located(prefix))
		for value, want := range cases {
			if got := answered(p, get("shop.example.com", "/"), "Set-Cookie", value, "c=d"); got[0] != want || got[1] != "c=d" {
				t.Errorf("strip_prefix %q: %q became %q, want %q", prefix, value, got, want)
			}
		}
	}
}

func TestPlacesAreKeptWhereThePoolSaysSo(t *testing.T) {
	c := located("/v1")
	c.Pool["app"].Location = "keep"
	p, _ := start(t, c)
	if got := answered(p, get("h", "/"), "Location", "http://192.0.2.1:8080/a"); got[0] != "http://192.0.2.1:8080/a" {
		t.Errorf("became %q", got)
	}
}

// Whatever a server sends, nothing panics, nothing grows without bound, and no control
// character comes into a value.
func FuzzPlace(f *testing.F) {
	f.Add("http://192.0.2.1:8080/a", "5; url='//192.0.2.1:8080/a'", "a=b; Domain=app.internal; Path=/")
	f.Add(`\\[::ffff:192.0.2.1`, "0,", ";;=;path=/;")
	c := located("/v1")
	p := New(Options{Engine: stillEngine{}})
	f.Cleanup(func() { p.Shutdown(f.Context()) })
	if err := p.Apply(c); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, location, refresh, cookie string) {
		x := get("shop.example.com", "/")
		p.Match(x)
		s, r := of(x)
		s.origin(x)
		for name, v := range map[string]string{"Location": location, "Refresh": refresh, "Set-Cookie": cookie} {
			x.Response.Header = x.Response.Header[:0]
			x.Response.Header.Add(http1.Identify([]byte(name)), []byte(name), []byte(v))
			r.locator.rewrite(x)
			if got := x.Response.Header[0].Value; len(got) > 20*len(v)+100 {
				t.Errorf("%s: %d bytes of %d", name, len(got), len(v))
			}
		}
		p.End(x, nil)
	})
}
