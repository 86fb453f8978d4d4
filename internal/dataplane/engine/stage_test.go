package engine

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// patience is how long a dialogue waits for a line that must come.
const patience = 10 * time.Second

// A stage is an engine between a client and a server which both follow a script. It is
// also the handler: the path says what it decides.
type stage struct {
	t        *testing.T
	engine   Engine
	listener *dataplane.Listener
	route    dataplane.Route
	socket   net.Listener // of the engine
	waited   bool         // socket is one that loops wait at
	server   net.Listener // of the script
	spare    net.Listener // the other server, for Again
	filter   *testFilter
	upstream dataplane.Server
	other    dataplane.Server
	events   chan string
	parted   chan dataplane.Closing // why connections ended; nil if nobody asks

	client net.Conn
	tcp    *net.TCPConn // what client is, or is upon
	sealed bool         // client speaks TLS
	depths bool         // the servers speak TLS
	conns  []serverEnd  // of the servers, the one at hand last
	ended  chan error   // of Shutdown

	mu    sync.Mutex
	admit int
	leave int
}

// A serverEnd is the server's end of a connection: what is spoken on, and the TCP
// connection that it is or is upon.
type serverEnd struct {
	net.Conn
	tcp *net.TCPConn
}

const shortPause = 100 * time.Millisecond

// someDay is what the clock says in every dialogue.
var someDay = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newStage(t *testing.T, newEngine func(Config) Engine, set func(*stage, *Config)) *stage {
	s := &stage{t: t, events: make(chan string, 100), ended: make(chan error, 1)}
	s.listener = &dataplane.Listener{Name: "web", Room: new(dataplane.Room), Limits: dataplane.Limits{
		HeaderBytes: 32 << 10, URIBytes: 8 << 10, Fields: 100, HeaderTime: patience, Idle: patience, RateWindow: patience,
	}}
	s.route = dataplane.Route{Name: "all", WebSocket: true, Timeout: dataplane.Timeouts{
		Connect: patience, Send: patience, Read: patience, Tunnel: patience, Idle: patience,
	}}
	c := Config{
		Now:   func() time.Time { return someDay },
		Panic: func(p any) { s.events <- fmt.Sprint("panic ", p) },
		Sweep: 5 * time.Millisecond, IdleGrace: 10 * time.Millisecond, Linger: patience,
	}
	if set != nil {
		set(s, &c)
	}
	s.socket, s.server, s.spare = listen(t), listen(t), listen(t)
	if s.sealed {
		s.listener.TLS = newTestTLS(t)
	}
	if s.waited {
		s.socket = waitable(t, s.socket)
	}
	s.upstream.SetAddr(s.server.Addr().(*net.TCPAddr).AddrPort())
	s.other.SetAddr(s.spare.Addr().(*net.TCPAddr).AddrPort())
	if s.depths {
		sealServers(t, &s.upstream, &s.other)
	}
	s.engine = newEngine(c)
	served := make(chan error, 1)
	go func() { served <- s.engine.Serve(s.listener, s.socket, s) }()
	t.Cleanup(func() {
		if s.client != nil {
			s.client.Close()
		}
		for _, c := range s.conns {
			c.Close()
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.engine.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
		s.engine.Shutdown(ctx) // what was accepted last may have come after the first
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := s.listener.Room.Taken(); n != 0 {
			t.Errorf("%d bytes of bodies are still held", n)
		}
		if s.admit != s.leave {
			t.Errorf("%d connections admitted, %d left", s.admit, s.leave)
		}
	})
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// waitable makes l a socket that loops can wait at.
func waitable(t testing.TB, l net.Listener) net.Listener {
	t.Helper()
	s, err := NewSocket(l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// The handler.

func (s *stage) Admit(*dataplane.Listener, netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admit++
	return true
}

func (s *stage) Leave(_ *dataplane.Listener, _ netip.AddrPort, why dataplane.Closing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave++
	if s.parted != nil {
		s.parted <- why
	}
}

func (s *stage) HTTP2(*dataplane.Listener, bool) {}

func (s *stage) Glitch(*dataplane.Listener, dataplane.Glitch) {}

func (s *stage) Refused(_ *dataplane.Listener, _ netip.AddrPort, err error) {
	s.events <- "refused " + word(err)
}

func (s *stage) Match(x *dataplane.Exchange) {
	x.Route = &s.route
	if strings.HasPrefix(string(x.Request.Path), "/heavy/") {
		heavy := s.route
		heavy.Heavy = true
		x.Route = &heavy
	}
}

func (s *stage) Begin(x *dataplane.Exchange) dataplane.Verdict {
	http1.StripHop(&x.Request.Header, x.Request.Nominated, x.Request.WebSocket && s.route.WebSocket)
	switch string(x.Request.Path) {
	case "/answer":
		return s.answer(x, 200)
	case "/who", "/heavy/who":
		v := s.answer(x, 200)
		x.Response.Body = append(x.Client.AppendTo(nil), '\n')
		x.Response.Length = int64(len(x.Response.Body))
		return v
	case "/close":
		return dataplane.Close
	case "/file", "/small-file", "/short-file", "/sized", "/stream", "/torn":
		return s.open(x)
	case "/panic":
		panic("in Begin")
	case "/wait":
		if x.Attempt == 0 {
			x.Attempt = 1
			go x.Resume()
			return dataplane.Wait
		}
		return s.answer(x, 200)
	}
	if (s.route.Buffer > 0 || s.route.Sized) && !x.Gathered {
		return dataplane.Gather
	}
	if s.filter != nil {
		x.Filters = append(x.Filters, s.filter)
		if s.filter.grows && x.Request.Length != 0 {
			x.Request.Length, x.Request.Chunked = -1, true
		}
	}
	x.Server, x.Attempt = &s.upstream, 1
	return dataplane.Next
}

func (s *stage) answer(x *dataplane.Exchange, status int) dataplane.Verdict {
	x.Response.Reset()
	x.Response.Status, x.Response.Body = status, []byte("made here\n")
	return dataplane.Answer
}

func (s *stage) Respond(x *dataplane.Exchange) dataplane.Verdict {
	http1.StripHop(&x.Response.Header, x.Response.Nominated, x.Response.Status == 101)
	switch string(x.Request.Path) {
	case "/replace":
		return s.answer(x, 503)
	case "/elsewhere":
		if x.Attempt == 1 && x.Replayable {
			x.Server, x.Attempt = &s.other, 2
			x.Response.Reset()
			return dataplane.Again
		}
	}
	if s.filter != nil && s.filter.grows {
		x.Response.Length = -1
	}
	return dataplane.Next
}

func (s *stage) Retry(x *dataplane.Exchange, err error) dataplane.Verdict {
	s.events <- fmt.Sprintf("retry %s replayable=%t sent=%t", word(err), x.Replayable, x.Sent)
	if string(x.Request.Path) == "/again" && x.Attempt == 1 && x.Replayable {
		x.Server, x.Attempt = &s.other, 2
		return dataplane.Again
	}
	status := 502
	switch {
	case errors.Is(err, dataplane.ErrClientGone):
		return dataplane.Close
	case errors.Is(err, dataplane.ErrClientBody):
		status = 400
	case errors.Is(err, dataplane.ErrTooLarge):
		status = 413
	case errors.Is(err, dataplane.ErrHeldFull):
		status = 503
	case errors.Is(err, errFilter):
		status = 500
	case errors.Is(err, dataplane.ErrClientSlow):
		status = 408
	case errors.Is(err, dataplane.ErrReadTime), errors.Is(err, dataplane.ErrTotalTime), errors.Is(err, dataplane.ErrConnectTime):
		status = 504
	}
	s.answer(x, status)
	x.Filters = x.Filters[:0]
	x.Response.Close = status == 400 || status == 408 || status == 413
	return dataplane.Answer
}

func (s *stage) End(_ *dataplane.Exchange, err error) { s.events <- "end " + word(err) }

// word names an error as the dialogues do.
func word(err error) string {
	var m *dataplane.Malformed
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, dataplane.ErrClientBody):
		return "client_body"
	case errors.As(err, &m):
		return m.Reason
	}
	for _, e := range []struct {
		err  error
		word string
	}{
		{dataplane.ErrConnectTime, "connect_time"}, {dataplane.ErrConnect, "connect"},
		{dataplane.ErrSendTime, "send_time"}, {dataplane.ErrSend, "send"},
		{dataplane.ErrServerDown, "down"}, {dataplane.ErrReadTime, "read_time"}, {dataplane.ErrRead, "read"},
		{dataplane.ErrTotalTime, "total_time"}, {dataplane.ErrTooLarge, "too_large"},
		{dataplane.ErrClientSlow, "client_slow"}, {dataplane.ErrClientGone, "client_gone"},
		{dataplane.ErrDrained, "drained"}, {dataplane.ErrHeldFull, "held_full"},
		{errFilter, "filter"}, {errShortBody, "short_body"}, {errLongBody, "long_body"},
	} {
		if errors.Is(err, e.err) {
			return e.word
		}
	}
	return err.Error()
}

// play follows a script. A line begins with who does what:
//
//	c> "bytes"   the client sends (and connects, if it has not)
//	c< "bytes"   the client gets exactly these
//	c<eof        the client sees the end; c<reset a reset; c<over either
//	c>eof        the client closes its half; c>close all; c>reset by a reset; c>cut all, without
//	             the farewell of TLS
//	s>? "bytes"  sends as many of these as the other side takes
//	s+           the server is dialled; o+ the other one
//	s> s<        as for the client, on the connection dialled last
//	h "event"    the next thing that the handler is told
//	lost         the server is given up
//	pause        nobody says anything for longer than a "short" setting allows
//	seen         every event loop has looked at what came so far
//	drain        Shutdown begins; drained: it returns nil; forced: it returns ErrDrained
//
// "x"*1000 repeats.
func (s *stage) play(script string) {
	s.t.Helper()
	lines := bufio.NewScanner(strings.NewReader(script))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := s.line(line); err != nil {
			s.t.Fatalf("line %d: %s\n%v\nevents left: %s", n, line, err, s.left())
		}
	}
}

func (s *stage) left() (all []string) {
	for {
		select {
		case e := <-s.events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// retirer is the engine, that knows its connections by where they came in.
func (s *stage) retirer() retirer { return s.engine.(retirer) }

type retirer interface {
	Count(netip.Addr) int
	Retire(netip.Addr, bool)
}

func (s *stage) local() netip.Addr {
	return s.socket.Addr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

func (s *stage) line(line string) error {
	who, what := line[:1], strings.TrimSpace(line[1:])
	switch {
	case line == "drain":
		go func() { s.ended <- s.engine.Shutdown(s.t.Context()) }()
		// Shutdown begins by closing the socket: wait for that.
		for {
			c, err := net.Dial("tcp", s.socket.Addr().String())
			if err != nil {
				return nil
			}
			c.Close()
		}
	case strings.HasPrefix(line, "retire"):
		local := s.local()
		if line == "retire elsewhere" {
			local = netip.MustParseAddr("192.0.2.1")
		}
		s.retirer().Retire(local, line == "retire by force")
		return nil
	case strings.HasPrefix(line, "count "):
		for end := time.Now().Add(patience); fmt.Sprint("count ", s.retirer().Count(s.local())) != line; {
			if time.Now().After(end) {
				return fmt.Errorf("%d connections", s.retirer().Count(s.local()))
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	case line == "seen":
		s.eachLoop(func(*loop) {})
		return nil
	case line == "lost":
		s.upstream.SetLost(true)
		return nil
	case line == "pause":
		time.Sleep(shortPause)
		return nil
	case line == "drained", line == "forced":
		return s.shutdown(line == "forced")
	case line == "s+", line == "o+":
		return s.accept(who)
	case who == "h":
		want, err := quoted(what)
		if err != nil {
			return err
		}
		select {
		case got := <-s.events:
			if got != want {
				return fmt.Errorf("the handler was told %q, want %q", got, want)
			}
		case <-time.After(patience):
			return errors.New("the handler was told nothing")
		}
		return nil
	case who == "c":
		if s.client == nil {
			c, err := net.Dial("tcp", s.socket.Addr().String())
			if err != nil {
				return err
			}
			s.client, s.tcp = c, c.(*net.TCPConn)
			if s.sealed {
				s.client = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
		}
		err := speak(s.client, s.tcp, what)
		if what == ">close" || what == ">reset" || what == "<eof" || what == "<reset" || what == "<over" {
			s.client.Close()
			s.client = nil
		}
		return err
	case who == "s":
		if len(s.conns) == 0 {
			return errors.New("the server has no connection")
		}
		last := s.conns[len(s.conns)-1]
		return speak(last.Conn, last.tcp, what)
	}
	return errors.New("what is this?")
}

// eachLoop has do called by each loop, after it has seen to what came so far.
func (s *stage) eachLoop(do func(*loop)) {
	if e, ok := s.engine.(*Loop); ok {
		done := make(chan bool)
		for _, l := range e.loops {
			l.post(func() { do(l); done <- true })
			<-done
		}
	}
}

// hold stops all loops until it is called again: what comes meanwhile, they see at once.
func (s *stage) hold() (release func()) {
	end := make(chan bool)
	for _, l := range s.engine.(*Loop).loops {
		held := make(chan bool)
		l.post(func() { close(held); <-end })
		<-held
	}
	return func() { close(end); s.eachLoop(func(*loop) {}) }
}

func (s *stage) shutdown(force bool) error {
	if force {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.engine.Shutdown(ctx); !errors.Is(err, dataplane.ErrDrained) {
			return fmt.Errorf("Shutdown = %v, want ErrDrained", err)
		}
		return nil
	}
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		return errors.New("Shutdown does not return")
	}
}

func (s *stage) accept(who string) error {
	l := s.server
	if who == "o" {
		l = s.spare
	}
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		return err
	}
	end := serverEnd{c, c.(*net.TCPConn)}
	if s.depths {
		c.SetDeadline(time.Now().Add(patience))
		sealed := tls.Server(c, newTestTLS(s.t).conf)
		if err := sealed.Handshake(); err != nil {
			return err
		}
		end.Conn = sealed
	}
	s.conns = append(s.conns, end)
	return nil
}

// speak does one line on c, which is tcp or upon it.
func speak(c net.Conn, tcp *net.TCPConn, what string) error {
	c.SetDeadline(time.Now().Add(patience))
	switch what {
	case ">eof":
		if t, ok := c.(*tls.Conn); ok {
			if err := t.CloseWrite(); err != nil {
				return err
			}
		}
		return tcp.CloseWrite()
	case ">reset":
		tcp.SetLinger(0)
		return tcp.Close()
	case ">cut":
		return tcp.Close()
	case ">close":
		return c.Close()
	case "<eof", "<reset", "<over":
		rest, err := io.ReadAll(c)
		reset := errors.Is(err, syscall.ECONNRESET)
		switch {
		case len(rest) > 0:
			return fmt.Errorf("%q came before the end", rest)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("nothing came, and no end")
		case what == "<eof" && err != nil, what == "<reset" && !reset, err != nil && !reset:
			return fmt.Errorf("ended with %v", err)
		}
		return nil
	}
	fails := strings.HasPrefix(what, ">?")
	text, err := quoted(strings.TrimPrefix(what[1:], "?"))
	if err != nil {
		return err
	}
	if fails {
		io.WriteString(c, text)
		return nil
	}
	if what[0] == '>' {
		_, err = io.WriteString(c, text)
		return err
	}
	got := make([]byte, len(text))
	n, err := io.ReadFull(c, got)
	if string(got[:n]) != text || err != nil {
		return fmt.Errorf("got  %.400q (%v)\nwant %.400q", got[:n], err, text)
	}
	return nil
}

// quoted reads Go strings, each perhaps with a count: "a"*3 "b" is aaab.
func quoted(text string) (string, error) {
	var all strings.Builder
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		q, err := strconv.QuotedPrefix(text)
		if err != nil {
			return "", fmt.Errorf("%s: %w", text, err)
		}
		text = text[len(q):]
		part, _ := strconv.Unquote(q)
		count := 1
		if rest, found := strings.CutPrefix(text, "*"); found {
			digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
			count, _ = strconv.Atoi(rest[:digits])
			text = rest[digits:]
		}
		all.WriteString(strings.Repeat(part, count))
	}
	return all.String(), nil
}

// admitted returns how many connections were let in.
func (s *stage) admitted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admit
}
