package http1

import (
	"testing"

	"proxyd/internal/dataplane"
)

// typical is what a browser sends, ten fields.
const typical = "GET /static/app/main.css?v=12 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
	"Accept: text/css,*/*;q=0.1\r\nAccept-Language: en\r\nAccept-Encoding: gzip, br\r\nReferer: https://www.example.com/\r\n" +
	"Cookie: session=0123456789abcdef\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n" +
	"X-Request-Id: 7f2c1e9a0d5b4c58\r\n\r\n"

const typicalAnswer = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 16:00:00 GMT\r\nContent-Type: text/css\r\n" +
	"Content-Length: 4312\r\nLast-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"654376a0-10d8\"\r\n" +
	"Accept-Ranges: bytes\r\n\r\n"

func TestAllocs(t *testing.T) {
	q, r, out := new(dataplane.Request), new(dataplane.Response), make([]byte, 0, 4096)
	body := []byte("5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n")
	odd := []byte("GET /a/../%7e HTTP/1.1\r\nHost: WWW.Example.COM:80\r\nConnection: keep-alive, x-y\r\nX-Y: z\r\n\r\n")
	shake, head, answer := []byte(handshake), []byte(typical), []byte(typicalAnswer)
	for name, do := range map[string]func() bool{
		"a request": func() bool {
			q.Reset()
			n, err := ParseRequest(head, q, wide)
			StripHop(&q.Header, q.Nominated, false)
			out = AppendRequest(out[:0], q)
			return n > 0 && err == nil
		},
		"a request that is not canonical": func() bool {
			q.Reset()
			n, err := ParseRequest(odd, q, wide)
			StripHop(&q.Header, q.Nominated, false)
			return n > 0 && err == nil
		},
		"an upgrade": func() bool {
			q.Reset()
			n, err := ParseRequest(shake, q, wide)
			return n > 0 && err == nil && q.WebSocket
		},
		"an answer": func() bool {
			r.Reset()
			n, err := ParseResponse(answer, r, false, wide)
			StripHop(&r.Header, r.Nominated, false)
			out = AppendResponse(out[:0], r, ResponseOptions{Minor: 1, KeepAlive: true})
			return n > 0 && err == nil
		},
		"a chunked body": func() bool {
			var c ChunkReader
			for rest := body; ; {
				_, n, done, err := c.Next(rest)
				if done || err != nil {
					return err == nil
				}
				rest = rest[n:]
			}
		},
	} {
		if !do() {
			t.Errorf("%s: not accepted", name)
		}
		if n := testing.AllocsPerRun(100, func() { do() }); n != 0 {
			t.Errorf("%v allocations for %s, want none", n, name)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	in, r := []byte(typical), new(dataplane.Request)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r.Reset()
		if n, err := ParseRequest(in, r, wide); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	in, r := []byte(typicalAnswer), new(dataplane.Response)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		r.Reset()
		if n, err := ParseResponse(in, r, false, wide); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	r, out := new(dataplane.Request), make([]byte, 0, 4096)
	if _, err := ParseRequest([]byte(typical), r, wide); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequest(out[:0], r)
	}
}

func BenchmarkChunkReader(b *testing.B) {
	in := []byte("400\r\n" + string(make([]byte, 1024)) + "\r\n")
	var c ChunkReader
	b.ReportAllocs()
	b.SetBytes(1024)
	for b.Loop() {
		for rest := in; len(rest) > 0; {
			_, n, _, err := c.Next(rest)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}
