package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane/proxyheader"
)

// balancer is who stands before the listener in these tests.
const balancer = "127.0.0.2"

// behind is a configuration whose listener has proxy_protocol.
func behind(t *testing.T, more, pool, server string) *config.Config {
	t.Helper()
	return parsed(t, more+"\n[node]\nname = \"edge-1\"\ntrusted_proxies = [\""+balancer+"/32\", \"10.0.0.0/8\"]\n"+
		"[listener.web]\naddress = \"127.0.0.1:8080\"\nproxy_protocol = true\n[pool.app]\nservers = [\""+server+"\"]\n"+pool+"\n[[route]]\nname = \"all\"\npool = \"app\"\n")
}

// dialFrom connects to the data plane from an address of this host.
func (w *whole) dialFrom(from string) *net.TCPConn {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// asked sends text on a connection and returns the body of the answer, or "" if the
// connection is closed without one.
func (w *whole) asked(c net.Conn, text string) string {
	w.t.Helper()
	io.WriteString(c, text)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

const plainGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// B8: whom a header names is the client for all there is: fields, log, limits.
func TestB8TheHeaderOfATrustedProxyNamesTheClient(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Real-IP"))
	})
	w := newWhole(t, behind(t, "limits.conns_per_ip = 1", "", app))
	first := w.dialFrom(balancer)
	if got, want := w.asked(first, "PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\r\n"+plainGet), "198.51.100.9 198.51.100.9"; got != want {
		t.Errorf("the server was told %q, want %q", got, want)
	}
	if got := w.asked(w.dialFrom(balancer), "PROXY TCP4 198.51.100.9 203.0.113.10 51414 443\r\n"+plainGet); got != "" {
		t.Errorf("a second connection of one client has %q", got)
	}
	if got := w.asked(w.dialFrom(balancer), "PROXY TCP4 198.51.100.10 203.0.113.10 51413 443\r\n"+plainGet); got == "" {
		t.Error("another client has no answer")
	}
	// What the client itself says of others is not believed, what a trusted one says is.
	said := "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.66\r\n\r\n"
	if got, want := w.asked(w.dialFrom(balancer), "PROXY TCP4 198.51.100.11 203.0.113.10 51413 443\r\n"+said), "198.51.100.11 198.51.100.11"; got != want {
		t.Errorf("the server was told %q, want %q", got, want)
	}
	if got, want := w.asked(w.dialFrom(balancer), "PROXY TCP4 10.1.2.3 203.0.113.10 51413 443\r\n"+said), "192.0.2.66, 10.1.2.3 192.0.2.66"; got != want {
		t.Errorf("the server was told %q, want %q", got, want)
	}
	if err := w.Probe(t.Context()); err != nil {
		t.Errorf("Probe: %v", err)
	}
	w.access.Close(t.Context())
	if log := w.log.String(); !strings.Contains(log, `"client":"198.51.100.9"`) || strings.Contains(log, balancer) {
		t.Errorf("the log: %s", log)
	}
}

// B8: nobody else is let in, header or not.
func TestB8StrangersNameNobody(t *testing.T) {
	w := newWitness(t)
	p := newWhole(t, behind(t, "", "", w.address))
	for _, c := range []struct{ from, text string }{
		{"127.0.0.3", "PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\r\n" + plainGet},
		{"127.0.0.3", plainGet},
		{balancer, plainGet},
		{balancer, "PROXY TCP4 198.51.100.9 203.0.113.10 51413\r\n" + plainGet},
		{balancer, "PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\n" + plainGet},
	} {
		if got := p.asked(p.dialFrom(c.from), c.text); got != "" {
			t.Errorf("%s said %q and was answered %q", c.from, c.text, got)
		}
	}
	w.mu.Lock()
	if len(w.seen) != 0 {
		t.Errorf("the server has %d connections", len(w.seen))
	}
	w.mu.Unlock()
	soonSeries(t, p.Plane, map[string]float64{
		`proxyd_http_malformed_total{listener="web",reason="proxy_untrusted"}`: 2,
		`proxyd_http_malformed_total{listener="web",reason="proxy_missing"}`:   1,
		`proxyd_http_malformed_total{listener="web",reason="proxy_header"}`:    2,
		`proxyd_connections_open{listener="web",protocol="http1"}`:             0,
		`proxyd_connections_total{listener="web",protocol="http1"}`:            0,
	})
	if n := p.Connections(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// B8: a process of this host cannot name clients while the node asks itself.
func TestB8AProbeNamesNobody(t *testing.T) {
	p := newWhole(t, behind(t, "", "", "127.0.0.1:9"))
	p.mu.Lock()
	l := p.doors[p.address].listener
	p.mu.Unlock()
	p.probing.Add(1)
	defer p.probing.Add(-1)
	peer := netip.MustParseAddrPort("127.0.0.3:1000")
	for _, c := range []struct {
		client netip.AddrPort
		want   bool
	}{{peer, true}, {netip.MustParseAddrPort("198.51.100.9:1"), false}} {
		if !p.front.Await(l, peer) {
			t.Fatal("a probe is not let in")
		}
		if got := p.front.Heard(l, peer, c.client, nil); got != c.want {
			t.Errorf("Heard of %v = %v, want %v", c.client, got, c.want)
		}
	}
}

// The connections that wait for their header count: limits.conns holds for them.
func TestConnectionsWithoutHeaderAreLimited(t *testing.T) {
	w := newWhole(t, behind(t, "limits.conns = 2", "", "127.0.0.1:9"))
	for range 2 {
		w.dialFrom(balancer)
	}
	for w.Connections() < 2 {
		time.Sleep(time.Millisecond)
	}
	if _, err := w.dialFrom(balancer).Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the third connection: %v, want it closed", err)
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// A proxied server reads PROXY headers and tells each request's client, and which of its
// connections the request came on.
func proxiedServer(t *testing.T) (address string, heads func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	var conns sync.WaitGroup
	conns.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				r.Peek(16)
				b, _ := r.Peek(r.Buffered())
				h, size, err := proxyheader.Parse(b)
				if err != nil || size == 0 {
					t.Errorf("connection %d begins with %q: %v", n, b, err)
					return
				}
				r.Discard(size)
				mu.Lock()
				all = append(all, h.Client.String())
				mu.Unlock()
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					said := fmt.Sprintf("%s on %d", h.Client, n)
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(said), said)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// A server that is told of clients gets each one's requests on connections of their own.
func TestServersAreToldOfClients(t *testing.T) {
	address, _ := proxiedServer(t)
	for _, version := range []string{"1", "2"} {
		w := newWhole(t, behind(t, "", "proxy_protocol = "+version, address))
		a, b := w.dialFrom(balancer), w.dialFrom(balancer)
		var got [4]string
		got[0] = w.asked(a, "PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\r\n"+plainGet)
		got[1] = w.asked(b, "PROXY TCP6 2001:db8::9 2001:db8::10 51413 443\r\n"+plainGet)
		got[2], got[3] = w.asked(a, plainGet), w.asked(b, plainGet)
		if !strings.HasPrefix(got[0], "198.51.100.9:51413 on ") || got[2] != got[0] || !strings.HasPrefix(got[1], "[2001:db8::9]:51413 on ") || got[3] != got[1] {
			t.Errorf("version %s: the servers were told %q", version, got)
		}
	}
}

// The header goes in clear, before TLS with the server.
func TestServersAreToldOfClientsBeforeTLS(t *testing.T) {
	ca := newAuthority(t, "Internal CA")
	conf := &tls.Config{Certificates: []tls.Certificate{ca.signs(t, "127.0.0.1", someYear)}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				line, _ := r.ReadString('\n')
				s := tls.Server(&readConn{c, r}, conf)
				if _, err := http.ReadRequest(bufio.NewReader(s)); err != nil {
					t.Errorf("behind %q: %v", line, err)
					return
				}
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	w := newWhole(t, behind(t, "", "proxy_protocol = 1\ntls = { ca = \""+ca.file+"\" }", l.Addr().String()))
	const header = "PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\r\n"
	if got := w.asked(w.dialFrom(balancer), header+plainGet); got != header {
		t.Errorf("the server was told %q, want %q", got, header)
	}
}

// A readConn is read by r.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c *readConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// What this node asks of its own accord names nobody.
func TestChecksAndCopiesNameNobody(t *testing.T) {
	address, heads := proxiedServer(t)
	w := newWhole(t, behind(t, "", "proxy_protocol = 2\ncheck = { interval = \"60s\", timeout = \"30s\" }", address))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if all := heads(); len(all) > 0 {
			if all[0] != "invalid AddrPort" {
				t.Errorf("the check names %s", all[0])
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("no check came")
		}
	}
	if state := w.Pools()[0].Servers[0].State; state != "up" {
		t.Errorf("the server is %s", state)
	}
}
