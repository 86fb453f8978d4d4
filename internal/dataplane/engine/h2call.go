package engine

import (
	"errors"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http2"
)

// An h2call is a stream of HTTP/2 to a server, as the serverConn of one exchange.
type h2call struct {
	link    *h2link
	stop    *stop // of the serverConn
	flow    http2.Call
	in, out chan struct{} // who reads, and who sends, is to look again
	asked   bool          // the request's head was sent
	begun   moment        // when
}

func (c *h2call) wake() {
	signal(c.in)
	signal(c.out)
}

// ask sends the head of the request; last is that there is no body.
func (c *h2call) ask(q *dataplane.Request, last bool) error {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil || !l.state.Ask(&c.flow, q, l.scheme(), last) {
		return http2.ErrRefused
	}
	c.asked, c.begun = true, now()
	l.kick()
	return nil
}

func (l *h2link) scheme() string {
	if l.u.how != nil {
		return "https"
	}
	return "http"
}

// write sends a part of the request's body, and its end if this is the last of it.
func (c *h2call) write(b []byte, last bool, lim *limit) error {
	l := c.link
	for {
		l.mu.Lock()
		n, err := l.state.Data(&c.flow, b, last)
		b = b[n:]
		done := len(b) == 0 && (!last || c.flow.Sent())
		if !done && err == nil {
			l.blocked = append(l.blocked, c)
		}
		l.kick()
		l.mu.Unlock()
		if err != nil || done {
			return err
		}
		if n > 0 {
			lim.since = now()
		}
		if err := c.await(c.out, lim); err != nil {
			return err
		}
	}
}

// end sends trailers, which are field lines, and the end of the request.
func (c *h2call) end(trailers []byte) error {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.state.EndWith(&c.flow, trailers)
	l.kick()
	return err
}

// head waits for the next head of the answer.
func (c *h2call) head(lim *limit) (*dataplane.Response, error) {
	for {
		c.link.mu.Lock()
		r, err := c.flow.Head()
		c.link.mu.Unlock()
		if r != nil || err != nil {
			return r, err
		}
		if err := c.await(c.in, lim); err != nil {
			return nil, err
		}
	}
}

// glance reads what there is of the answer's body: 0 and no error if there is nothing yet.
func (c *h2call) glance(b []byte) (int, error) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.state.Read(&c.flow, b)
	l.kick()
	return n, err
}

func (c *h2call) read(b []byte, lim *limit) (int, error) {
	for {
		if n, err := c.glance(b); n > 0 || err != nil {
			return n, err
		}
		if err := c.await(c.in, lim); err != nil {
			return 0, err
		}
	}
}

// empty reports whether the answer ended with its head.
func (c *h2call) empty() bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.flow.Empty()
}

// trailers returns the field lines behind the answer's body.
func (c *h2call) trailers() []byte {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.flow.Trailers()
}

// await waits until ch is signalled, as long as lim allows.
func (c *h2call) await(ch chan struct{}, lim *limit) error {
	for {
		if err := c.stop.interrupted(); err != nil {
			return err
		}
		due := lim.due(now())
		if due == 0 {
			<-ch
			return c.stop.interrupted()
		}
		timer := time.NewTimer(time.Duration(due - now()))
		select {
		case <-ch:
			timer.Stop()
			return c.stop.interrupted()
		case <-timer.C:
		}
		t := now()
		if lim.until != 0 && t >= lim.until {
			c.late()
			return lim.over
		}
		if lim.also != nil {
			lim.since = max(lim.since, lim.also(t))
		}
		if lim.each > 0 && t >= lim.since+moment(lim.each) {
			c.late()
			return lim.late
		}
	}
}

// late has the server asked whether it lives, if it has said nothing since the request.
func (c *h2call) late() {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.asked && l.heard < c.begun {
		l.ping(now())
	}
}

// close ends the stream. A connection that served is kept for life.
func (c *h2call) close(life time.Duration) {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.asked {
		l.state.Done(&c.flow)
	} else {
		l.state.Release()
	}
	if l.state.Open() == 0 {
		l.expires = max(l.expires, now()+moment(life))
		k := l.home
		if k.server.Gone() || k.engine.draining.Load() || l.u.how != k.server.TLS() {
			l.state.Retire()
		}
	}
	l.kick()
	l.halt()
}

// tryCall is try for a server that speaks HTTP/2.
func (e *exchange) tryCall(u *serverConn, begun moment, send, read *limit) error {
	d := e.desk
	x := &d.x
	b := &d.body
	c := u.call
	if b.size < 0 || b.filtered {
		e.take() // out of its framing
	}
	first := b.clear()
	empty := b.whole && len(first) == 0
	if err := c.ask(&x.Request, empty && len(b.tail()) == 0); err != nil {
		return e.blameFirst(u, err)
	}
	x.Sent = true
	if b.whole {
		if t := x.Route.Timeout.PerTry; t > 0 {
			send.within(begun+moment(t), errTryTime)
			read.within(begun+moment(t), errTryTime)
		}
	}
	err := c.write(first, b.whole && len(b.tail()) == 0, send)
	if err == nil && b.whole && len(b.tail()) > 0 {
		err = c.end(b.tail())
	}
	if err != nil && b.whole {
		b.unsent = true // an answer may have come all the same
		if !c.answered() {
			return e.blameFirst(u, err)
		}
	}
	if b.whole {
		read.since = now()
		return e.callHeads(u, read)
	}
	if err != nil {
		if u.interrupted() != nil || !c.answered() {
			return e.blameFirst(u, err)
		}
		b.unsent = true // the server has answered and wants no more of it (RFC 9113, 8.1)
		return e.callHeads(u, read)
	}
	s := &sender{e: e, u: u, done: make(chan struct{}), send: *send, until: send.until}
	s.heard.Store(int64(now()))
	b.sender = s
	e.engine.workers.run(s)
	read.also = s.since
	if t := x.Route.Timeout.PerTry; t > 0 && (read.each == 0 || t < read.each) {
		read.each, read.late = t, errTryTime
	}
	err = e.callHeads(u, read)
	if err != nil {
		u.interrupt(errHalt)
		b.join()
	}
	return err
}

// answered reports whether a head has come.
func (c *h2call) answered() bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	return c.flow.Answered()
}

// callHeads is heads for a server that speaks HTTP/2.
func (e *exchange) callHeads(u *serverConn, read *limit) error {
	d := e.desk
	x := &d.x
	for first := true; ; first = false {
		r, err := u.call.head(read)
		if err != nil && first {
			return e.blameFirst(u, err)
		}
		if err != nil {
			return e.blame(u, err, dataplane.ErrRead)
		}
		if first && e.movable && !e.waits.CompareAndSwap(true, false) {
			return dataplane.ErrServerDown // the sweeper has just given it up
		}
		x.Response = *r
		read.since = now()
		e.heard.Store(int64(read.since))
		if r.Status < 200 {
			if err := e.interim(); err != nil {
				return err
			}
			continue
		}
		x.Times.FirstByte = time.Now()
		d.head, d.got = 0, 0
		if u.call.empty() {
			if e.framed {
				x.Response.Length = max(x.Response.Length, 0)
			} else {
				x.Response.NoBody = true
			}
		}
		return nil
	}
}

// notTaken reports whether err says that the server has done nothing about the request, and so
// that it can be sent again whatever it is (RFC 9113, 8.7).
func notTaken(err error) bool { return errors.Is(err, http2.ErrRefused) }
