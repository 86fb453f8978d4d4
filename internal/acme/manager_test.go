package acme

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"proxyd/internal/lab/pebble"
)

// web answers a CA on a port of loopback with what a Manager publishes.
type web struct {
	mu     sync.Mutex
	served Served
	events []Event
	came   func() // called at each renewal; nil: nothing is
}

func (w *web) publish(s Served) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.served = s
}

func (w *web) note(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	if e.Renewal && e.Issued && w.came != nil {
		w.came()
	}
}

func (w *web) ServeHTTP(out http.ResponseWriter, q *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	token := q.URL.Path[strings.LastIndexByte(q.URL.Path, '/')+1:]
	_, _ = out.Write(w.served.Tokens[token])
}

// start runs a Manager with the duty until the test ends.
func start(t *testing.T, ca *pebble.CA, shelf Shelf, w *web, now func() time.Time, names ...string) *Manager {
	t.Helper()
	m := New(Options{Vault: NewVault(shelf, func() []string { return []string{"a secret"} }), Log: slog.New(slog.DiscardHandler), Now: now,
		Duty: func(context.Context) bool { return true }, Publish: w.publish, Note: w.note})
	m.Use(Settings{Names: names, Email: "ops@example.com", Directory: ca.Directory, Roots: ca.Roots, Challenge: HTTP01, Clear: true})
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	t.Cleanup(func() {
		end()
		<-done
	})
	return m
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// listen serves w where the CA asks and returns the port.
func listen(t *testing.T, w *web) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: w}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// A name that the CA refuses is told so and waited for; another beside it is not held up, and
// is renewed when its time has come, in place of the one before (RFC 9773).
func TestARefusedNameHoldsUpNoOther(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	w := &web{}
	ca := pebble.Start(t, "../..", pebble.Options{HTTPPort: listen(t, w), TLSPort: 1})
	var mu sync.Mutex
	ahead := time.Duration(0)
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}
	m := start(t, ca, &memory{all: map[string][]byte{}}, w, now, "shop.blocked.example", "good.example.com")
	eventually(t, "one is there and one has failed", func() bool {
		v := m.Views()
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(v) == 2 && v[0].Failures == 1 && !v[1].NotAfter.IsZero() && len(w.served.Tokens) == 0
	})
	v := m.Views()
	if !strings.Contains(v[0].Error, "rejectedIdentifier") || v[0].Ordering || v[0].Next.Before(now().Add(40*time.Second)) {
		t.Errorf("the refused one: %+v", v[0])
	}
	if left := v[1].Renew.Sub(now()); left < 55*24*time.Hour || left > 65*24*time.Hour {
		t.Errorf("of 90 days it is renewed after %v", left)
	}
	w.mu.Lock()
	if s := w.served; len(s.Certificates) != 1 || !s.Pending["shop.blocked.example"] || s.Pending["good.example.com"] || len(s.Tokens) != 0 {
		t.Errorf("served: %+v", s)
	}
	first := w.served.Certificates[0].Serial
	w.came = func() { // its own time has not come
		mu.Lock()
		defer mu.Unlock()
		ahead = 0
	}
	w.mu.Unlock()

	mu.Lock()
	ahead = time.Until(v[1].Renew) + time.Minute
	mu.Unlock()
	m.Look()
	eventually(t, "it is renewed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.served.Certificates) == 1 && w.served.Certificates[0].Serial != first
	})
	if n := len(ca.Orders()); n != 2 {
		t.Errorf("%d orders", n)
	}
}

// Of an order of which nobody knows whether the CA made it there is never a second one.
func TestAnOrderThatNobodyHeardOfIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	w := &web{}
	ca := pebble.Start(t, "../..", pebble.Options{HTTPPort: listen(t, w), TLSPort: 1})
	var once sync.Once
	ca.After(func(path string) {
		if path == "/order-plz" {
			once.Do(func() { panic(http.ErrAbortHandler) }) // the answer is lost on its way
		}
	})
	var mu sync.Mutex
	ahead := time.Duration(0)
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}
	m := start(t, ca, &memory{all: map[string][]byte{}}, w, now, "example.com")
	eventually(t, "the answer is lost", func() bool { return len(ca.Orders()) == 1 && m.Views()[0].Failures == 1 })
	if v := m.Views()[0]; !v.Ordering {
		t.Errorf("it is forgotten that an order may be there: %+v", v)
	}
	mu.Lock()
	ahead = time.Minute // the wait after a failure is over
	mu.Unlock()
	m.Look()
	eventually(t, "the order is found and comes to its end", func() bool { return !m.Views()[0].NotAfter.IsZero() })
	if n := len(ca.Orders()); n != 1 {
		t.Errorf("%d orders for one name", n)
	}
}
