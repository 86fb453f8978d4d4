package engine

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A loopClient is the connection of one client. While it is idle it has no tray.
type loopClient struct {
	loopWire
	door    *door
	addr    netip.AddrPort
	id      uint64
	began   moment
	heard   moment               // by the queue's clock, when what it says now was first known of; 0: unknown
	tls     *secure              // nil: in clear
	state   *tls.ConnectionState // likewise
	tray    *tray
	phase   phase
	why     dataplane.Closing // it ends, once that is known
	inside  bool              // Admit said yes
	served  bool              // a request has come
	asked   bool              // Match was called and End was not
	keep    bool              // the connection will be used for another request
	retired bool              // it is to end as soon as it is idle
	eaten   int               // bytes read while lingering
	fronted *fronted          // not nil: the header of a proxy is awaited
	shake   *shaking          // not nil: there is a handshake
	named   *netip.AddrPort   // where the client connected to, if such a header says so
}

// A phase is what a client's connection is at.
type phase uint8

const (
	phaseIdle   phase = iota // no request yet, or not all of its head
	phaseAsk                 // the handler said Wait
	phaseDial                // a connection to the server is being made
	phaseSend                // the server has not taken all of the request
	phaseAwait               // the server has not sent all of its answer's head
	phaseRelay               // the answer's body is on its way
	phaseAnswer              // the client has not taken all of an answer made here
	phaseDrain               // the body of a request that was answered here is read away
	phaseRefuse              // likewise, of what never became a request
	phaseLinger              // our half is closed
	phaseFront               // a proxy has not said yet whose the connection is
	phaseShake               // a handshake of TLS
)

// welcome admits a connection, or closes it. It has entered already.
func (l *loop) welcome(d *door, fd int32, addr netip.AddrPort) {
	c := l.newClient()
	c.fd, c.door, c.addr, c.id, c.began = fd, d, addr, l.engine.side.ids.Add(1), now()
	l.busy = c // a panic of Admit is this connection's
	switch {
	case l.cutOff:
		l.closeClient(c)
	case d.listener.Front != nil:
		l.expectFront(c)
	case d.handler.Admit(d.listener, addr):
		c.inside = true
		l.takeIn(c, fd)
	default:
		l.closeClient(c)
	}
	l.busy = nil
}

// takeIn lets the loop wait for what a client has to say.
func (l *loop) takeIn(c *loopClient, fd int32) {
	if e := l.add(&c.loopWire, fd); e != 0 {
		l.closeClient(c)
		return
	}
	l.open(c)
}

// open begins to hear a client: its handshake first, if there is to be one.
func (l *loop) open(c *loopClient) {
	if c.door.listener.TLS != nil && c.state == nil {
		l.greet(c)
	} else {
		l.rest(c)
	}
}

// rest begins the wait for a request.
func (l *loop) rest(c *loopClient) {
	c.phase, c.heard = phaseIdle, 0
	lim := &c.door.listener.Limits
	switch {
	case c.retired || l.engine.side.draining.Load():
		l.wheel.set(&c.loopWire, now()+moment(l.engine.side.conf.IdleGrace))
	case !c.served && lim.HeaderTime > 0:
		l.wheel.set(&c.loopWire, c.began+moment(lim.HeaderTime))
	case c.served && lim.Idle > 0:
		l.wheel.set(&c.loopWire, now()+moment(lim.Idle))
	default:
		l.wheel.set(&c.loopWire, 0)
	}
}

// clientEvent is for what happens on a client's connection. What may be read is read only
// when a request may come: the rest waits in the kernel.
func (l *loop) clientEvent(c *loopClient, what readiness) {
	switch c.phase {
	case phaseIdle:
		l.hear(c)
	case phaseLinger:
		l.swallow(c)
	case phaseFront:
		l.hearFront(c)
	case phaseShake:
		l.toShake(c)
	case phaseAsk:
		if c.ended {
			l.departing(c)
		}
	case phaseDrain:
		l.drainBody(c)
	default:
		t := c.tray
		if t.owed() && what&(canWrite|broken) != 0 {
			l.flushClient(c)
		}
		switch {
		case c.tray != t:
		case t.up.on: // however much the client is owed: it may send all before it reads
			if c.ready && c.phase != phaseDial && c.phase != phaseSend {
				l.upload(c)
			}
		case c.ended && !t.owed():
			l.parting(c)
		}
	}
}

// clientDue is for a client's time that is up: its own, or that of the server it waits for.
func (l *loop) clientDue(c *loopClient, t moment) {
	switch c.phase {
	case phaseIdle:
		l.idleDue(c)
	case phaseLinger:
		l.closeClient(c)
	case phaseFront:
		l.frontDue(c)
	case phaseShake:
		l.shakeOver(c, dataplane.ErrHandshakeTime)
	case phaseAsk:
		if c.ended {
			l.forsake(c, dataplane.ErrClientGone)
		}
	case phaseDrain:
		l.drainSlow(c, t)
	case phaseAnswer, phaseRefuse:
		l.clientSlow(c, t)
	default:
		l.serverSlow(c, t)
	}
}

// idleDue ends a connection that has not sent a request in time.
func (l *loop) idleDue(c *loopClient) {
	switch {
	case c.tray != nil: // a part of a head
		l.refuse(c, errHeadTime)
	case c.retired || l.engine.side.draining.Load():
		// A request may have come in the meantime. It has its answer.
		c.ready = true
		if l.hear(c); c.fd >= 0 && c.phase == phaseIdle && c.tray == nil {
			c.why = closing(errDrainNow)
			l.linger(c)
		}
	case !c.served:
		l.refuse(c, errHeadTime)
	default:
		c.why = closing(errIdle)
		l.linger(c)
	}
}

// hear reads what an idle client has to say, and begins an exchange when that is a
// request. One call is one request at most: who sends many waits for others in between.
func (l *loop) hear(c *loopClient) {
	for c.phase == phaseIdle {
		read := c.tray == nil || c.tray.partial // else it was sent behind another request, and had to wait for that
		if read && (!c.ready || !l.listen(c)) {
			return
		}
		c.tray.read = read
		if !l.parse(c) {
			return
		}
	}
}

// listen reads once. It returns false if there is nothing more, or no connection.
func (l *loop) listen(c *loopClient) bool {
	t := c.tray
	b := l.in
	if t != nil {
		t.grow(c.door.listener.Limits.HeaderBytes)
		b = t.in[t.have:]
	}
	n, full, e := l.hearClient(c, b)
	switch {
	case e == eagain:
		c.ready = false
		return false
	case e != 0 || n == 0 && t == nil: // what is no record too
		c.why = closing(nil)
		l.closeClient(c)
		return false
	case n == 0:
		l.refuse(c, errHeadEnd)
		return false
	}
	c.ready = c.ended || full
	if t == nil {
		t = l.newTray(n)
		copy(t.in, b[:n])
		c.tray = t
	}
	t.have += n
	return true
}

// parse looks at what has been read. It returns true if more of the head is needed.
func (l *loop) parse(c *loopClient) (more bool) {
	t := c.tray
	x := &t.x
	d := c.door.listener
	lim := http1.LimitsOf(&d.Limits)
	if t.partial {
		if !t.scan.Ready(t.in[:t.have], lim) {
			return true
		}
		x.Request.Reset()
	} else {
		x.Listener, x.Client, x.TLS, x.ConnID = d, c.addr, c.state, c.id
		x.Times.Start = time.Now()
	}
	if !c.served && prefaced(d, t.in[:t.have]) {
		l.handOverHTTP2(c)
		return false
	}
	n, err := http1.ParseRequest(t.in[:t.have], &x.Request, lim)
	switch {
	case err != nil:
		l.refuse(c, err)
		return false
	case n > 0:
		x.Times.Head = x.Times.Start
		if t.partial {
			x.Times.Head = time.Now()
			t.partial = false
		}
		t.head, c.served = n, true
		l.begin(c)
		return false
	case !t.partial:
		t.partial = true
		t.scan = http1.Scanner{}
		t.scan.Ready(t.in[:t.have], lim) // it was parsed, in vain
		l.headDue(c)
	}
	return true
}

// headDue sets when the head must be complete.
func (l *loop) headDue(c *loopClient) {
	h := c.door.listener.Limits.HeaderTime
	switch {
	case h <= 0:
		l.wheel.set(&c.loopWire, 0)
	case c.served:
		l.wheel.set(&c.loopWire, momentOf(c.tray.x.Times.Start)+moment(h))
	default:
		l.wheel.set(&c.loopWire, c.began+moment(h))
	}
}

// refuse answers bytes that never became a request, if there is an answer to them.
func (l *loop) refuse(c *loopClient, err error) {
	c.why = closing(err)
	var m *dataplane.Malformed
	if !errors.As(err, &m) {
		l.closeClient(c)
		return
	}
	if c.tray != nil && c.tray.have > 0 {
		c.door.handler.Refused(c.door.listener, c.addr, err)
	}
	if m == errHeadEnd || !c.served && speechless(c.door.listener, m) {
		l.closeClient(c)
		return
	}
	if c.tray == nil {
		c.tray = l.newTray(0)
	}
	var r dataplane.Response
	refusal(&r, c.door.listener, m)
	l.out = http1.AppendResponse(l.out[:0], &r, http1.ResponseOptions{Minor: 1, Date: l.date()})
	c.phase = phaseRefuse
	l.flushed(c, l.tell(c, l.out, nil))
}

// date is the value of the Date field.
func (l *loop) date() []byte {
	g := l.engine.side
	return g.date.at(g.conf.Now())
}

// linger ends our side of the connection and reads what the client still sends, for a
// while, as the goroutine engine does.
func (l *loop) linger(c *loopClient) {
	l.partClient(c)
	if closeHalf(c.fd) != 0 {
		l.closeClient(c)
		return
	}
	l.dropTray(c)
	c.phase, c.eaten, c.ready = phaseLinger, 0, true
	l.wheel.set(&c.loopWire, now()+moment(l.engine.side.conf.Linger))
	l.swallow(c)
}

// swallow reads and drops what there is.
func (l *loop) swallow(c *loopClient) {
	for c.ready {
		n, e := readFD(uintptr(c.fd), l.in)
		if e == eagain {
			c.ready = false
			return
		}
		if c.eaten += n; e != 0 || n == 0 || c.eaten >= maxLinger {
			l.closeClient(c)
			return
		}
		c.ready = c.ended || n == len(l.in)
	}
}

// closeClient ends the connection.
func (l *loop) closeClient(c *loopClient) {
	l.letGo(c)
	l.unfronted(c)
	if c.inside {
		c.inside = false
		l.leave(c)
	}
	l.forget(c)
}

// leave tells the handler. Its panic is counted, and leaves nothing undone.
func (l *loop) leave(c *loopClient) {
	defer l.caught()
	c.door.handler.Leave(c.door.listener, c.addr, c.why)
}

// caught counts a panic.
func (l *loop) caught() {
	if p := recover(); p != nil {
		l.engine.side.conf.Panic(p)
	}
}

// letGo closes c's descriptor and gives back what it holds.
func (l *loop) letGo(c *loopClient) {
	fd := c.fd
	if fd < 0 {
		return
	}
	l.partClient(c)
	l.dropTray(c)
	if int(fd) < len(l.table) && l.table[fd] == &c.loopWire {
		l.remove(&c.loopWire)
	}
	c.fd = -1
	closeFD(fd)
}

// forget makes c ready to be another connection.
func (l *loop) forget(c *loopClient) {
	gen := c.gen
	*c = loopClient{}
	c.fd, c.gen, c.loopWire.client = -1, gen, c
	l.clients = append(l.clients, c)
	l.engine.left()
}

// dropTray gives c's tray back, with what was on it.
func (l *loop) dropTray(c *loopClient) {
	if t := c.tray; t != nil {
		c.tray = nil
		t.x.Reset()
		l.putTray(t)
	}
}

// abandon ends the exchange in which the handler panicked, and the connection. What the
// panic left behind is not used again.
func (l *loop) abandon(c *loopClient) {
	t := c.tray
	c.tray, c.why = nil, dataplane.ClosedError
	if t != nil {
		if u := t.server; u != nil {
			t.server = nil
			l.closeServer(u)
		}
		t.up.halt()
		t.pipe, t.piped = givePipe(t.pipe, t.piped), 0
		t.client = nil // whoever resumes it, and later c
		if c.asked {
			c.asked = false
			l.mourn(c, t)
		}
	}
	l.closeClient(c)
}

// mourn ends an exchange after a panic.
func (l *loop) mourn(c *loopClient, t *tray) {
	defer l.caught()
	c.door.handler.End(&t.x, errPanic)
}

func (l *loop) newClient() *loopClient {
	if n := len(l.clients); n > 0 {
		c := l.clients[n-1]
		l.clients = l.clients[:n-1]
		return c
	}
	c := &loopClient{}
	c.loopWire.client = c
	c.fd = -1
	return c
}
