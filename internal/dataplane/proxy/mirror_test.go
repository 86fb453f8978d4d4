package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/filter"
	"proxyd/internal/dataplane/upstream"
	"proxyd/internal/freeport"
)

// copying is a data plane whose one route has the lines of route, and sends copies to the
// server shadow.
func copying(t *testing.T, route, shadow, app string) *whole {
	t.Helper()
	return newWhole(t, parsed(t, `
[listener.web]
address = "127.0.0.1:8080"
[pool.app]
servers = ["`+app+`"]
[pool.shadow]
servers = ["`+shadow+`"]
host = "server"
passive = { max_fails = 0 }
timeout = { connect = "5s", send = "5s", read = "5s" }
[[route]]
name = "all"
pool = "app"
mirror = { pool = "shadow" }
`+route))
}

// idle waits until no copy is under way.
func (w *whole) idle() {
	w.t.Helper()
	c := &w.current.Load().counters["all"].mirror
	for until := time.Now().Add(20 * time.Second); c.busy.Load() > 0; runtime.Gosched() {
		if time.Now().After(until) {
			w.t.Fatal("copies do not end")
		}
	}
}

func mirrored(ok, failed, busy, body float64) map[string]float64 {
	all := map[string]float64{}
	for word, n := range map[string]float64{"ok": ok, "failed": failed, "dropped_busy": busy, "dropped_body": body} {
		all[`proxyd_http_mirrored_total{result="`+word+`",route="all"}`] = n
	}
	return all
}

func TestAMirrorGetsItsShareExactly(t *testing.T) {
	for _, percent := range []int{1, 7, 50, 100} {
		conf := base()
		conf.Pool["shadow"] = pool("shadow")
		conf.Route[0].Mirror = &config.Mirror{Pool: "shadow", Percent: percent}
		p, _ := start(t, conf)
		wantSeries(t, gather(t, p), mirrored(0, 0, 0, 0))
		for range 1000 {
			x := get("h", "/")
			if begin(p, x) != dataplane.Next {
				t.Fatal("no server")
			}
			for p.current.Load().counters["all"].mirror.busy.Load() > 0 {
				runtime.Gosched()
			}
			p.End(x, nil)
		}
		wantSeries(t, gather(t, p), mirrored(0, float64(10*percent), 0, 0)) // the pool has no server
	}
}

func TestACopyIsWhatTheServerIsSentButForHost(t *testing.T) {
	type seen struct {
		line   string
		header http.Header
		body   string
	}
	record := func(all chan seen) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			all <- seen{fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", r.ContentLength), r.Header, string(b)}
			w.Write(slices.Repeat([]byte("x"), 100_000))
		}
	}
	main, copies := make(chan seen, 1), make(chan seen, 1)
	app, shadow := server(t, record(main)), server(t, record(copies))
	w := copying(t, "path = \"/v1/*\"\nstrip_prefix = \"/v1\"", shadow, app)
	for _, body := range []string{"", "hello", strings.Repeat("h", 60_000)} {
		r, _ := http.NewRequest("POST", "http://"+w.address+"/v1/a?b=c", strings.NewReader(body))
		r.Header.Set("X-Forwarded-For", "192.0.2.77") // pretended
		r.Header.Set("X-Other", "1")
		answer, err := w.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		want, got := <-main, <-copies
		w.idle()
		if got.header.Get("Connection") != "close" {
			t.Errorf("Connection: %q", got.header.Get("Connection"))
		}
		got.header.Del("Connection")
		want.line = strings.Replace(want.line, w.address, shadow, 1)
		if d := cmp.Diff(want, got, cmp.AllowUnexported(seen{})); d != "" {
			t.Errorf("%d bytes: %s", len(body), d)
		}
	}
	wantSeries(t, gather(t, w.Plane), mirrored(3, 0, 0, 0))
	wantSeries(t, gather(t, w.Plane), map[string]float64{`proxyd_http_bodies_held_bytes`: 0,
		`proxyd_upstream_requests_total{code_class="2xx",pool="shadow",server="` + shadow + `"}`: 3,
		`proxyd_upstream_requests_inflight{pool="shadow",server="` + shadow + `"}`:               0,
		`proxyd_upstream_connections_open{pool="shadow",server="` + shadow + `"}`:                0})
}

func TestBodiesThatAreNotCopied(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})
	shadow := server(t, func(http.ResponseWriter, *http.Request) { t.Error("a copy came") })
	w := copying(t, "", shadow, app)
	for i, c := range []struct {
		why  string
		body io.Reader
		with string
		want string
	}{
		{"too long", strings.NewReader(strings.Repeat("x", 64<<10+1)), "", "65537"},
		{"in chunks", io.MultiReader(strings.NewReader("hello")), "", "5"},
		{"one whose client asks first", strings.NewReader("hello"), "100-continue", "5"},
	} {
		r, _ := http.NewRequest("POST", "http://"+w.address+"/", c.body)
		if c.with != "" {
			r.Header.Set("Expect", c.with)
		}
		answer, err := w.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if string(b) != c.want {
			t.Errorf("%s: the server got %s bytes, want %s", c.why, b, c.want)
		}
		wantSeries(t, gather(t, w.Plane), mirrored(0, 0, 0, float64(i+1)))
	}
}

func TestTheBufferOfARouteIsCopied(t *testing.T) {
	got := make(chan int64, 2)
	count := func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got <- n
	}
	w := copying(t, `buffer = "200KiB"`, server(t, count), server(t, count))
	answer, err := w.client.Post("http://"+w.address+"/", "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 150_000)))) // in chunks
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if a, b := <-got, <-got; a != 150_000 || b != 150_000 {
		t.Errorf("the servers got %d and %d bytes", a, b)
	}
}

// rude listens and does with each connection what it is told.
func rude(t *testing.T, with func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { l.Close() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				with(c)
			})
		}
	})
	return l.Addr().String()
}

// head reads a request's head.
func head(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) }

func TestABadMirrorDoesNotTouchTheExchange(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			head(c)
			io.WriteString(c, text)
		}
	}
	for _, c := range []struct {
		why    string
		shadow string
	}{
		{"refuses", freeport.Address(t)},
		{"closes", rude(t, func(c net.Conn) {})},
		{"answers garbage", rude(t, say("220 mail ESMTP\r\n"))},
		{"answers too little", rude(t, say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"))},
		{"answers bad chunks", rude(t, say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n"))},
		{"breaks off in chunks", rude(t, say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))},
		{"switches protocols", rude(t, say("HTTP/1.1 101 Switching Protocols\r\n\r\n"))},
		{"has endless interim answers", rude(t, say(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50)))},
	} {
		w := copying(t, "", c.shadow, app)
		for range 20 {
			if status, body, err := w.get("/"); err != nil || status != 200 || body != "hello" {
				t.Fatalf("%s: %d %q, %v", c.why, status, body, err)
			}
		}
		w.idle()
		wantSeries(t, gather(t, w.Plane), mirrored(0, 20, 0, 0))
		if t.Failed() {
			t.Fatal(c.why)
		}
		if s := w.current.Load().pools["shadow"].Servers()[0]; s.Active.Load() != 0 || s.Conns.Load() != 0 {
			t.Errorf("%s: %d exchanges and %d connections are left", c.why, s.Active.Load(), s.Conns.Load())
		}
	}
}

func TestCopiesToAMirrorThatHangsAreBounded(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	w := copying(t, "", rude(t, func(c net.Conn) { io.Copy(io.Discard, c) }), app)
	for range 100 {
		if status, body, err := w.get("/"); err != nil || status != 200 || body != "hello" {
			t.Fatalf("%d %q, %v", status, body, err)
		}
	}
	wantSeries(t, gather(t, w.Plane), mirrored(0, 0, 36, 0))
	if n := w.current.Load().counters["all"].mirror.busy.Load(); n != mirrorsAtOnce {
		t.Errorf("%d copies are under way", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil { // ends them
		t.Error(err)
	}
	if n := w.current.Load().counters["all"].mirror.busy.Load(); n != 0 {
		t.Errorf("%d copies outlive the plane", n)
	}
	if s := w.Pools(); s[1].Servers[0].Failures != 0 {
		t.Errorf("a server is blamed for our end: %+v", s[1].Servers[0])
	}
}

func TestACopyTakesNoLongerThanItsPoolMay(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	drip := rude(t, func(c net.Conn) {
		head(c)
		for _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"); err == nil; _, err = io.WriteString(c, "x") {
			time.Sleep(5 * time.Millisecond)
		}
	})
	c := to(t, "[pool.shadow]\nservers = [\""+drip+"\"]\ntimeout = { connect = \"50ms\", send = \"50ms\", read = \"100ms\" }\n", app)
	c.Route[0].Mirror = &config.Mirror{Pool: "shadow", Percent: 100}
	w := newWhole(t, c)
	if _, _, err := w.get("/"); err != nil {
		t.Fatal(err)
	}
	w.idle()
	wantSeries(t, gather(t, w.Plane), mirrored(0, 1, 0, 0))
}

func TestCopiesTakeRoomForTheirBodies(t *testing.T) { // E1
	hang := rude(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	conf := base()
	conf.Pool["shadow"] = pool("shadow", hang)
	conf.Route[0].Mirror = &config.Mirror{Pool: "shadow", Percent: 100}
	p, _ := start(t, conf)
	p.room.SetLimit(100_000)
	post := func() {
		x := get("h", "/")
		x.Request.Method, x.Request.MethodText = dataplane.POST, []byte("POST")
		x.Request.Length = 40_000
		if v := begin(p, x); v != dataplane.Gather {
			t.Fatalf("Begin = %v", v)
		}
		x.Gathered, x.Body = true, make([]byte, 40_000)
		if v := p.Begin(x); v != dataplane.Next {
			t.Fatalf("Begin once more = %v", v)
		}
	}
	for range 3 {
		post()
	}
	wantSeries(t, gather(t, p), mirrored(0, 0, 1, 0))
	if n := p.room.Taken(); n != 80_000 {
		t.Errorf("%d bytes are held", n)
	}
	p.Shutdown(t.Context())
	if n := p.room.Taken(); n != 0 {
		t.Errorf("%d bytes are held for ever", n)
	}
}

func TestAWebSocketIsNotCopied(t *testing.T) { // G1
	conf := base()
	conf.Pool["shadow"] = pool("shadow")
	conf.Route[0].Mirror = &config.Mirror{Pool: "shadow", Percent: 100}
	p, _ := start(t, conf)
	x := with(get("h", "/"), "Connection: Upgrade", "Upgrade: websocket")
	x.Request.WebSocket = true
	if begin(p, x); x.Mark.Copied {
		t.Error("it is")
	}
}

// A copy ends with the pool that it began with, whatever configuration comes.
func TestACopyOutlivesAReload(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	came, goOn := make(chan struct{}), make(chan struct{})
	shadow := server(t, func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	})
	w := copying(t, "", shadow, app)
	counters := &w.current.Load().counters["all"].mirror
	if _, _, err := w.get("/"); err != nil {
		t.Fatal(err)
	}
	<-came
	w.apply(to(t, "", app))
	close(goOn)
	w.idle()
	if n := counters.results[mirrorOK].Load(); n != 1 {
		t.Errorf("%d copies came to an end", n)
	}
}

func TestExplainNamesTheMirror(t *testing.T) {
	conf := to(t, "[pool.shadow]\nservers = [\"192.0.2.1:80\"]", "192.0.2.2:80")
	conf.Listener["web"].Address[0] = "127.0.0.1:0"
	conf.Route[0].Mirror = &config.Mirror{Pool: "shadow", Percent: 10}
	p, _ := start(t, conf)
	e, err := p.Explain(Question{Method: "GET", URL: "http://h/"})
	if err != nil || !slices.Contains(e.Stages, filter.Stage{Name: "mirror", Does: "10% to shadow"}) {
		t.Errorf("%v, %v", e, err)
	}
	if n := p.current.Load().counters["all"].mirror.seen.Load(); n != 0 {
		t.Errorf("a question counts as %d requests", n)
	}
}

func TestFetchReadsEveryFraming(t *testing.T) {
	for _, c := range []struct{ why, method, answer, body string }{
		{"a length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nhello", "hello"},
		{"behind an interim answer", "GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"},
		{"no body", "GET", "HTTP/1.1 204 No Content\r\n\r\n", ""},
		{"of HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ""},
	} {
		conf := base()
		conf.Pool["app"] = pool("app", rude(t, func(conn net.Conn) {
			head(conn)
			for _, b := range []byte(c.answer) { // byte by byte
				conn.Write([]byte{b})
			}
		}))
		p, _ := start(t, conf)
		x := get("h", "/")
		x.Request.MethodText = []byte(c.method)
		if c.method == "HEAD" {
			x.Request.Method = dataplane.HEAD
		}
		r, err := p.fetcher(p.current.Load()).Fetch(t.Context(), "app", &x.Request, nil, netip.Addr{})
		if err != nil {
			t.Errorf("%s: %v", c.why, err)
			continue
		}
		var got []byte
		if r.Read != nil {
			got, err = io.ReadAll(r.Read)
			r.Read.Close()
		}
		if err != nil || string(got) != c.body {
			t.Errorf("%s: %q, %v", c.why, got, err)
		}
		if s := p.current.Load().pools["app"].Servers()[0]; s.Active.Load() != 0 || s.Conns.Load() != 0 {
			t.Errorf("%s: %d exchanges and %d connections are left", c.why, s.Active.Load(), s.Conns.Load())
		}
	}
}

func TestFetchOfNoPool(t *testing.T) {
	p, _ := start(t, base())
	if _, err := p.fetcher(p.current.Load()).Fetch(t.Context(), "none", &get("h", "/").Request, nil, netip.Addr{}); !errors.Is(err, upstream.ErrNone) {
		t.Error(err)
	}
}
