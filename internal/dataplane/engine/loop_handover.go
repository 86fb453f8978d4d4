package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
)

// A loan is a connection that a loop has handed over to the goroutine engine, maybe for its
// handshake.
type loan struct {
	loop *loop
	door *door
	over bool // the connection is with the loop again
}

// lendTime is how long a connection stays with the goroutine engine after an exchange on
// a Heavy route, where the next is likely to be one too.
const lendTime = time.Second

var errLent = errors.New("idle, and wanted by its loop")

// handOver gives the connection to the goroutine engine, which goes on with its exchange
// after Match, or after what Begin has said if that is so.
func (l *loop) handOver(c *loopClient, said bool, verdict dataplane.Verdict) {
	t := c.tray
	x := t.x // with what it refers to in t.in: the tray is not used again
	x.Lag, x.Timed = nil, false
	if t.ticket != nil {
		t.ticket.void = true
	}
	h := l.handed(c)
	h.desk.x = x
	h.served, h.loan, h.head, h.asked = true, &loan{loop: l, door: c.door}, t.head, true
	if said {
		h.said = &verdict
	}
	l.part(c, h, h.serveLoan)
}

// handOverHTTP2 gives a connection away for good, since its client speaks HTTP/2.
func (l *loop) handOverHTTP2(c *loopClient) {
	h := l.handed(c)
	l.part(c, h, h.serve)
}

// handed returns what the goroutine engine makes of the connection, with what was read.
func (l *loop) handed(c *loopClient) *clientConn {
	h := &clientConn{peer: c.addr, id: c.id, began: c.began, inside: true, named: c.named, state: c.state}
	h.engine, h.handler, h.listener = l.engine.side, c.door.handler, c.door.listener
	if t := c.tray; t != nil {
		d := desks.Get().(*desk)
		if t.have > len(d.in) {
			d.in = make([]byte, t.have+bufferBytes)
		}
		copy(d.in, t.in[:t.have])
		h.desk, h.have = d, t.have
	}
	h.retired.Store(c.retired)
	return h
}

// part has h go on with c's connection, by serve.
func (l *loop) part(c *loopClient, h *clientConn, serve func()) {
	sealed := c.tls
	c.tray, c.inside, c.tls = nil, false, nil
	fd := c.fd
	unwatch(l.ep, fd)
	l.remove(&c.loopWire)
	go func() { // ends with the connection, or when it is given back
		if err := h.adopt(int(fd)); err != nil {
			h.lose(err)
			l.forgetLater(c)
			return
		}
		if sealed != nil {
			sealed.wire, h.tls = &h.wire, sealed
		}
		g := l.engine.side
		g.conns.add(h)
		l.forgetLater(c)
		if g.force.Err() != nil { // who interrupts all has not seen this one
			h.mu.Lock()
			h.cutAll(dataplane.ErrDrained)
			h.mu.Unlock()
		}
		serve()
	}()
}

// forgetLater forgets c in its loop, since it is counted elsewhere now.
func (l *loop) forgetLater(c *loopClient) {
	if !l.post(func() { l.forget(c) }) {
		l.engine.left()
	}
}

// adopt makes fd the connection.
func (c *clientConn) adopt(fd int) error {
	f := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return fmt.Errorf("a %T is no TCP connection", conn)
	}
	c.speak()
	return c.open(tcp)
}

// lose ends an exchange whose connection could not be taken over.
func (c *clientConn) lose(err error) {
	defer func() {
		if p := recover(); p != nil {
			c.engine.conf.Panic(p)
		}
	}()
	if c.desk != nil {
		closeBody(&c.desk.x.Response)
	}
	if c.greeted != nil {
		defer c.listener.TLS.Met(c.listener, c.peer, nil, 0, err)
	}
	defer c.handler.Leave(c.listener, c.peer, dataplane.ClosedError)
	if c.asked {
		c.handler.End(&c.desk.x, err)
	}
}

// serveLoan has the exchange at hand, and more while they are Heavy.
func (c *clientConn) serveLoan() {
	defer c.end()
	for c.one() {
		if !c.heavy && c.giveBack() || !c.request() {
			return
		}
	}
}

// giveBack returns an idle connection to its loop, with what was read of the next
// request.
func (c *clientConn) giveBack() bool {
	g := c.engine
	if g.draining.Load() {
		return false
	}
	fd, err := dupOf(c.tcp)
	if err != nil {
		return false
	}
	var read []byte
	if c.have > 0 {
		read = append(read, c.desk.in[:c.have]...)
	}
	l := c.loan.loop
	l.engine.entered()
	sealed := c.tls
	c.tls = nil // it goes along
	c.close()
	c.loan.over = l.post(func() { l.welcomeBack(c, int32(fd), sealed, read) })
	if !c.loan.over {
		unix.Close(fd)
		l.engine.left()
	}
	return true
}

// welcomeBack takes in a connection that was lent.
func (l *loop) welcomeBack(from *clientConn, fd int32, sealed *secure, read []byte) {
	c := l.newClient()
	c.fd, c.door, c.addr, c.id, c.began = fd, from.loan.door, from.peer, from.id, from.began
	c.inside, c.served, c.retired = true, from.served, from.retired.Load()
	if sealed != nil {
		sealed.wire, sealed.feed.fd, sealed.feed.drained = nil, fd, false
		c.tls, c.state = sealed, from.state
	}
	c.named = from.named
	if len(read) > 0 {
		t := l.newTray(len(read))
		if len(read) > len(t.in) {
			t.in = make([]byte, len(read))
		}
		t.have = copy(t.in, read)
		c.tray = t
	}
	if l.cutOff {
		l.closeClient(c)
		return
	}
	if l.takeIn(c, fd); c.fd >= 0 && (c.tray != nil || c.tls != nil) {
		c.ready = c.ready || c.tls != nil // crypto/tls may have something already
		l.later(&c.loopWire)
	}
}
