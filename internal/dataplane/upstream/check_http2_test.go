package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// askBy puts the question of c to the server that serves one connection in clear.
func askBy(t *testing.T, c config.Check, serve func(net.Conn)) string {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	q, err := newQuestion(&config.Pool{Protocol: "h2c", Check: &c})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			serve(c)
			c.Close()
		}
	}()
	defer func() { l.Close(); <-done }()
	s := &Server{Server: dataplane.Server{Name: "app:80"}}
	s.SetAddr(netip.MustParseAddrPort("192.0.2.1:80"))
	return q.ask(t.Context(), Env{Dial: func(context.Context, netip.AddrPort) (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }}, s)
}

func handlerOf(h http.HandlerFunc) func(net.Conn) {
	return func(c net.Conn) {
		var only http.Protocols
		only.SetUnencryptedHTTP2(true)
		l := &oneConn{conn: c, over: make(chan struct{})}
		(&http.Server{Handler: h, Protocols: &only}).Serve(l) // until the connection is closed
	}
}

func TestACheckAsksByHTTP2WhatSpeaksIt(t *testing.T) {
	seen := make(chan *http.Request, 1)
	answer := func(status int, body string) func(net.Conn) {
		return handlerOf(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(b)))
			seen <- r
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
	for _, c := range []struct {
		why    string
		conf   config.Check
		status int
		body   string
		want   string
	}{
		{"good", config.Check{Path: "/healthz?a=1", Status: "200-299"}, 204, "", ""},
		{"another status", config.Check{Path: "/healthz?a=1", Status: "200-299"}, 503, "", "status 503"},
		{"the body matches", config.Check{Path: "/healthz?a=1", Status: "200", Match: "~^rea.y$"}, 200, "ready", ""},
		{"the body does not match", config.Check{Path: "/healthz?a=1", Status: "200", Match: "ready"}, 200, "busy", "the body lacks what must match"},
		{"all of it", config.Check{Method: "POST", Path: "/healthz?a=1", Host: "shop", Header: map[string]string{"x-key": "k"}, Body: "ping", Status: "200"}, 200, "", ""},
	} {
		c.conf.Type = "http"
		if got := askBy(t, c.conf, answer(c.status, c.body)); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
		r := <-seen
		b, _ := io.ReadAll(r.Body)
		method, host := "GET", "app:80"
		if c.conf.Method != "" {
			method, host = c.conf.Method, c.conf.Host
		}
		if r.Method != method || r.URL.RequestURI() != "/healthz?a=1" || r.Host != host || r.UserAgent() != "proxyd-check" || string(b) != c.conf.Body || r.Header.Get("X-Key") != c.conf.Header["x-key"] {
			t.Errorf("%s: it was asked %s %s of %s, %v, %q", c.why, r.Method, r.URL, r.Host, r.Header, b)
		}
	}
}

func TestAServerOfHTTP1FailsACheckByHTTP2(t *testing.T) {
	got := askBy(t, config.Check{Type: "http", Path: "/", Status: "200"}, func(c net.Conn) {
		go io.Copy(io.Discard, c)
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	})
	if !strings.HasPrefix(got, "read: ") {
		t.Errorf("%q", got)
	}
}

func TestACheckByHTTP2TakesNoLongerThanItMay(t *testing.T) {
	got := askBy(t, config.Check{Type: "http", Path: "/", Status: "200", Timeout: 20 * time.Millisecond}, func(c net.Conn) {
		io.Copy(io.Discard, c) // until the client gives up
	})
	if got != "read: timed out" {
		t.Errorf("%q", got)
	}
}

func TestWhatAServerOfGRPCSaysOfItsHealth(t *testing.T) {
	known := health.NewServer()
	known.SetServingStatus("shop.Cart", grpc_health_v1.HealthCheckResponse_SERVING)
	known.SetServingStatus("shop.Stock", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	served := func(with bool) func(net.Conn) {
		return func(c net.Conn) {
			s := grpc.NewServer()
			if with {
				grpc_health_v1.RegisterHealthServer(s, known)
			}
			l := &oneConn{conn: c, over: make(chan struct{})}
			go func() { // ends with the connection
				<-l.over
				s.Stop()
			}()
			s.Serve(l)
		}
	}
	plain := func(header map[string]string, status int, body string) func(net.Conn) {
		return handlerOf(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
	kind := map[string]string{"Content-Type": "application/grpc"}
	good := map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "0"}
	for _, c := range []struct {
		why, service string
		server       func(net.Conn)
		want         string
	}{
		{"the server as a whole", "", served(true), ""},
		{"a service that serves", "shop.Cart", served(true), ""},
		{"a service that does not", "shop.Stock", served(true), "NOT_SERVING"},
		{"a service that it does not know", "shop.Else", served(true), "gRPC status 5: it does not know that service"},
		{"no health protocol", "", served(false), "gRPC status 12: it has no grpc.health.v1.Health"},
		{"an answer of HTTP", "", plain(nil, 200, "OK"), `no gRPC: content type "text/plain; charset=utf-8"`},
		{"an error of HTTP", "", plain(kind, 502, ""), "status 502"},
		{"no status", "", plain(kind, 200, "\x00\x00\x00\x00\x02\x08\x01"), "no gRPC: no status"},
		{"serving", "", plain(good, 200, "\x00\x00\x00\x00\x02\x08\x01"), ""},
		{"an unknown field before", "", plain(good, 200, "\x00\x00\x00\x00\x05\x12\x01x\x08\x01"), ""},
		{"service unknown", "", plain(good, 200, "\x00\x00\x00\x00\x02\x08\x03"), "serving status 3"},
		{"an empty message", "", plain(good, 200, "\x00\x00\x00\x00\x00"), "serving status 0"},
		{"a compressed one", "", plain(good, 200, "\x01\x00\x00\x00\x02\x08\x01"), "no acceptable gRPC: not one whole message"},
		{"one that breaks off", "", plain(good, 200, "\x00\x00\x00\x00\x02\x08"), "no acceptable gRPC: not one whole message"},
		{"no message of protobuf", "", plain(good, 200, "\x00\x00\x00\x00\x02\x08\xff"), "no acceptable gRPC: unexpected EOF"},
	} {
		if got := askBy(t, config.Check{Type: "grpc", Service: c.service}, c.server); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	over chan struct{} // closed when the connection is
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return lastConn{c, l.over}, nil
	}
	<-l.over
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "test"} }

type lastConn struct {
	net.Conn
	over chan struct{}
}

func (c lastConn) Close() error {
	select {
	case <-c.over:
	default:
		close(c.over)
	}
	return c.Conn.Close()
}

func TestACheckAsksByHTTP2ThroughTLS(t *testing.T) {
	for _, agrees := range []bool{true, false} {
		seen := make(chan string, 1)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Proto }))
		server.EnableHTTP2 = agrees
		server.StartTLS()
		defer server.Close()
		for _, c := range []config.Check{{Type: "http", Path: "/", Status: "200"}, {Type: "grpc"}} {
			c.Timeout = time.Minute
			q, err := newQuestion(&config.Pool{Protocol: "h2", TLS: &config.PoolTLS{}, Check: &c})
			if err != nil {
				t.Fatal(err)
			}
			s := &Server{Server: dataplane.Server{Name: "app:443"}}
			s.SetAddr(netip.MustParseAddrPort(server.Listener.Addr().String()))
			protocols := []string{"h2", "http/1.1"}
			s.SetTLS(&dataplane.ServerTLS{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}, Met: func(_ *tls.ConnectionState, err error) error { return err }})
			got := q.ask(t.Context(), Env{}.Filled(), s)
			switch {
			case c.Type == "grpc" && !agrees:
				if got != "TLS: the server does not agree to HTTP/2" {
					t.Errorf("grpc of a server of HTTP/1.1: %q", got)
				}
			case c.Type == "grpc":
				if proto := <-seen; proto != "HTTP/2.0" || got != `no gRPC: content type ""` {
					t.Errorf("grpc by %s: %q", proto, got)
				}
			default:
				if proto := <-seen; got != "" || (proto == "HTTP/2.0") != agrees {
					t.Errorf("by %s: %q; the server agrees to HTTP/2: %v", proto, got, agrees)
				}
			}
		}
	}
}
