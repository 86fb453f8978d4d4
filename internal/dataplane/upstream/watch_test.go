package upstream

import (
	"context"
	"errors"
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
}

func (s *site) set(answer string) { s.answer.Store(&answer) }

func (s *site) dial(context.Context, netip.AddrPort) (net.Conn, error) {
	s.asked.Add(1)
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

func checked(t *testing.T, s *site) (p *Pool, stop func()) {
	c := confOf("round_robin", "a")
	c.Check = &config.Check{Path: "/healthz", Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Status: "200-399", Host: "app.example"}
	p, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	p.Start(ctx, Env{Dial: s.dial, Wait: &wait})
	return p, func() { cancel(); wait.Wait() }
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
		p, stop := checked(t, s)
		defer stop()
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
		{"endless head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*probeLimits.HeaderBytes), "no acceptable HTTP: "},
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
				p, stop := checked(t, s)
				defer stop()
				time.Sleep(3 * time.Second)
				if state, why := p.servers[0].State(); state != "down" || !strings.HasPrefix(why, c.want) {
					t.Errorf("state %s, %q; want down, %q", state, why, c.want)
				}
			})
		})
	}
}

func TestAReloadDoesNotCheckInABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		s.set(ok)
		old, stopOld := checked(t, s)
		time.Sleep(time.Second)
		stopOld()
		asked := s.asked.Load()
		p, err := New(old.Config, old)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		p.Start(ctx, Env{Dial: s.dial, Wait: &wait})
		synctest.Wait()
		if got := s.asked.Load(); got != asked {
			t.Errorf("%d checks at the moment of the reload", got-asked)
		}
		time.Sleep(6 * time.Second)
		if got := s.asked.Load(); got == asked {
			t.Error("no check within an interval of the reload")
		}
		cancel()
		wait.Wait()
	})
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
		}, Wait: &sync.WaitGroup{}}
		p, err := New(&config.Pool{Name: "app", Server: []config.Server{{Addr: "app.example:80"}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		set("10.0.0.1")
		p.Resolve(t.Context(), env)
		ctx, cancel := context.WithCancel(t.Context())
		p.Start(ctx, env)
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
		cancel()
		env.Wait.Wait()
	})
}
