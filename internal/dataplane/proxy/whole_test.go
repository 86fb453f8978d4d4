package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane/engine"
	"proxyd/internal/freeport"
)

// whole is the data plane with its real engine, and servers of net/http behind it.
type whole struct {
	*Plane
	t       *testing.T
	log     *lines
	address string
	client  *http.Client
}

func newWhole(t *testing.T, c *config.Config) *whole {
	t.Helper()
	w := wholeOf(t, Options{Engine: engine.NewLoop(engine.Config{Sweep: 20 * time.Millisecond})})
	w.apply(c)
	return w
}

// wholeOf is one to which no configuration was applied yet.
func wholeOf(t *testing.T, o Options) *whole {
	t.Helper()
	w := &whole{t: t, log: &lines{}, address: freeport.Address(t)}
	o.AccessLog = w.log
	w.Plane = New(o)
	w.client = &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := w.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return w
}

func (w *whole) apply(c *config.Config) {
	w.t.Helper()
	c.Listener["web"].Address = []string{w.address}
	if err := w.Apply(c); err != nil {
		w.t.Fatal(err)
	}
}

// to is a configuration by Parse with one route to the servers, and more lines.
func to(t *testing.T, more string, servers ...string) *config.Config {
	t.Helper()
	return parsed(t, "[node]\nname = \"edge-1\"\n[listener.web]\naddress = \"127.0.0.1:8080\"\n[pool.app]\nservers = [\""+
		strings.Join(servers, `", "`)+"\"]\n"+more+"\n[[route]]\nname = \"all\"\npool = \"app\"\n")
}

func server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func (w *whole) get(path string) (status int, body string, err error) {
	r, err := w.client.Get("http://" + w.address + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

func TestWholeExchange(t *testing.T) {
	app := server(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL, r.Header.Get("X-Forwarded-For"), r.Header.Get("Via"), r.Host)
	})
	w := newWhole(t, to(t, "", app))
	status, body, err := w.get("/a?b=c")
	if want := "GET /a?b=c 127.0.0.1 1.1 proxyd " + w.address; err != nil || status != 200 || body != want {
		t.Errorf("got %d %q, %v; want %q", status, body, err, want)
	}
	if err := w.Probe(t.Context()); err != nil {
		t.Errorf("Probe: %v", err)
	}
}

func TestWholeRetryOnADeadServer(t *testing.T) {
	dead := freeport.Address(t)
	app := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	w := newWhole(t, to(t, "", dead, app))
	for i := range 20 {
		if status, _, err := w.get("/"); err != nil || status != 200 {
			t.Fatalf("request %d: %d, %v", i, status, err)
		}
	}
	if s := w.Pools()[0].Servers[0]; s.State != "ejected" || s.Failures != 3 || s.Reason != "connect" {
		t.Errorf("the dead server: %+v", s)
	}
}

func TestWholeRetryOnAStatus(t *testing.T) {
	busy := server(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) })
	app := server(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, b)
	})
	w := newWhole(t, to(t, `retry = { on = ["503"] }`+"\npassive = { max_fails = 0 }", busy, app))
	for range 10 {
		r, err := http.NewRequest("PUT", "http://"+w.address+"/", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := w.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 200 || string(b) != "PUT hello" {
			t.Fatalf("%d %q", answer.StatusCode, b)
		}
	}
}

// A server that freezes is found out by its checks; what waits for it goes elsewhere,
// long before the read would time out.
func TestWholeExchangesLeaveAServerThatFreezes(t *testing.T) {
	var frozen atomic.Bool
	thaw := make(chan struct{})
	defer close(thaw)
	waits := make(chan struct{}, 1)
	freezes := server(t, func(w http.ResponseWriter, r *http.Request) {
		if frozen.Load() {
			select {
			case waits <- struct{}{}:
			default: // somebody waits already; checks come again and again
			}
			select {
			case <-thaw:
			case <-r.Context().Done():
			}
			return
		}
		io.WriteString(w, "first")
	})
	app := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "second") })
	w := newWhole(t, to(t, `check = { interval = "1s", timeout = "500ms", rise = 1, fall = 1 }`+"\n"+`balance = "least_conn"`, freezes, app))
	frozen.Store(true)
	bodies := make(chan string, 2)
	for range 2 { // one of them goes to the server that freezes
		go func() {
			_, body, err := w.get("/")
			if err != nil {
				body = err.Error()
			}
			bodies <- body
		}()
	}
	for range 2 {
		if got := <-bodies; got != "second" {
			t.Errorf("got %q", got)
		}
	}
	<-waits
}

func TestWholeStatusOfFailures(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	slow := server(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	for _, c := range []struct {
		why, more, server string
		want              int
	}{
		{"nobody listens", "", freeport.Address(t), 502},
		{"too slow", `timeout = { read = "100ms" }` + "\nretry = { attempts = 1 }", slow, 504},
	} {
		w := newWhole(t, to(t, c.more, c.server))
		status, body, err := w.get("/")
		if err != nil || status != c.want || strings.Contains(body, "127.0.0.1") {
			t.Errorf("%s: %d %q, %v; want %d", c.why, status, body, err, c.want)
		}
	}
}

func TestWholeClientGoneIsNoFailureOfTheServer(t *testing.T) {
	began := make(chan struct{})
	app := server(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		began <- struct{}{}
	})
	w := newWhole(t, to(t, "", app))
	for range 4 {
		c, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		<-began
		c.Close()
		<-began // the server's connection is closed too
	}
	for w.current.Load().counters["all"].inflight.Load() > 0 {
		runtime.Gosched()
	}
	if s := w.Pools()[0].Servers[0]; s.State != "up" || s.Failures != 0 || s.Active != 0 {
		t.Errorf("the server: %+v", s)
	}
	wantSeries(t, gather(t, w.Plane), map[string]float64{`proxyd_http_requests_total{code="499",listener="web",method="GET",route="all"}`: 4})
}

// No request fails while configurations come and go, servers are added and removed and
// limits change.
func TestWholeReloadUnderLoad(t *testing.T) {
	var served [3]atomic.Int64
	var apps []string
	for i := range served {
		apps = append(apps, server(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			served[i].Add(1)
			io.WriteString(w, strings.Repeat("x", 2000))
		}))
	}
	w := newWhole(t, to(t, "", apps[0], apps[1]))
	stop := make(chan struct{})
	var all sync.WaitGroup
	var sent atomic.Int64
	done := make(chan struct{}, 1) // an answer came
	told := func() {
		select {
		case done <- struct{}{}:
		default:
		}
	}
	for worker := range 4 {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: worker == 0}, Timeout: 10 * time.Second}
			defer client.CloseIdleConnections()
			defer told() // of a failure too
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := client.Post("http://"+w.address+"/", "text/plain", strings.NewReader("hello"))
				if err != nil {
					t.Errorf("request: %v", err)
					return
				}
				b, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil || r.StatusCode != 200 || len(b) != 2000 {
					t.Errorf("answer %d, %d bytes, %v", r.StatusCode, len(b), err)
					return
				}
				sent.Add(1)
				told()
			}
		})
	}
	for i := range 40 {
		c := to(t, []string{"", `balance = "least_conn"`, `balance = "hash"`}[i%3], apps[i%3], apps[(i+1)%3])
		c.Limits.Fields = 50 + i%2
		w.apply(c)
		for next := sent.Load() + 10; sent.Load() < next && !t.Failed(); {
			<-done
		}
	}
	close(stop)
	all.Wait()
	if total := served[0].Load() + served[1].Load() + served[2].Load(); total != sent.Load() {
		t.Errorf("servers saw %d requests, clients sent %d", total, sent.Load())
	}
}
