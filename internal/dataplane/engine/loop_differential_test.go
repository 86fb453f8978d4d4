package engine

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A plan is one exchange as client and server have agreed on it beforehand.
type plan struct {
	request []byte
	splits  []int // where the client pauses
	method  string
	answer  []byte
	cut     bool // the server ends its connection after the answer, whatever that says
}

// sizes of bodies: around every boundary that an engine has.
var sizes = []int{0, 1, 100, 4 << 10, bufferBytes - 200, bufferBytes, spliceFrom + 1, 100_000, 300_000}

// newPlan draws an exchange.
func newPlan(r *rand.Rand, n int, last bool) plan {
	p := plan{method: []string{"GET", "GET", "HEAD", "POST", "PUT", "DELETE"}[r.IntN(6)]}
	var q bytes.Buffer
	minor := 1
	if last && r.IntN(3) == 0 {
		minor = 0
	}
	path := fmt.Sprintf("/%d", n)
	if r.IntN(5) == 0 {
		path = "/heavy" + path // the loop hands it over
	}
	if r.IntN(8) == 0 {
		path = "/answer"
	}
	fmt.Fprintf(&q, "%s %s HTTP/1.%d\r\nHost: h\r\n", p.method, path, minor)
	if last && minor == 1 {
		q.WriteString("Connection: close\r\n")
	}
	if r.IntN(4) == 0 {
		fmt.Fprintf(&q, "X-Long: %s\r\n", strings.Repeat("l", r.IntN(6000)))
	}
	body := make([]byte, sizes[r.IntN(len(sizes))])
	fill(body, n)
	switch {
	case p.method != "POST" && p.method != "PUT":
		q.WriteString("\r\n")
	case minor == 1 && path != "/answer" && r.IntN(3) == 0: // how much has come decides whether an answer made here closes
		q.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		q.Write(inChunks(r, body))
	default:
		fmt.Fprintf(&q, "Content-Length: %d\r\n\r\n", len(body))
		q.Write(body)
	}
	p.request = q.Bytes()
	for range r.IntN(4) {
		p.splits = append(p.splits, r.IntN(len(p.request)))
	}
	p.drawAnswer(r, n)
	return p
}

func (p *plan) drawAnswer(r *rand.Rand, n int) {
	var a bytes.Buffer
	for range r.IntN(8) / 6 {
		a.WriteString("HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n")
	}
	body := make([]byte, sizes[r.IntN(len(sizes))])
	fill(body, -n)
	switch r.IntN(12) {
	case 0:
		a.WriteString("HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n")
	case 1:
		a.WriteString("HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 7\r\n\r\n")
	case 2:
		a.WriteString("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
	case 3:
		a.Reset()
		p.cut = true // no answer at all
	case 4, 5:
		p.cut = true
		a.WriteString("HTTP/1.0 200 OK\r\nDate: d\r\n\r\n")
		if p.method != "HEAD" {
			a.Write(body)
		}
	case 6, 7, 8:
		a.WriteString("HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n")
		if p.method != "HEAD" {
			all := inChunks(r, body)
			if p.cut = r.IntN(6) == 0; p.cut {
				all = all[:len(all)-3]
			}
			a.Write(all)
		}
	default:
		fmt.Fprintf(&a, "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: %d\r\n\r\n", len(body))
		if p.method != "HEAD" {
			if p.cut = len(body) > 0 && r.IntN(6) == 0; p.cut {
				body = body[:len(body)-1]
			}
			a.Write(body)
		}
	}
	p.answer = a.Bytes()
}

func fill(b []byte, n int) {
	for i := range b {
		b[i] = byte('a' + (i*7+i>>8+n)&15)
	}
}

func inChunks(r *rand.Rand, b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		n := min(1+r.IntN(40_000), len(b))
		out = fmt.Appendf(out, "%x;e=f\r\n%s\r\n", n, b[:n])
		b = b[n:]
	}
	return append(out, "0\r\nT: v\r\n\r\n"...)
}

// A record is what one side saw, without what time decides (how a body was cut in chunks).
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

// body describes one.
func bodyOf(from io.Reader) string {
	h := crc32.NewIEEE()
	n, err := io.Copy(h, from)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Sprintf("%d bytes %x, cut", n, h.Sum32())
	case err != nil:
		return "broken" // by a reset, which may overtake bytes
	}
	return fmt.Sprintf("%d bytes %x", n, h.Sum32())
}

// serve answers each request by the plan that its path names.
func (r *record) serve(s *stage, plans []plan) {
	eachRequest(s, func(conn net.Conn, q *http.Request) bool {
		r.add("%s %s %v length %d %v: %s", q.Method, q.URL.Path, q.Header, q.ContentLength, q.TransferEncoding, bodyOf(q.Body))
		var n int
		fmt.Sscanf(strings.TrimPrefix(q.URL.Path, "/heavy"), "/%d", &n)
		conn.Write(plans[n].answer)
		return !plans[n].cut
	})
}

// eachRequest has answer called for each request that the stage's server gets, until there are no
// more connections; one ends when answer returns false.
func eachRequest(s *stage, answer func(conn net.Conn, q *http.Request) bool) {
	for {
		conn, err := s.server.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer conn.Close()
			in := bufio.NewReader(conn)
			for {
				q, err := http.ReadRequest(in)
				if err != nil || !answer(conn, q) {
					return
				}
			}
		}()
	}
}

// exchanges plays plans on one client connection, or more where one ends, and returns
// what client, server and handler saw.
func exchanges(t *testing.T, newEngine func(Config) Engine, plans []plan, sealed bool) [3][]string {
	var client, server, handler record
	s := newStage(t, newEngine, func(s *stage, _ *Config) { s.waited, s.sealed = true, sealed })
	go server.serve(s, plans) // ends with the stage
	var conn net.Conn
	var in *bufio.Reader
	for i, p := range plans {
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", s.socket.Addr().String()); err != nil {
				t.Fatal(err)
			}
			if sealed {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			}
			conn.SetDeadline(time.Now().Add(patience))
			in = bufio.NewReader(conn)
		}
		go func(conn net.Conn) { // ends with the request, or the connection
			rest := p.request
			for _, at := range p.splits {
				if n := at - (len(p.request) - len(rest)); n > 0 {
					conn.Write(rest[:n])
					rest = rest[n:]
				}
			}
			conn.Write(rest)
		}(conn)
		closes := false
		for {
			a, err := http.ReadResponse(in, &http.Request{Method: p.method})
			if err != nil {
				client.add("%d: no answer", i)
				closes = true
				break
			}
			a.Header.Del("Date")
			client.add("%d: %d %v length %d %v close %t: %s", i, a.StatusCode, a.Header, a.ContentLength, a.TransferEncoding, a.Close, bodyOf(a.Body))
			if a.StatusCode >= 200 {
				closes = a.Close
				break
			}
		}
		// The handler has the last word of each exchange.
		for ended := false; !ended; {
			select {
			case e := <-s.events:
				handler.add("%d: %s", i, e)
				ended = strings.HasPrefix(e, "end ")
				closes = closes || ended && e != "end ok"
			case <-time.After(patience):
				t.Fatalf("exchange %d does not end", i)
			}
		}
		if closes {
			conn.Close()
			conn = nil
		}
	}
	if conn != nil {
		conn.Close()
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	// A request that a kept connection did not answer is sent once more; which engine has
	// kept which connection is not what is compared.
	return [3][]string{client.lines, slices.Compact(server.lines), handler.lines}
}

// Both engines show client, server and handler the same, whatever comes in which pieces.
func TestEnginesAgree(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { agree(t, uint64(seed), false) })
	}
}

// They do so through TLS.
func TestEnginesAgreeThroughTLS(t *testing.T) {
	seeds := 15
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { agree(t, uint64(seed), true) })
	}
}

func agree(t *testing.T, seed uint64, sealed bool) {
	r := rand.New(rand.NewPCG(seed, 12))
	var plans []plan
	for n := range 12 {
		plans = append(plans, newPlan(r, n, n == 11))
	}
	want := exchanges(t, func(c Config) Engine { return New(c) }, plans, sealed)
	for name, newEngine := range map[string]func(Config) Engine{
		"no batches": func(c Config) Engine { c.Batch = -1; return NewLoop(c) },
		"batches":    func(c Config) Engine { c.Batch = 1; return NewLoop(c) },
		"turns":      func(c Config) Engine { return newPaced(c, time.Second) },
	} {
		got := exchanges(t, newEngine, plans, sealed)
		for i, side := range []string{"client", "server", "handler"} {
			if d := cmp.Diff(want[i], got[i]); d != "" {
				t.Errorf("what the %s saw with %s (-goroutine +loop):\n%s", side, name, d)
			}
		}
	}
}
