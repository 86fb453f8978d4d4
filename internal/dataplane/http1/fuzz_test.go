package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/dataplane"
)

// pieces gives b to parse in growing parts, as a slow sender would, and returns what
// it said at last.
func pieces(b []byte, parse func([]byte) (int, error)) (n int, err error) {
	for i := 0; i <= len(b) && n == 0 && err == nil; i++ {
		n, err = parse(b[:i:i])
	}
	return n, err
}

// A head that comes byte by byte is read, or refused, as one that comes at once; and
// what is forwarded of it reads the same when it is parsed again.
func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a/../%7e?x#y HTTP/1.1\r\nHost: A:80\r\nContent-Length: 3\r\n\r\nabc",
		"POST http://b/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: x\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive, X\r\nX_Y: z\r\nHost: [::0:1]:080\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a.\r\nExpect: 100-continue\r\n\r\n",
		handshake, typical,
	} {
		f.Add([]byte(s))
	}
	small := Limits{HeaderBytes: 512, URIBytes: 128, Fields: 12}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1024 {
			return
		}
		whole, slow := new(dataplane.Request), new(dataplane.Request)
		n, err := ParseRequest(in, whole, small)
		m, late := pieces(in, func(b []byte) (int, error) {
			slow.Reset()
			return ParseRequest(b, slow, small)
		})
		if n != m || (err == nil) != (late == nil) {
			t.Fatalf("%q at once: %d, %v; byte by byte: %d, %v", in, n, err, m, late)
		}
		if n == 0 {
			return
		}
		whole.Text, slow.Text = nil, nil
		if diff := cmp.Diff(whole, slow); diff != "" {
			t.Fatalf("%q byte by byte reads otherwise: %s", in, diff)
		}
		if whole.Method == dataplane.CONNECT || len(whole.Host) == 0 {
			return // never forwarded so: refused, or given a Host
		}
		out := AppendRequest(nil, whole)
		again := new(dataplane.Request)
		if m, err := ParseRequest(out, again, wide); m != len(out) || err != nil {
			t.Fatalf("%q is forwarded as %q, which reads as %d, %v", in, out, m, err)
		}
		if !forwardedAs(whole, again) {
			t.Fatalf("%q is forwarded as %q, which reads as %+v, not %+v", in, out, again, whole)
		}
	})
}

// forwardedAs reports whether b, an HTTP/1.1 request, is a forwarded.
func forwardedAs(a, b *dataplane.Request) bool {
	return b.Minor == 1 && a.Method == b.Method && bytes.Equal(a.MethodText, b.MethodText) && bytes.Equal(a.Host, b.Host) &&
		bytes.Equal(a.Port, b.Port) && bytes.Equal(a.Path, b.Path) && bytes.Equal(a.Query, b.Query) && (a.Query == nil) == (b.Query == nil) &&
		a.Length == b.Length && a.Chunked == b.Chunked && a.Continue == b.Continue && a.WebSocket == b.WebSocket && len(b.Header) >= len(a.Header)
}

// An answer is read in pieces as at once, and net/http, if it takes the head, finds the
// same body behind it.
func FuzzParseResponse(f *testing.F) {
	for _, s := range []string{
		typicalAnswer, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
		"HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		if len(in) > 1024 {
			return
		}
		whole, slow := new(dataplane.Response), new(dataplane.Response)
		n, err := ParseResponse(in, whole, head, wide)
		m, late := pieces(in, func(b []byte) (int, error) {
			slow.Reset()
			return ParseResponse(b, slow, head, wide)
		})
		if n != m || (err == nil) != (late == nil) {
			t.Fatalf("%q at once: %d, %v; byte by byte: %d, %v", in, n, err, m, late)
		}
		if n == 0 {
			return
		}
		if diff := cmp.Diff(whole, slow); diff != "" {
			t.Fatalf("%q byte by byte reads otherwise: %s", in, diff)
		}
		if whole.Chunked && (whole.Length >= 0 || whole.NoBody) || whole.Length < -1 {
			t.Fatalf("%q: %+v", in, whole)
		}
		q := &http.Request{Method: "GET"}
		if head {
			q.Method = "HEAD"
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), q)
		if err != nil || whole.NoBody {
			return
		}
		chunked := len(std.TransferEncoding) > 0
		if chunked != whole.Chunked || std.ContentLength != whole.Length {
			t.Errorf("%q: net/http reads length %d chunked %v, we %d %v", in, std.ContentLength, chunked, whole.Length, whole.Chunked)
		}
	})
}
