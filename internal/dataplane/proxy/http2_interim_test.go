package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"proxyd/internal/config"
)

// scripted is a server that reads a head, says first, and after until has come the rest.
func scripted(t *testing.T, first, until, rest string, seen chan<- string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		var all strings.Builder
		read := func(end string) bool {
			for !strings.HasSuffix(all.String(), end) {
				b, err := r.ReadByte()
				if err != nil {
					return false
				}
				all.WriteByte(b)
			}
			return true
		}
		if !read("\r\n\r\n") {
			return
		}
		io.WriteString(c, first)
		if until != "" && !read(until) {
			return
		}
		io.WriteString(c, rest)
		seen <- all.String()
	}()
	return l.Addr().String()
}

// answer reads an answer from stream 1: the statuses of its heads with a field, the body, and the
// fields of trailers.
func (p *h2Peer) answer(field string) (said []string) {
	p.t.Helper()
	headed := false
	for {
		switch f := p.next().(type) {
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); !headed || status != "" {
				headed = headed || status >= "200"
				said = append(said, status)
			} else {
				said = append(said, "trailers")
			}
			for _, h := range f.RegularFields() {
				if h.Name == field {
					said = append(said, h.Value)
				}
			}
			if f.StreamEnded() {
				return said
			}
		case *http2.DataFrame:
			if len(f.Data()) > 0 {
				said = append(said, string(f.Data()))
			}
			if f.StreamEnded() {
				return said
			}
		case *http2.RSTStreamFrame:
			return append(said, f.ErrCode.String())
		}
	}
}

func h2Site(t *testing.T, more, origin string, route func(*config.Route)) *whole {
	t.Helper()
	c := to(t, more, origin)
	c.Listener["web"].H2C = true
	if route != nil {
		route(c.Route[0])
	}
	return newWhole(t, c)
}

func TestHTTP2EarlyHintsPass(t *testing.T) {
	seen := make(chan string, 1)
	w := h2Site(t, "", scripted(t, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLink: </c>\r\n\r\nbody", seen), nil)
	p := dialH2(t, w.address)
	p.ask(1, true, ":method: GET", ":scheme: http", ":authority: h", ":path: /")
	if got := strings.Join(p.answer("link"), " "); got != "103 </a> 103 </b> 200 </c> body" {
		t.Errorf("got %s", got)
	}
	<-seen
}

// A client that waits for 100 gets it before it sends its body.
func TestHTTP2ClientsThatExpect100GetIt(t *testing.T) {
	seen := make(chan string, 1)
	w := h2Site(t, "", scripted(t, "HTTP/1.1 100 Continue\r\n\r\n", "four", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", seen), nil)
	p := dialH2(t, w.address)
	p.ask(1, false, ":method: POST", ":scheme: http", ":authority: h", ":path: /", "expect: 100-continue", "content-length: 4")
	f, of := p.next().(*http2.MetaHeadersFrame)
	if !of || f.PseudoValue("status") != "100" || f.StreamEnded() {
		t.Fatalf("got %v, want 100", f)
	}
	p.fr.WriteData(1, true, []byte("four"))
	if got := strings.Join(p.answer(""), " "); got != "200" {
		t.Errorf("got %s", got)
	}
	if head := <-seen; !strings.HasSuffix(head, "\r\n\r\nfour") {
		t.Errorf("the server saw %q", head)
	}
}

// Trailers of a request go on as the route allows, and never what frames or routes.
func TestHTTP2TrailersOfRequests(t *testing.T) {
	for name, c := range map[string]struct {
		allowed []string
		want    string
	}{
		"allowed":     {[]string{"x-sum"}, "0\r\nx-sum: 42\r\n\r\n"},
		"not allowed": {nil, "0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 1)
			w := h2Site(t, "", scripted(t, "", "\r\n"+c.want, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", seen), func(r *config.Route) { r.Trailers = c.allowed })
			p := dialH2(t, w.address)
			p.ask(1, false, ":method: POST", ":scheme: http", ":authority: h", ":path: /")
			p.fr.WriteData(1, false, []byte("body"))
			p.ask(1, true, "x-sum: 42", "content-length: 9", "x-other: 1")
			if got := strings.Join(p.answer(""), " "); got != "200" {
				t.Errorf("got %s", got)
			}
			if text := <-seen; !strings.Contains(text, "4\r\nbody\r\n") {
				t.Errorf("the server saw %q", text)
			}
		})
	}
}

// B7 over HTTP/2, where a client asks for any host that a certificate names on one connection:
// what needs a certificate is for connections for its host alone, and the others go on.
func TestB7HTTP2ConnectionsForAnotherHostAreMisdirected(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	s := mutual(t, ca, "optional", func(c *config.Config) { c.Listener["https"].HTTP2 = true })
	conf := shows(ca.signs(t, "alice", someYear))
	conf.InsecureSkipVerify, conf.ServerName, conf.NextProtos = true, "open.example", []string{"h2"}
	conn, err := tls.Dial("tcp", s.at("https"), conf)
	if err != nil {
		t.Fatal(err)
	}
	p := speakH2(t, conn)
	for i, c := range []struct{ host, want string }{{"open.example", "200"}, {"vault.example", "421"}, {"plain.example", "200"}, {"vault.example", "421"}} {
		p.ask(uint32(2*i+1), true, ":method: GET", ":scheme: https", ":authority: "+c.host, ":path: /")
		if got := p.answer(""); len(got) == 0 || got[0] != c.want {
			t.Errorf("%s on a connection for open.example: %v, want %s", c.host, got, c.want)
		}
	}
	soonSeries(t, s.Plane, map[string]float64{
		`proxyd_http_local_responses_total{code="421",reason="misdirected",route="vault"}`: 2,
	})
}
