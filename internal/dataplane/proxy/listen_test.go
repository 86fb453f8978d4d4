package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/freeport"
)

// miniEngine answers each connection's first line with what the handler answers to it,
// with the name of the listener as the body. It knows just enough for these tests.
type miniEngine struct {
	mu     sync.Mutex
	served map[net.Listener]*dataplane.Listener
}

func (e *miniEngine) Serve(l *dataplane.Listener, socket net.Listener, h dataplane.Handler) error {
	e.mu.Lock()
	if e.served == nil {
		e.served = map[net.Listener]*dataplane.Listener{}
	}
	e.served[socket] = l
	e.mu.Unlock()
	for {
		c, err := socket.Accept()
		if err != nil {
			return nil
		}
		go e.answer(l, c, h)
	}
}

func (e *miniEngine) answer(l *dataplane.Listener, c net.Conn, h dataplane.Handler) {
	defer c.Close()
	client := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	if !h.Admit(l, client) {
		return
	}
	defer h.Leave(l, client, dataplane.ClosedClient)
	text, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	part := strings.Fields(text)
	x := get("h", part[1])
	x.Listener, x.Client = l, client
	if part[0] == "OPTIONS" {
		x.Request.Method = dataplane.OPTIONS
	}
	h.Match(x)
	if h.Begin(x) == dataplane.Next {
		x.Response.Status = 200
	}
	fmt.Fprintf(c, "HTTP/1.1 %d OK\r\n\r\n%s %d", x.Response.Status, l.Name, l.Limits.Fields)
	h.End(x, nil)
}

func (e *miniEngine) Shutdown(context.Context) error { return nil }

func ask(t *testing.T, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\n")
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	return body
}

func listening(addresses ...string) *config.Config {
	c := base()
	c.Listener["web"].Address = addresses
	c.Limits.Fields = 1
	return c
}

func serving(t *testing.T, c *config.Config) *Plane {
	t.Helper()
	p := New(Options{Engine: &miniEngine{}, AccessLog: io.Discard})
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	if err := p.Apply(c); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnUnchangedListenerKeepsItsSocket(t *testing.T) {
	a := freeport.Address(t)
	p := serving(t, listening(a))
	socket := p.doors[a].socket
	if err := p.Apply(listening(a)); err != nil {
		t.Fatal(err)
	}
	if p.doors[a].socket != socket {
		t.Error("the socket was opened again")
	}
	if got := ask(t, a); got != "web 1" {
		t.Errorf("answered %q", got)
	}
}

func TestConnectionsThatWaitSurviveAChangeOfLimits(t *testing.T) {
	a := freeport.Address(t)
	p := serving(t, listening(a))
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", a)
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				fmt.Fprintf(c, "GET / HTTP/1.1\n")
				if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "web ") {
					t.Errorf("read %q: %v", b, err)
				}
				c.Close()
			}
		})
	}
	for i := range 30 {
		c := listening(a)
		c.Limits.Fields = i + 2
		c.Limits.Conns = 1000
		if err := p.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	if got := ask(t, a); got != "web 31" {
		t.Errorf("answered %q, want the newest limits", got)
	}
}

func TestAListenerCanBeRenamedMovedAndRemoved(t *testing.T) {
	a, b := freeport.Address(t), freeport.Address(t)
	p := serving(t, listening(a))
	c := listening(a, b)
	c.Listener["site"], c.Listener["web"] = c.Listener["web"], nil
	delete(c.Listener, "web")
	c.Listener["site"].Name = "site"
	if err := p.Apply(c); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{a, b} {
		if got := ask(t, address); got != "site 1" {
			t.Errorf("%s answered %q", address, got)
		}
	}
	if err := p.Apply(listening(b)); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", a); err == nil {
		c.Close()
		t.Errorf("%s is still open", a)
	}
}

func TestAWildcardGivesWayToAnAddressAndBack(t *testing.T) {
	_, port, _ := net.SplitHostPort(freeport.Address(t))
	wide, narrow := ":"+port, "127.0.0.1:"+port
	p := serving(t, listening(wide))
	if err := p.Apply(listening(narrow)); err != nil {
		t.Fatalf("from %s to %s: %v", wide, narrow, err)
	}
	if got := ask(t, narrow); got != "web 1" {
		t.Errorf("answered %q", got)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := p.Apply(listening(wide, taken.Addr().String())); err == nil {
		t.Fatal("Apply took an address in use")
	}
	if got := ask(t, narrow); got != "web 1" {
		t.Errorf("after an Apply that failed: answered %q", got)
	}
	if ok, why := p.Ready(); !ok {
		t.Errorf("not ready: %s", why)
	}
	if err := p.Apply(listening(wide)); err != nil {
		t.Fatalf("from %s to %s: %v", narrow, wide, err)
	}
	if got := ask(t, narrow); got != "web 1" {
		t.Errorf("answered %q", got)
	}
}

func TestAListenerThatMayNotBeOpenedNamesTheCapability(t *testing.T) {
	p := New(Options{Engine: &miniEngine{}, Listen: func(network, address string) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", syscall.EACCES)}
	}})
	c, err := config.Parse("t.toml", []byte("listener.http.address = \"127.0.0.1:80\"\n[[route]]\nrespond = { status = 200 }\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = p.Apply(c)
	if !errors.Is(err, ErrLowPort) || !strings.Contains(err.Error(), `open listener "http" on 127.0.0.1:80`) {
		t.Errorf("Apply = %v, want ErrLowPort and the listener", err)
	}
}

func TestAnAddressOfAnotherNodeCanBeBound(t *testing.T) {
	l, err := Listen("tcp", "192.0.2.77:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, err = Listen("tcp", "[2001:db8::77]:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		address   string
		four, six bool
	}{{":0", true, true}, {"0.0.0.0:0", true, false}, {"[::]:0", false, true}} {
		l, err := Listen("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for host, want := range map[string]bool{"127.0.0.1": c.four, "::1": c.six} {
			conn, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if (err == nil) != want {
				t.Errorf("%s reached through %s: %v, want %v", c.address, host, err == nil, want)
			}
			if err == nil {
				conn.Close()
			}
		}
		l.Close()
	}
}

func TestProbeAsksEveryListener(t *testing.T) {
	c := listening("127.0.0.1:0", ":0", "[::1]:0", "192.0.2.77:0") // the last is held elsewhere
	c.Limits.Conns, c.Limits.ConnsPerIP = 1, 1
	log := &lines{}
	p := New(Options{Engine: &miniEngine{}, AccessLog: log})
	if err := p.Probe(t.Context()); err == nil {
		t.Error("well before any configuration")
	}
	if err := p.Apply(c); err != nil {
		t.Fatal(err)
	}
	// A full node is not an unfit one.
	if !p.Admit(p.doors["127.0.0.1:0"].listener, netip.MustParseAddrPort("198.51.100.1:1")) {
		t.Fatal("refused")
	}
	for range 3 {
		if err := p.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wantSeries(t, gather(t, p), map[string]float64{
		`proxyd_http_requests_total{code="200",listener="web",method="GET",route="` + unmatchedName + `"}`: 0,
	})
	p.Shutdown(context.Background())
	if log.String() != "" {
		t.Errorf("probes are logged: %s", log)
	}
	if err := p.Probe(t.Context()); err == nil || err.Error() != "draining" {
		t.Errorf("Probe = %v after Shutdown", err)
	}
}

func TestProbeNoticesAListenerThatDoesNotAnswer(t *testing.T) {
	p := New(Options{Engine: deafEngine{}, AccessLog: io.Discard})
	defer p.Shutdown(context.Background())
	if err := p.Apply(listening("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Probe(ctx); err == nil || !strings.Contains(err.Error(), `listener "web"`) {
		t.Errorf("Probe = %v", err)
	}
}

// A listener that a reload takes away while it is asked does not make the node unfit:
// that would give its addresses to another node for nothing.
func TestProbeForgivesAListenerThatAReloadClosed(t *testing.T) {
	p := New(Options{Engine: deafEngine{}, AccessLog: io.Discard})
	defer p.Shutdown(context.Background())
	if err := p.Apply(listening("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	probed := make(chan error, 1)
	go func() { probed <- p.Probe(t.Context()) }()
	for asking := false; !asking; runtime.Gosched() {
		p.probes.Range(func(any, any) bool { asking = true; return false })
	}
	if err := p.Apply(listening("[::1]:0")); err != nil {
		t.Fatal(err)
	}
	if err := <-probed; err != nil {
		t.Errorf("Probe = %v", err)
	}
}

// deafEngine never accepts.
type deafEngine struct{}

func (deafEngine) Serve(_ *dataplane.Listener, socket net.Listener, _ dataplane.Handler) error {
	select {}
}
func (deafEngine) Shutdown(context.Context) error { return nil }

func TestAListenerWhoseEngineGivesUpIsNotReady(t *testing.T) {
	failing := make(chan struct{})
	p := New(Options{Engine: failingEngine{failing}, AccessLog: io.Discard})
	defer p.Shutdown(context.Background())
	if err := p.Apply(listening("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	<-failing
	for {
		if ok, why := p.Ready(); !ok {
			if !strings.Contains(why, "out of files") {
				t.Errorf("why = %q", why)
			}
			return
		}
	}
}

type failingEngine struct{ failed chan struct{} }

func (e failingEngine) Serve(*dataplane.Listener, net.Listener, dataplane.Handler) error {
	close(e.failed)
	return fmt.Errorf("out of files")
}
func (failingEngine) Shutdown(context.Context) error { return nil }
