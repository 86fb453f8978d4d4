package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/history"
)

// node is an Operator with fixed answers to what the tests ask.
type node struct {
	Operator
	asked Failover
	err   error
}

func (n *node) Status(context.Context) (*Status, error) {
	holder := "edge-1"
	return &Status{Cluster: "edge", Health: "healthy", Node: "edge-1",
		Nodes: []NodeStatus{{Name: "edge-1", State: "up", Address: "10.0.0.1"}},
		VIPs:  []VIPStatus{{Name: "public", Holder: &holder, Term: 7}}}, n.err
}
func (n *node) Pools(context.Context) ([]Pool, error)   { return []Pool{{Name: "web"}}, n.err }
func (n *node) Config(context.Context) (string, error)  { return "[node]\n", n.err }
func (n *node) Reload(context.Context) (*Reload, error) { return &Reload{Config: "abc"}, n.err }
func (n *node) Diff(_ context.Context, f File) (*Reload, error) {
	return &Reload{Config: f.Name, Changes: []string{f.Text}}, n.err
}
func (n *node) Explain(_ context.Context, q Question) (json.RawMessage, error) {
	return json.Marshal(q)
}
func (n *node) Version(context.Context) (*Version, error) { return &Version{Version: "1"}, n.err }
func (n *node) Edit(_ context.Context, e Edit) (*Reload, error) {
	return &Reload{Config: e.Remove.Kind}, n.err
}
func (n *node) Changes(context.Context) (string, error)                   { return "[remove]\n", n.err }
func (n *node) SteerServer(context.Context, ServerWish) (*Steered, error) { return &Steered{}, n.err }
func (n *node) History(_ context.Context, q HistoryQuery) (*History, error) {
	return &History{Entries: []history.Entry{{Node: "edge-1", VIP: q.VIP}}, Tellers: []Teller{}}, n.err
}
func (n *node) Why(_ context.Context, q WhyQuery) (*history.Story, error) {
	return &history.Story{VIP: q.VIP, Term: q.Term}, n.err
}
func (n *node) Doctor(context.Context) (*Doctor, error) { return &Doctor{Node: "edge-1"}, n.err }
func (n *node) Simulate(_ context.Context, q SimulateQuery) (*Simulation, error) {
	return &Simulation{Fault: q.Fault, Node: q.Node}, n.err
}
func (n *node) Watch(ctx context.Context, tell func(history.Entry) error) error {
	for i := range uint64(3) {
		if err := tell(history.Entry{Node: "edge-1", Seq: i}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}
func (n *node) SteerRoute(context.Context, RouteWish) (*Steered, error) { return &Steered{}, n.err }
func (n *node) Upgrade(_ context.Context, u Upgrade) (*Upgraded, error) {
	return &Upgraded{To: Version{Version: u.Binary}}, n.err
}
func (n *node) Failover(_ context.Context, f Failover) (*FailoverResult, error) {
	n.asked = f
	return &FailoverResult{To: f.To}, n.err
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func pages() Pages {
	return Pages{Metrics: http.NotFoundHandler(), Ready: func() (bool, string) { return false, "draining" }}
}

// dial serves n on a socket of its own and returns a client of it.
func dial(t *testing.T, n *node) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, SocketHandler(n, pages(), quiet)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return Dial(path)
}

func TestClientHearsWhatTheOperatorSays(t *testing.T) {
	n := &node{}
	c := dial(t, n)
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := n.Status(t.Context())
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Status (-said +heard):\n%s", d)
	}
	wish := Failover{VIP: "public", To: "edge-2", Reason: "kernel"}
	if _, err := c.Failover(t.Context(), wish); err != nil || n.asked != wish {
		t.Errorf("Failover reached the operator as %+v, %v; want %+v", n.asked, err, wish)
	}
}

// A connection that is kept would be reset if the next call on it and the process's end met.
func TestACallHasAConnectionOfItsOwn(t *testing.T) {
	var mu sync.Mutex
	var calls []*lastingConn
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, noted{l, func(c *lastingConn) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, c)
		}}, SocketHandler(&node{}, pages(), quiet))
	}()
	c := Dial(path)
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Upgrade(t.Context(), Upgrade{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(calls) != 2 || calls[0].lasts || !calls[1].lasts {
		t.Errorf("%d connections for two calls, want as many; only that of the upgrade may last", len(calls))
	}
}

// noted tells of each connection that it accepts.
type noted struct {
	net.Listener
	met func(*lastingConn)
}

func (n noted) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l := &lastingConn{Conn: c}
	n.met(l)
	return l, nil
}

type lastingConn struct {
	net.Conn
	lasts bool
}

func (c *lastingConn) Lasts() { c.lasts = true }

func TestClientGetsTheKindOfAnError(t *testing.T) {
	for _, err := range []error{Refuse("not now"), Invalid("proxyd.toml:3:1: unknown key"), TimedOut("slow")} {
		c := dial(t, &node{err: err})
		_, got := c.Reload(t.Context())
		var e *Error
		if !errors.As(got, &e) || !errors.Is(got, errors.Unwrap(err)) || got.Error() != err.Error() {
			t.Errorf("Reload = %v, want %v of the same kind", got, err)
		}
	}
}

func TestClientWithoutProxydSaysSo(t *testing.T) {
	_, err := Dial(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if !errors.Is(err, ErrAbsent) {
		t.Errorf("Status without a socket = %v, want ErrAbsent", err)
	}
}

func TestClientWithoutPermissionSaysSo(t *testing.T) {
	c := Dial("/run/proxyd/admin.sock")
	for _, denied := range []error{syscall.EACCES, syscall.EPERM} {
		err := c.unreached(t.Context(), &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", denied)})
		if !errors.Is(err, denied) || errors.Is(err, ErrAbsent) {
			t.Errorf("%v, want %v, which does not say that nobody is there", err, denied)
		}
	}
}

func TestClientOfAProxydThatEndsSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1<<10))
			c.Close()
		}
	}()
	_, err = Dial(path).Apply(t.Context(), Apply{})
	if want := "proxyd at " + path + ": it ended before it answered"; !errors.Is(err, ErrAbsent) || err.Error() != want {
		t.Errorf("Apply = %v, want %s", err, want)
	}
}

// Who breaks a call off has waited for nothing in vain.
func TestClientThatIsBrokenOffIsNotTimedOut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := dial(t, &node{}).Status(ctx)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrTimeout) {
		t.Errorf("Status = %v, want that it was broken off", err)
	}
}

func TestSocketOfALivingProcessIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := ListenSocket(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("second ListenSocket = %v, want an error that names %s", err, path)
	}
}

func TestE10TheAdminAddressOnlyShows(t *testing.T) {
	h := PublicHandler(&node{}, pages(), quiet)
	for _, c := range []struct {
		method, path, host string
		want               int
	}{
		{"GET", "/healthz", "127.0.0.1:9900", 200},
		{"GET", "/readyz", "127.0.0.1:9900", 503},
		{"GET", "/v1/status", "[::1]:9900", 200},
		{"POST", "/v1/reload", "127.0.0.1:9900", 404},
		{"GET", "/v1/config", "127.0.0.1:9900", 404},
		{"GET", "/healthz", "evil.example", 421}, // DNS rebinding
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Host = c.host
		r.Header.Set("Origin", "http://evil.example")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s %s by host %s = %d, want %d", c.method, c.path, c.host, w.Code, c.want)
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s lets pages of other sites read it: %s", c.method, c.path, name)
			}
		}
	}
}

func TestE10OtherHostsSeeMetricsAndHealthAlone(t *testing.T) {
	h := MetricsHandler(pages())
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/v1/status": 404, "/v1/pools": 404, "/v1/config": 404} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://edge-1.example"+path, nil))
		if w.Code != want {
			t.Errorf("%s = %d, want %d", path, w.Code, want)
		}
	}
}

func TestUnknownFieldsOfACallAreRefused(t *testing.T) {
	h := SocketHandler(&node{}, pages(), quiet)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/failover", strings.NewReader(`{"vpi":"public"}`)))
	if w.Code != 422 || !strings.Contains(w.Body.String(), "vpi") {
		t.Errorf("misspelt field = %d %s, want 422 that names it", w.Code, w.Body)
	}
}

// A slow is a connection on which the client has stopped reading.
type slow struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (s *slow) SetWriteDeadline(t time.Time) error { s.until = t; return nil }

func TestNobodyHoldsAPageOfATCPAddressForEver(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"admin.listen":  PublicHandler(&node{}, pages(), quiet),
		"admin.metrics": MetricsHandler(pages()),
	} {
		w := &slow{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", "http://127.0.0.1/healthz", nil)
		h.ServeHTTP(w, r)
		if w.Code != 200 || w.until.IsZero() || time.Until(w.until) > pageTime {
			t.Errorf("%s: %d, to be read until %v", name, w.Code, w.until)
		}
	}
}
