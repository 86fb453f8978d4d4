package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func quicClient(t *testing.T, s *secureSite) (client *http.Client, base string) {
	t.Helper()
	tr := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "one.example", ClientSessionCache: tls.NewLRUClientSessionCache(10)},
		DisableCompression: true, QUICConfig: &quic.Config{TokenStore: quic.NewLRUTokenStore(10, 10)}}
	t.Cleanup(func() { tr.Close() })
	return &http.Client{Transport: tr, Timeout: 60 * time.Second}, "https://" + s.at("https")
}

func withHTTP3(c *config.Config) { c.Listener["https"].HTTP3 = true }

func TestHTTP3GoesTheWayOfAll(t *testing.T) {
	s := newSecureSite(t, withHTTP3)
	r, _, err := s.talk(t, &tls.Config{ServerName: "one.example"}, "/")
	_, port, _ := strings.Cut(s.at("https"), ":")
	if err != nil || r.Header.Get("Alt-Svc") != `h3=":`+port+`"; ma=86400` {
		t.Fatalf("clients of TCP are told %q, %v", r.Header.Get("Alt-Svc"), err)
	}
	<-s.origin
	client, base := quicClient(t, s)
	r, err = client.Get(base + "/")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || string(b) != "hello\n" || r.Proto != "HTTP/3.0" || r.Header.Get("Alt-Svc") != "" || r.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%v %q %v", r, b, err)
	}
	if h := <-s.origin; h.Get("X-Forwarded-Proto") != "https" || h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("Early-Data") != "" {
		t.Errorf("the server is told %v", h)
	}
	wantSeries(t, gather(t, s.Plane), map[string]float64{
		`proxyd_connections_open{listener="https",protocol="http3"}`:                              1,
		`proxyd_connections_total{listener="https",protocol="http3"}`:                             1,
		`proxyd_tls_handshakes_total{listener="https",result="ok",resumed="false",version="1.3"}`: 2,
	})
	s.access.Close(t.Context())
	if log := s.log.String(); !strings.Contains(log, `"proto":"HTTP/3.0","tls":"1.3","sni":"one.example"`) {
		t.Errorf("the log has %s", log)
	}
}

// B7 over HTTP/3: certificates of clients are asked for and judged as over TCP, in sessions that
// are resumed too, and what needs one is for connections for its host alone.
func TestB7HTTP3ConnectionsForAnotherHostAreMisdirected(t *testing.T) {
	ca := newAuthority(t, "Clients CA")
	for _, listener := range []string{"optional", "require"} {
		s := mutual(t, ca, listener, withHTTP3)
		ask := func(conf *tls.Config, hosts ...string) (all []string) {
			t.Helper()
			tr := &http3.Transport{TLSClientConfig: conf, DisableCompression: true}
			defer tr.Close()
			client := &http.Client{Transport: tr, Timeout: 10 * time.Second}
			for _, host := range hosts {
				q, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.at("https")+"/", nil)
				if err != nil {
					t.Fatal(err)
				}
				q.Host = host
				r, err := client.Do(q)
				if err != nil {
					return append(all, "none")
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				all = append(all, fmt.Sprint(r.StatusCode))
			}
			return all
		}
		alice, none := shows(ca.signs(t, "alice", someYear)), &tls.Config{}
		for _, c := range []*tls.Config{alice, none} {
			c.InsecureSkipVerify, c.ServerName, c.ClientSessionCache = true, "open.example", tls.NewLRUClientSessionCache(0)
		}
		for range 2 { // the second time by a session
			if got := strings.Join(ask(alice, "open.example", "vault.example", "plain.example"), " "); got != "200 421 200" {
				t.Errorf("%s: on a connection for open.example: %s", listener, got)
			}
		}
		want := map[string]string{"optional": "200 421", "require": "none"}[listener]
		for range 2 {
			if got := strings.Join(ask(none, "open.example", "vault.example"), " "); got != want {
				t.Errorf("%s: without a certificate: %s, want %s", listener, got, want)
			}
		}
		alice.ServerName, none.ServerName = "vault.example", "vault.example"
		want = map[string]string{"optional": "403", "require": "none"}[listener]
		if got := ask(alice, "vault.example")[0] + " " + ask(none, "vault.example")[0]; got != "200 "+want {
			t.Errorf("%s: for the vault, with a certificate and without: %s, want 200 %s", listener, got, want)
		}
		ca.revokes(t, 77)
		s.lookAtTrust()
		if got := ask(alice, "vault.example")[0]; got == "200" {
			t.Errorf("%s: it is revoked, and still let in", listener)
		}
		ca.revokes(t)
	}
}

// A hundred reloads, which change what is said of the listener too, and a download notices
// none of them.
func TestHTTP3OutlivesReloads(t *testing.T) {
	const size = 100 << 20
	large := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		part := make([]byte, 64<<10)
		for sent := 0; sent < size; sent += len(part) {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}))
	t.Cleanup(large.Close)
	s := newSecureSite(t, func(c *config.Config) {
		withHTTP3(c)
		c.Pool["app"] = pool("app", large.Listener.Addr().String())
		c.Pool["app"].Timeout = config.Timeout{Connect: 10 * time.Second, Send: 10 * time.Second, Read: 10 * time.Second, Idle: time.Second}
	})
	client, base := quicClient(t, s)
	r, err := client.Get(base + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	buf := make([]byte, 256<<10)
	got, reloads := 0, 0
	for {
		n, err := r.Body.Read(buf)
		if got += n; got > (reloads+1)*size/101 && reloads < 100 {
			c := *s.conf
			c.Limits.Fields = 100 + reloads%2
			if err := s.Apply(&c); err != nil {
				t.Fatal(err)
			}
			reloads++
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes and %d reloads: %v", got, reloads, err)
		}
	}
	if got != size || reloads != 100 {
		t.Errorf("%d bytes, %d reloads", got, reloads)
	}
}

// D8: what may be a replay is let through only where it does no harm, and says so.
func TestD8ReplaysDoNoHarm(t *testing.T) {
	for _, c := range []struct {
		method dataplane.Method
		length int64
		want   bool
	}{{dataplane.GET, 0, true}, {dataplane.HEAD, 0, true}, {dataplane.OPTIONS, 0, true}, {dataplane.GET, 1, false},
		{dataplane.POST, 0, false}, {dataplane.DELETE, 0, false}, {dataplane.PUT, 5, false}} {
		x := &dataplane.Exchange{}
		x.Request.Method, x.Request.Length = c.method, c.length
		if got := replayable(x); got != c.want {
			t.Errorf("%v with %d bytes: %v, want %v", c.method, c.length, got, c.want)
		}
	}
}

// By what an id begins with, a node tells its own connections from those of another of its
// cluster, and both from all others.
func TestConnectionIDsBeginWithClusterAndNode(t *testing.T) {
	mark := func(cluster, node string) [6]byte {
		c := &config.Config{}
		c.Cluster.Name, c.Node.Name = cluster, node
		return ConnectionMark(c)
	}
	one, two, other := mark("shop", "edge-1"), mark("shop", "edge-2"), mark("blog", "edge-1")
	if one != mark("shop", "edge-1") || one[0] != 11 {
		t.Errorf("a mark is %x, then %x; want the same, after the length of the rest", one, mark("shop", "edge-1"))
	}
	if [3]byte(one[:3]) != [3]byte(two[:3]) || [3]byte(one[3:]) == [3]byte(two[3:]) {
		t.Errorf("two nodes of a cluster have %x and %x", one, two)
	}
	if [3]byte(one[:3]) == [3]byte(other[:3]) {
		t.Errorf("nodes of two clusters have %x and %x", one, other)
	}
	s := newSecureSite(t, func(c *config.Config) {
		withHTTP3(c)
		c.Cluster.Name, c.Node.Name = "shop", "edge-1"
	})
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	seen := make(chan [6]byte, 1)
	tr := &quic.Transport{Conn: &eavesdropper{PacketConn: socket, seen: seen}}
	defer tr.Close()
	to, err := net.ResolveUDPAddr("udp4", s.at("https"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tr.Dial(t.Context(), to, &tls.Config{InsecureSkipVerify: true, ServerName: "one.example", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0x100, "") // the ids are seen by then
	select {
	case id := <-seen:
		if id != one {
			t.Errorf("an id on the wire begins with %x, want %x", id, one)
		}
	case <-time.After(10 * time.Second):
		t.Error("no datagram with an id of the server's was sent")
	}
}

// An eavesdropper reads the id in the first datagram that is sent with one of the server's:
// behind a short header, or that of a Handshake packet.
type eavesdropper struct {
	net.PacketConn
	seen chan<- [6]byte
	once sync.Once
}

func (e *eavesdropper) WriteTo(b []byte, to net.Addr) (int, error) {
	switch {
	case b[0]&0x80 == 0:
		e.once.Do(func() { e.seen <- [6]byte(b[1:]) })
	case b[0]&0x30 == 0x20:
		e.once.Do(func() { e.seen <- [6]byte(b[6:]) })
	}
	return e.PacketConn.WriteTo(b, to)
}

// HTTP/3 that is taken from a listener and given to it again: the older connection has its
// answer, and who connects anew comes to the new socket meanwhile and afterwards.
func TestHTTP3ComesBackWhileAConnectionDrains(t *testing.T) {
	release := make(chan struct{})
	held := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			http.NewResponseController(w).Flush()
			<-release
		}
		io.WriteString(w, "whole")
	}))
	t.Cleanup(held.Close)
	s := newSecureSite(t, func(c *config.Config) {
		withHTTP3(c)
		c.Pool["app"] = pool("app", held.Listener.Addr().String())
		c.Pool["app"].Timeout = config.Timeout{Connect: 10 * time.Second, Send: 10 * time.Second, Read: 60 * time.Second, Idle: time.Second}
	})
	with := func(on bool) {
		t.Helper()
		c := *s.conf
		l := *c.Listener["https"]
		l.HTTP3 = on
		c.Listener = map[string]*config.Listener{"https": &l}
		if err := s.Apply(&c); err != nil {
			t.Fatal(err)
		}
	}
	wantWhole := func(when string, r *http.Response, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer r.Body.Close()
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != "whole" {
			t.Errorf("%s: %q, %v", when, b, err)
		}
	}
	client, base := quicClient(t, s)
	older, err := client.Get(base + "/held")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		with(false)
		with(true)
		for range 4 {
			fresh, base := quicClient(t, s)
			r, err := fresh.Get(base + "/")
			wantWhole("a client that connects anew", r, err)
		}
	}
	close(release)
	wantWhole("the older connection", older, nil)
	s.mu.Lock()
	var berths int
	for _, e := range s.packets {
		berths = len(e.berths)
	}
	s.mu.Unlock()
	if berths > 4 {
		t.Errorf("there are %d sockets at the address after three changes, want one for each and the oldest", berths)
	}
}
