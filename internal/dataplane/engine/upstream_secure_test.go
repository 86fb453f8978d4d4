package engine

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// sealServers has servers spoken to by TLS. Their handshakes are told to nobody.
func sealServers(t testing.TB, servers ...*dataplane.Server) {
	t.Helper()
	for _, s := range servers {
		s.SetTLS(&dataplane.ServerTLS{
			Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(1)},
			Met:    func(_ *tls.ConnectionState, err error) error { return err },
		})
	}
}

// Whatever is said to servers in clear is said the same way through TLS.
func TestDialoguesWithServersByTLS(t *testing.T) {
	dialogues(t, func(c Config) Engine { return New(c) }, func(s *stage, _ *Config) { s.depths = true })
}

func TestDialoguesThroughTLSOnBothSides(t *testing.T) {
	dialogues(t, func(c Config) Engine { return New(c) }, func(s *stage, _ *Config) { s.sealed, s.depths = true, true })
}

// A server whose certificate is not believed, that speaks no TLS, or that takes too long is
// one that cannot be connected to: nothing of the request has reached it.
func TestHandshakesWithServersThatFail(t *testing.T) {
	for _, c := range []struct {
		name  string
		does  func(*testing.T, net.Conn)
		event string
	}{
		{name: "a stranger", does: func(t *testing.T, c net.Conn) { tls.Server(c, newTestTLS(t).conf).Handshake() }, event: "connect"},
		{name: "no TLS", does: func(t *testing.T, c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, event: "connect"},
		{name: "one that goes", does: func(t *testing.T, c net.Conn) {}, event: "connect"},
		{name: "one that is silent", does: func(t *testing.T, c net.Conn) { io.Copy(io.Discard, c) }, event: "connect_time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, func(conf Config) Engine { return New(conf) }, func(s *stage, _ *Config) { s.route.Timeout.Connect = shortPause })
			var met []error
			s.upstream.SetTLS(&dataplane.ServerTLS{Config: &tls.Config{ServerName: "h"}, Met: func(state *tls.ConnectionState, err error) error {
				met = append(met, err)
				return err
			}})
			go func() {
				if conn, err := s.server.Accept(); err == nil {
					c.does(t, conn)
					conn.Close()
				}
			}()
			s.play(`
				c> "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
				h "retry ` + c.event + ` replayable=true sent=false"
			`)
			if len(met) != 1 || met[0] == nil || s.upstream.Conns.Load() != 0 {
				t.Errorf("handshakes ended with %v, and %d connections are open", met, s.upstream.Conns.Load())
			}
		})
	}
}

// A connection that was made by another configuration of TLS is not used again.
func TestAnotherTLSMakesNewConnections(t *testing.T) {
	s := newStage(t, func(conf Config) Engine { return New(conf) }, func(s *stage, _ *Config) { s.depths = true })
	const ask, answer = "c> \"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n\"\n", "s< \"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n\"\ns> \"HTTP/1.1 204 No Content\\r\\n\\r\\n\"\nh \"end ok\"\n"
	s.play(ask + "s+\n" + answer + ask + answer)
	sealServers(t, &s.upstream)
	s.play(ask + "s+\n" + answer)
	s.upstream.SetTLS(nil)
	s.depths = false
	s.play(ask + "s+\n" + answer)
	if n := s.upstream.Conns.Load(); n != 1 {
		t.Errorf("%d connections are open, want the last alone", n)
	}
}

// An answer without a length that ends without a word of farewell may have been cut short.
func TestAnEndWithoutFarewellIsNoEnd(t *testing.T) {
	s := newStage(t, func(conf Config) Engine { return New(conf) }, func(s *stage, _ *Config) { s.depths = true })
	s.play(`
		c> "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
		s+
		s< "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
		s> "HTTP/1.1 200 OK\r\n\r\nhalf of it"
		s>cut
		h "end read"
	`)
}

// Large bodies go both ways whole, whichever side speaks TLS.
func TestLargeBodiesWithServersByTLS(t *testing.T) {
	body := bytes.Repeat([]byte("abcdefgh"), 3<<20/8)
	for _, sealed := range []bool{false, true} {
		s := newStage(t, func(conf Config) Engine { return New(conf) }, func(s *stage, _ *Config) { s.sealed, s.depths = sealed, true })
		sent := make(chan error, 1)
		go func() { sent <- echo(tls.NewListener(s.server, newTestTLS(t).conf), len(body)) }()
		var conn net.Conn
		conn, err := net.Dial("tcp", s.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if sealed {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(body))
		go conn.Write(body)
		got, err := io.ReadAll(conn)
		_, answer, _ := bytes.Cut(got, []byte("\r\n\r\n"))
		if echoed := <-sent; err != nil || echoed != nil || !bytes.Equal(answer, body) {
			t.Errorf("sealed to the client %t: %d bytes came back (%v, %v), want %d", sealed, len(answer), err, echoed, len(body))
		}
	}
}

// echo answers one request with its body, of that size.
func echo(l net.Listener, size int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
		if strings.HasPrefix(line, "HTTP/") {
			return errors.New("no request")
		}
	}
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
	_, err = io.CopyN(c, r, int64(size))
	return err
}
