package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// stillEngine accepts nothing: it holds each socket until it is closed.
type stillEngine struct{}

func (stillEngine) Serve(_ *dataplane.Listener, socket net.Listener, _ dataplane.Handler) error {
	for {
		c, err := socket.Accept()
		if err != nil {
			return nil
		}
		c.Close()
	}
}

func (stillEngine) Shutdown(context.Context) error { return nil }

// lines is an access log in memory.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// base is a configuration with one pool of two servers behind every host, listening
// where the system likes.
func base() *config.Config {
	return &config.Config{
		Node:     config.Node{Name: "edge-1"},
		Listener: map[string]*config.Listener{"web": {Name: "web", Address: []string{"127.0.0.1:0"}}},
		Limits:   config.Limits{Conns: 100, Body: 1 << 20},
		Pool:     map[string]*config.Pool{"app": pool("app", "192.0.2.1:80", "192.0.2.2:80")},
		Route:    []*config.Route{{Name: "all", Pool: "app", Log: true, Upgrade: []string{"websocket"}}},
		Log:      config.Log{Access: config.Access{Format: "json", Output: "stdout", Sample: 1, Slow: time.Second}},
	}
}

func pool(name string, servers ...string) *config.Pool {
	p := &config.Pool{
		Name:    name,
		Passive: config.Passive{MaxFails: 3, FailTimeout: 30 * time.Second, On: []string{"connect", "timeout", "502", "503", "504"}},
		Retry:   config.Retry{Attempts: 2, Budget: 0.2, On: []string{"connect", "timeout"}},
	}
	for _, s := range servers {
		p.Server = append(p.Server, config.Server{Addr: s, Weight: 1})
	}
	return p
}

// start returns a Plane with c applied. It is shut down when the test ends.
func start(t testing.TB, c *config.Config) (*Plane, *lines) {
	t.Helper()
	log := &lines{}
	p := New(Options{Engine: stillEngine{}, AccessLog: log})
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	if err := p.Apply(c); err != nil {
		t.Fatal(err)
	}
	return p, log
}

// get returns an exchange as an engine would hand it to Match.
func get(host, path string) *dataplane.Exchange {
	now := time.Now()
	return &dataplane.Exchange{
		Listener: &dataplane.Listener{Name: "web", Address: "127.0.0.1:8080"},
		Client:   netip.MustParseAddrPort("198.51.100.9:40000"),
		Request: dataplane.Request{
			Method: dataplane.GET, MethodText: []byte("GET"), Minor: 1,
			Host: []byte(host), Path: []byte(path),
			Header: dataplane.Header{{Name: []byte("Host"), Value: []byte(host), ID: dataplane.Host}},
		},
		Replayable: true,
		Times:      dataplane.Times{Start: now, Head: now},
	}
}

func begin(p *Plane, x *dataplane.Exchange) dataplane.Verdict {
	p.Match(x)
	return p.Begin(x)
}

// respond plays the engine's part when a server answers.
func respond(p *Plane, x *dataplane.Exchange, status int) dataplane.Verdict {
	now := time.Now()
	x.Times.Sent, x.Times.FirstByte, x.Sent = now, now, true
	x.Response.Status, x.Response.Minor = status, 1
	return p.Respond(x)
}

func TestExchangeGoesToAServerAndIsCountedOnce(t *testing.T) {
	p, log := start(t, base())
	x := get("shop.example.com", "/a")
	if v := begin(p, x); v != dataplane.Next || x.Server == nil || x.Attempt != 1 {
		t.Fatalf("Begin = %v with server %v, attempt %d; want Next and a server", v, x.Server, x.Attempt)
	}
	if n := x.Server.Active.Load(); n != 1 {
		t.Errorf("server has %d exchanges, want 1", n)
	}
	if v := respond(p, x, 200); v != dataplane.Next {
		t.Fatalf("Respond = %v, want Next", v)
	}
	server := x.Server
	p.End(x, nil)
	if n := server.Active.Load(); n != 0 {
		t.Errorf("server has %d exchanges after End, want 0", n)
	}
	p.Shutdown(context.Background())
	if got := strings.Count(log.String(), "\n"); got != 1 {
		t.Errorf("%d log lines, want 1:\n%s", got, log.String())
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	p, _ := start(t, base())
	before := p.current.Load()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := base()
	c.Listener["second"] = &config.Listener{Name: "second", Address: []string{taken.Addr().String()}}
	err = p.Apply(c)
	if err == nil {
		t.Fatal("Apply took a listener whose address is in use")
	}
	for _, want := range []string{`"second"`, taken.Addr().String(), "address already in use"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %s", err, want)
		}
	}
	if p.current.Load() != before {
		t.Error("the snapshot changed")
	}
	if ok, why := p.Ready(); !ok {
		t.Errorf("not ready: %s", why)
	}
}

func TestRetryGoesToAnotherServerOnce(t *testing.T) {
	p, _ := start(t, base())
	x := get("h", "/")
	begin(p, x)
	first := x.Server
	if v := p.Retry(x, errors.Join(dataplane.ErrConnect)); v != dataplane.Again || x.Server == first || x.Attempt != 2 {
		t.Fatalf("Retry = %v, server changed %v, attempt %d; want Again on another", v, x.Server != first, x.Attempt)
	}
	second := x.Server
	if v := p.Retry(x, dataplane.ErrConnect); v != dataplane.Answer || x.Response.Status != 502 {
		t.Fatalf("Retry = %v with status %d, want Answer with 502", v, x.Response.Status)
	}
	p.End(x, nil)
	if first.Active.Load() != 0 || second.Active.Load() != 0 {
		t.Error("a server was not given back")
	}
}
