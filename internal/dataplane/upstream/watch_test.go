package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
)

// A site is a server in memory: each dial reaches it as it is at that moment.
type site struct {
	answer atomic.Pointer[string] // sent to whoever asks; nil: refuses
	hang   atomic.Bool            // accepts and says nothing
	asked  atomic.Int64
	last   atomic.Pointer[string] // the request it got last
	to     atomic.Value           // where it was dialled last, a string
}

func (s *site) set(answer string) { s.answer.Store(&answer) }

func (s *site) dial(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	s.asked.Add(1)
	s.to.Store(to.String())
	answer := s.answer.Load()
	if answer == nil && !s.hang.Load() {
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	near, far := net.Pipe()
	go func() { // ends when the checker closes its end
		defer far.Close()
		buf := make([]byte, 1024)
		n, _ := far.Read(buf)
		text := string(buf[:n])
		s.last.Store(&text)
		if !s.hang.Load() {
			io.WriteString(far, *answer)
		}
		io.Copy(io.Discard, far)
	}()
	return near, nil
}

// checked returns a pool of one server whose checks ask s, and what watches it.
func checked(t *testing.T, s *site, change ...func(*config.Check)) (*Pool, *Watch) {
	t.Helper()
	c := confOf("round_robin", "a")
	c.Check = &config.Check{Path: "/healthz", Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Status: "200-399", Host: "app.example"}
	for _, f := range change {
		f(c.Check)
	}
	p, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatch(Env{Dial: s.dial})
	w.Use(map[string]*Pool{"app": p})
	return p, w
}

func stateOf(p *Pool) string {
	state, _ := p.servers[0].State()
	return state
}

const ok = "HTTP/1.1 204 No Content\r\n\r\n"

func TestChecksFollowTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.set("HTTP/1.1 103 Early Hints\r\n\r\n" + ok)
		p, w := checked(t, s)
		defer w.Close()
		time.Sleep(time.Second)
		if stateOf(p) != "up" || s.asked.Load() != 1 {
			t.Fatalf("%s after %d checks, want up after one at once", stateOf(p), s.asked.Load())
		}
		if got := *s.last.Load(); !strings.HasPrefix(got, "GET /healthz HTTP/1.1\r\nHost: app.example\r\n") {
			t.Errorf("asked %q", got)
		}
		s.set("HTTP/1.1 500 Broken\r\n\r\n")
		time.Sleep(20 * time.Second)
		if state, why := p.servers[0].State(); state != "down" || why != "status 500" {
			t.Fatalf("state %s, %q after 4 intervals of 500", state, why)
		}
		s.set(ok)
		time.Sleep(4400 * time.Millisecond) // less than an interval with its jitter
		if stateOf(p) != "down" {
			t.Error("up after one good check of two")
		}
		time.Sleep(7 * time.Second)
		if stateOf(p) != "up" {
			t.Error("still down after two good checks")
		}
		if passed, failed := p.servers[0].Checks[CheckPassed].Load(), p.servers[0].Checks[CheckFailed].Load(); passed < 3 || failed < 3 {
			t.Errorf("counted %d passed, %d failed", passed, failed)
		}
	})
}

func TestWhatFailsACheck(t *testing.T) {
	for _, c := range []struct{ why, answer, want string }{
		{"refused", "", "connect: connection refused"},
		{"silent", "hang", "read: timed out"},
		{"status", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", "no acceptable HTTP: status_line"},
		{"endless head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*answerLimits.HeaderBytes), "no acceptable HTTP: "},
	} {
		t.Run(c.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{}
				switch c.answer {
				case "":
				case "hang":
					s.hang.Store(true)
				default:
					s.set(c.answer)
				}
				p, w := checked(t, s)
				defer w.Close()
				time.Sleep(3 * time.Second)
				if state, why := p.servers[0].State(); state != "down" || !strings.HasPrefix(why, c.want) {
					t.Errorf("state %s, %q; want down, %q", state, why, c.want)
				}
			})
		})
	}
}

func TestAReloadNeitherHastensNorPutsOffChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.set(ok)
		p, w := checked(t, s)
		defer w.Close()
		time.Sleep(time.Second)
		for range 1000 { // 100 s of ten reloads a second
			next, err := New(p.Config, p, Place{})
			if err != nil {
				t.Fatal(err)
			}
			w.Use(map[string]*Pool{"app": next})
			p = next
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.asked.Load(); n < 19 || n > 24 {
			t.Errorf("%d checks in 101 s, want one every 5 s", n)
		}
	})
}

func TestACheckUnderWaySurvivesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.hang.Store(true)
		p, w := checked(t, s)
		defer w.Close()
		time.Sleep(time.Second)
		next, err := New(p.Config, p, Place{})
		if err != nil {
			t.Fatal(err)
		}
		w.Use(map[string]*Pool{"app": next})
		time.Sleep(1500 * time.Millisecond)
		if state, why := next.servers[0].State(); state != "down" || why != "read: timed out" {
			t.Errorf("state %s, %q after the check's time-out", state, why)
		}
	})
}

func TestWhatAnOldQuestionFoundIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.hang.Store(true)
		p, w := checked(t, s)
		defer w.Close()
		time.Sleep(time.Second)
		s.hang.Store(false)
		s.set(ok)
		c := *p.Config
		check := *c.Check
		check.Path = "/other"
		c.Check = &check
		next, err := New(&c, p, Place{})
		if err != nil {
			t.Fatal(err)
		}
		w.Use(map[string]*Pool{"app": next})
		time.Sleep(2 * time.Second)
		if state, why := next.servers[0].State(); state != "up" {
			t.Errorf("state %s, %q by the answer to a question that is asked no more", state, why)
		}
		time.Sleep(5 * time.Second)
		if got := *s.last.Load(); !strings.HasPrefix(got, "GET /other ") {
			t.Errorf("asked %q", got)
		}
	})
}

func TestAServerWithoutChecksIsNotAskedAndNotDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		p, w := checked(t, s)
		defer w.Close()
		time.Sleep(time.Second)
		if stateOf(p) != "down" {
			t.Fatal("want down")
		}
		c := *p.Config
		c.Check = nil
		next, err := New(&c, p, Place{})
		if err != nil {
			t.Fatal(err)
		}
		w.Use(map[string]*Pool{"app": next})
		asked := s.asked.Load()
		time.Sleep(time.Minute)
		if stateOf(next) != "up" || s.asked.Load() != asked {
			t.Errorf("%s, %d more checks", stateOf(next), s.asked.Load()-asked)
		}
	})
}

// many is n servers that all ask s.
func many(t testing.TB, n int, interval time.Duration) *Pool {
	t.Helper()
	c := confOf("round_robin")
	c.Check = &config.Check{Path: "/", Interval: interval, Timeout: interval / 2, Rise: 2, Fall: 3, Status: "200-399"}
	for i := range n {
		c.Server = append(c.Server, config.Server{Addr: fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), Weight: 1})
	}
	p, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheFirstRoundIsQuickAndNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.set(ok)
		p := many(t, 1000, 5*time.Second)
		w := NewWatch(Env{Dial: s.dial})
		defer w.Close()
		w.Use(map[string]*Pool{"app": p})
		if w.Settled() {
			t.Error("settled before any check")
		}
		before := int64(0)
		for ms := range 1000 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if n := s.asked.Load(); n-before > 2 {
				t.Fatalf("%d checks in millisecond %d", n-before, ms)
			}
			before = s.asked.Load()
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if !w.Settled() || s.asked.Load() != 1000 {
			t.Errorf("settled %v after %d checks in the first second", w.Settled(), s.asked.Load())
		}
		// From then on they are spread: no 100 ms have more than a few times their part.
		time.Sleep(20 * time.Second)
		for range 50 {
			before = s.asked.Load()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if n := s.asked.Load() - before; n > 60 {
				t.Errorf("%d checks in 100 ms, want about 20", n)
			}
		}
	})
}

func TestSoManyChecksAtOnceAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.hang.Store(true)
		var busy, most atomic.Int64
		w := NewWatch(Env{Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			most.Store(max(most.Load(), busy.Add(1)))
			conn, err := s.dial(ctx, to)
			return &counted{Conn: conn, busy: &busy}, err
		}})
		defer w.Close()
		w.Use(map[string]*Pool{"app": many(t, 2*maxChecks, 10*time.Second)})
		time.Sleep(12 * time.Second)
		if n := most.Load(); n != maxChecks {
			t.Errorf("%d checks at once, want at most %d", n, maxChecks)
		}
		if !w.Settled() {
			t.Error("not all were checked in two time-outs of 5 s")
		}
	})
}

// counted is a connection that counts itself while it is open.
type counted struct {
	net.Conn
	busy *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.busy.Add(-1) })
	return c.Conn.Close()
}

func TestNamesAreFollowedAndTheLastGoodAnswerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Pointer[string]
		set := func(s string) { answer.Store(&s) }
		var asked atomic.Int64
		env := Env{Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			asked.Add(1)
			if host != "app.example" {
				t.Errorf("resolved %q", host)
			}
			if *answer.Load() == "" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr(*answer.Load())}, nil
		}}
		p, err := New(&config.Pool{Name: "app", Server: []config.Server{{Addr: "app.example:80"}}}, nil, Place{})
		if err != nil {
			t.Fatal(err)
		}
		set("10.0.0.1")
		p.Resolve(t.Context(), env)
		w := NewWatch(env)
		defer w.Close()
		w.Use(map[string]*Pool{"app": p})
		s := p.servers[0]
		want := func(addr string) {
			t.Helper()
			time.Sleep(11 * time.Second)
			if got := s.Addr().String(); got != addr {
				t.Errorf("dialled at %s, want %s", got, addr)
			}
		}
		want("10.0.0.1:80")
		set("10.0.0.2")
		want("10.0.0.2:80")
		set("")
		want("10.0.0.2:80")
		set("10.0.0.3")
		want("10.0.0.3:80")
		if n := asked.Load(); n != 5 {
			t.Errorf("%d look-ups in 44 s, want one at first and one every 10 s", n)
		}
	})
}
