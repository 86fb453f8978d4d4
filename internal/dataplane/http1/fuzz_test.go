package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// What we forward of a request that we accept is one request, which reads the same when
// it is parsed again, and which net/http reads with the same length: no server sees
// two where we saw one (A13).
func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a/../%7e?x#y HTTP/1.1\r\nHost: A:80\r\nContent-Length: 3\r\n\r\nabc",
		"POST http://b/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: x\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive, X\r\nX_Y: z\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, n, err := parse(in)
		if n == 0 || err != nil || r.Method == dataplane.CONNECT {
			return
		}
		out := AppendRequest(nil, r)
		again := new(dataplane.Request)
		m, err := ParseRequest(bytes.Clone(out), again, Limits{HeaderBytes: 1 << 20, URIBytes: 1 << 20, Fields: 1000})
		if err != nil || m != len(out) || again.Length != r.Length || again.Chunked != r.Chunked || !bytes.Equal(again.Path, r.Path) || !bytes.Equal(again.Query, r.Query) {
			if r.Minor == 0 && len(r.Host) == 0 || r.Minor == 0 && r.Header.Get(dataplane.Expect) != nil {
				return // Begin adds a Host; an expectation is ignored in HTTP/1.0
			}
			t.Fatalf("%q is forwarded as %q, which reads as %d, %v, %+v", in, out, m, err, again)
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out)))
		if err != nil {
			return // stricter than we are
		}
		chunked := len(std.TransferEncoding) > 0
		if chunked != r.Chunked || !chunked && std.ContentLength != max(r.Length, 0) {
			t.Errorf("%q: net/http reads length %d chunked %v, we %d %v", out, std.ContentLength, chunked, r.Length, r.Chunked)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("/a/%2e%2e/b//c/./%2f..;x")
	f.Fuzz(func(t *testing.T, in string) {
		if !strings.HasPrefix(in, "/") || strings.ContainsAny(in, "?#") {
			return
		}
		out, err := AppendPath(nil, []byte(in))
		if err != nil {
			return
		}
		again, err := AppendPath(nil, out)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("normal form of %q is %q, of that %q, %v", in, out, again, err)
		}
		for _, s := range strings.Split(string(out), "/") {
			if s == "." || s == ".." {
				t.Errorf("normal form of %q has a dot segment: %q", in, out)
			}
		}
		if len(out) == 0 || out[0] != '/' || strings.Contains(string(out), "//") {
			t.Errorf("normal form of %q is %q", in, out)
		}
	})
}
