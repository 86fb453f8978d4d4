package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// A poorListener fails with each of its errors before it is closed.
type poorListener struct {
	net.Listener
	errs []error
}

func (l *poorListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return nil, net.ErrClosed
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: err}
}

func TestServeOutlivesAcceptErrors(t *testing.T) {
	l := &poorListener{Listener: listen(t), errs: []error{
		syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, errors.New("unknown"),
	}}
	err := New(Config{}).Serve(&dataplane.Listener{Name: "web"}, l, nil)
	if err != nil || len(l.errs) != 0 {
		t.Errorf("Serve = %v with %d errors to come, want nil and 0", err, len(l.errs))
	}
}

// roundTrip returns what has one request answered through engine, over loopback.
func roundTrip(b testing.TB, engine Engine, request, answer string) func() {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.Close() })
	go func() { // ends with the listener; its connection with the client's
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in, out := make([]byte, len(request)), []byte(answer)
				for {
					if _, err := io.ReadFull(c, in); err != nil {
						return
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	s := &quiet{stage{events: make(chan string, 1)}}
	s.route.Timeout = dataplane.Timeouts{Connect: patience, Send: patience, Read: patience, Idle: patience}
	s.upstream.SetAddr(server.Addr().(*net.TCPAddr).AddrPort())
	socket, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { engine.Shutdown(context.Background()) })
	limits := dataplane.Limits{HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100, HeaderTime: patience, Idle: patience}
	go engine.Serve(&dataplane.Listener{Name: "web", Limits: limits}, waitable(b, socket), s)
	c, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	in, out := make([]byte, len(answer)), []byte(request)
	return func() {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
}

const (
	smallRequest = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	smallAnswer  = "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi"
)

// BenchmarkSmallGET is a request and its answer over loopback, client and server
// included: for allocations and for comparing engines, not for comparing proxies.
func BenchmarkSmallGET(b *testing.B) {
	for name, engine := range map[string]Engine{"goroutine": New(Config{}), "loop": NewLoop(Config{})} {
		b.Run(name, func(b *testing.B) {
			once := roundTrip(b, engine, smallRequest, smallAnswer)
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
	}
}

// A request allocates nothing, with a body or without.
func TestLoopAllocs(t *testing.T) {
	for name, c := range map[string]struct{ request, answer string }{
		"small GET":     {smallRequest, smallAnswer},
		"POST of 4 KB":  {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4096\r\n\r\n" + strings.Repeat("x", 4096), smallAnswer},
		"100 KB answer": {smallRequest, "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 102400\r\n\r\n" + strings.Repeat("x", 102400)},
	} {
		for way, w := range map[string]struct {
			quota time.Duration // in each second
			runs  int
		}{
			"no quota":             {0, 1000},
			"in turns":             {time.Second, 1000},
			"rests after each one": {time.Millisecond, 100},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				e := NewLoop(Config{})
				if w.quota > 0 {
					e = newPaced(Config{}, w.quota)
				}
				once := roundTrip(t, e, c.request, c.answer)
				for range 200 {
					once() // buffers grow to their size
				}
				if n := testing.AllocsPerRun(w.runs, once); n > 0 {
					t.Errorf("%v allocations a request, want 0", n)
				}
				if rests := e.Counts().Rests; w.quota == time.Millisecond && rests < uint64(w.runs) {
					t.Errorf("it rested %d times in %d requests", rests, w.runs)
				}
			})
		}
	}
}

// quiet is a stage that does not tell of the end of exchanges.
type quiet struct{ stage }

func (*quiet) End(*dataplane.Exchange, error) {}
