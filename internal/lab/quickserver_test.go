package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A quickServer is one of the three servers. It remembers what each proxy sent it, to the
// letter, as facts.
type quickServer struct {
	name, address string
	serve         *http.Server
	silent        chan struct{} // closed when the test ends
	broken        atomic.Bool   // every connection ends when a request has come

	mu    sync.Mutex
	heard map[string][]string // by proxy
}

func startQuickServer(t *testing.T, name string) *quickServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &quickServer{name: name, address: l.Addr().String(), silent: make(chan struct{}), heard: map[string][]string{}}
	s.serve = &http.Server{
		Handler:     s,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, s, c) },
	}
	go s.serve.Serve(overhearing{l}) // ends with Close
	t.Cleanup(func() { close(s.silent); s.serve.Close() })
	return s
}

// breakOff has s end every connection from now on when a request has come, and those that
// wait for one.
func (s *quickServer) breakOff() {
	s.broken.Store(true)
	s.serve.SetKeepAlivesEnabled(false)
}

// take returns what a proxy has sent since it was asked last.
func (s *quickServer) take(proxy string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	facts := s.heard[proxy]
	delete(s.heard, proxy)
	return facts
}

func (s *quickServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.remember(r.Context().Value(s).(*overheard).take(), string(body))
	if s.broken.Load() {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h.Set("Date", "Wed, 01 Jan 2020 00:00:00 GMT")
	h.Set("Server", "app")
	h.Set("X-Server", s.name)
	h.Set("Content-Type", "text/plain")
	path, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch path {
	case "missing":
		w.WriteHeader(404)
	case "fails":
		h.Set("Retry-After", "7")
		w.WriteHeader(503)
	case "nothing":
		w.WriteHeader(204)
		return
	case "silent":
		<-s.silent
		return
	case "content":
		h.Set("ETag", `"kept"`)
		h.Set("Content-Type", "image/png")
		http.ServeContent(w, r, "", time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC), strings.NewReader("0123456789"))
		return
	case "lives": // it says itself for how long
		h.Set("Cache-Control", "no-store")
		h.Set("Expires", "Wed, 01 Jan 2020 00:00:00 GMT")
	case "unlike": // no type, names that nobody else has
		h["Content-Type"] = nil
		h["x-lower"] = []string{"1"}
		h["X_Under"] = []string{"1"}
		h.Set("X-Empty", "")
		w.WriteHeader(299)
	case "streamed":
		fmt.Fprint(w, "begun, ")
		http.NewResponseController(w).Flush()
	case "many":
		h["Set-Cookie"] = []string{"a=1; Path=/", "b=2; HttpOnly"}
		h["Vary"] = []string{"Accept", "Cookie"}
		h.Set("Cache-Control", "private, max-age=5")
		h.Set("X-Powered-By", "go")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Language", "en")
		h.Set("WWW-Authenticate", "Basic")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("X-Accel-Expires", "0")
		h.Set("X-Accel-Buffering", "no")
	case "moved":
		to := r.URL.RawQuery
		if to == "self" {
			to = "http://" + s.address + "/x"
		}
		h.Set("Location", to)
		h.Set("Refresh", "0; url="+to)
		w.WriteHeader(302)
	}
	fmt.Fprint(w, s.name)
}

// remember makes facts of a head and a body, for the proxy that they are from: proxyd
// names itself.
func (s *quickServer) remember(head, body string) {
	lines := strings.Split(head, "\r\n")
	facts := []string{"to " + s.name}
	for i, word := range strings.SplitN(lines[0], " ", 3) {
		facts = append(facts, "sent "+[]string{"method", "target", "version"}[i]+" "+word)
	}
	facts = append(append(facts, named("sent", lines[1:])...), "sent body "+shown(body))
	proxy := "nginx"
	if strings.Contains(head, " proxyd\r\n") || strings.HasSuffix(head, " proxyd") { // of Via
		proxy = "proxyd"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard[proxy] = append(s.heard[proxy], facts...)
}

// overhearing makes connections that remember what came.
type overhearing struct{ net.Listener }

func (l overhearing) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &overheard{Conn: c}, nil
}

type overheard struct {
	net.Conn
	mu  sync.Mutex
	had []byte
}

func (c *overheard) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.had = append(c.had, b[:n]...)
	return n, err
}

// take returns the head of the request that was read whole. Nothing of the next one comes
// before its answer.
func (c *overheard) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	head, _, _ := strings.Cut(string(c.had), "\r\n\r\n")
	c.had = nil
	return head
}
