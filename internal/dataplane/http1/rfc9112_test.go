package http1

import (
	"errors"
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// The sections of RFC 9112 (and 9110, where it says so), each with what we do where the
// text demands, or lets us choose.
func TestRFC9112Requests(t *testing.T) {
	const accepted = 0
	for _, c := range []struct {
		section, claim, in string
		status             int
	}{
		{"2.2", "one empty line before the request line is ignored", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", accepted},
		{"2.2", "a second one is not", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"2.2", "nor is a line feed alone", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"2.2", "a bare CR is refused", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400},
		{"2.2", "white space before the first field is refused", "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 400},
		{"2.3", "the version is case-sensitive", "GET / Http/1.1\r\nHost: a\r\n\r\n", 400},
		{"2.3", "HTTP/0.9 has no version", "GET /\r\n", 400},
		{"3", "white space after the version is refused", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
		{"3", "white space in a target is refused", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"3.1", "the method is case-sensitive; others pass", "get / HTTP/1.1\r\nHost: a\r\n\r\n", accepted},
		{"3.1", "a method is a token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"3.2", "HTTP/1.0 may leave Host out", "GET / HTTP/1.0\r\n\r\n", accepted},
		{"3.2", "Host must be valid", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"3.2", "an empty Host names nothing here", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
		{"3.2", "no octet above 0x7e is in a target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"3.2.1", "origin form", "GET /where?q=now HTTP/1.1\r\nHost: a\r\n\r\n", accepted},
		{"3.2.2", "absolute form", "GET http://a/where HTTP/1.1\r\nHost: a\r\n\r\n", accepted},
		{"3.2.2", "of http and https alone", "GET ftp://a/where HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"3.2.2", "with a host", "GET http:///where HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"3.2.2", "a bad Host stays bad beside it", "GET http://a/ HTTP/1.1\r\nHost: a,b\r\n\r\n", 400},
		{"3.2.3", "authority form", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", accepted},
		{"3.2.3", "of CONNECT alone", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400},
		{"3.2.4", "asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", accepted},
		{"3.2.4", "an asterisk alone", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"5.1", "no white space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", 400},
		{"5.1", "white space around a value is none of it", "GET / HTTP/1.1\r\nHost:\t a \t\r\n\r\n", accepted},
		{"5.1", "an empty value is one", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", accepted},
		{"5.2", "folded lines are refused", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", 400},
		{"9110 5.5", "octets above 0x7f may be in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\r\n\r\n", accepted},
		{"9110 5.5", "a tab may", "GET / HTTP/1.1\r\nHost: a\r\nX: y\tz\r\n\r\n", accepted},
		{"9110 5.5", "DEL may not", "GET / HTTP/1.1\r\nHost: a\r\nX: y\x7fz\r\n\r\n", 400},
		{"6.1", "chunked in any case", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n", accepted},
		{"6.1", "an unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br, chunked\r\n\r\n", 501},
		{"6.1", "chunked with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", 501},
		{"6.3", "the greatest length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", accepted},
		{"6.3", "twenty digits are no length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000005\r\n\r\n", 400},
	} {
		t.Run(c.section+" "+c.claim, func(t *testing.T) {
			_, n, err := parse(c.in)
			var m *dataplane.Malformed
			switch {
			case c.status == accepted && (n != len(c.in) || err != nil):
				t.Errorf("ParseRequest(%q) = %d, %v; want it accepted", c.in, n, err)
			case c.status != accepted && (n != 0 || !errors.As(err, &m) || m.Status != c.status):
				t.Errorf("ParseRequest(%q) = %d, %v; want status %d", c.in, n, err, c.status)
			}
		})
	}
}

// RFC 9112, 3.2.4: an OPTIONS of a whole server that came in absolute form.
func TestRFC9112OptionsOfAHost(t *testing.T) {
	for in, want := range map[string]string{"http://a": "*", "http://a/": "/", "http://a?x": "/"} {
		r, n, err := parse("OPTIONS " + in + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if n == 0 || err != nil || string(r.Path) != want {
			t.Errorf("OPTIONS %s: path %q, %v; want %q", in, r.Path, err, want)
		}
	}
}

// RFC 9112, 7.1.1: extensions are bounded in all, not only in each line.
func TestRFC9112ExtensionsInAll(t *testing.T) {
	chunk := "1;" + strings.Repeat("x", 200) + "\r\na\r\n"
	few, many := maxExtensions/200-1, maxExtensions/200+1
	if _, _, _, err := decode(strings.Repeat(chunk, few), 1<<20); err != nil {
		t.Errorf("%d extensions: %v", few, err)
	}
	if _, _, _, err := decode(strings.Repeat(chunk, many), 1<<20); err == nil {
		t.Errorf("%d extensions of 200 bytes are accepted", many)
	}
}

// RFC 9112, 9.3: who may send again on a connection.
func TestRFC9112Persistence(t *testing.T) {
	for in, want := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                     true,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n":                false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n":             false,
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n":    false,
		"GET / HTTP/1.0\r\n\r\n":                                                false,
		"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n":                      true,
		"GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n": false,
	} {
		if r, n, err := parse(in); n == 0 || err != nil || r.KeepAlive != want {
			t.Errorf("%q: KeepAlive %v, %v; want %v", in, r.KeepAlive, err, want)
		}
	}
}

// RFC 9112, 6.1 to 6.3, and 9.6: what frames the answer that is written.
func TestRFC9112WrittenFraming(t *testing.T) {
	for name, c := range map[string]struct {
		r    dataplane.Response
		o    ResponseOptions
		want string
	}{
		"until close to HTTP/1.0": {dataplane.Response{Status: 200, Length: -1}, ResponseOptions{KeepAlive: true}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
		"HEAD of unknown length":  {dataplane.Response{Status: 200, Length: -1, NoBody: true}, ResponseOptions{Minor: 1, KeepAlive: true}, "HTTP/1.1 200 OK\r\n\r\n"},
		"204":                     {dataplane.Response{Status: 204, Length: 9}, ResponseOptions{Minor: 1, KeepAlive: true}, "HTTP/1.1 204 No Content\r\n\r\n"},
		"304 made here":           {dataplane.Response{Status: 304}, ResponseOptions{Minor: 1, KeepAlive: true}, "HTTP/1.1 304 Not Modified\r\n\r\n"},
		"304 of a length":         {dataplane.Response{Status: 304, Length: 9, NoBody: true}, ResponseOptions{Minor: 1, KeepAlive: true}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"},
		"101":                     {dataplane.Response{Status: 101}, ResponseOptions{Minor: 1, KeepAlive: true, Upgrade: true}, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n"},
		"a status of nobody":      {dataplane.Response{Status: 799}, ResponseOptions{Minor: 1, KeepAlive: true}, "HTTP/1.1 799 \r\nContent-Length: 0\r\n\r\n"},
	} {
		if got := string(AppendResponse(nil, &c.r, c.o)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// RFC 9110, 7.2: Host comes first, and once.
func TestHostComesFirst(t *testing.T) {
	r, _, err := parse("POST //a?b HTTP/1.1\r\nX: y\r\nContent-Length: 0\r\nhost: A\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(AppendRequest(nil, r)), "POST /a?b HTTP/1.1\r\nhost: A\r\nX: y\r\nContent-Length: 0\r\n\r\n"; got != want {
		t.Errorf("AppendRequest = %q, want %q", got, want)
	}
}
