package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/freeport"
)

// A backend is a real web server on an address of its own, which can go and come back.
type backend struct {
	address string
	served  atomic.Int64
	hold    chan struct{} // requests of /hold wait until it is closed
	server  *http.Server
}

func newBackend(t *testing.T) *backend {
	b := &backend{address: freeport.Address(t), hold: make(chan struct{})}
	b.open(t)
	t.Cleanup(func() { b.server.Close() })
	return b
}

func (b *backend) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	b.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.served.Add(1)
		if r.URL.Path == "/hold" {
			<-b.hold
		}
		fmt.Fprint(w, b.address)
	})}
	go b.server.Serve(l) // ends with Close or Shutdown
}

// balanced is a configuration of one pool of servers behind address.
func balanced(address string, servers ...*backend) string {
	var list []string
	for _, b := range servers {
		list = append(list, fmt.Sprintf("%q", b.address))
	}
	return fmt.Sprintf("[listener.web]\naddress = %q\n[pool.app]\nservers = [%s]\n[[route]]\nname = \"site\"\npool = \"app\"\n",
		address, strings.Join(list, ", "))
}

func (p *program) steer(b *backend, mode string, wait time.Duration) (*control.Steered, error) {
	return p.SteerServer(p.t.Context(), control.ServerWish{Server: "app/" + b.address, Mode: &mode, WaitMS: wait.Milliseconds()})
}

// states are those of the servers of the only pool, by address.
func (p *program) states() map[string]string {
	p.t.Helper()
	pools, err := p.Pools(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range pools[0].Servers {
		got[s.Name] = fmt.Sprintf("%s %d", s.State, s.Weight)
	}
	return got
}

func TestDrainWaitsForWhatRunsAndStaysOverARestart(t *testing.T) {
	address, a, b := freeport.Address(t), newBackend(t), newBackend(t)
	p := launch(t, balanced(address, a, b))

	held := make(chan string, 2)
	for range 2 { // one on each
		go func() {
			resp, err := http.Get("http://" + address + "/hold")
			if err != nil {
				held <- err.Error()
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			held <- string(body)
		}()
	}
	p.eventually("both servers have one", func() bool { return a.served.Load() == 1 && b.served.Load() == 1 })

	if _, err := p.steer(a, "drain", 50*time.Millisecond); !errors.Is(err, control.ErrTimeout) || !strings.Contains(err.Error(), "1 exchange") {
		t.Errorf("drain with an exchange in progress = %v, want it timed out and the number left", err)
	}
	for range 10 {
		if _, body := get(t, "http://"+address); body != b.address {
			t.Fatalf("an exchange went to %s while it drains", body)
		}
	}
	close(a.hold)
	close(b.hold)
	for range 2 {
		if got := <-held; got != a.address && got != b.address {
			t.Errorf("what was in progress ended as %q", got)
		}
	}
	if r, err := p.steer(a, "drain", 10*time.Second); err != nil || r.Active != 0 {
		t.Errorf("drain once nothing is in progress = %+v, %v", r, err)
	}
	want := map[string]string{a.address: "drain 1", b.address: "up 1"}
	check := func(when string) {
		t.Helper()
		for name, state := range p.states() {
			if state != want[name] {
				t.Errorf("%s: server %s is %q, want %q", when, name, state, want[name])
			}
		}
	}
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after a reload")
	_ = p.cmd.Process.Kill()
	<-p.done
	p.start()
	check("after a kill")
	if n := p.metric(fmt.Sprintf(`proxyd_upstream_state{pool="app",server=%q,state="drain"}`, a.address)); n != 1 {
		t.Errorf("metric of the drain = %v", n)
	}

	weight := 5
	if _, err := p.SteerServer(t.Context(), control.ServerWish{Server: "app/" + b.address, Weight: &weight}); err != nil {
		t.Fatal(err)
	}
	want[b.address] = "up 5"
	check("after weight")
	s, err := p.Status(t.Context())
	if err != nil || len(s.Overrides) != 2 {
		t.Errorf("status has overrides %+v, %v; want both", s.Overrides, err)
	}

	// A server that leaves the file takes its override along.
	p.write(balanced(address, b))
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.write(balanced(address, a, b))
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	want[a.address] = "up 1"
	check("after it left the file and came back")
}

func TestSteeringWhatIsNotThereIsRefused(t *testing.T) {
	a := newBackend(t)
	p := launch(t, balanced(freeport.Address(t), a))
	mode := "drain"
	for _, name := range []string{"app/10.9.9.9:80", "other/" + a.address, "app", ""} {
		if _, err := p.SteerServer(t.Context(), control.ServerWish{Server: name, Mode: &mode}); !errors.Is(err, control.ErrRefused) {
			t.Errorf("drain of %q = %v, want it refused", name, err)
		}
	}
	if _, err := p.SteerRoute(t.Context(), control.RouteWish{Route: "none", Closed: true}); !errors.Is(err, control.ErrRefused) {
		t.Errorf("maintenance of a route that is not there = %v", err)
	}
	r, err := p.steer(a, "drain", 0)
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "no other server") {
		t.Errorf("drain of the only server = %+v, %v; want a warning", r, err)
	}
}

func TestMaintenanceAnswersUntilItIsOff(t *testing.T) {
	address, a := freeport.Address(t), newBackend(t)
	p := launch(t, balanced(address, a))
	if _, err := p.SteerRoute(t.Context(), control.RouteWish{Route: "site", Closed: true, RetryAfter: 60}); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "60" {
		t.Errorf("in maintenance the route answers %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	p.stop()
	p.start()
	if status, _ := get(t, "http://"+address); status != 503 {
		t.Errorf("after a restart the route answers %d", status)
	}
	if _, err := p.SteerRoute(t.Context(), control.RouteWish{Route: "site"}); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(t, "http://"+address); status != 200 {
		t.Errorf("after maintenance the route answers %d", status)
	}
}

func TestStateDirectoryThatFailsCostsPersistenceAlone(t *testing.T) {
	address, a, b := freeport.Address(t), newBackend(t), newBackend(t)
	p := launch(t, balanced(address, a, b))
	// What was noted at the start is written: nothing makes the directory anew.
	p.eventually("the history is on the disk", func() bool {
		i, err := os.Stat(filepath.Join(p.dir, "state", "history.log"))
		return err == nil && i.Size() > 0
	})
	if err := os.RemoveAll(filepath.Join(p.dir, "state")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "state"), nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	r, err := p.steer(a, "drain", 0)
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "not kept over a restart") {
		t.Errorf("drain = %+v, %v; want it done and a warning", r, err)
	}
	if got := p.states()[a.address]; got != "drain 1" {
		t.Errorf("the server is %q", got)
	}
	s, err := p.Status(t.Context())
	if err != nil || s.Health != "degraded" || !strings.Contains(strings.Join(s.Reasons, " "), "not kept over a restart") {
		t.Errorf("status is %s, %v (%v); want it to say so", s.Health, s.Reasons, err)
	}
}

// TestRollingDeployFailsNothing replaces each of three servers under load.
func TestRollingDeployFailsNothing(t *testing.T) {
	address := freeport.Address(t)
	servers := []*backend{newBackend(t), newBackend(t), newBackend(t)}
	p := launch(t, balanced(address, servers...))
	l := pour(t, "http://"+address)
	for _, b := range servers {
		if _, err := p.steer(b, "drain", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := b.server.Close(); err != nil {
			t.Fatal(err)
		}
		before := b.served.Load()
		b.open(t)
		if _, err := p.steer(b, "serve", 0); err != nil {
			t.Fatal(err)
		}
		p.eventually("the new server is given requests", func() bool { return b.served.Load() > before })
	}
	if n, failed := l.end(); failed != nil || n == 0 {
		t.Errorf("of %d requests failed: %v", n, failed)
	}
}

// A stream of requests, four at a time, each counted.
type stream struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	done   atomic.Int64
	failed atomic.Pointer[error]
}

// pour asks url all the time, until end.
func pour(t *testing.T, url string) *stream {
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream{cancel: cancel}
	for range 4 {
		s.wait.Go(func() {
			client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				if err := ask(&client, url); err != nil {
					s.failed.CompareAndSwap(nil, &err)
				}
				s.done.Add(1)
			}
		})
	}
	return s
}

// end stops asking and returns how many requests there were, and the first that failed.
func (s *stream) end() (n int64, failed error) {
	s.cancel()
	s.wait.Wait()
	if err := s.failed.Load(); err != nil {
		return s.done.Load(), *err
	}
	return s.done.Load(), nil
}

// ask fails unless the answer is whole and has status 200.
func ask(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != 200 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
