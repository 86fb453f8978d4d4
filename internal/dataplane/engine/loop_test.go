package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
)

// A second handle of a socket goes on accepting when the first is closed, with what
// waits at it.
func TestSharedSocketLosesNoConnection(t *testing.T) {
	first, err := NewSocket(listen(t).(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	second, err := first.Share()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := first.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close = %v, want ErrClosed", err)
	}
	if _, err := first.Share(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Share of a closed socket = %v, want ErrClosed", err)
	}
	got, err := second.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	done := make(chan error)
	go func() { _, err := second.Accept(); done <- err }()
	second.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed socket = %v, want ErrClosed", err)
	}
}

// Serve ends with its socket, and another handle of it serves on.
func TestLoopServesASharedSocket(t *testing.T) {
	s := newStage(t, func(c Config) Engine { return NewLoop(c) }, func(s *stage, _ *Config) { s.waited = true })
	again, err := s.socket.(*Socket).Share()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.engine.Serve(s.listener, again, s) }()
	for range 20 {
		s.play(`
			c> "GET /answer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
			c< "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 10\r\nConnection: close\r\n\r\nmade here\n"
			c<eof`)
	}
	again.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	s.play(`
		c> "GET /answer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
		c< "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 10\r\nConnection: close\r\n\r\nmade here\n"
		c<eof`)
}

// Without files the loops neither spin nor end: whoever waited is accepted when there
// are files again.
func TestLoopOutlivesALackOfFiles(t *testing.T) {
	s := newStage(t, func(c Config) Engine { return NewLoop(c) }, func(s *stage, _ *Config) { s.waited = true })
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.socket.Addr().String()) // its file is open already
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 15)
	if _, err := io.ReadFull(c, in); err != nil {
		t.Fatal(err)
	}
	conns := []net.Conn{}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	// The client's files first, so that only the loops go short.
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	full := was
	full.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &full); err != nil {
		t.Skip(err)
	}
	to := s.socket.Addr().(*net.TCPAddr).AddrPort()
	err = unix.Connect(raw, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	slow := s.engine.(*Loop)
	for range 3 { // each loop has met the lack of files, and paused
		ran := make(chan bool)
		for _, l := range slow.loops {
			l.post(func() { ran <- true })
			<-ran
		}
	}
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(raw, []byte("GET /answer HTTP/1.1\r\nHost: h\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(raw, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Read(raw, in)
	for err == unix.EINTR {
		n, err = unix.Read(raw, in)
	}
	if n == 0 || err != nil {
		t.Fatalf("read = %d, %v, want an answer", n, err)
	}
}

// A loop without an idle connection to a server takes one of another's.
func TestLoopsShareServerConnections(t *testing.T) {
	s := newStage(t, func(c Config) Engine {
		c.Loops = 4
		return NewLoop(c)
	}, nil) // connections are given to the loops in turn
	go (&record{}).serve(s, []plan{{answer: []byte("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n")}})
	const answer = "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for range 40 {
		s.play(`
			c> "GET /0 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
			c< ` + `"` + strings.ReplaceAll(answer, "\r\n", `\r\n`) + `"` + `
			h "end ok"
			c<eof`)
	}
	n := s.engine.(*Loop).Counts()
	if n.Dials != 1 || n.Reuses != 39 {
		t.Errorf("%d dials and %d reuses for 40 requests one after the other, want 1 and 39", n.Dials, n.Reuses)
	}
}

// waiter is a handler whose answer waits to be told; it may be told too often and late.
type waiter struct {
	stage
	mu      sync.Mutex
	resumes []func()
}

func (w *waiter) Begin(x *dataplane.Exchange) dataplane.Verdict {
	if x.Attempt == 0 {
		x.Attempt = 1
		w.mu.Lock()
		w.resumes = append(w.resumes, x.Resume)
		for _, resume := range w.resumes {
			go resume()
		}
		w.mu.Unlock()
		return dataplane.Wait
	}
	return w.answer(x, 200)
}

// Resume of an exchange that is over does nothing to the one that has its place.
func TestLoopResumesTheRightExchange(t *testing.T) {
	w := &waiter{stage: stage{t: t, events: make(chan string, 1000), ended: make(chan error, 1)}}
	w.listener = &dataplane.Listener{Name: "web", Limits: dataplane.Limits{HeaderBytes: 4096, URIBytes: 1024, Fields: 10}}
	w.socket = waitable(t, listen(t))
	w.engine = NewLoop(Config{Now: func() time.Time { return someDay }})
	go w.engine.Serve(w.listener, w.socket, w)
	t.Cleanup(func() { w.engine.Shutdown(t.Context()) })
	for range 50 {
		w.play(`
			c> "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
			c< "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 10\r\n\r\nmade here\n"
			h "end ok"`)
	}
	w.client.Close()
}

// busy keeps its loop for longer than a loop may be kept.
type busy struct{ stage }

func (b *busy) Match(x *dataplane.Exchange) {
	b.stage.Match(x)
	for began := time.Now(); time.Since(began) <= 2*slowBatch; {
	}
}

func TestLoopCountsSlowBatches(t *testing.T) {
	b := &busy{stage{t: t, events: make(chan string, 10), ended: make(chan error, 1)}}
	b.listener = &dataplane.Listener{Name: "web", Limits: dataplane.Limits{HeaderBytes: 4096, URIBytes: 1024, Fields: 10}}
	b.socket = waitable(t, listen(t))
	e := NewLoop(Config{Now: func() time.Time { return someDay }})
	b.engine = e
	go e.Serve(b.listener, b.socket, b)
	b.play(`
		c> "GET /answer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
		c< "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 10\r\nConnection: close\r\n\r\nmade here\n"
		c<eof`)
	defer e.Shutdown(t.Context())
	// The answer is out before the batch is over.
	for began := time.Now(); e.Counts().SlowBatches == 0; runtime.Gosched() {
		if time.Since(began) > patience {
			t.Fatal("no slow batch was counted")
		}
	}
}

// An address is read as accept says it.
func TestAddrPortOfAcceptedConnections(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err) // a host without IPv6
			continue
		}
		s, err := NewSocket(l.(*net.TCPListener))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		port := l.Addr().(*net.TCPAddr).Port
		for _, host := range []string{"127.0.0.1", "::1"} {
			c, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP(host), Port: port})
			if err != nil {
				continue
			}
			defer c.Close()
			var fd int32
			var got netip.AddrPort
			for e := eagain; e == syscall.EAGAIN; {
				fd, got, e = s.accept()
			}
			closeFD(fd)
			if want := c.LocalAddr().(*net.TCPAddr).AddrPort(); got != want {
				t.Errorf("%s: accepted from %v, want %v", address, got, want)
			}
		}
	}
}

// A connection that another accepted just before the end, and that comes to its loop
// behind the end, is closed. Nobody waits for it for ever.
func TestLoopEndsWhatComesToItLast(t *testing.T) {
	s := newStage(t, func(c Config) Engine { c.Loops = 1; return NewLoop(c) }, nil)
	e := s.engine.(*Loop)
	busy := make(chan struct{})
	e.loops[0].post(func() { <-busy })
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.bring(&door{listener: s.listener, handler: s}, conn); err != nil {
		t.Fatal(err)
	}
	close(busy)
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client got an answer")
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Errorf("a second Shutdown = %v, want nil", err)
	}
}

// A client that reads nothing before it has sent all of its body, and a server that
// answers all the while: neither waits for the other.
func TestLoopUploadsWhileItOwesTheClient(t *testing.T) {
	s := newStage(t, func(c Config) Engine { c.Loops = 1; return NewLoop(c) }, func(s *stage, _ *Config) {
		s.waited = true
		s.listener.Limits.MinRate = 1
	})
	const size = 20 << 20
	for _, framing := range []string{"Content-Length: 20971520", "Transfer-Encoding: chunked"} {
		served := make(chan error, 1)
		go func() {
			conn, err := s.server.Accept()
			if err != nil {
				served <- err
				return
			}
			defer conn.Close()
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				served <- err
				return
			}
			told := make(chan error, 1)
			go func() {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", size)
				_, err := io.CopyN(conn, zeros{}, size-1)
				told <- err
			}()
			n, err := io.Copy(io.Discard, r.Body)
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes came", n)
			}
			err = errors.Join(err, <-told)
			conn.Write([]byte{0}) // an answer that ended sooner would end the request too
			served <- err
		}()
		client, err := net.Dial("tcp", s.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n", framing)
		if strings.HasPrefix(framing, "T") {
			fmt.Fprintf(client, "%x\r\n", size)
		}
		if _, err := io.CopyN(client, zeros{}, size); err != nil {
			t.Fatalf("%s: send: %v, the handler was told %q", framing, err, s.left())
		}
		if strings.HasPrefix(framing, "T") {
			io.WriteString(client, "\r\n0\r\n\r\n")
		}
		if n, err := io.CopyN(io.Discard, client, size); err != nil {
			t.Fatalf("%s: got %d bytes: %v", framing, n, err)
		}
		if err := <-served; err != nil {
			t.Errorf("%s: the server: %v", framing, err)
		}
	}
}

// What a client sends of a body in chunks may be nothing but framing: then there is
// nothing to write.
func TestLoopUploadsNothingOfFraming(t *testing.T) {
	var l loop
	c := &loopClient{tray: &tray{server: &loopServer{}}}
	c.tray.up.on = true
	l.toServer(c, nil, false)
	if u := &c.tray.up; !u.on || u.stuck() {
		t.Errorf("on %t, stuck %t, want it to go on", u.on, u.stuck())
	}
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// Only a client that is waited for can be too slow.
func TestLoopUploadIsNotDueWhileNobodyWaits(t *testing.T) {
	var l loop
	tr := &tray{}
	tr.up.on = true
	tr.up.pace = pace{rate: 1, window: time.Second}
	if due := l.uploadDue(tr); due != 0 {
		t.Errorf("it is due at %d, want never", due)
	}
	tr.up.asked = now()
	if due := l.uploadDue(tr); due <= tr.up.asked {
		t.Errorf("it is due at %d, asked at %d", due, tr.up.asked)
	}
}

// Whoever waits at a door that is closed is served: a listener that a reload takes away,
// or a node that ends, resets nobody.
func TestLoopServesWhoWaitsAtAClosingDoor(t *testing.T) {
	s := newStage(t, func(c Config) Engine { c.Loops = 1; return NewLoop(c) }, func(s *stage, _ *Config) { s.waited = true })
	e := s.engine.(*Loop)
	busy, began := make(chan struct{}), make(chan struct{})
	e.loops[0].post(func() { close(began); <-busy })
	<-began
	attended := func() bool {
		door := s.socket.(*Socket)
		door.mu.RLock()
		defer door.mu.RUnlock()
		return len(door.gone) > 0
	}
	for !attended() { // the stage has just begun to serve
		runtime.Gosched()
	}
	clients := make([]net.Conn, 50)
	for i := range clients {
		c, err := net.Dial("tcp", s.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n")
		clients[i] = c
	}
	s.socket.Close()
	ended := make(chan error, 1)
	go func() { ended <- e.Shutdown(t.Context()) }()
	close(busy)
	for i, c := range clients {
		c.SetDeadline(time.Now().Add(patience))
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("client %d got %v, %v", i, r, err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown = %v, want nil", err)
	}
}
