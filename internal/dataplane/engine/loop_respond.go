package engine

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A loopReply is a reply that a loop relays.
type loopReply struct {
	reply
	head    int  // bytes of the answer's head
	told    bool // something may have reached the client
	last    bool // the server's connection ends with it
	early   bool // it began before the request was sent to its end
	copying bool // there are no pipes
}

// open begins the answer in x, whose head is that many bytes.
func (r *loopReply) open(x *dataplane.Exchange, head int, early bool) {
	*r = loopReply{head: head, early: early, last: early || x.Response.Close}
	r.begin(&x.Request, &x.Response, x.Route.Trailers)
}

// roundBytes is how much of one body is moved before others have their turn.
const roundBytes = 1 << 20

// answer sends x.Response, made here.
func (l *loop) answer(c *loopClient) {
	t := c.tray
	x := &t.x
	r := &x.Response
	frameAnswer(x)
	// A small rest of the body is read away, so that the connection can be used again.
	drain := t.body.left(maxDrain) && !x.Request.Continue
	c.keep = c.keep && !r.Close && (t.body.whole || drain) && !c.retired && !l.engine.side.closing()
	l.out = http1.AppendResponse(l.out[:0], r, l.options(c))
	body := r.Body
	if r.NoBody {
		body = nil
	}
	c.phase = phaseAnswer
	l.flushed(c, l.tellAll(c, l.out, body))
}

// options are how a response head is written for c.
func (l *loop) options(c *loopClient) http1.ResponseOptions {
	x := &c.tray.x
	o := http1.ResponseOptions{Minor: x.Request.Minor, KeepAlive: c.keep}
	if x.Response.Header.Get(dataplane.Date) == nil {
		o.Date = l.date()
	}
	return o
}

// respond sends the answer, whose head is in x.Response.
func (l *loop) respond(c *loopClient) {
	t := c.tray
	x := &t.x
	r := &t.reply
	// An answer to a request that has not been sent to its end: nobody can tell what
	// either side will make of the rest, so both connections end with the answer.
	c.keep = c.keep && !r.early && !c.retired && !l.engine.side.closing() && r.ends() && !(x.Request.WebSocket && len(t.body.behind) > 0)
	in := l.said(t)
	out, body, err := r.take(http1.AppendResponse(l.out[:0], &x.Response, l.options(c)), in[r.head:])
	l.out = out[:0]
	if err != nil {
		c.keep = false
		l.leaveServer(t)
		l.retry(c, err)
		return
	}
	c.phase = phaseRelay
	r.told = true
	if r.done {
		l.giveBack(c) // the server's connection is free however long the client takes
		err = l.tellAll(c, out, body)
	} else {
		err = l.tell(c, out, body)
	}
	if err != nil {
		l.breakOff(c, err)
		return
	}
	if r.done {
		if !t.down.pending() {
			l.finish(c, nil)
		} else if l.cutOff {
			l.breakOff(c, dataplane.ErrDrained)
		}
		return
	}
	l.keepReply(t, t.got) // the response's fields lie in it
	l.resumeRelay(c)
}

// giveBack keeps the server's connection, or ends it, when its answer is complete.
func (l *loop) giveBack(c *loopClient) {
	t := c.tray
	u := t.server
	t.server = nil
	t.up.halt()
	if t.reply.surplus || t.reply.last {
		l.closeServer(u)
		return
	}
	l.keepServer(u, t.x.Route.Timeout.Idle)
}

// turnDown is done with an answer that the client does not get. The connection is used
// again if all of the answer has come already.
func (l *loop) turnDown(c *loopClient) {
	t := c.tray
	out, _, err := t.reply.take(l.out[:0], l.said(t)[t.reply.head:])
	l.out = out[:0]
	if err != nil || !t.reply.done {
		t.reply.last = true
	}
	l.giveBack(c)
}

// resumeRelay goes on with an answer's body when the client can take more.
func (l *loop) resumeRelay(c *loopClient) {
	t := c.tray
	if t.owed() {
		if l.cutOff {
			l.breakOff(c, dataplane.ErrDrained)
		}
		return
	}
	t.since = now() // the client's time is not the server's
	l.pump(c)
}

// pump moves what there is of an answer's body.
func (l *loop) pump(c *loopClient) {
	t := c.tray
	if t.owed() {
		return
	}
	u := t.server
	r := &t.reply
	for moved := 0; u.ready; {
		if moved >= roundBytes {
			l.later(&c.loopWire)
			return
		}
		n, more := 0, false
		if r.kind == counted && !r.copying && c.tls == nil && (t.pipe != nil || r.left >= spliceFrom) {
			n, more = l.splice(c)
		} else {
			n, more = l.carry(c)
		}
		if !more {
			return
		}
		moved += n
	}
	l.mind(c)
}

// carry reads a part of the body and writes it. It returns false if the relay is over, or
// has to wait for the client; of a wait for the server u.ready tells.
func (l *loop) carry(c *loopClient) (n int, more bool) {
	t := c.tray
	u := t.server
	r := &t.reply
	in := l.rsp
	if r.kind == counted {
		in = in[:min(r.left, int64(len(in)))]
	}
	n, e := readFD(uintptr(u.fd), in)
	switch {
	case e == eagain:
		u.ready = false
		return 0, true
	case e == 0 && n == 0 && r.kind == untilClose:
		r.done = true
		l.giveBack(c)
		var err error
		if !r.plain {
			err = l.tell(c, http1.LastChunk, nil)
		}
		return 0, l.relayed(c, err)
	case e != 0 || n == 0:
		l.breakOff(c, cutShort(e))
		return 0, false
	}
	u.ready = u.ended || n == len(in)
	t.since = now()
	out, body, err := r.take(l.out[:0], in[:n])
	l.out = out[:0]
	if err != nil {
		l.breakOff(c, err)
		return 0, false
	}
	if r.done {
		l.giveBack(c)
	}
	return n, l.relayed(c, l.tell(c, out, body))
}

// relayed looks at what became of a part that was told to the client. It returns true if
// the next can follow.
func (l *loop) relayed(c *loopClient, err error) bool {
	t := c.tray
	switch {
	case err != nil:
		l.breakOff(c, err)
	case t.owed():
		if l.cutOff {
			l.breakOff(c, dataplane.ErrDrained)
		}
	case t.reply.done:
		l.finish(c, nil)
	default:
		return true
	}
	return false
}

// cutShort is the error of an answer that ends too soon.
func cutShort(e syscall.Errno) error {
	err := error(io.ErrUnexpectedEOF)
	if e != 0 {
		err = os.NewSyscallError("read", e)
	}
	return fmt.Errorf("%w: %w", dataplane.ErrRead, err)
}

// splice moves a part of the body within the kernel.
func (l *loop) splice(c *loopClient) (n int, more bool) {
	t := c.tray
	u := t.server
	r := &t.reply
	if t.pipe == nil {
		if t.pipe, _ = pipes.Get().(*pipe); t.pipe == nil {
			r.copying = true
			return 0, true
		}
	}
	most := int(min(r.left, pipeBytes))
	n, e := spliceFD(int(u.fd), t.pipe.w, most)
	switch {
	case e == eagain:
		u.ready = false
		return 0, true
	case e != 0 || n == 0:
		l.breakOff(c, cutShort(e))
		return 0, false
	}
	if n < most {
		// Servers send in pieces of 64 KB, of which the kernel moves one at a time, and a few
		// bytes of the last by themselves: those are not worth a packet.
		m, _ := spliceFD(int(u.fd), t.pipe.w, most-n)
		n += m
	}
	t.since = now()
	t.piped = n
	r.left -= int64(n)
	if r.left == 0 {
		r.done = true
		l.giveBack(c)
	}
	if _, e := l.drainPipe(c); e != 0 {
		return n, l.relayed(c, goneBy(e))
	}
	if t.piped > 0 {
		l.block(c)
	}
	return n, l.relayed(c, nil)
}

// drainPipe writes what the client takes of what is in the pipe.
func (l *loop) drainPipe(c *loopClient) (n int, e syscall.Errno) {
	t := c.tray
	for t.piped > 0 {
		m, e := spliceFD(t.pipe.r, int(c.fd), t.piped)
		if e == eagain {
			break
		}
		if e != 0 {
			return n, e
		}
		t.piped -= m
		n += m
	}
	t.x.Bytes.Out += int64(n)
	return n, 0
}

// breakOff ends an answer of which the client may have got a part.
func (l *loop) breakOff(c *loopClient, err error) {
	t := c.tray
	c.keep = false
	if t.reply.plain && t.reply.kind != counted {
		resetOnClose(c.fd) // nothing but a reset tells an HTTP/1.0 client
		if c.tls != nil {
			c.tls.torn = true
		}
	}
	if t.server != nil {
		l.leaveServer(t)
	}
	l.finish(c, err)
}

// finish tells the handler that the exchange is over. What was sent behind the request
// is the beginning of the next.
func (l *loop) finish(c *loopClient, err error) {
	t := c.tray
	x := &t.x
	x.Bytes.In += t.body.taken
	c.asked = false
	c.door.handler.End(x, err)
	if err != nil || !c.keep {
		c.why = l.engine.side.parting(err, x.Request.KeepAlive)
	}
	x.Reset()
	switch {
	case err != nil:
		l.closeClient(c)
		return
	case !c.keep && (!t.body.whole || len(t.body.behind) > 0 || c.ready):
		l.linger(c)
		return
	case !c.keep:
		l.closeClient(c)
		return
	}
	t.have = copy(t.in, t.body.behind)
	t.head = 0
	t.clear(l)
	if t.have == 0 {
		c.tray = nil
		l.putTray(t)
	}
	l.rest(c)
	if c.tray != nil || c.ready {
		l.later(&c.loopWire)
	}
}

// startDrain reads the rest of a body away after the answer, so that the next request
// can be read.
func (l *loop) startDrain(c *loopClient) {
	c.phase, c.ready = phaseDrain, true
	l.startUpload(c)
	l.drainBody(c)
}

// drainBody drops what there is of the body.
func (l *loop) drainBody(c *loopClient) {
	t := c.tray
	b := &t.body
	for b.rest > 0 {
		if !c.ready {
			if t.up.asked == 0 {
				t.up.asked = now()
			}
			l.wheel.set(&c.loopWire, t.up.pace.due(t.up.asked))
			return
		}
		part := l.in[:min(b.rest, int64(len(l.in)))]
		n, full, e := l.hearClient(c, part)
		if l.fromClient(c, n, full, e) != nil {
			c.keep = false
			break
		}
		b.rest -= int64(n)
		b.taken += int64(n)
	}
	l.finish(c, nil)
}

// drainSlow judges a client that does not send the rest of a body.
func (l *loop) drainSlow(c *loopClient, at moment) {
	if l.uploadSlow(c, at) != nil {
		c.keep = false
		l.finish(c, nil)
		return
	}
	l.wheel.set(&c.loopWire, c.tray.up.pace.due(at))
}

// spanOf is how long it is.
func spanOf(m moment) time.Duration { return time.Duration(m) }
