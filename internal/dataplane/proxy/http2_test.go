package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	h2spec "github.com/summerwind/h2spec"
	h2config "github.com/summerwind/h2spec/config"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// inClear is a data plane whose listener speaks HTTP/2 with who knows that, before servers.
func inClear(t *testing.T, more string, servers ...string) *whole {
	t.Helper()
	c := to(t, more, servers...)
	c.Listener["web"].H2C = true
	w := newWhole(t, c)
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	w.client.Transport = &http.Transport{DisableCompression: true, Protocols: only}
	return w
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") }

func TestD9HTTP2Conformance(t *testing.T) {
	secure := newSecureSite(t, func(c *config.Config) { c.Listener["https"].HTTP2 = true })
	for name, c := range map[string]struct {
		address string
		tls     bool
	}{
		"in clear": {inClear(t, "", server(t, hello)).address, false},
		"with TLS": {secure.at("https"), true},
	} {
		t.Run(name, func(t *testing.T) {
			host, port, _ := net.SplitHostPort(c.address)
			n, _ := strconv.Atoi(port)
			ok, err := h2spec.Run(&h2config.Config{Host: host, Port: n, Path: "/", Timeout: patience, MaxHeaderLen: 4000, Strict: true, TLS: c.tls, Insecure: true})
			if !ok || err != nil {
				t.Errorf("not every case passes (%v)", err)
			}
		})
	}
}

func TestHTTP2RequestsGoTheSameWay(t *testing.T) {
	origin := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			w.Header().Set("X-Host", r.Host)
			w.Header().Set("X-For", r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Proto")+" "+r.Header.Get("Via"))
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		case "/stream":
			for range 3 {
				io.WriteString(w, "piece\n")
				w.(http.Flusher).Flush()
			}
		case "/empty":
			w.WriteHeader(204)
		default:
			hello(w, r)
		}
	})
	w := inClear(t, "[limits]\nbody = \"1MiB\"", origin)
	url := "http://" + w.address
	large := bytes.Repeat([]byte("x"), 700<<10)
	for _, c := range []struct {
		name, method, path string
		body               io.Reader
		status             int
		length             string // of the request, as the server sees it
		want               string
	}{
		{"a plain one", "GET", "/", nil, 200, "", "hello\n"},
		{"no body in the answer", "HEAD", "/", nil, 200, "", ""},
		{"no answer but a head", "GET", "/empty", nil, 204, "", ""},
		{"an answer in pieces", "GET", "/stream", nil, 200, "", "piece\npiece\npiece\n"},
		{"a length is passed on", "POST", "/echo", strings.NewReader("four"), 200, "4", "four"},
		{"a body without one", "POST", "/echo", io.MultiReader(strings.NewReader("fo"), strings.NewReader("ur")), 200, "-1", "four"},
		{"a large body", "POST", "/echo", bytes.NewReader(large), 200, fmt.Sprint(len(large)), string(large)},
		{"a large one without a length", "POST", "/echo", io.MultiReader(bytes.NewReader(large)), 200, "-1", string(large)},
		{"a body above the limit", "POST", "/echo", bytes.NewReader(make([]byte, 2<<20)), 413, "", "413 Request Entity Too Large\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, _ := http.NewRequest(c.method, url+c.path, c.body)
			r, err := w.client.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			got, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != c.status || r.ProtoMajor != 2 {
				t.Fatalf("%s %d, %v", r.Proto, r.StatusCode, err)
			}
			if c.status == 200 && string(got) != c.want {
				t.Errorf("body of %d bytes, want %d", len(got), len(c.want))
			}
			if c.length != "" && r.Header.Get("X-Length") != c.length {
				t.Errorf("the server saw a length of %s, want %s", r.Header.Get("X-Length"), c.length)
			}
			if c.path == "/echo" && c.status == 200 && (r.Header.Get("X-Host") != w.address || r.Header.Get("X-For") != "127.0.0.1 http 2.0 proxyd") {
				t.Errorf("the server was told %q, %q", r.Header.Get("X-Host"), r.Header.Get("X-For"))
			}
		})
	}
	if !strings.Contains(w.log.String(), `"proto":"HTTP/2.0"`) {
		t.Error("no line of the log says HTTP/2.0")
	}
}

func TestHTTP2ManyAtOnce(t *testing.T) {
	w := inClear(t, "", server(t, hello))
	var all sync.WaitGroup
	for range 300 {
		all.Go(func() {
			if status, body, err := w.get("/"); status != 200 || body != "hello\n" || err != nil {
				t.Errorf("%d %q, %v", status, body, err)
			}
		})
	}
	all.Wait()
}

// A rawClient speaks HTTP/2 by frames.
type rawClient struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func (w *whole) raw(t *testing.T) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := &rawClient{t: t, conn: conn, Framer: http2.NewFramer(conn, conn)}
	c.enc = hpack.NewEncoder(&c.block)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(conn, http2.ClientPreface)
	c.WriteSettings()
	return c
}

func (c *rawClient) ask(id uint32, ends bool, fields ...string) {
	c.block.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		c.enc.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndStream: ends, EndHeaders: true})
}

// frame returns the next frame of some kind.
func frame[F http2.Frame](c *rawClient) (f F) {
	c.t.Helper()
	for {
		any, err := c.ReadFrame()
		if err != nil {
			c.t.Fatalf("no %T: %v", f, err)
		}
		if f, ok := any.(F); ok {
			return f
		}
	}
}

func TestHTTP2WebSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // a server that agrees and then says everything twice
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := bufio.NewReader(conn)
		q, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		accept := http1.AcceptKey([]byte(q.Header.Get("Sec-WebSocket-Key")))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept[:])
		said := make([]byte, 100)
		for {
			n, err := b.Read(said)
			if err != nil {
				return
			}
			conn.Write(append(said[:n:n], said[:n]...))
		}
	}()
	w := inClear(t, "", l.Addr().String())
	c := w.raw(t)
	c.ask(1, false, ":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /chat", "sec-websocket-version: 13", "origin: http://a")
	head := frame[*http2.MetaHeadersFrame](c)
	if head.PseudoValue("status") != "200" || head.StreamEnded() {
		t.Fatalf("status %s, ended %v", head.PseudoValue("status"), head.StreamEnded())
	}
	for _, f := range head.RegularFields() {
		if f.Name == "upgrade" || f.Name == "sec-websocket-accept" || f.Name == "content-length" {
			t.Errorf("field %s", f.Name)
		}
	}
	c.WriteData(1, false, []byte("hi"))
	if got := string(frame[*http2.DataFrame](c).Data()); got != "hihi" {
		t.Errorf("the tunnel says %q, want hihi", got)
	}
	c.WriteData(1, true, nil)
	for {
		if f := frame[*http2.DataFrame](c); f.StreamEnded() {
			break
		}
	}
}

func TestHTTP2WebSocketThatIsNotAgreedToIsNone(t *testing.T) {
	w := inClear(t, "", server(t, hello))
	c := w.raw(t)
	c.ask(1, false, ":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /", "sec-websocket-version: 13")
	if head := frame[*http2.MetaHeadersFrame](c); head.PseudoValue("status") != "502" {
		t.Errorf("status %s, want 502: 200 would open it", head.PseudoValue("status"))
	}
}

func TestHTTP2ClientsAreSentAwayGracefully(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	origin := server(t, func(w http.ResponseWriter, r *http.Request) { close(arrived); <-release; hello(w, r) })
	w := inClear(t, "", origin)
	c := w.raw(t)
	c.ask(1, true, ":method: GET", ":scheme: http", ":authority: a", ":path: /")
	frame[*http2.SettingsFrame](c)
	<-arrived
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ended <- w.Shutdown(ctx)
	}()
	if f := frame[*http2.GoAwayFrame](c); f.ErrCode != http2.ErrCodeNo {
		t.Errorf("GOAWAY %v", f.ErrCode)
	}
	close(release)
	if head := frame[*http2.MetaHeadersFrame](c); head.PseudoValue("status") != "200" {
		t.Errorf("status %s", head.PseudoValue("status"))
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

func TestD1D2ClientsThatResetAreCutOffAndCounted(t *testing.T) {
	w := inClear(t, "", server(t, hello))
	c := w.raw(t)
	go func() { // ends with the connection
		for i := range uint32(5000) {
			c.ask(2*i+1, true, ":method: GET", ":scheme: http", ":authority: a", ":path: /")
			if c.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	if f := frame[*http2.GoAwayFrame](c); f.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("GOAWAY %v, want ENHANCE_YOUR_CALM", f.ErrCode)
	}
	c.conn.Close()
	l := w.listeners.list()[0]
	for range 400 {
		if l.closed[dataplane.ClosedFlood].Load() == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond) // end to end
	}
	resets := l.glitches[dataplane.ResetByClient].Load() + l.glitches[dataplane.ResetByServer].Load()
	if n := l.closed[dataplane.ClosedFlood].Load(); n != 1 || resets < 200 || resets > 400 {
		t.Errorf("%d connections were closed for a flood, %d resets counted", n, resets)
	}
	w.access.Close(t.Context())
	if !strings.Contains(w.log.String(), "h2_connection") {
		t.Error("the log says nothing of it")
	}
}

func TestHTTP2IsSpokenWhereItIsAllowed(t *testing.T) {
	for _, c := range []struct {
		on   bool
		want string
	}{{true, "h2"}, {false, "http/1.1"}} {
		s := newSecureSite(t, func(conf *config.Config) { conf.Listener["https"].HTTP2 = c.on })
		conn, err := tls.Dial("tcp", s.at("https"), &tls.Config{InsecureSkipVerify: true, ServerName: "one.example", NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != c.want {
			t.Errorf("http2 = %v: %s is spoken, want %s", c.on, got, c.want)
		}
		conn.Close()
	}
	// S2: without h2c the preface is no request.
	w := newWhole(t, to(t, "", server(t, hello)))
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, http2.ClientPreface)
	if all, _ := io.ReadAll(conn); !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
		t.Errorf("answer %q", all)
	}
}

func TestHTTP1OfAListenerWithH2CIsAsEver(t *testing.T) {
	c := to(t, "", server(t, hello))
	c.Listener["web"].H2C = true
	w := newWhole(t, c)
	if status, body, err := w.get("/"); status != 200 || body != "hello\n" || err != nil {
		t.Errorf("%d %q, %v", status, body, err)
	}
}

// While a client takes less than its streams have to say, each of them has its turn.
func TestHTTP2StreamsTakeTurns(t *testing.T) {
	// Servers have said so much, which waits in their connections, before the client takes
	// anything: what is measured is whose turn it is, not which server is the fastest.
	const streams, size = 16, 128 << 10
	said := make(chan struct{}, streams)
	w := inClear(t, "", server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, size))
		w.(http.Flusher).Flush()
		said <- struct{}{}
		<-r.Context().Done() // the streams do not end, lest the last are alone
	}))
	c := w.raw(t)
	c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.WriteWindowUpdate(0, 1<<30)
	for i := range uint32(streams) {
		c.ask(2*i+1, true, ":method: GET", ":scheme: http", ":authority: a", ":path: /")
	}
	for range streams {
		frame[*http2.MetaHeadersFrame](c)
	}
	for range streams {
		<-said
	}
	c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * size}) // they all begin
	got := map[uint32]int{}
	for all := 0; all < streams*size*3/4; {
		f := frame[*http2.DataFrame](c)
		got[f.StreamID] += len(f.Data())
		all += len(f.Data())
	}
	least := size
	for i := range uint32(streams) {
		least = min(least, got[2*i+1])
	}
	if least < size/4 {
		t.Errorf("after three quarters of all one stream has had %d bytes of %d", least, size)
	}
}
