package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// A message is what a reader takes a request for: all that framing decides.
type message struct {
	method, body string
	length       int64
	chunked      bool
}

// ours reads the requests at the front of in, up to the first that is refused or not
// complete.
func ours(in []byte) (read []message, rest int) {
	at := 0
	for len(read) < 8 {
		r := new(dataplane.Request)
		n, err := ParseRequest(in[at:], r, wide)
		if n == 0 || err != nil {
			return read, at
		}
		m := message{method: string(r.MethodText), length: r.Length, chunked: r.Chunked}
		body := in[at+n:]
		switch {
		case r.Chunked:
			var c ChunkReader
			var text strings.Builder
			used := 0
			for done := false; !done; {
				data, k, end, err := c.Next(body[used:])
				if err != nil || k == 0 && !end {
					return read, at
				}
				text.Write(data)
				used, done = used+k, end
			}
			m.body, n = text.String(), n+used
		case r.Length > int64(len(body)):
			return read, at
		default:
			m.body, n = string(body[:r.Length]), n+int(r.Length)
		}
		read, at = append(read, m), at+n
	}
	return read, at
}

// theirs reads as many requests of in with net/http.
func theirs(in []byte, most int) (read []message) {
	b := bufio.NewReader(bytes.NewReader(in))
	for len(read) < most {
		q, err := http.ReadRequest(b)
		if err != nil {
			return read
		}
		m := message{method: q.Method, length: q.ContentLength, chunked: len(q.TransferEncoding) > 0}
		text, err := io.ReadAll(q.Body)
		if err != nil {
			return read
		}
		m.body = string(text)
		read = append(read, m)
	}
	return read
}

// FuzzDifferential holds A13: whatever both we and net/http take for requests, both
// take for the same requests.
func FuzzDifferential(f *testing.F) {
	for _, s := range smuggling {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { agree(t, in) })
}

func agree(t *testing.T, in []byte) {
	t.Helper()
	before := bytes.Clone(in)
	mine, _ := ours(in)
	if !bytes.Equal(in, before) {
		t.Fatalf("%q was changed to %q", before, in)
	}
	std := theirs(in, len(mine))
	for i := range min(len(mine), len(std)) {
		if mine[i] != std[i] {
			t.Fatalf("%q: request %d is %+v to us and %+v to net/http", in, i, mine[i], std[i])
		}
	}
}

// smuggling are classics of request smuggling and what lies near them. Each is followed
// by a second request, which two readers must see at the same place.
var smuggling = func() []string {
	const next = "GET /next HTTP/1.1\r\nHost: b\r\n\r\n"
	bodies := []string{"", "abc", "3\r\nabc\r\n0\r\n\r\n", "0\r\n\r\n", "3;x=\"y\"\r\nabc\r\n0\r\nA: b\r\n\r\n", "03\r\nabc\r\n00\r\n\r\n", "3\nabc\n0\n\n", "3 \r\nabc\r\n0\r\n\r\n"}
	fields := []string{
		"", "Content-Length: 0\r\n", "Content-Length: 3\r\n", "Content-Length: 03\r\n", "Content-Length: +3\r\n", "Content-Length: 3, 3\r\n", "Content-Length: 3\r\nContent-Length: 3\r\n",
		"Content-Length:\t3 \r\n", "Content-Length : 3\r\n", "Content_Length: 3\r\n", "Content-Length:\r\n 3\r\n", "Content-Length: 3\n",
		"Transfer-Encoding: chunked\r\n", "transfer-encoding:chunkeD\t\r\n", "Transfer-Encoding: \"chunked\"\r\n", "Transfer-Encoding: chunked, chunked\r\n",
		"Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding:\x0bchunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
		"Transfer_Encoding: chunked\r\n", "Transfer-Encoding\r\n : chunked\r\n", "Connection: Content-Length\r\nContent-Length: 3\r\n", "X: y\rContent-Length: 3\r\n",
		"X: y\x00\r\nContent-Length: 3\r\n",
	}
	var all []string
	for _, line := range []string{"GET / HTTP/1.1", "POST / HTTP/1.1", "POST / HTTP/1.0", "HEAD /x HTTP/1.1", "DELETE http://b/ HTTP/1.1"} {
		for _, f := range fields {
			for _, b := range bodies {
				all = append(all, line+"\r\nHost: a\r\n"+f+"\r\n"+b+next)
			}
		}
	}
	return all
}()

func TestA13NoSecondReading(t *testing.T) {
	for _, s := range smuggling {
		agree(t, []byte(s))
	}
}

// What is forwarded of requests that we accept is as many requests, with the same
// bodies, to net/http as to us: no server sees two where we saw one.
func TestA13ForwardedReadsTheSame(t *testing.T) {
	for _, s := range smuggling {
		r := new(dataplane.Request)
		n, err := ParseRequest([]byte(s), r, wide)
		if n == 0 || err != nil {
			continue
		}
		mine, end := ours([]byte(s))
		if len(mine) == 0 {
			continue
		}
		StripHop(&r.Header, r.Nominated, false)
		out := AppendRequest(nil, r)
		if r.Chunked {
			if len(mine[0].body) > 0 {
				out = append(append(AppendChunkHead(out, len(mine[0].body)), mine[0].body...), "\r\n"...)
			}
			out = append(out, LastChunk...)
		} else {
			out = append(out, mine[0].body...)
		}
		again, rest := ours(out)
		std := theirs(out, 8)
		if len(again) != 1 || rest != len(out) || again[0] != mine[0] || len(std) != 1 || std[0] != mine[0] {
			t.Errorf("%q (read to %d) is forwarded as %q, which is %+v to us and %+v to net/http", s, end, out, again, std)
		}
	}
}
