package http1

import (
	"errors"
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

var wide = Limits{HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100}

func parse(text string) (*dataplane.Request, int, error) {
	r := new(dataplane.Request)
	n, err := ParseRequest([]byte(text), r, wide)
	return r, n, err
}

// Each row is refused with the status and the reason; the name starts with the id of the
// threat it stands for.
func TestRefusedRequests(t *testing.T) {
	for name, c := range map[string]struct {
		in     string
		status int
		reason string
	}{
		"S1 A1 length and chunked":      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "cl_te"},
		"S1 A1 chunked and length":      {"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n", 400, "cl_te"},
		"S2 preface":                    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "h2_preface"},
		"S3 chunked in 1.0":             {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "te_http10"},
		"S4 folded line":                {"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, "obs_fold"},
		"S4 folded first line":          {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "obs_fold"},
		"S5 bare LF after request line": {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_lf"},
		"S5 bare LF after field":        {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "bare_lf"},
		"S7 C4 fragment":                {"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "fragment"},
		"S15 asterisk":                  {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
		"S16 B6 two hosts in one":       {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, "host"},
		"B6 user information":           {"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "host"},
		"B6 port":                       {"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "host"},
		"A2 xchunked":                   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501, "transfer_encoding"},
		"A2 chunked, identity":          {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 501, "transfer_encoding"},
		"A2 two lines":                  {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "transfer_encoding_twice"},
		"A2 vertical tab":               {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n", 400, "field_value"},
		"A2 empty":                      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 501, "transfer_encoding"},
		"A3 plus":                       {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400, "content_length"},
		"A3 list":                       {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n", 400, "content_length"},
		"A3 twice":                      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400, "content_length_twice"},
		"A3 nought, then a length":      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 400, "content_length_twice"},
		"A1 chunked and nought":         {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "cl_te"},
		"A3 2^63":                       {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 400, "content_length"},
		"A3 empty":                      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400, "content_length"},
		"A8 expectation":                {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: y 100-continue\r\n\r\n", 417, "expect"},
		"A8 second expectation":         {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: x\r\nExpect: 100-continue\r\n\r\n", 417, "expect"},
		"C1 above the root":             {"GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"C1 dots with parameters":       {"GET /a/..;/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"C2 NUL":                        {"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"C2 backslash":                  {"GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"C2 raw backslash":              {"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"C2 dots by encoded slash":      {"GET /a/..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"C2 broken escape":              {"GET /%g0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"},
		"no host":                       {"GET / HTTP/1.1\r\n\r\n", 400, "host_missing"},
		"host twice":                    {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host_twice"},
		"space before colon":            {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "field_name"},
		"empty name":                    {"GET / HTTP/1.1\r\n: a\r\n\r\n", 400, "field_name"},
		"NUL in value":                  {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, "field_value"},
		"CR in value":                   {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, "field_value"},
		"version 2":                     {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version"},
		"version 1.2":                   {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "version"},
		"lower-case version":            {"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "version"},
		"two spaces":                    {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
		"tab in the request line":       {"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"},
		"TLS":                           {"\x16\x03\x01", 400, "tls"},
		"E2 URI size":                   {"GET /" + strings.Repeat("a", 9000), 414, "uri_size"},
		"E2 head size":                  {"GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 33000), 431, "header_size"},
		"E2 fields":                     {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", 101) + "\r\n", 431, "fields"},
	} {
		t.Run(name, func(t *testing.T) {
			_, n, err := parse(c.in)
			var m *dataplane.Malformed
			if n != 0 || !errors.As(err, &m) || m.Status != c.status || m.Reason != c.reason {
				t.Errorf("ParseRequest = %d, %v; want status %d, reason %s", n, err, c.status, c.reason)
			}
		})
	}
}

func TestCanonicalForm(t *testing.T) {
	for in, want := range map[string]string{
		"/":                     "/",
		"/a/b":                  "/a/b",
		"/a//b":                 "/a/b",
		"//":                    "/",
		"/a/./b/":               "/a/b/",
		"/a/.":                  "/a/",
		"/a/..":                 "/",
		"/a/b/../c":             "/a/c",
		"/a/%2e%2e/c":           "/c",
		"/%41%2d%7e":            "/A-~",
		"/a%2fb":                "/a%2Fb",
		"/a%3bb%c3%a9":          "/a%3Bb%C3%A9",
		"/.well-known/x":        "/.well-known/x",
		"/...":                  "/...",
		"/a/..b":                "/a/..b",
		"http://A.Example:80":   "/",
		"http://a/x/../y?z=../": "/y",
	} {
		r, n, err := parse("GET " + in + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if n == 0 || err != nil || string(r.Path) != want {
			t.Errorf("path of %q = %q, %v; want %q", in, r.Path, err, want)
		}
	}
	r, _, err := parse("GET http://WWW.Example.COM.:8080/x?q HTTP/1.1\r\nHost: other\r\n\r\n")
	if err != nil || string(r.Host) != "www.example.com" || string(r.Port) != "8080" || string(r.Query) != "q" {
		t.Errorf("absolute form = host %q port %q query %q, %v", r.Host, r.Port, r.Query, err)
	}
	if got := r.Header.Get(dataplane.Host); string(got) != "WWW.Example.COM.:8080" {
		t.Errorf("Host after an absolute form = %q: it must say the same", got)
	}
}

// Host is one string whatever way it was written (B6), and what came is left as it was.
func TestB6CanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"a":                            "a|",
		"WWW.Example.COM":              "www.example.com|",
		"a.":                           "a|",
		"a.:080":                       "a|80",
		"a:":                           "a|",
		"a:0":                          "a|0",
		"a_b.c-d":                      "a_b.c-d|",
		"127.0.0.1:8080":               "127.0.0.1|8080",
		"[::1]":                        "[::1]|",
		"[0:0:0::0001]:80":             "[::1]|80",
		"[2001:DB8::A]":                "[2001:db8::a]|",
		"[::ffff:102:304]":             "[::ffff:1.2.3.4]|",
		strings.Repeat("a", 63) + ".b": strings.Repeat("a", 63) + ".b|",
	} {
		for _, text := range []string{
			"GET /x HTTP/1.1\r\nHost: " + in + "\r\n\r\n",
			"GET http://" + in + "/x HTTP/1.1\r\nHost: other:99\r\n\r\n",
		} {
			b := []byte(text)
			r := new(dataplane.Request)
			n, err := ParseRequest(b, r, wide)
			if got := string(r.Host) + "|" + string(r.Port); n == 0 || err != nil || got != want {
				t.Errorf("%q: host and port are %s, %v; want %s", text, got, err, want)
			}
			if string(b) != text {
				t.Errorf("%q was changed to %q", text, b)
			}
		}
	}
	for _, in := range []string{
		"", ".", ".a", "a..b", "a..", "a b", "a,b", "a/b", "a%41", "u@a", "a:b", "a:1:2", "a:-1", "a:65536", "a:000080", "a~b", "ä",
		"::1", "[::1", "[]", "[::1]x", "[::1]80", "[::1%25eth0]", "[1.2.3.4]", "[fe80::1%eth0]", "[v1.x]", "]", ":80",
		strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	} {
		if _, n, err := parse("GET / HTTP/1.1\r\nHost: " + in + "\r\n\r\n"); n != 0 || err == nil {
			t.Errorf("Host %q is accepted", in)
		}
	}
}

// An expectation that nobody will wait for is not forwarded.
func TestExpectationWithoutSenseIsDropped(t *testing.T) {
	for in, want := range map[string]bool{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n":          true,
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n": true,
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n":          false,
		"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n":                                false,
		"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n":                     false,
		"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: else\r\n\r\n":                             false,
	} {
		r, n, err := parse(in)
		if n == 0 || err != nil || r.Continue != want || (r.Header.Get(dataplane.Expect) != nil) != want {
			t.Errorf("%q: %d, %v, Continue %v, Expect %q; want %v", in, n, err, r.Continue, r.Header.Get(dataplane.Expect), want)
		}
	}
}

// A head that comes byte by byte is read as one that comes at once.
func TestHeadInPieces(t *testing.T) {
	const text = "POST /a/%7eb?c HTTP/1.1\r\nHost: A:80\r\nContent-Length: 3\r\nX_Y: dropped\r\nUpgrade: h2c\r\n\r\n"
	for i := 1; i < len(text); i++ {
		if _, n, err := parse(text[:i]); n != 0 || err != nil {
			t.Fatalf("ParseRequest(%q) = %d, %v; want not complete", text[:i], n, err)
		}
	}
	r, n, err := parse(text + "abc")
	if n != len(text) || err != nil || r.Length != 3 || r.Header.Find("X_Y") != nil || string(r.Path) != "/a/~b" {
		t.Errorf("ParseRequest = %d, %v, %+v", n, err, r)
	}
}
