package engine

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"slices"
	"time"

	"proxyd/internal/dataplane"
)

// A shaking is the handshake of one connection at a loop. The loop reads and writes, the
// shaker computes in between, a share of each turn. Handshakes that may take long are the
// goroutine engine's, as soon as that shows.
type shaking struct {
	conf   *tls.Config
	by     *shaker // nil until the client has said something
	over   error   // why the client is not waited for any more
	rest   backlog // what the socket has not taken of our part
	queued bool    // in loop.shakes
	done   bool    // but for rest
}

// shakeShare is for how long a loop has handshakes in one turn. Those that wait for another
// turn cannot delay the requests of other connections by more than this and one step, which
// with the keys of today takes a quarter of a millisecond.
const shakeShare = 250 * time.Microsecond

// greet begins a handshake, if there is room for one more.
func (l *loop) greet(c *loopClient) {
	d := c.door.listener
	conf := d.TLS.Greet(d, c.addr)
	if conf == nil {
		c.why = dataplane.ClosedError
		l.closeClient(c)
		return
	}
	c.phase, c.shake = phaseShake, &shaking{conf: conf}
	var due moment
	if t := d.Limits.HandshakeTime; t > 0 {
		due = c.began + moment(t)
	}
	l.wheel.set(&c.loopWire, due)
}

// toShake has the handshake go on when it is its turn.
func (l *loop) toShake(c *loopClient) {
	if h := c.shake; !h.queued {
		h.queued = true
		l.shakes = append(l.shakes, leftover{&c.loopWire, c.gen})
	}
}

// shakeSome goes on with handshakes, in the order in which their clients were heard, until
// the loop's share of time for them is used.
func (l *loop) shakeSome() {
	if len(l.shakes) == 0 {
		return
	}
	for until := now() + moment(shakeShare); len(l.shakes) > 0; {
		p := l.shakes[0]
		l.shakes = append(l.shakes[:0], l.shakes[1:]...)
		if c := p.wire.client; p.wire.is(p.gen) && c.shake != nil {
			c.shake.queued = false
			l.busy = c
			l.shakeOn(c)
			l.busy = nil
			if now() >= until {
				return
			}
		}
	}
}

// shakeOn has one step of a handshake.
func (l *loop) shakeOn(c *loopClient) {
	h := c.shake
	if _, e := h.rest.send(c.fd); e != 0 {
		h.over = os.NewSyscallError("write", e)
	}
	switch {
	case h.over != nil:
		l.endShake(c)
		return
	case h.rest.pending():
		return
	case h.done:
		l.shaken(c)
		return
	case !c.ready:
		return
	case h.conf.ClientAuth != tls.NoClientCert: // there may be a chain to judge
		l.shakeAside(c)
		return
	}
	n, e := readFD(uintptr(c.fd), l.in)
	if c.ready = false; e == eagain {
		return
	}
	if h.by == nil {
		c.tls = &secure{peer: c.addr, feed: feed{fd: c.fd, careful: true}}
		h.by = l.newShaker()
		h.by.begin(c.tls, h.conf)
	}
	f := &c.tls.feed
	f.fault, f.end = e, e == 0 && n == 0
	f.rest, f.drained = l.in[:max(n, 0)], n < len(l.in) && !c.ended
	l.shakeCame(c, h.by.next())
}

// shakeCame goes on after a step.
func (l *loop) shakeCame(c *loopClient, came shakeEvent) {
	h, f := c.shake, &c.tls.feed
	if came == shakeDone && errors.Is(h.by.err, errLong) {
		l.shakeAside(c)
		return
	}
	if h.over == nil && h.by.err == nil {
		if out := c.tls.take(); len(out) > 0 {
			h.by.hears = false
			n, e := writeFD(uintptr(c.fd), out)
			if e != 0 && e != eagain {
				h.over = os.NewSyscallError("write", e)
			}
			h.rest.add(out[n:])
			giveSealed(out)
		}
	}
	f.rest = bytes.Clone(f.rest) // of what is the loop's to read into
	if len(f.rest) == 0 {
		f.rest = nil
	}
	h.done = came == shakeDone
	switch {
	case h.over != nil || h.by.err != nil:
		l.endShake(c)
	case h.rest.pending():
	case h.done:
		l.shaken(c)
	}
}

// shakeAside gives a handshake that may take long, and of which the client has been told
// nothing, to the goroutine engine, which begins it again by what the client has said so far.
func (l *loop) shakeAside(c *loopClient) {
	h := c.shake
	aside := l.handed(c)
	aside.greeted, aside.loan = h.conf, &loan{loop: l, door: c.door}
	if k := h.by; k != nil {
		aside.hello = slices.Concat(k.heard, c.tls.feed.rest)
		giveSealed(c.tls.take())
		l.giveShaker(k)
	}
	c.shake, c.tls = nil, nil
	l.part(c, aside, aside.serve)
}

// shakeOver ends a handshake that is not waited for any more.
func (l *loop) shakeOver(c *loopClient, err error) {
	c.shake.over = err
	l.endShake(c)
}

// endShake ends a connection whose handshake has failed, or is to fail because of over.
func (l *loop) endShake(c *loopClient) {
	h, s, err := c.shake, c.tls, c.shake.over
	if h.by != nil {
		if !h.done {
			s.feed.quit(h.over)
			for h.by.next() != shakeDone {
			}
		}
		if err == nil {
			err = h.by.err
		}
		l.giveShaker(h.by)
	}
	err = plainly(err)
	c.shake, c.tls = nil, nil
	d := c.door
	var answer []byte
	if s != nil {
		answer = s.take()
		defer giveSealed(answer)
	}
	c.why, answer = l.engine.side.unshaken(d.listener, d.handler, c.addr, err, answer)
	d.listener.TLS.Met(d.listener, c.addr, nil, spanOf(now()-c.began), err)
	if len(answer) > 0 && !l.cutOff {
		if n, _ := writeFD(uintptr(c.fd), answer); n == len(answer) {
			l.linger(c)
			return
		}
	}
	l.closeClient(c)
}

// shaken goes on with a connection whose handshake is over: here, or in the goroutine engine
// if its client wants another protocol than HTTP/1.1.
func (l *loop) shaken(c *loopClient) {
	l.giveShaker(c.shake.by)
	c.shake = nil
	s, d := c.tls, c.door
	s.shaker, s.feed.careful = nil, false
	if c.ready { // since the last read
		s.feed.drained = false
	}
	s.feed.records = 0 // none but those of the handshake were given
	state := s.conn.ConnectionState()
	c.state = &state
	took := spanOf(now() - c.began)
	c.began = now() // of the time for a head
	d.listener.TLS.Met(d.listener, c.addr, c.state, took, nil)
	switch state.NegotiatedProtocol {
	case challengeProtocol:
		c.why = dataplane.ClosedDone
		l.closeClient(c)
		return
	case "h2":
		promptly(c.fd)
		l.handOverHTTP2(c)
		return
	}
	l.rest(c)
	c.ready = true // what may have come behind the handshake
	if l.hear(c); c.fd >= 0 && c.phase == phaseIdle && c.tray == nil {
		promptly(c.fd)
	}
}
