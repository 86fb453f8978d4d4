package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyd/internal/config"
)

// A mute socket loses what a client says to end its handshake, until it is let speak: what
// comes until then is 0-RTT, however fast the machine is.
type muteSocket struct {
	net.PacketConn
	speaks atomic.Bool
}

func (m *muteSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	out := b
	if !m.speaks.Load() {
		out = b[:untilHandshake(b)]
	}
	if len(out) > 0 {
		if _, err := m.PacketConn.WriteTo(out, to); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// untilHandshake returns how many bytes of a datagram are Initial and 0-RTT packets (RFC 9000, 17.2).
func untilHandshake(b []byte) int {
	at := 0
	for at < len(b) && b[at]&0x80 != 0 && b[at]&0x30 <= 0x10 {
		p := b[at:]
		n := 5
		n += 1 + int(p[n]) // the server's id
		n += 1 + int(p[n]) // the client's
		if p[0]&0x30 == 0 {
			token, used, err := quicvarint.Parse(p[n:])
			if err != nil {
				return at
			}
			n += used + int(token)
		}
		length, used, err := quicvarint.Parse(p[n:])
		if err != nil {
			return at
		}
		at += n + used + int(length)
	}
	return min(at, len(b))
}

// An earlyClient speaks HTTP/3 on one connection, whose handshake ends when it is let.
type earlyClient struct {
	*http3.ClientConn
	t      *testing.T
	quic   *quic.Conn
	socket *muteSocket
	site   string
}

// dialEarly connects with what conf and store remember of earlier connections.
func dialEarly(t *testing.T, at string, conf *tls.Config, store quic.TokenStore, mute bool) *earlyClient {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &muteSocket{PacketConn: socket}
	m.speaks.Store(!mute)
	tr := &quic.Transport{Conn: m}
	t.Cleanup(func() {
		m.speaks.Store(true)
		tr.Close()
		socket.Close()
	})
	to, err := net.ResolveUDPAddr("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := tr.DialEarly(ctx, to, conf, &quic.Config{TokenStore: store})
	if err != nil {
		t.Fatal(err)
	}
	return &earlyClient{(&http3.Transport{}).NewClientConn(conn), t, conn, m, "https://" + at}
}

// ask sends a request at once, whatever the handshake has come to, and reads the answer.
func (c *earlyClient) ask(method, path, body string) (status int, said string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, c.site+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := c.OpenRequestStream(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(10 * time.Second))
	if err := s.SendRequestHeader(q); err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		if _, err := io.WriteString(s, body); err != nil {
			c.t.Fatal(err)
		}
	}
	s.Close()
	r, err := s.ReadResponse()
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r.StatusCode, string(b)
}

func (c *earlyClient) complete() bool {
	select {
	case <-c.quic.HandshakeComplete():
		return true
	default:
		return false
	}
}

// D8 over the wire: before the end of the handshake a GET goes on and says so, what could do harm
// gets 425 and reaches no server, and a server's own 425 is the client's. Afterwards all is served.
func TestD8EarlyRequestsOverTheWire(t *testing.T) {
	type seen struct{ method, path, early string }
	served := make(chan seen, 20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served <- seen{r.Method, r.URL.Path, r.Header.Get("Early-Data")}
		if r.URL.Path == "/dear" && r.Header.Get("Early-Data") == "1" {
			http.Error(w, "not yet, says the server", http.StatusTooEarly)
			return
		}
		io.WriteString(w, "hello")
	}))
	t.Cleanup(server.Close)
	s := newSecureSite(t, func(c *config.Config) {
		withHTTP3(c)
		c.Pool["app"] = pool("app", server.Listener.Addr().String())
		c.Pool["app"].Timeout = config.Timeout{Connect: 10 * time.Second, Send: 10 * time.Second, Read: 10 * time.Second, Idle: time.Second}
	})
	conf := &tls.Config{InsecureSkipVerify: true, ServerName: "one.example", NextProtos: []string{"h3"}, ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	store := quic.NewLRUTokenStore(10, 10)
	want := func(c *earlyClient, method, path, body string, status int, says string, reached *seen) {
		t.Helper()
		got, said := c.ask(method, path, body)
		if got != status || !strings.Contains(said, says) {
			t.Errorf("%s %s: %d %q, want %d %q", method, path, got, said, status, says)
		}
		select {
		case q := <-served:
			if reached == nil || q != *reached {
				t.Errorf("%s %s: the server got %v, want %v", method, path, q, reached)
			}
		default:
			if reached != nil {
				t.Errorf("%s %s: the server got nothing, want %v", method, path, reached)
			}
		}
	}
	first := dialEarly(t, s.at("https"), conf, store, false)
	want(first, "POST", "/", "x", 200, "hello", &seen{"POST", "/", ""})
	first.CloseWithError(0x100, "")

	var c *earlyClient
	for _, e := range []struct {
		method, path, body string
		status             int
		says               string
		reached            *seen
	}{
		{"GET", "/", "", 200, "hello", &seen{"GET", "/", "1"}},
		{"HEAD", "/", "", 200, "", &seen{"HEAD", "/", "1"}},
		{"POST", "/", "x", 425, "", nil},
		{"DELETE", "/", "", 425, "", nil},
		{"GET", "/", "a body", 425, "", nil},
		{"GET", "/dear", "", 425, "not yet, says the server", &seen{"GET", "/dear", "1"}},
	} {
		// One connection each: as long as the client is mute it acknowledges nothing, and is
		// told no more than three times what it has said (RFC 9000, 8.1).
		c = dialEarly(t, s.at("https"), conf, store, true)
		if c.complete() {
			t.Fatal("the handshake is over before anything was sent: there is no 0-RTT")
		}
		want(c, e.method, e.path, e.body, e.status, e.says, e.reached)
		if !c.quic.ConnectionState().Used0RTT {
			t.Errorf("%s %s: the client did not use 0-RTT", e.method, e.path)
		}
	}
	c.socket.speaks.Store(true)
	select {
	case <-c.quic.HandshakeComplete():
	case <-time.After(10 * time.Second):
		t.Fatal("the handshake does not end")
	}
	// The client knows that it is over when the server has confirmed it; what it sends from then
	// on is no replay. Until then the server may still call it early.
	for end := time.Now().Add(10 * time.Second); ; {
		status, _ := c.ask("POST", "/", "x")
		if status == 200 {
			break
		}
		if status != 425 || time.Now().After(end) {
			t.Fatalf("a POST after the handshake: %d", status)
		}
	}
	if q := <-served; q != (seen{"POST", "/", ""}) {
		t.Errorf("after the handshake the server got %v", q)
	}
	want(c, "GET", "/dear", "", 200, "hello", &seen{"GET", "/dear", ""})
}
