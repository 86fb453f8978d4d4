package engine

import (
	"net/netip"

	"proxyd/internal/dataplane"
)

// expectFront waits for the header of the proxy that c is from, if it is one that stands
// before the listener.
func (l *loop) expectFront(c *loopClient) {
	d := c.door
	if !d.listener.Front.Await(d.listener, c.addr) {
		l.closeClient(c)
		return
	}
	c.fronted = &fronted{}
	c.phase = phaseFront
	if e := l.add(&c.loopWire, c.fd); e != 0 {
		l.closeClient(c)
		return
	}
	var due moment
	if h := d.listener.Limits.HeaderTime; h > 0 {
		due = c.began + moment(h)
	}
	if l.engine.side.draining.Load() {
		due = first(due, now()+moment(l.engine.side.conf.IdleGrace))
	}
	l.wheel.set(&c.loopWire, due)
}

// hearFront reads the header, and what follows it.
func (l *loop) hearFront(c *loopClient) {
	f := c.fronted
	if !f.look(uintptr(c.fd), (*[bufferBytes]byte)(l.in)) {
		return
	}
	if f.err != nil {
		l.closeFront(c, f.err)
		return
	}
	d, peer := c.door, c.addr
	c.fronted, c.addr, c.named = nil, f.client(peer), f.local()
	if !d.listener.Front.Heard(d.listener, peer, c.addr, nil) || !d.handler.Admit(d.listener, c.addr) {
		l.closeClient(c)
		return
	}
	c.inside = true
	l.open(c)
	switch c.ready = true; c.phase {
	case phaseIdle:
		l.hear(c)
	case phaseShake:
		l.toShake(c)
	}
}

// frontDue ends a connection whose header has not come in time.
func (l *loop) frontDue(c *loopClient) {
	err := error(errHeadTime)
	if l.engine.side.draining.Load() {
		err = dataplane.ErrDrained
	}
	l.closeFront(c, err)
}

// closeFront ends a connection of which nobody knows whose it is, since err.
func (l *loop) closeFront(c *loopClient, err error) {
	if c.fronted != nil {
		c.fronted.err = err
	}
	l.closeClient(c)
}

// unfronted tells the listener's front, once, that there is no header.
func (l *loop) unfronted(c *loopClient) {
	f := c.fronted
	if f == nil {
		return
	}
	c.fronted = nil
	defer l.caught()
	if f.err == nil {
		f.err = dataplane.ErrDrained
	}
	c.door.listener.Front.Heard(c.door.listener, c.addr, netip.AddrPort{}, f.err)
}
