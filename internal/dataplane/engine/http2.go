package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	nethttp2 "golang.org/x/net/http2"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http2"
)

// An h2conn is a client's connection that speaks HTTP/2. The goroutine of its clientConn reads;
// each stream has its exchange in a goroutine of the engine's; what they want to send is
// gathered, and one goroutine at a time writes it.
//
// mu may be held while that of an exchange is taken, not the reverse.
type h2conn struct {
	c *clientConn

	mu      sync.Mutex // guards what follows
	state   *http2.Conn
	writing bool  // somebody does
	lost    error // why nothing can be written any more
	turns   turns
	fresh   []*h2stream // whose requests have just come
	idle    moment      // since when there is no stream; 0: there is one
	leaving bool
	arrived moment     // when what is taken in now came; 0: not known
	ended   *sync.Cond // a stream has ended, or the writer

	spare []byte // the writer's
	pace  pace   // the writer's
}

const (
	h2Streams    = 128       // at once: what nginx allows
	h2Window     = 256 << 10 // bytes of a request's body that wait for its server
	h2ConnWindow = 1 << 20   // likewise of all streams of a connection
	h2Unsent     = 64 << 10  // bytes that wait for the client to take what was sent before
	h2Turn       = 2         // streams that have something to do before other connections have their turn
)

// serveHTTP2 has the connection speak HTTP/2 from its first byte on, of which some may be
// there. It returns when the connection is over.
func (c *clientConn) serveHTTP2() {
	h := &h2conn{c: c, idle: now()}
	h.ended = sync.NewCond(&h.mu)
	l := &c.listener.Limits
	h.state = http2.New(http2.Config{
		Streams: h2Streams, Requests: l.Requests, Window: h2Window, ConnWindow: h2ConnWindow, Unsent: h2Unsent, Turn: h2Turn, MayUpgrade: true,
		Limits: http1.LimitsOf(l),
	}, h, time.Duration(now()))
	c.mu.Lock()
	c.idle = false
	c.h2 = h
	why := c.interrupted()
	c.mu.Unlock()
	c.resume(errDrainNow)
	c.handler.HTTP2(c.listener, true)
	defer c.handler.HTTP2(c.listener, false)
	if why != nil || c.retired.Load() || c.engine.closing() {
		h.leave()
	}
	h.mu.Lock()
	h.kick()
	h.mu.Unlock()
	c.why = h.end(h.read())
}

// prefaced reports whether the first bytes of a connection in clear begin the preface of HTTP/2,
// where that is spoken: knowledge that the client had before (RFC 9113, 3.3).
func prefaced(l *dataplane.Listener, b []byte) bool {
	n := min(len(b), len(http2.Preface))
	return l.HTTP2 && l.TLS == nil && n >= len("PRI ") && string(b[:n]) == http2.Preface[:n]
}

// speechless reports whether what came first is neither HTTP/2 nor HTTP/1.1, where both are
// spoken in clear: it has no answer that its sender would understand (RFC 9113, 3.4).
func speechless(l *dataplane.Listener, m *dataplane.Malformed) bool {
	return l.HTTP2 && l.TLS == nil && m.Status == 400 && (m.Reason == "version" || m.Reason == "h2_preface" || m.Reason == "method")
}

// read takes in what the client sends until the connection is over, and returns why it is.
func (h *h2conn) read() error {
	c := h.c
	var buf *[2 * bufferBytes]byte
	have := 0
	if c.have > 0 {
		buf = h2buffers.Get().(*[2 * bufferBytes]byte)
		have = copy(buf[:], c.desk.in[:c.have])
	}
	if c.desk != nil {
		putDesk(c.desk)
		c.desk, c.have = nil, 0
	}
	defer func() {
		if buf != nil {
			h2buffers.Put(buf)
		}
	}()
	step := func(fd uintptr) bool {
		if buf == nil {
			buf = h2buffers.Get().(*[2 * bufferBytes]byte)
		}
		c.in.n, c.in.errno = c.recv(fd, buf[have:])
		if c.in.errno == eagain {
			if have == 0 {
				h2buffers.Put(buf)
				buf = nil
			}
			return false
		}
		return true
	}
	began := now()
	asked, lay := began, unread(uintptr(c.fd))
	h.came(began, lay)
	for {
		more := false
		if have > 0 {
			used, tired, err := h.feed(buf[:have])
			if err != nil {
				return err
			}
			if have = copy(buf[:], buf[used:have]); have == 0 {
				h2buffers.Put(buf)
				buf = nil
			}
			if used > 0 {
				began = now()
			}
			more = tired && have > 0
		}
		l, deaf, err := h.patience(began)
		if err != nil {
			return err
		}
		if more {
			if giveTurn() {
				h.came(0, 0) // what is left has lain for this client's own crowd
			}
			continue
		}
		n, err := c.got(c.await(&c.in, step, &l))
		if err == errDrainNow && c.resume(err) {
			continue
		}
		if err != nil {
			return err
		}
		have += n
		t := now()
		if t >= asked+moment(askLay) {
			asked, lay = t, unread(uintptr(c.fd))
		}
		if deaf {
			t = 0
		}
		h.came(t, lay)
	}
}

// askLay is how long what the kernel said of bytes that lay unread goes for the next ones: to
// ask is a system call.
const askLay = 5 * time.Millisecond

// came notes that bytes were read at t, of which the last lay unread for so long. Those of a
// client that was not listened to, since it took no answers, lay for its own fault: t is 0.
func (h *h2conn) came(t moment, lay time.Duration) {
	if t != 0 {
		t -= moment(max(lay, 0))
	}
	h.mu.Lock()
	h.arrived = t
	h.mu.Unlock()
}

// h2buffers are for what is read from a client: a whole frame and more. It is a cache without a
// meaning of its own.
var h2buffers = sync.Pool{New: func() any { return new([2 * bufferBytes]byte) }}

// patience returns how long to wait for the client's next bytes, of which some may have come at
// began, and whether the client was not listened to. The error says that the connection is over.
func (h *h2conn) patience(began moment) (l limit, deaf bool, err error) {
	c := h.c
	h.mu.Lock()
	defer h.mu.Unlock()
	// A client that asks for more than it takes is not heard until it has taken some (D4).
	for h.state.Unsent() > 2*h2Unsent && h.lost == nil {
		deaf = true
		h.kick()
		h.ended.Wait()
	}
	switch {
	case h.lost != nil:
		return limit{}, deaf, h.lost
	case h.state.Over():
		return limit{}, deaf, errDrainNow
	}
	if t := c.listener.Limits.HeaderTime; t > 0 && h.state.Waits() {
		return limit{until: began + moment(t), over: errHeadTime}, deaf, nil
	}
	return limit{each: c.listener.Limits.Idle, late: errIdle, since: now(), also: h.sinceIdle}, deaf, nil
}

// sinceIdle returns since when nothing is asked: t while something is.
func (h *h2conn) sinceIdle(t moment) moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == 0 {
		return t
	}
	return h.idle
}

// feed takes in b, or a turn of it, and starts the exchanges of the requests in it. tired is that
// other connections are to have their turn before the rest.
func (h *h2conn) feed(b []byte) (used int, tired bool, err error) {
	h.mu.Lock()
	used, fault := h.state.Feed(b, time.Duration(now()))
	tired = h.state.Tired()
	h.kick()
	fresh := h.fresh
	h.fresh = h.fresh[len(h.fresh):]
	closing := len(fresh) > 0 && (h.c.engine.closing() || h.c.retired.Load())
	h.mu.Unlock()
	if closing {
		h.leave()
	}
	for i, s := range fresh {
		fresh[i] = nil
		h.c.engine.workers.run(s)
	}
	h.mu.Lock()
	h.fresh = fresh[:0]
	h.mu.Unlock()
	if fault != nil {
		return used, tired, fault
	}
	return used, tired, nil
}

// end lets everything come to its end after err, and returns why the connection is over.
func (h *h2conn) end(err error) dataplane.Closing {
	c := h.c
	var fault *http2.Fault
	why := dataplane.ClosedClient
	switch {
	case errors.As(err, &fault):
		why = dataplane.ClosedError
		if fault.Flood {
			why = dataplane.ClosedFlood
		}
		c.handler.Refused(c.listener, c.peer, &dataplane.Malformed{Status: 400, Reason: "h2_connection", Detail: fault.Error()})
	case err == errIdle:
		why = dataplane.ClosedIdle
	case err == errDrainNow:
		why = dataplane.ClosedDone
		if c.engine.closing() || c.retired.Load() {
			why = dataplane.ClosedDrain
		}
	case errors.Is(err, dataplane.ErrDrained):
		why = dataplane.ClosedDrain
	case err == errHeadTime, errors.Is(err, dataplane.ErrClientSlow):
		why = dataplane.ClosedTime
	}
	gone := err
	if fault != nil || err == io.EOF || why == dataplane.ClosedClient {
		gone = fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
	}
	h.mu.Lock()
	if err == errIdle || err == errHeadTime {
		h.state.Leave(true)
		h.kick()
	}
	h.state.End(gone)
	for h.writing {
		h.ended.Wait()
	}
	polite := h.lost == nil && why != dataplane.ClosedClient
	h.mu.Unlock()
	if polite {
		c.linger()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.state.Running() > 0 || h.writing {
		h.ended.Wait()
	}
	if h.lost == nil {
		h.lost = net.ErrClosed // its descriptor will be another's: who still wants to take leave must not write to it
	}
	return why
}

// leave has the client make another connection, and ends this one when its requests have been
// answered.
func (h *h2conn) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving {
		return
	}
	h.leaving = true
	h.state.Leave(false)
	h.kick()
	time.AfterFunc(h.c.engine.conf.IdleGrace, h.leaveNow)
}

// leaveNow is leave for a client that does not say that it has heard.
func (h *h2conn) leaveNow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.Leave(true)
	h.kick()
	h.over()
}

// over has the reader look if nothing more is to come. mu is held.
func (h *h2conn) over() {
	if h.state.Over() {
		h.c.interrupt(errDrainNow)
	}
}

// cut interrupts all exchanges. The mutex of the clientConn is held.
func (h *h2conn) cut(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.End(err)
}

// sweep looks after the exchanges.
func (h *h2conn) sweep(t moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.Each(func(s *http2.Stream) {
		e := &streamOf(s).exchange
		e.mu.Lock()
		defer e.mu.Unlock()
		e.sweep(t)
	})
}

// kick has what is gathered written. mu is held.
func (h *h2conn) kick() {
	if !h.writing && h.lost == nil && h.state.Unsent() > 0 {
		h.writing = true
		h.c.engine.workers.run((*h2writer)(h))
	}
}

// An h2writer is an h2conn whose gathered bytes are written.
type h2writer h2conn

func (w *h2writer) work() {
	h := (*h2conn)(w)
	defer func() {
		h.mu.Lock()
		h.writing = false
		h.ended.Broadcast()
		h.kick()
		h.mu.Unlock()
	}()
	h.pace = h.c.clientPace()
	for {
		runtime.Gosched() // whoever can run now has something to say as well: one write for all
		h.mu.Lock()
		out := h.state.Take(h.spare)
		h.grant()
		h.ended.Broadcast()
		h.mu.Unlock()
		if h.spare = out; len(out) == 0 {
			if cap(out) > 2*h2Unsent {
				h.spare = nil
			}
			return
		}
		l := limit{pace: &h.pace, late: dataplane.ErrClientSlow}
		if err := h.c.wire.write(out, &l); err != nil {
			h.fail(lost(h.c, err))
			return
		}
	}
}

// fail ends a connection on which nothing can be written.
func (h *h2conn) fail(err error) {
	h.mu.Lock()
	h.lost = err
	h.state.Take(nil)
	h.state.End(err)
	for _, s := range h.turns.waiting {
		signal(s.out)
	}
	h.mu.Unlock()
	h.c.interrupt(err)
}

// The Host of the connection's state: called in Feed, under mu.

func (h *h2conn) Open(id uint32) *http2.Stream {
	h.idle = 0
	s := newH2Stream(h, id)
	return &s.flow
}

func (h *h2conn) Request(s *http2.Stream, err error) {
	t := streamOf(s)
	t.refused, t.arrived = err, h.arrived
	h.fresh = append(h.fresh, t)
}

func (h *h2conn) Drop(s *http2.Stream, err error) {
	if _, of := err.(*dataplane.Malformed); of {
		h.c.handler.Refused(h.c.listener, h.c.peer, err)
	}
	t := streamOf(s)
	t.desk.x.Reset()
	putDesk(t.desk)
	t.free()
	h.done()
}

func (h *h2conn) Wake(s *http2.Stream) {
	t := streamOf(s)
	if err := s.Fault(); err != nil {
		t.mu.Lock()
		t.cut(err)
		t.mu.Unlock()
		return
	}
	signal(t.in) // who sends waits for its turn, and a turn is given
}

func (h *h2conn) Widened() { h.grant() }

func (h *h2conn) Glitch(kind dataplane.Glitch) { h.c.handler.Glitch(h.c.listener, kind) }

// done notes the end of an exchange. mu is held.
func (h *h2conn) done() {
	if h.state.Running() == 0 {
		h.idle = now()
		h.over()
		h.ended.Broadcast()
	}
}

// codeOf returns what a client is told of an exchange that ended with err.
func codeOf(err error) nethttp2.ErrCode {
	switch {
	case err == nil:
		return nethttp2.ErrCodeNo
	case errors.Is(err, dataplane.ErrClientGone), errors.Is(err, dataplane.ErrClientSlow), err == errClosed:
		return nethttp2.ErrCodeCancel
	case errors.Is(err, dataplane.ErrClientBody):
		return nethttp2.ErrCodeProtocol
	}
	return nethttp2.ErrCodeInternal
}
