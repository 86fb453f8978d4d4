package engine

import (
	"errors"
	"fmt"
	"io"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// exchange has the handler decide about the request at hand and does what it says. It
// returns whether the connection can be used for another one.
func (c *clientConn) exchange() bool {
	d := c.desk
	x := &d.x
	d.body.begin(d.in[c.head:c.have], &x.Request)
	x.Bytes.In = int64(c.head)
	x.Resume = d.resume
	c.again = x.Request.KeepAlive && !c.retired.Load()
	if !c.asked {
		c.asked = true
		c.handler.Match(x)
	}
	c.heavy = x.Route.Heavy

	verdict, err := c.begin()
	switch verdict {
	case dataplane.Answer:
		err = c.answer()
	case dataplane.Next:
		err = c.forward()
	default:
		c.again = false
	}
	return c.finish(err)
}

// begin asks the handler what to do. The error is of an exchange that is to be closed.
func (c *clientConn) begin() (dataplane.Verdict, error) {
	for {
		verdict := c.begun()
		if verdict != dataplane.Gather {
			if why := c.interrupted(); why != nil && verdict == dataplane.Close {
				return verdict, why
			}
			return verdict, errClosed
		}
		if err := c.gather(); err != nil {
			return c.ask(func(x *dataplane.Exchange) dataplane.Verdict { return c.handler.Retry(x, err) }), err
		}
	}
}

// begun returns what the handler says to the request, or has said to the loop that the
// connection is from.
func (c *clientConn) begun() dataplane.Verdict {
	if c.loan != nil && c.loan.said {
		c.loan.said = false
		return c.loan.verdict
	}
	return c.ask(c.handler.Begin)
}

// ask calls one of the handler's methods, and again each time after it has said Wait and
// then called Resume. An exchange that is interrupted while it waits is closed.
func (c *clientConn) ask(method func(*dataplane.Exchange) dataplane.Verdict) dataplane.Verdict {
	for {
		v := method(&c.desk.x)
		if v != dataplane.Wait {
			return v
		}
		if !c.park(true) {
			return dataplane.Close
		}
		<-c.desk.resumed
		if !c.park(false) {
			return dataplane.Close
		}
	}
}

// park notes whether the exchange waits for the handler, so that the sweeper and a forced
// end wake it. It reports that neither has interrupted it.
func (c *clientConn) park(waits bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked = waits
	return c.interrupted() == nil
}

// finish tells the handler that the exchange is over and puts what was sent behind the
// request at the beginning of the buffer.
func (c *clientConn) finish(err error) bool {
	d := c.desk
	x := &d.x
	x.Bytes.In += d.body.taken
	c.asked = false
	c.handler.End(x, err)
	keep := x.Request.KeepAlive
	x.Reset()
	again := err == nil && c.again
	if !again {
		c.why = c.engine.parting(err, keep)
	}
	unread := !d.body.consumed() || len(d.body.behind) > 0
	if again {
		c.have = copy(d.in, d.body.behind)
	}
	d.body.release()
	if !again && err == nil && unread {
		c.linger()
	}
	return again
}

// parting says why there is no further exchange after one that ended with err.
func (g *Goroutine) parting(err error, keep bool) dataplane.Closing {
	switch {
	case err == nil && !keep:
		return dataplane.ClosedDone
	case err == nil && g.closing():
		return dataplane.ClosedDrain
	}
	return dataplane.ClosingOf(err)
}

// forward sends the request to a server and its answer to the client.
func (c *clientConn) forward() error {
	x := &c.desk.x
	body := &c.desk.body
	total := c.deadline()
	err := body.check(x.Route)
	if err == nil && len(x.Filters) > 0 {
		err = c.filterRequest()
	}
	for {
		if err == nil {
			var u *serverConn
			u, err = c.attempt(total)
			if err == nil {
				var told bool
				if told, err = c.respond(u, total); told {
					return err
				}
				if err == errAgain {
					err = nil
					continue
				}
			}
		}
		x.Replayable = body.atHand
		switch c.ask(func(x *dataplane.Exchange) dataplane.Verdict { return c.handler.Retry(x, err) }) {
		case dataplane.Again:
			err = nil
		case dataplane.Answer:
			return c.answer()
		default:
			c.again = false
			return err
		}
	}
}

// deadline returns when the exchange must be over; 0 is never.
func (c *clientConn) deadline() moment {
	x := &c.desk.x
	if t := x.Route.Timeout.Total; t > 0 {
		return momentOf(x.Times.Start) + moment(t)
	}
	return 0
}

// attempt sends the request to x.Server and returns when the head of the final answer is
// in x.Response.
//
// A kept connection that ends before a byte of the answer has told nothing about the
// server, which is dialled once more if nothing was sent or the request can be sent
// twice.
func (c *clientConn) attempt(total moment) (*serverConn, error) {
	x := &c.desk.x
	k := c.engine.keptOf(x.Server)
	x.Sent = false
	fresh := false
	begun := now()
	for {
		var u *serverConn
		if !fresh {
			u = k.take()
		}
		x.Times.Dial = 0
		if u == nil {
			dialled := time.Now()
			var err error
			if u, err = k.dial(c.engine.force, connectTime(&x.Route.Timeout), total); err != nil {
				if c.engine.force.Err() != nil {
					err = dataplane.ErrDrained
				}
				return nil, err
			}
			x.Times.Dial = time.Since(dialled)
		} else {
			c.engine.counts.reuses.Add(1)
		}
		err := c.attach(u)
		if err == nil {
			err = c.try(u, begun, total)
		}
		if err == nil {
			return u, nil
		}
		c.detach()
		u.close()
		c.desk.body.join()
		switch {
		case errors.Is(err, errStale):
			x.Sent = false
			continue
		case u.reused && errors.Is(err, errEnded) && (!x.Sent || x.Request.Method.Idempotent()) && c.desk.body.atHand:
			fresh, x.Sent = true, false
			continue
		}
		return nil, err
	}
}

// connectTime is how long a connect may take.
func connectTime(t *dataplane.Timeouts) time.Duration {
	if t.PerTry > 0 && (t.Connect == 0 || t.PerTry < t.Connect) {
		return t.PerTry
	}
	return t.Connect
}

// errEnded is within the error of an attempt whose connection ended before a byte of the
// answer.
var errEnded = errors.New("ended before the answer")

// errUnasked is about a new connection.
var errUnasked = errors.New("ended, or spoke, before it was asked")

// errTryTime is that an attempt took longer than the route allows one.
var errTryTime = fmt.Errorf("%w: the attempt took too long", dataplane.ErrReadTime)

// try sends the request on u and reads up to the end of the final answer's head. begun is
// when the attempt began.
func (c *clientConn) try(u *serverConn, begun, total moment) error {
	d := c.desk
	x := &d.x
	if x.Route.WebSocket && x.Request.WebSocket && x.Request.Header.Get(dataplane.Connection) == nil {
		x.Request.Header.Add(dataplane.Connection, []byte("Connection"), []byte("upgrade"))
	}
	d.body.unsent = false
	d.out = d.body.appendAtHand(http1.AppendRequest(d.out[:0], &x.Request))
	send := limit{each: x.Route.Timeout.Send, late: dataplane.ErrSendTime, until: total, over: dataplane.ErrTotalTime}
	read := limit{each: x.Route.Timeout.Read, late: dataplane.ErrReadTime, until: total, over: dataplane.ErrTotalTime}
	x.Times.Sent = time.Now()
	read.since = momentOf(x.Times.Sent)
	send.since = read.since

	if !d.body.whole {
		return c.tryStreaming(u, &send, &read)
	}
	if t := x.Route.Timeout.PerTry; t > 0 {
		send.within(begun+moment(t), errTryTime)
		read.within(begun+moment(t), errTryTime)
	}
	n, sent, err := u.turn(d.out, d.rsp, &read)
	x.Sent = sent > 0
	if err == nil && n == 0 {
		if err = u.write(d.out[sent:], &send); err != nil {
			return c.blame(u, err, dataplane.ErrSend)
		}
		x.Sent = true
		read.since = send.since
		n, err = u.read(d.rsp, &read)
	}
	if err != nil {
		return c.blameFirst(u, err)
	}
	return c.heads(u, n, &read)
}

// blameFirst is blame for the read of the answer's first byte.
func (c *clientConn) blameFirst(u *serverConn, err error) error {
	if err == errStale {
		if u.reused {
			return err
		}
		return fmt.Errorf("%w: %w", dataplane.ErrRead, errUnasked) // A11
	}
	whole := c.blame(u, err, dataplane.ErrRead)
	if errors.Is(whole, dataplane.ErrRead) {
		return fmt.Errorf("%w: %w", whole, errEnded)
	}
	return whole
}

// blame says what the failure of a read or write on u means: what interrupted it or a
// limit that has passed, or else kind.
func (c *clientConn) blame(u *serverConn, err, kind error) error {
	switch why := u.interrupted(); {
	case why != nil:
		return why
	case errors.Is(err, dataplane.ErrReadTime), errors.Is(err, dataplane.ErrSendTime), errors.Is(err, dataplane.ErrTotalTime):
		return err
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// maxInterim is how many interim responses a server may send (A11).
const maxInterim = 8

// heads reads response heads, of which n bytes are there, passes interim ones on and
// leaves the final one in x.Response.
func (c *clientConn) heads(u *serverConn, n int, read *limit) error {
	d := c.desk
	x := &d.x
	if c.movable && !c.waits.CompareAndSwap(true, false) {
		return dataplane.ErrServerDown // the sweeper has just given it up
	}
	lim := http1.Limits{HeaderBytes: maxResponseHead, Fields: maxFieldsServer}
	isHead := x.Request.Method == dataplane.HEAD
	for interim := 0; ; {
		x.Response.Reset()
		head, err := 0, error(nil)
		if n > 0 {
			head, err = http1.ParseResponse(d.rsp[:n], &x.Response, isHead, lim)
		}
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", dataplane.ErrResponse, err)
		case head == 0:
			if n == len(d.rsp) {
				d.rsp = append(d.rsp, make([]byte, maxResponseHead-len(d.rsp))...)
			}
			m, err := u.read(d.rsp[n:], read)
			if err != nil {
				return c.blame(u, err, dataplane.ErrRead)
			}
			n += m
			read.since = now()
			c.heard.Store(int64(read.since))
			continue
		case x.Response.Status >= 200:
			x.Times.FirstByte = time.Now()
			d.head, d.got = head, n
			return nil
		case x.Response.Status == 101:
			if why := c.switched(); why != "" {
				return refusedResponse("upgrade", why)
			}
			x.Times.FirstByte = time.Now()
			d.head, d.got = head, n
			return nil
		}
		if interim++; interim > maxInterim {
			return refusedResponse("interim_flood", "")
		}
		if err := c.interim(); err != nil {
			return err
		}
		n = copy(d.rsp, d.rsp[head:n])
		read.since = now()
	}
}

func refusedResponse(reason, detail string) error {
	return fmt.Errorf("%w: %w", dataplane.ErrResponse, &dataplane.Malformed{Status: 502, Reason: reason, Detail: detail})
}

// interim passes an interim response on to a client that knows them.
func (c *clientConn) interim() error {
	d := c.desk
	r := &d.x.Response
	if r.Status == 100 {
		d.body.awaited.Store(false)
	}
	if d.x.Request.Minor == 0 {
		return nil
	}
	http1.StripHop(&r.Header, r.Nominated, false)
	return c.say(http1.Append1xx(make([]byte, 0, 512), r), nil)
}

// say writes to the client and counts.
func (c *clientConn) say(a, b []byte) error {
	c.desk.pace = c.clientPace()
	l := limit{pace: &c.desk.pace, late: dataplane.ErrClientSlow}
	size := int64(len(a) + len(b))
	var err error
	if len(b) <= copyBelow {
		err = c.write(append(a, b...), &l)
	} else {
		err = c.writeTwo(a, b, &l)
	}
	if err != nil {
		return c.lost(err)
	}
	c.desk.x.Bytes.Out += size
	return nil
}

// copyBelow is up to which size copying is cheaper than a vector.
const copyBelow = 4 << 10

// lost says what a failed write to the client means.
func (c *clientConn) lost(err error) error {
	if why := c.interrupted(); why != nil {
		return why
	}
	if errors.Is(err, dataplane.ErrClientSlow) {
		return err
	}
	return fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
}
