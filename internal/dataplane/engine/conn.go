package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A clientConn is the connection of one client. One goroutine serves it: it has a handshake
// if the listener is for TLS, waits for a request without a buffer, has the exchange, and so
// on. To its exchanges it is the client that speaks HTTP/1.1.
type clientConn struct {
	wire
	exchange
	peer     netip.AddrPort
	id       uint64
	began    moment
	inside   bool            // Admit said yes
	named    *netip.AddrPort // where the client connected to, if a PROXY header says so
	idleStep func(fd uintptr) bool
	state    *tls.ConnectionState // nil in clear
	greeted  *tls.Config          // for the handshake, if a loop has asked for it already
	hello    []byte               // what the client said there

	served  bool              // a request has come
	preface bool              // what came in place of the first request begins the preface of HTTP/2
	why     dataplane.Closing // why it ended, once it has
	loan    *loan             // from whom the connection is, if it goes back
	own     private

	retired atomic.Bool // it is to end as soon as it is idle
	idle    bool        // waiting for a request; under mu

	h2 *h2conn // not nil once HTTP/2 is spoken; written under mu

	prev, next *clientConn // in clients
}

var (
	errHeadTime = &dataplane.Malformed{Status: 408, Reason: "head_time", Detail: "the head was not complete in time"}
	errHeadEnd  = &dataplane.Malformed{Status: 400, Reason: "incomplete", Detail: "the connection ended within a head"}
	errIdle     = errors.New("idle for too long")
	errDrainNow = errors.New("idle while draining")
	errClosed   = errors.New("closed without an answer")
	errPanic    = errors.New("panic")
)

// serve has one exchange after the other. It ends with the connection.
func (c *clientConn) serve() {
	defer c.end()
	if !c.inside && !c.front() {
		return
	}
	if c.listener.TLS != nil && c.state == nil && !c.handshake() {
		return
	}
	if c.state != nil && c.state.NegotiatedProtocol == "h2" {
		c.serveHTTP2()
		return
	}
	if c.loan != nil && c.giveBack() {
		return
	}
	for c.request() && c.one() {
	}
	if c.preface {
		c.serveHTTP2()
	}
}

// end closes the connection, whatever has happened.
func (c *clientConn) end() {
	if p := recover(); p != nil {
		c.why = dataplane.ClosedError
		c.panicked(p)
	}
	c.close()
	c.own.close()
	if c.desk != nil {
		c.desk.x.Reset() // of what was refused
		putDesk(c.desk)
		c.desk = nil
	}
	defer c.engine.conns.remove(c) // last, since Shutdown waits for it
	if c.loan != nil && c.loan.over || !c.inside {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			c.engine.conf.Panic(p)
		}
	}()
	c.handler.Leave(c.listener, c.peer, c.why)
}

// request waits for a request head. It returns false when the connection is over.
func (c *clientConn) request() bool {
	fresh := c.have == 0 // else it was sent behind another request, and had to wait for that
	if fresh && !c.wait() {
		return false
	}
	d := c.desk
	x := &d.x
	x.Listener, x.Client, x.TLS, x.ConnID = c.listener, c.peer, c.state, c.id
	x.Times.Start = time.Now()
	lim := http1.LimitsOf(&c.listener.Limits)
	if c.preface = !c.served && prefaced(c.listener, d.in[:c.have]); c.preface {
		return false
	}
	n, err := http1.ParseRequest(d.in[:c.have], &x.Request, lim)
	x.Times.Head = x.Times.Start
	if n == 0 && err == nil {
		n, err = c.rest(lim)
		x.Times.Head = time.Now()
	}
	if err != nil {
		if c.preface {
			return false
		}
		c.refuse(err)
		return false
	}
	c.head, c.served = n, true
	if d.fd = c.fd; fresh {
		x.Lag = d.lag
	}
	return true
}

// wait waits for the first bytes of a request, with a desk only when they are there.
func (c *clientConn) wait() bool {
	t := now()
	l := limit{each: c.listener.Limits.Idle, since: t, late: errIdle}
	if !c.served {
		l = limit{over: errHeadTime}
		if h := c.listener.Limits.HeaderTime; h > 0 {
			l.until = c.began + moment(h)
		}
	}
	c.mu.Lock()
	c.idle = true
	c.mu.Unlock()
	if c.loan != nil && c.own.empty() {
		l.each, l.late = lendTime, errLent
	}
	if c.retired.Load() || c.engine.draining.Load() {
		l.since, l.each, l.late = t, c.engine.conf.IdleGrace, errDrainNow
	}
	err := c.await(&c.in, c.idleStep, &l)
	c.mu.Lock()
	c.idle = false
	c.resume(errDrainNow)
	c.mu.Unlock()
	if err == errDrainNow {
		// A request may have come in the meantime. It has its answer.
		c.readIdle(c.fd)
		if c.desk != nil {
			err = nil
		}
	}
	if err == nil && c.in.errno == 0 && c.in.n > 0 {
		c.have = c.in.n
		return true
	}
	switch err {
	case errHeadTime:
		c.refuse(err)
	case errDrainNow, errIdle:
		c.linger()
	case errLent:
		if !c.giveBack() {
			err = errDrainNow
			c.linger()
		}
	}
	c.why = closing(err)
	return false
}

// readIdle reads into a desk that is there only if there are bytes.
func (c *clientConn) readIdle(fd uintptr) bool {
	if c.desk == nil {
		c.desk = desks.Get().(*desk)
	}
	c.in.n, c.in.errno = c.recv(fd, c.desk.in)
	if c.in.errno == syscall.EAGAIN {
		putDesk(c.desk)
		c.desk = nil
		return false
	}
	return true
}

// rest reads until the head is complete and parses it.
func (c *clientConn) rest(lim http1.Limits) (int, error) {
	d := c.desk
	r := &d.x.Request
	l := limit{over: errHeadTime}
	if h := c.listener.Limits.HeaderTime; h > 0 {
		l.until = momentOf(d.x.Times.Start) + moment(h)
		if !c.served {
			l.until = c.began + moment(h)
		}
	}
	var scan http1.Scanner
	scan.Ready(d.in[:c.have], lim) // it was parsed, in vain
	for {
		if c.have == len(d.in) {
			// The parser refuses what is longer than HeaderBytes.
			d.in = append(d.in, make([]byte, max(lim.HeaderBytes-len(d.in), bufferBytes))...)
		}
		n, err := c.read(d.in[c.have:], &l)
		switch {
		case err == io.EOF:
			return 0, errHeadEnd
		case err != nil:
			return 0, err
		}
		c.have += n
		if c.preface = !c.served && prefaced(c.listener, d.in[:c.have]); c.preface {
			return 0, errClosed
		}
		if !scan.Ready(d.in[:c.have], lim) {
			continue
		}
		r.Reset()
		if n, err = http1.ParseRequest(d.in[:c.have], r, lim); n > 0 || err != nil {
			return n, err
		}
	}
}

// refuse answers bytes that never became a request, if there is an answer to them.
func (c *clientConn) refuse(err error) {
	c.why = closing(err)
	var m *dataplane.Malformed
	if !errors.As(err, &m) {
		return
	}
	if c.have > 0 {
		c.handler.Refused(c.listener, c.peer, err)
	}
	if m == errHeadEnd || !c.served && speechless(c.listener, m) {
		return
	}
	var r dataplane.Response
	refusal(&r, c.listener, m)
	out := http1.AppendResponse(make([]byte, 0, 256), &r, http1.ResponseOptions{Minor: 1, Date: c.engine.date.at(c.engine.conf.Now())})
	p := c.clientPace()
	if c.wire.write(out, &limit{pace: &p, late: dataplane.ErrClientSlow}) == nil {
		c.linger()
	}
}

// closing says what the end of a wait for a request means: err, or else the client's end.
func closing(err error) dataplane.Closing {
	var m *dataplane.Malformed
	switch {
	case err == errIdle:
		return dataplane.ClosedIdle
	case err == errDrainNow:
		return dataplane.ClosedDrain
	case err == nil, err == errHeadEnd, !errors.As(err, &m) && !errors.Is(err, dataplane.ErrDrained):
		return dataplane.ClosedClient
	}
	return dataplane.ClosingOf(err)
}

// clients are the open client connections.
type clients struct {
	mu    sync.Mutex
	first *clientConn
	count atomic.Int64  // written under mu
	empty chan struct{} // closed when the last one goes; nil if nobody waits
}

func (s *clients) add(c *clientConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.next = s.first
	if c.next != nil {
		c.next.prev = c
	}
	s.first = c
	s.count.Add(1)
}

func (s *clients) remove(c *clientConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		s.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.prev, c.next = nil, nil
	if s.count.Add(-1) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// each calls f for every connection. f must not block.
func (s *clients) each(f func(*clientConn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.first; c != nil; c = c.next {
		f(c)
	}
}
