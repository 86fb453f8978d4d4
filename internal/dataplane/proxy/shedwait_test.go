package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
	"proxyd/internal/freeport"
)

// crowd is how many others wait for their refusals, so that each waits for seconds.
const crowd = 1000

// A shut is a data plane whose gate is shut, and who waits goes on early only when told to.
type shut struct {
	*whole
	engine engine.Engine
	early  atomic.Bool
}

// newShut returns one with this engine.
func newShut(t *testing.T, newEngine func(engine.Config) engine.Engine, c *config.Config) *shut {
	t.Helper()
	s := &shut{engine: newEngine(engine.Config{Sweep: 20 * time.Millisecond, IdleGrace: 10 * time.Millisecond})}
	s.whole = wholeOf(t, Options{Engine: s.engine})
	s.refused.Early = func(_ time.Time, waiting int) int {
		if s.early.Load() {
			return waiting
		}
		return 0
	}
	// What is measured later is of an hour before: the gate learns nothing from it.
	saturateAt(s.Plane, time.Now().Add(time.Hour), 100)
	for range crowd {
		s.gate.Hold()
	}
	s.apply(c)
	return s
}

// refusal is a client whose refusal waits.
type refusal struct {
	net.Conn
	in *bufio.Reader
}

// ask sends a request and returns when its refusal waits as the nth.
func (s *shut) ask(n int64) *refusal {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	s.waiting(n)
	return &refusal{c, bufio.NewReader(c)}
}

// waiting returns when so many refusals wait beside the crowd.
func (s *shut) waiting(n int64) {
	s.t.Helper()
	s.soon("refusals that wait", n, func() int64 { return s.Load().Waiting - crowd })
}

// soon returns when something is what it is to be.
func (s *shut) soon(what string, want int64, is func() int64) {
	s.t.Helper()
	for end := time.Now().Add(patience); is() != want; {
		if time.Now().After(end) {
			s.t.Fatalf("%s: %d, want %d", what, is(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// nothingIsLeft checks that nothing waits, is under way or is open.
func (s *shut) nothingIsLeft() {
	s.t.Helper()
	s.waiting(0)
	s.soon("exchanges under way", 100, s.gate.Inflight)
	s.soon("connections", 0, s.Connections)
}

// refused checks that the client gets its 503, and whether its connection ends with it.
func (c *refusal) refused(t *testing.T, closes bool) {
	t.Helper()
	a, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	io.Copy(io.Discard, a.Body)
	if a.StatusCode != 503 || a.Header.Get("Retry-After") != "1" || a.Close != closes {
		t.Errorf("%d, Retry-After %q, close %v; want 503, 1, %v", a.StatusCode, a.Header.Get("Retry-After"), a.Close, closes)
	}
	if closes {
		if _, err := c.in.ReadByte(); err != io.EOF {
			t.Errorf("after the last answer: %v, want the end", err)
		}
	}
}

// cut checks that the client's connection ends without an answer.
func (c *refusal) cut(t *testing.T) {
	t.Helper()
	if b, err := io.ReadAll(c.in); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v; want no answer, and the end", b, err)
	}
}

func eachEngine(t *testing.T, play func(t *testing.T, s *shut)) {
	onEachEngine(t, func(t *testing.T, newEngine func(engine.Config) engine.Engine) {
		play(t, newShut(t, newEngine, to(t, "", server(t, hello))))
	})
}

func TestARefusalThatWaitsIsSent(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		s.early.Store(true)
		c.refused(t, false)
		s.waiting(0)
		c.Close()
		s.nothingIsLeft()
	})
}

func TestARefusalWhoseClientLeavesGivesItsPlaceBack(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn) error{
		"closes": (*net.TCPConn).Close,
		"resets": func(c *net.TCPConn) error { c.SetLinger(0); return c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, s *shut) {
				c, stays := s.ask(1), s.ask(2)
				if err := leave(c.Conn.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				s.waiting(1)
				s.soon("connections", 1, s.Connections)
				s.early.Store(true)
				stays.refused(t, false)
				stays.Close()
				s.nothingIsLeft()
				s.soon("lines of a client that is gone", 1, func() int64 { return int64(strings.Count(s.log.String(), `"status":499`)) })
			})
		})
	}
}

func TestARefusalOutlivesItsRoute(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		s.apply(parsed(t, "[node]\nname = \"edge-1\"\n[listener.web]\naddress = \"127.0.0.1:8080\"\n[[route]]\nname = \"new\"\nrespond = { status = 204 }\n"))
		s.waiting(1)
		s.early.Store(true)
		c.refused(t, false)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if a, err := http.ReadResponse(c.in, nil); err != nil || a.StatusCode != 204 {
			t.Errorf("then %v, %v; want 204 by the new route", a, err)
		}
		c.Close()
		s.nothingIsLeft()
	})
}

func TestARefusalOutlivesItsListener(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		s.address = freeport.Address(t)
		s.apply(to(t, "", server(t, hello)))
		s.waiting(1)
		s.early.Store(true)
		c.refused(t, false)
		c.Close()
		s.nothingIsLeft()
	})
}

func TestADrainWaitsForRefusals(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		drained := make(chan error, 1)
		go func() { drained <- s.Drain(t.Context()) }()
		s.closed()
		s.waiting(1)
		s.early.Store(true)
		c.refused(t, true)
		if err := <-drained; err != nil {
			t.Errorf("Drain = %v", err)
		}
		s.nothingIsLeft()
	})
}

// closed returns when nobody listens any more.
func (s *shut) closed() {
	s.t.Helper()
	s.soon("listeners", 0, func() int64 {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return 0
		}
		c.Close()
		return 1
	})
}

func TestADrainByForceCutsRefusals(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Drain(ctx); !errors.Is(err, dataplane.ErrDrained) {
			t.Errorf("Drain = %v, want ErrDrained", err)
		}
		c.cut(t)
		s.nothingIsLeft()
		s.early.Store(true) // its time would have come now
		s.waiting(0)
	})
}

// The address that a client came by has moved to another node.
func TestARefusalIsTheLastOfARetiredConnection(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		s.retire(c, false)
		s.waiting(1)
		s.early.Store(true)
		c.refused(t, true)
		s.nothingIsLeft()
	})
}

func TestARetiredConnectionIsCutWhileItsRefusalWaits(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		s.retire(c, true)
		c.cut(t)
		s.nothingIsLeft()
	})
}

func (s *shut) retire(c *refusal, force bool) {
	local := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	s.engine.(interface{ Retire(netip.Addr, bool) }).Retire(local, force)
}

// Another process takes this one's place: who waits here is refused here, who comes is served there.
func TestARefusalStaysWithTheProcessThatRefused(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *shut) {
		c := s.ask(1)
		files, err := s.Sockets()
		if err != nil {
			t.Fatal(err)
		}
		next := wholeOf(t, Options{Engine: engine.NewLoop(engine.Config{}), Shut: true, Listen: func(_, address string) (net.Listener, error) {
			defer files[address].Close()
			l, err := net.FileListener(files[address])
			if err != nil {
				return nil, err
			}
			return Adopt(l)
		}})
		next.address = s.address
		next.apply(to(t, "", server(t, hello)))
		drained := make(chan error, 1)
		go func() { drained <- s.Drain(t.Context()) }()
		next.Open()
		s.soon("draining", 1, func() int64 { return int64(bit(s.draining.Load())) })
		if status, _, err := next.get("/"); err != nil || status != 200 {
			t.Errorf("at the new process: %d, %v", status, err)
		}
		s.waiting(1)
		s.early.Store(true)
		c.refused(t, true)
		if err := <-drained; err != nil {
			t.Errorf("Drain = %v", err)
		}
		s.nothingIsLeft()
	})
}

func TestARefusalOfAStreamThatIsResetGivesItsPlaceBack(t *testing.T) {
	conf := to(t, "", server(t, hello))
	conf.Listener["web"].H2C = true
	s := newShut(t, engines["loop"], conf)
	c := s.raw(t)
	fields := []string{":method: GET", ":scheme: http", ":path: /", ":authority: h"}
	c.ask(1, true, fields...)
	s.waiting(1)
	c.ask(3, true, fields...)
	s.waiting(2)
	c.WriteRSTStream(1, http2.ErrCodeCancel)
	s.waiting(1)
	s.early.Store(true)
	if head := frame[*http2.MetaHeadersFrame](c); head.StreamID != 3 || head.PseudoValue("status") != "503" {
		t.Errorf("stream %d: %s, want 503 of stream 3", head.StreamID, head.PseudoValue("status"))
	}
	s.early.Store(false)
	c.ask(5, true, fields...)
	s.waiting(1)
	c.conn.Close()
	s.nothingIsLeft()
}
