package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// begin has the handler decide about the request whose head is on c's tray.
func (l *loop) begin(c *loopClient) {
	t := c.tray
	x := &t.x
	t.body.begin(t.in[t.head:t.have], &x.Request, true)
	x.Bytes.In = int64(t.head)
	t.client = c
	x.Resume = t.resumer(l)
	c.keep = x.Request.KeepAlive && !c.retired
	c.asked = true
	c.door.handler.Match(x)
	if x.Route.Heavy || x.Request.WebSocket && x.Route.WebSocket {
		l.handOver(c, false, 0)
		return
	}
	if t.read {
		x.Lag, x.Timed = t.lagger(l), l.queue.turned != 0
	}
	l.ask(c, askBegin)
}

// kernelTick is how coarse the kernel's clock may be, by which it says since when bytes lie
// unread: HZ is 100 at the least.
const kernelTick = 10 * time.Millisecond

// lagger returns what Lag calls while the client is on the tray.
func (t *tray) lagger(l *loop) func() time.Duration {
	if t.lag == nil {
		t.lag = func() time.Duration {
			switch at := t.client.heard; {
			case at != 0:
				return spanOf(l.queue.clock - at)
			case t.x.Timed: // it came with its connection
				return max(unread(uintptr(t.client.fd))-kernelTick, 0)
			}
			return unread(uintptr(t.client.fd))
		}
	}
	return t.lag
}

// A ticket is what Resume of one exchange, or of several that never waited, refers to.
type ticket struct {
	tray *tray
	void bool // the exchange is over; the loop's alone to read
}

// resumer returns what Resume calls: it has an effect after each Wait of this exchange,
// and none when it is over.
func (t *tray) resumer(l *loop) func() {
	if t.ticket == nil {
		k := &ticket{tray: t}
		turn := func() {
			if !k.void {
				l.resume(t)
			}
		}
		t.ticket, t.resume = k, func() { l.post(turn) }
	}
	return t.resume
}

// resume asks again what the handler had said Wait to.
func (l *loop) resume(t *tray) {
	if c := t.client; c != nil && c.phase == phaseAsk {
		l.busy = c
		l.ask(c, t.wait)
		l.busy = nil
	}
}

// ask calls one of the handler's methods and does what it says.
func (l *loop) ask(c *loopClient, q question) {
	t := c.tray
	x := &t.x
	var v dataplane.Verdict
	switch q {
	case askBegin:
		v = c.door.handler.Begin(x)
	case askRespond:
		x.Replayable = t.body.atHand
		v = c.door.handler.Respond(x)
	case askRetry:
		v = c.door.handler.Retry(x, t.err)
	}
	if v == dataplane.Wait {
		c.phase, t.wait, t.waited = phaseAsk, q, true
		l.wheel.set(&c.loopWire, 0)
		if q == askRespond {
			l.keepReply(t, t.got)
		}
		if c.ended {
			l.departing(c)
		}
		return
	}
	switch {
	case v == dataplane.Gather, q == askBegin && v != dataplane.Close && len(x.Filters) > 0, v == dataplane.Answer && (x.Response.File != nil || x.Response.Read != nil) && t.server == nil:
		l.handOver(c, true, v)
	case v == dataplane.Answer:
		if t.server != nil {
			l.leaveServer(t)
		}
		l.answer(c)
	case q == askBegin && v == dataplane.Next:
		l.forward(c)
	case q == askRespond && v == dataplane.Next:
		l.respond(c)
	case q == askRespond && v == dataplane.Again:
		l.turnDown(c)
		l.attempt(c)
	case q == askRetry && v == dataplane.Again:
		t.fresh = false
		l.attempt(c)
	case q == askRetry:
		c.keep = false
		l.finish(c, t.err)
	default:
		if t.server != nil {
			l.leaveServer(t)
		}
		c.keep = false
		l.finish(c, errClosed)
	}
}

// forward sends the request to a server and its answer to the client.
func (l *loop) forward(c *loopClient) {
	t := c.tray
	x := &t.x
	t.total = 0
	if d := x.Route.Timeout.Total; d > 0 {
		t.total = momentOf(x.Times.Start) + moment(d)
	}
	if err := t.body.check(x.Route); err != nil {
		l.retry(c, err)
		return
	}
	l.attempt(c)
}

// retry asks what follows an attempt that failed before the client got a byte.
func (l *loop) retry(c *loopClient, err error) {
	t := c.tray
	t.err, t.x.Replayable = err, t.body.atHand
	l.ask(c, askRetry)
}

// attempt begins to send the request to x.Server.
func (l *loop) attempt(c *loopClient) {
	t := c.tray
	x := &t.x
	x.Sent, x.Times.Dial, t.tried = false, 0, 0
	if x.Route.Timeout.PerTry > 0 {
		t.tried = now()
	}
	if l.cutOff {
		l.retry(c, dataplane.ErrDrained)
		return
	}
	h := l.homeOf(x.Server)
	for !t.fresh {
		u := l.take(h)
		if u == nil {
			break
		}
		l.engine.side.counts.reuses.Add(1)
		// What happened to an idle connection came as an event, and ended it. Only what
		// has happened since this batch began is not known yet: too late for a request
		// that can be sent again, and looked for where it cannot.
		if (u.unread || !t.body.whole || !x.Request.Method.Idempotent()) && !l.look(u) {
			l.closeServer(u)
			continue
		}
		u.user, t.server = c, u
		l.send(c)
		return
	}
	u, err := l.dial(h, c)
	if err != nil {
		l.retry(c, err)
		return
	}
	t.server = u
	c.phase = phaseDial
	due := t.total
	if d := connectTime(&x.Route.Timeout); d > 0 {
		due = first(due, now()+moment(d))
	}
	l.wheel.set(&c.loopWire, due)
}

// dialled goes on when a connection is made, or is not.
func (l *loop) dialled(c *loopClient, u *loopServer) {
	x := &c.tray.x
	if err := u.connected(); err != nil {
		l.leaveServer(c.tray)
		l.retry(c, err)
		return
	}
	x.Times.Dial = time.Since(u.begun)
	// Whoever speaks, or leaves, before being asked anything is no HTTP server (A11).
	if !l.look(u) {
		l.fail(c, fmt.Errorf("%w: %w", dataplane.ErrRead, errUnasked))
		return
	}
	l.send(c)
}

// send writes the request as far as it is at hand.
func (l *loop) send(c *loopClient) {
	t := c.tray
	x := &t.x
	u := t.server
	l.out = t.body.appendAtHand(http1.AppendRequest(l.out[:0], &x.Request))
	x.Times.Sent = time.Now()
	t.since = momentOf(x.Times.Sent)
	t.interim, t.got = 0, 0
	t.body.unsent = false
	if l.batch.on && t.body.whole && len(l.out) <= joinBelow {
		t.up.add(l.out)
		c.phase = phaseSend
		l.join(&u.loopWire)
		return
	}
	n, e := writeFD(uintptr(u.fd), l.out)
	x.Sent = !t.body.whole
	if !t.body.whole {
		l.startUpload(c)
	}
	if n < len(l.out) {
		t.up.add(l.out[n:])
		c.phase = phaseSend
	}
	l.sent(c, n, e)
}

// sent goes on after a server was sent what is at hand of a request, or n bytes of it.
func (l *loop) sent(c *loopClient, n int, e syscall.Errno) {
	t := c.tray
	x := &t.x
	x.Sent = x.Sent || n > 0
	switch {
	case e != 0 && e != eagain && x.Sent:
		l.fail(c, fmt.Errorf("%w: %w", dataplane.ErrSend, os.NewSyscallError("write", e)))
	case e != 0 && e != eagain:
		l.fail(c, notHeard(os.NewSyscallError("write", e)))
	case t.up.pending():
		t.up.unacked = unacknowledged(uintptr(t.server.fd))
		l.mind(c)
	default:
		l.await(c)
	}
}

// after is since plus d, or 0 if d is no limit.
func (l *loop) after(since moment, d time.Duration) moment {
	if d <= 0 {
		return 0
	}
	return since + moment(d)
}

// sendRest goes on writing the head, and what came with it.
func (l *loop) sendRest(c *loopClient) {
	t := c.tray
	u := t.server
	n, e := t.up.send(u.fd)
	switch {
	case e != 0:
		l.fail(c, fmt.Errorf("%w: %w", dataplane.ErrSend, os.NewSyscallError("write", e)))
		return
	case n > 0:
		t.x.Sent, t.since = true, now()
		t.up.unacked = unacknowledged(uintptr(u.fd))
	}
	if t.up.pending() {
		l.mind(c)
		return
	}
	if l.await(c); c.tray == t && t.server == u && u.ready {
		l.hearServer(c)
	}
}

// await waits for what the server has to say, and for the rest of the request's body.
func (l *loop) await(c *loopClient) {
	c.phase = phaseAwait
	if c.tray.up.on {
		l.upload(c)
	} else {
		l.mind(c)
	}
}

// mind sets when an exchange is to be looked at, as it now stands.
func (l *loop) mind(c *loopClient) {
	t := c.tray
	var due moment
	if t.owed() {
		due = t.pace.due(t.blocked)
	} else if c.phase != phaseAnswer && c.phase != phaseRefuse {
		due = first(t.total, l.serverOwes(c))
	}
	if t.up.on {
		due = first(due, l.uploadDue(t))
	}
	l.wheel.set(&c.loopWire, due)
}

// serverOwes returns when the server will have kept us waiting for too long, or a client
// that has parted is to be given up. Nobody owes an answer while being sent to.
func (l *loop) serverOwes(c *loopClient) moment {
	t := c.tray
	switch {
	case c.phase == phaseSend:
		return first(l.after(t.since, t.x.Route.Timeout.Send), l.attemptDue(c))
	case c.phase == phaseAwait && t.up.on && !t.body.awaited.Load():
		return 0
	}
	due := first(l.after(t.since, t.x.Route.Timeout.Read), l.attemptDue(c))
	if c.ended && !t.up.on {
		due = first(due, now()+moment(l.engine.side.conf.Sweep))
	}
	return due
}

// attemptDue returns when the attempt will have taken too long: until the answer's head,
// and not while the client sends.
func (l *loop) attemptDue(c *loopClient) moment {
	t := c.tray
	if t.tried == 0 || t.up.on || c.phase != phaseSend && c.phase != phaseAwait {
		return 0
	}
	return l.after(t.tried, t.x.Route.Timeout.PerTry)
}

// parting is for a client that has closed its half, or all, while a server works for it.
// It may still read: it is served if the server is heard of soon.
func (l *loop) parting(c *loopClient) {
	switch {
	case c.broken:
		l.fail(c, dataplane.ErrClientGone)
	case c.phase == phaseAwait || c.phase == phaseRelay:
		l.mind(c)
	}
}

// departing is for a client that has closed its half, or all, while its exchange waits for
// the handler. It has a little time: it may still read.
func (l *loop) departing(c *loopClient) {
	if c.broken {
		l.forsake(c, dataplane.ErrClientGone)
		return
	}
	l.wheel.set(&c.loopWire, now()+moment(l.engine.side.conf.Sweep))
}

// forsake ends an exchange that waits for the handler.
func (l *loop) forsake(c *loopClient, err error) {
	if c.tray.server != nil {
		l.leaveServer(c.tray)
	}
	c.keep = false
	l.finish(c, err)
}

// serverSlow judges an exchange that has been waiting, at its due time.
func (l *loop) serverSlow(c *loopClient, at moment) {
	t := c.tray
	var err error
	switch {
	case c.phase == phaseDial:
		u := t.server
		late := dataplane.ErrConnectTime
		if t.total != 0 && at >= t.total {
			late = dataplane.ErrTotalTime
		}
		err := fmt.Errorf("%w: dial tcp %v: %w", late, u.home.server.Addr(), os.ErrDeadlineExceeded)
		l.leaveServer(t)
		l.retry(c, err)
		return
	case t.total != 0 && at >= t.total && !t.owed():
		err = dataplane.ErrTotalTime
	case c.phase == phaseSend, t.up.on:
		err = l.uploadSlow(c, at)
	}
	late := l.attemptDue(c)
	switch {
	case err != nil:
		l.fail(c, err)
	case late != 0 && at >= late:
		l.fail(c, errTryTime)
	case t.owed():
		l.clientSlow(c, at)
	case c.phase != phaseSend && !(c.phase == phaseAwait && t.up.on && !t.body.awaited.Load()) && l.serverLate(c, at):
		l.fail(c, dataplane.ErrReadTime)
	case c.ended && !t.up.on && at-t.since >= moment(l.engine.side.conf.Sweep):
		l.fail(c, dataplane.ErrClientGone)
	default:
		l.mind(c)
	}
}

// serverLate reports whether nothing was heard of the server for too long.
func (l *loop) serverLate(c *loopClient, at moment) bool {
	due := l.after(c.tray.since, c.tray.x.Route.Timeout.Read)
	return due != 0 && at >= due
}

// leaveServer ends the exchange's connection to its server.
func (l *loop) leaveServer(t *tray) {
	u := t.server
	t.server = nil
	t.up.halt()
	l.closeServer(u)
}

// notHeard is the error of an attempt that brought not a byte of an answer.
func notHeard(err error) error {
	return fmt.Errorf("%w: %w: %w", dataplane.ErrRead, err, errEnded)
}

// fail ends an attempt. A kept connection that ends before a byte of the answer has told
// nothing about the server, which is dialled once more if nothing was sent or the
// request can be sent twice.
func (l *loop) fail(c *loopClient, err error) {
	t := c.tray
	if c.phase == phaseRelay {
		l.breakOff(c, err)
		return
	}
	u := t.server
	reused := u != nil && u.reused
	if u != nil {
		l.leaveServer(t)
	}
	x := &t.x
	if reused && errors.Is(err, errEnded) && (!x.Sent || x.Request.Method.Idempotent()) && t.body.atHand {
		t.fresh = true
		l.attempt(c)
		return
	}
	l.retry(c, err)
}

// hearServer reads the head of the server's answer.
func (l *loop) hearServer(c *loopClient) {
	t := c.tray
	u := t.server
	for u.ready && !t.down.pending() {
		b := l.rsp
		if t.rsp != nil {
			if t.got == len(t.rsp) {
				t.rsp = append(t.rsp, make([]byte, maxResponseHead-len(t.rsp))...)
			}
			b = t.rsp[t.got:]
		}
		n, full, e := l.read(&u.loopWire, b)
		switch {
		case e == eagain:
			u.ready = false
			return
		case e != 0 || n == 0:
			l.fail(c, t.endedBy(e))
			return
		}
		u.ready = u.ended || full
		t.got += n
		if !l.heads(c) {
			return
		}
	}
}

// endedBy is the error of a server that ended, or broke, its connection before the head
// of its answer was complete.
func (t *tray) endedBy(e syscall.Errno) error {
	err := error(io.ErrUnexpectedEOF)
	if e != 0 {
		err = os.NewSyscallError("read", e)
	}
	if t.got > 0 || t.interim > 0 {
		return fmt.Errorf("%w: %w", dataplane.ErrRead, err)
	}
	return notHeard(err)
}

// said is what the server has said of its answer so far.
func (l *loop) said(t *tray) []byte {
	if t.rsp != nil {
		return t.rsp[:t.got]
	}
	return l.rsp[:t.got]
}

// heads passes interim answers on, and the final one to respond. It returns true if more
// of the head is needed.
func (l *loop) heads(c *loopClient) (more bool) {
	t := c.tray
	x := &t.x
	lim := http1.Limits{HeaderBytes: maxResponseHead, Fields: maxFieldsServer}
	for {
		b := l.said(t)
		x.Response.Reset()
		head, err := 0, error(nil)
		if len(b) > 0 {
			head, err = http1.ParseResponse(b, &x.Response, x.Request.Method == dataplane.HEAD, lim)
		}
		switch {
		case err != nil:
			l.fail(c, fmt.Errorf("%w: %w", dataplane.ErrResponse, err))
			return false
		case head == 0:
			if len(b) > 0 {
				l.keepReply(t, t.got)
			}
			t.since = now()
			l.mind(c)
			return true
		case x.Response.Status == 101: // upgrades are the goroutine engine's
			l.fail(c, refusedResponse("upgrade", "not asked for"))
			return false
		case x.Response.Status >= 200:
			x.Times.FirstByte = time.Now()
			t.since = momentOf(x.Times.FirstByte)
			t.reply.open(x, head, !t.body.whole || t.body.unsent || t.up.on)
			l.ask(c, askRespond)
			return false
		}
		if x.Response.Status == 100 {
			t.body.awaited.Store(false)
		}
		if t.interim++; t.interim > maxInterim {
			l.fail(c, refusedResponse("interim_flood", ""))
			return false
		}
		if x.Request.Minor > 0 {
			http1.StripHop(&x.Response.Header, x.Response.Nominated, false)
			if err := l.tell(c, http1.Append1xx(l.out[:0], &x.Response), nil); err != nil {
				l.fail(c, err)
				return false
			}
		}
		t.got = copy(b, b[head:])
		t.since = now()
	}
}
