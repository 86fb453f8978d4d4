package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/dataplane/engine"
	"proxyd/internal/freeport"
)

// engines are all there are: what holds for one must hold for each.
var engines = map[string]func(engine.Config) engine.Engine{
	"goroutine": func(c engine.Config) engine.Engine { return engine.New(c) },
	"loop":      func(c engine.Config) engine.Engine { return engine.NewLoop(c) },
	"batches":   func(c engine.Config) engine.Engine { c.Batch = 1; return engine.NewLoop(c) },
}

// onEachEngine runs f with each engine.
func onEachEngine(t *testing.T, f func(t *testing.T, newEngine func(engine.Config) engine.Engine)) {
	for name, newEngine := range engines {
		t.Run(name, func(t *testing.T) { f(t, newEngine) })
	}
}

// A witness is a server that writes down every byte that reaches it. It reads requests
// as net/http does and answers each with what is set.
type witness struct {
	t       *testing.T
	address string
	answer  func(q *http.Request) string

	mu       sync.Mutex
	seen     []*bytes.Buffer // by connection
	requests int             // whole ones, with their bodies
	ends     chan struct{}   // one for each connection that ended
}

const plainAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func newWitness(t *testing.T) *witness {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{t: t, address: l.Addr().String(), ends: make(chan struct{}, 1000), answer: func(*http.Request) string { return plainAnswer }}
	var all sync.WaitGroup
	var conns sync.Map
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, true)
			b := &bytes.Buffer{}
			w.mu.Lock()
			w.seen = append(w.seen, b)
			w.mu.Unlock()
			all.Go(func() {
				defer c.Close()
				w.serve(c, b)
				w.ends <- struct{}{}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		all.Wait()
	})
	return w
}

// serve reads one request after the other until one is not whole.
func (w *witness) serve(c net.Conn, b *bytes.Buffer) {
	r := bufio.NewReader(io.TeeReader(c, lockedWriter{&w.mu, b}))
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if q.Header.Get("Expect") != "" {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return
		}
		w.mu.Lock()
		w.requests++
		w.mu.Unlock()
		answer := w.answer(q)
		if _, err := io.WriteString(c, answer); err != nil || !strings.HasPrefix(answer, plainAnswer) {
			return
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// saw returns all bytes that came, and how many whole requests they were.
func (w *witness) saw() (text string, requests int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.seen {
		text += b.String()
	}
	return text, w.requests
}

// An attacked is the data plane between an attacker and a witness.
type attacked struct {
	*whole
	witness *witness
}

func attack(t *testing.T, newEngine func(engine.Config) engine.Engine, more string) *attacked {
	t.Helper()
	a := &attacked{witness: newWitness(t)}
	w := &whole{t: t, log: &lines{}, address: freeport.Address(t)}
	w.Plane = New(Options{Engine: newEngine(engine.Config{Sweep: 20 * time.Millisecond, Linger: 200 * time.Millisecond}), AccessLog: w.log})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := w.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	a.whole = w
	w.apply(to(t, more, a.witness.address))
	return a
}

// A reply is what an attacker gets.
type reply struct {
	status []int // of every final answer, in order
	text   string
	closed bool // the connection was ended by us
}

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// send writes raw on a connection of its own, and reads answers until there have been
// want of them (the last with its whole body) or the connection ends.
func (a *attacked) send(raw string, want int) (r reply) {
	a.t.Helper()
	c, err := net.Dial("tcp", a.address)
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	go io.WriteString(c, raw) // ends at the latest with c
	var text bytes.Buffer
	b := bufio.NewReader(io.TeeReader(c, &text))
	for len(r.status) < want {
		s, err := http.ReadResponse(b, &http.Request{Method: methodOf(raw)})
		if err != nil {
			r.closed = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			break
		}
		if s.StatusCode < 200 && s.StatusCode != 101 {
			continue
		}
		_, err = io.Copy(io.Discard, s.Body)
		r.status = append(r.status, s.StatusCode)
		if s.Close || err != nil {
			_, err := b.ReadByte() // nothing may follow
			r.closed = errors.Is(err, io.EOF)
			break
		}
	}
	r.text = text.String()
	return r
}

func methodOf(raw string) string {
	m, _, _ := strings.Cut(strings.TrimLeft(raw, "\r\n"), " ")
	return m
}
