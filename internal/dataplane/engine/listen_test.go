package engine

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

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

// BenchmarkSmallGET is a request and its answer over loopback, client and server
// included: for allocations and for comparing engines, not for comparing proxies.
func BenchmarkSmallGET(b *testing.B) {
	const request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	const answer = "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nhi"
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	go func() { // ends with the listener; its connection with the client's
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := make([]byte, len(request))
				for {
					if _, err := io.ReadFull(c, in); err != nil {
						return
					}
					if _, err := io.WriteString(c, answer); err != nil {
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
	engine := New(Config{})
	defer engine.Shutdown(b.Context())
	limits := dataplane.Limits{HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100, HeaderTime: patience, Idle: patience}
	go engine.Serve(&dataplane.Listener{Name: "web", Limits: limits}, socket, s)
	c, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	in := make([]byte, len(answer))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.WriteString(c, request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
}

// quiet is a stage that does not tell of the end of exchanges.
type quiet struct{ stage }

func (*quiet) End(*dataplane.Exchange, error) {}
