//go:build !race

package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"runtime"
	"strings"
	"testing"

	"proxyd/internal/dataplane/engine"
)

// Allocations are counted over so many requests, rounds times, and the least counts: what happens
// now and then, whatever does it, is not in every round.
const (
	measured = 2500
	rounds   = 4
)

// An exact is one side of a connection that knows how long what the other one sends is. It
// allocates nothing.
type exact struct {
	net.Conn
	out  []byte
	in   []byte
	body int // bytes that follow a head of the other side
}

var endOfHead = []byte("\r\n\r\n")

// whole reads one message of the other side, whose bodies are all as long.
func (e *exact) whole() ([]byte, error) {
	for n := 0; ; {
		k, err := e.Read(e.in[n:])
		if n += k; err != nil {
			return nil, err
		}
		if head := bytes.Index(e.in[:n], endOfHead); head >= 0 && n >= head+len(endOfHead)+e.body {
			return e.in[:n], nil
		}
	}
}

// answering is a server with one goroutine, which has each request that was forwarded answered.
func answering(t *testing.T, body int, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e := &exact{out: []byte(answer), in: make([]byte, 64<<10), body: body}
	forwarded := []byte("\r\nX-Forwarded-For: 127.0.0.1\r\n")
	go func() { // ends with the listener, once the connection of the data plane has
		for {
			if e.Conn, err = l.Accept(); err != nil {
				return
			}
			for {
				request, err := e.whole()
				if err != nil || !bytes.Contains(request, forwarded) {
					break
				}
				if _, err := e.Write(e.out); err != nil {
					break
				}
			}
			e.Close()
		}
	}()
	return l.Addr().String()
}

// asks has a client ask again and again, and returns the allocations of all for each request.
func (e *exact) asks(t *testing.T, times int) float64 {
	t.Helper()
	good := []byte("HTTP/1.1 200 ")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		if _, err := e.Write(e.out); err != nil {
			t.Fatal(err)
		}
		if answer, err := e.whole(); err != nil || !bytes.HasPrefix(answer, good) {
			t.Fatalf("%.40q, %v", answer, err)
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(times)
}

// The whole data plane allocates nothing for a plain request: over the sockets of the loops, through a
// route with what is forwarded, ids and metrics, without an access log. Over TLS crypto/tls allocates
// once for each record that it reads: the client's answer, and our request.
func TestWholeAllocatesNothing(t *testing.T) {
	for _, work := range []struct {
		name, method string
		post, answer int
		secure       bool
		allocations  float64
	}{
		{"small GET", "GET", 0, 2, false, 0},
		{"POST of 4 KB", "POST", 4 << 10, 2, false, 0},
		{"100 KB answer", "GET", 0, 100 << 10, false, 0},
		{"HTTPS small GET", "GET", 0, 2, true, 2},
		{"HTTPS POST of 4 KB", "POST", 4 << 10, 2, true, 2},
	} {
		t.Run(work.name, func(t *testing.T) {
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: app\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", work.answer, strings.Repeat("x", work.answer))
			app := answering(t, work.post, answer)
			w := wholeOf(t, Options{Engine: engine.NewLoop(engine.Config{})})
			listener := ""
			if work.secure {
				c := certFiles(t, 1, "shop.example")
				listener = fmt.Sprintf("tls = true\n[[cert]]\ncert = %q\nkey = %q\n", c.Cert, c.Key)
			}
			w.apply(parsed(t, "[node]\nname = \"edge-1\"\n[listener.web]\naddress = \"127.0.0.1:8080\"\n"+listener+
				"[log]\naccess = false\n[pool.app]\nservers = [\""+app+"\"]\n[[route]]\nname = \"shop\"\nhost = \"shop.example\"\npath = \"/api/*\"\npool = \"app\"\n"))
			request := work.method + " /api/items?id=7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n"
			if work.post > 0 {
				request += fmt.Sprintf("Content-Length: %d\r\n", work.post)
			}
			request += "\r\n" + strings.Repeat("x", work.post)

			conn, err := net.Dial("tcp4", w.address)
			if err != nil {
				t.Fatal(err)
			}
			if work.secure {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example"})
			}
			t.Cleanup(func() { conn.Close() })
			client := &exact{Conn: conn, out: []byte(request), in: make([]byte, 256<<10), body: work.answer}
			const warm = 500 // buffers grow to their size
			client.asks(t, warm)
			got := math.Inf(1)
			for range rounds {
				got = min(got, client.asks(t, measured))
			}
			if got >= work.allocations+0.01 {
				t.Errorf("%.4f allocations a request, want %v", got, work.allocations)
			}
			for w.current.Load().counters["shop"].inflight.Load() > 0 {
				runtime.Gosched()
			}
			wantSeries(t, gather(t, w.Plane), map[string]float64{
				fmt.Sprintf(`proxyd_http_requests_total{code="200",listener="web",method=%q,route="shop"}`, work.method): warm + rounds*measured,
			})
		})
	}
}
