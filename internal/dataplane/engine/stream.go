package engine

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A stream carries one request and its answer on a connection that carries many at a time:
// HTTP/2's, and whatever else frames bodies itself. It is what a protocol has to bring;
// streamed makes an exchange of it.
//
// One goroutine reads and one sends. Waits end early when wake is called: the stream asks
// its stop then.
type stream interface {
	// read waits until there is something of the request's body and reads it into b, which
	// is not empty. It returns io.EOF at the end of a good body; an error wrapping
	// ErrClientBody for a bad one; ErrClientGone if the client has reset the stream.
	read(b []byte, l *limit) (int, error)
	// trailers returns field lines, each with its end, that came behind the body.
	trailers() []byte
	// send sends p, waiting while the client takes nothing. It returns how many bytes of
	// the client's connection that made.
	send(p part, l *limit) (int, error)
	// reset ends the stream at once, for err: nil is that the answer is whole and the rest of
	// the request is not wanted. After the end of both sides it does nothing.
	reset(err error)
	// wake makes read and send look at their stop.
	wake()
}

// A part of an answer, in the order in which it is sent.
type part struct {
	head     *dataplane.Response // nil: it has been sent
	date     []byte              // for a head without Date
	a, b     []byte              // of the body
	trailers []byte              // field lines
	last     bool                // the answer ends behind it
}

// A stop interrupts who waits.
type stop struct{ err atomic.Pointer[error] }

// set makes err why nobody shall wait. The first stays, unless it is one that its owner
// resumes from.
func (s *stop) set(err error) {
	was := s.err.Load()
	if was == nil || *was == errDrainNow || *was == errHalt {
		s.err.CompareAndSwap(was, &err)
	}
}

// resume takes err back, and reports whether it was set.
func (s *stop) resume(err error) bool {
	was := s.err.Load()
	return was != nil && *was == err && s.err.CompareAndSwap(was, nil)
}

// interrupted returns what was set, or nil.
func (s *stop) interrupted() error {
	if e := s.err.Load(); e != nil {
		return *e
	}
	return nil
}

// A streamed is an exchange whose client speaks by a stream. It may be used for one after
// the other.
type streamed struct {
	exchange
	stop
	stream stream

	head *dataplane.Response // that goes before the next byte
	tail []byte              // trailers of the answer
	told bool                // the end of the answer was sent
}

// open makes s the exchange of a stream. d has the request in its x, if it is one.
func (s *streamed) open(g *Goroutine, h dataplane.Handler, l *dataplane.Listener, of stream, d *desk) {
	s.engine, s.handler, s.listener, s.client, s.stream, s.desk = g, h, l, s, of, d
	s.head, s.tail, s.told = nil, nil, false
	s.err.Store(nil)
}

// serve has the exchange. A request that was refused is answered with what err says.
func (s *streamed) serve(err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			s.stream.reset(errPanic)
		}
	}()
	if err != nil {
		err = s.refuse(err)
	} else {
		err = s.run()
	}
	d := s.desk
	switch {
	case err != nil:
		s.stream.reset(err)
	case s.told:
		s.stream.reset(nil) // if the client is still sending
	default:
		s.stream.reset(errClosed)
	}
	d.body.release()
	d.x.Reset()
	s.desk = nil
	putDesk(d)
}

// refuse answers what is no acceptable request, though the stream is good.
func (s *streamed) refuse(err error) error {
	x := &s.desk.x
	s.handler.Refused(s.listener, x.Client, err)
	var m *dataplane.Malformed
	if !errors.As(err, &m) {
		return err
	}
	refusal(&x.Response, s.listener, m)
	s.appendHead(nil, &x.Response, false)
	return s.say(nil, nil, true)
}

// ask prepares d for a request of a client.
func (d *desk) ask(l *dataplane.Listener, client netip.AddrPort) *dataplane.Exchange {
	x := &d.x
	x.Listener, x.Client = l, client
	x.Times.Start = time.Now()
	x.Times.Head = x.Times.Start
	return x
}

// The client that s is to its exchange.

func (s *streamed) read(b []byte, l *limit) (int, error) { return s.stream.read(b, l) }
func (s *streamed) trailers() []byte                     { return s.stream.trailers() }

func (s *streamed) appendHead(out []byte, r *dataplane.Response, upgrade bool) []byte {
	switch {
	case upgrade: // RFC 8441, 5: what HTTP/1.1 says with 101
		r.Status, r.Length = 200, -1
	case s.desk.x.Request.WebSocket && r.Status/100 == 2:
		// The client would take it for that. Who was asked knows nothing of WebSockets here.
		r.Status = 502
	}
	s.head = r
	return out
}

func (s *streamed) say(a, b []byte, last bool) error {
	p := part{head: s.head, a: a, b: b, last: last}
	if last {
		p.trailers = s.tail
	}
	if s.head != nil {
		p.date = s.engine.date.at(s.engine.conf.Now())
		s.head = nil
	} else if len(a)+len(b) == 0 && !last {
		return nil
	}
	if err := s.send(p); err != nil {
		return err
	}
	s.told = s.told || last
	return nil
}

func (s *streamed) send(p part) error {
	s.desk.pace = s.clientPace()
	l := limit{pace: &s.desk.pace, late: dataplane.ErrClientSlow}
	n, err := s.stream.send(p, &l)
	s.desk.x.Bytes.Out += int64(n)
	if err != nil {
		return lost(s, err)
	}
	return nil
}

func (s *streamed) interim(r *dataplane.Response) error {
	if r.Status == 101 {
		return nil
	}
	return s.send(part{head: r})
}

// trailed keeps field lines; which of them a stream may carry, its protocol says.
func (s *streamed) trailed(raw []byte, allowed [][]byte) {
	s.tail = http1.AppendTrailers(s.tail[:0], raw, allowed)
}

func (s *streamed) sayFile(r *dataplane.Response, f *dataplane.FileSection) error {
	s.appendHead(nil, r, false)
	buf := getBuffer()
	defer putBuffer(buf)
	for from, left := f.From, f.Size; ; {
		n, err := f.File.ReadAt(buf[:min(left, bufferBytes)], from)
		if n == 0 && left > 0 {
			return shortFile(err)
		}
		from, left = from+int64(n), left-int64(n)
		if err := s.say(buf[:n], nil, left == 0); err != nil || left == 0 {
			return err
		}
	}
}

func (s *streamed) tear() {} // a stream without an end is torn

func (s *streamed) interrupt(err error) {
	s.set(err)
	s.stream.wake()
}

// tunnel lets the client and u speak: bytes of the stream are bytes of the server's
// connection (RFC 8441, 5).
func (s *streamed) tunnel(u *serverConn, silence time.Duration) error {
	d := s.desk
	s.heard.Store(math.MaxInt64)
	d.rsp = nil
	t := &tunnel{silence: silence}
	t.last.Store(int64(now()))
	up := make(chan error, 1)
	go func() { // ends when one side has ended
		err := s.lift(t, u)
		if err != nil {
			s.interrupt(errTunnel)
			u.interrupt(errTunnel)
		}
		up <- err
	}()
	down := s.lower(t, u)
	if down != nil {
		s.interrupt(errTunnel)
		u.interrupt(errTunnel)
	}
	upErr := <-up
	switch {
	case errors.Is(down, dataplane.ErrDrained) || errors.Is(upErr, dataplane.ErrDrained):
		return dataplane.ErrDrained
	case down == nil && upErr == nil, errors.Is(down, errSilence), errors.Is(upErr, errSilence):
		return nil
	}
	return tunnelFault(down, upErr)
}

// lift carries what the client says to u, up to its end.
func (s *streamed) lift(t *tunnel, u *serverConn) error {
	wait := t.limit()
	b := getBuffer()
	defer putBuffer(b)
	for {
		n, err := s.stream.read(b[:], &wait)
		if err == io.EOF {
			send := t.limit()
			return u.closeWrite(&send)
		}
		if err != nil {
			return &spliceError{err: err}
		}
		s.desk.x.Bytes.In += int64(n)
		wait.since = t.note()
		send := t.limit()
		if err := u.write(b[:n], &send); err != nil {
			return &spliceError{writing: true, err: err}
		}
	}
}

// lower carries what u says to the client, up to its end.
func (s *streamed) lower(t *tunnel, u *serverConn) error {
	wait := t.limit()
	b := getBuffer()
	defer putBuffer(b)
	out := int64(0)
	defer func() { s.desk.x.Bytes.Out += out }()
	for {
		n, err := u.read(b[:], &wait)
		if err != nil && err != io.EOF {
			return &spliceError{err: err}
		}
		wait.since = t.note()
		send := t.limit()
		m, fault := s.stream.send(part{a: b[:n], last: err == io.EOF}, &send)
		out += int64(m)
		if fault != nil {
			return &spliceError{writing: true, err: fmt.Errorf("tunnel: %w", fault)}
		}
		if err == io.EOF {
			s.told = true
			return nil
		}
	}
}
