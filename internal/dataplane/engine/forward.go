package engine

import (
	"errors"
	"fmt"
	"io"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http2"
)

// begin asks the handler what to do. The error is of an exchange that is to be closed.
func (e *exchange) begin() (dataplane.Verdict, error) {
	for {
		verdict := e.begun()
		if verdict != dataplane.Gather {
			if why := e.client.interrupted(); why != nil && verdict == dataplane.Close {
				return verdict, why
			}
			return verdict, errClosed
		}
		if err := e.gather(); err != nil {
			return e.ask(func(x *dataplane.Exchange) dataplane.Verdict { return e.handler.Retry(x, err) }), err
		}
	}
}

// begun returns what the handler says to the request, or has said already to
// whom the exchange is from.
func (e *exchange) begun() dataplane.Verdict {
	if v := e.said; v != nil {
		e.said = nil
		return *v
	}
	return e.ask(e.handler.Begin)
}

// ask calls one of the handler's methods, and again each time after it has said Wait and
// then called Resume. An exchange that is interrupted while it waits is closed.
func (e *exchange) ask(method func(*dataplane.Exchange) dataplane.Verdict) dataplane.Verdict {
	for {
		v := method(&e.desk.x)
		if v != dataplane.Wait {
			return v
		}
		if !e.park(true) {
			return dataplane.Close
		}
		<-e.desk.resumed
		if !e.park(false) {
			return dataplane.Close
		}
	}
}

// park notes whether the exchange waits for the handler, so that the sweeper and a forced
// end wake it. It reports that neither has interrupted it.
func (e *exchange) park(waits bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.parked = waits
	return e.client.interrupted() == nil
}

// forward sends the request to a server and its answer to the client.
func (e *exchange) forward() error {
	x := &e.desk.x
	body := &e.desk.body
	total := e.deadline()
	err := body.check(x.Route)
	if !e.framed && !body.whole && body.size < 0 {
		e.take() // it has no framing to be taken out of
	}
	if err == nil && len(x.Filters) > 0 {
		err = e.filterRequest()
	}
	for {
		if err == nil {
			var u *serverConn
			u, err = e.attempt(total)
			if err == nil {
				var told bool
				if told, err = e.respond(u, total); told {
					return err
				}
				if err == errAgain {
					err = nil
					continue
				}
			}
		}
		x.Replayable = body.atHand
		switch e.ask(func(x *dataplane.Exchange) dataplane.Verdict { return e.handler.Retry(x, err) }) {
		case dataplane.Again:
			err = nil
		case dataplane.Answer:
			return e.answer()
		default:
			e.again = false
			return err
		}
	}
}

// deadline returns when the exchange must be over; 0 is never.
func (e *exchange) deadline() moment {
	x := &e.desk.x
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
func (e *exchange) attempt(total moment) (*serverConn, error) {
	x := &e.desk.x
	k := e.engine.keptOf(x.Server)
	x.Sent = false
	fresh, refused := false, 0
	begun := now()
	for {
		u, err := e.reach(k, fresh, total)
		if err != nil {
			return nil, err
		}
		err = e.attach(u)
		if err == nil {
			err = e.try(u, begun, total)
		}
		if err == nil {
			return u, nil
		}
		e.detach()
		u.close()
		e.desk.body.join()
		switch {
		case errors.Is(err, errStale):
			x.Sent = false
			continue
		case notTaken(err):
			x.Sent = false
			if refused++; refused <= mostRefused && e.desk.body.atHand {
				continue
			}
		case u.reused && errors.Is(err, errEnded) && (!x.Sent || x.Request.Method.Idempotent()) && e.desk.body.atHand:
			fresh, x.Sent = true, false
			continue
		}
		return nil, err
	}
}

// mostRefused is how often a server that did not take a stream is asked again at once: it may
// have been about to close the connection.
const mostRefused = 2

// reach returns a connection to x.Server: one that was kept unless fresh is set, or a new one.
func (e *exchange) reach(k *kept, fresh bool, total moment) (u *serverConn, err error) {
	x := &e.desk.x
	x.Times.Dial = 0
	begun := time.Now()
	if k.server.HTTP2() {
		if u, err = k.call(e.engine.force, connectTime(&x.Route.Timeout), total); err == nil {
			if u.life = x.Route.Timeout.Idle; !u.reused {
				x.Times.Dial = time.Since(begun)
			}
			return u, nil
		}
	} else {
		if !fresh {
			if u = e.takeKept(k); u != nil {
				e.engine.counts.reuses.Add(1)
				return u, nil
			}
		}
		if u, err = e.dial(k, total); err == nil {
			x.Times.Dial = time.Since(begun)
			return u, nil
		}
	}
	if e.engine.force.Err() != nil {
		err = dataplane.ErrDrained
	}
	return nil, err
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
func (e *exchange) try(u *serverConn, begun, total moment) error {
	d := e.desk
	x := &d.x
	if x.Route.WebSocket && x.Request.WebSocket && u.call == nil && x.Request.Header.Get(dataplane.Connection) == nil {
		x.Request.Header.Add(dataplane.Connection, []byte("Connection"), []byte("upgrade"))
	}
	d.body.unsent = false
	if u.call != nil {
		send := limit{each: x.Route.Timeout.Send, late: dataplane.ErrSendTime, until: total, over: dataplane.ErrTotalTime}
		read := limit{each: x.Route.Timeout.Read, late: dataplane.ErrReadTime, until: total, over: dataplane.ErrTotalTime}
		x.Times.Sent = time.Now()
		send.since = momentOf(x.Times.Sent)
		read.since = send.since
		return e.tryCall(u, begun, &send, &read)
	}
	d.out = d.body.appendAtHand(http1.AppendRequest(d.out[:0], &x.Request))
	send := limit{each: x.Route.Timeout.Send, late: dataplane.ErrSendTime, until: total, over: dataplane.ErrTotalTime}
	read := limit{each: x.Route.Timeout.Read, late: dataplane.ErrReadTime, until: total, over: dataplane.ErrTotalTime}
	x.Times.Sent = time.Now()
	read.since = momentOf(x.Times.Sent)
	send.since = read.since

	if !d.body.whole {
		return e.tryStreaming(u, &send, &read)
	}
	if t := x.Route.Timeout.PerTry; t > 0 {
		send.within(begun+moment(t), errTryTime)
		read.within(begun+moment(t), errTryTime)
	}
	n, sent, err := u.turn(d.out, d.rsp, &read)
	x.Sent = sent > 0
	if err == nil && n == 0 {
		if err = u.write(d.out[sent:], &send); err != nil {
			return e.blame(u, err, dataplane.ErrSend)
		}
		x.Sent = true
		read.since = send.since
		n, err = u.read(d.rsp, &read)
	}
	if err != nil {
		return e.blameFirst(u, err)
	}
	return e.heads(u, n, &read)
}

// blameFirst is blame for the read of the answer's first byte.
func (e *exchange) blameFirst(u *serverConn, err error) error {
	if err == errStale {
		if u.reused {
			return err
		}
		return fmt.Errorf("%w: %w", dataplane.ErrRead, errUnasked) // A11
	}
	whole := e.blame(u, err, dataplane.ErrRead)
	if errors.Is(whole, dataplane.ErrRead) && !errors.Is(whole, http2.ErrReset) {
		return fmt.Errorf("%w: %w", whole, errEnded)
	}
	return whole
}

// blame says what the failure of a read or write on u means: what interrupted it or a
// limit that has passed, or else kind.
func (e *exchange) blame(u *serverConn, err, kind error) error {
	switch why := u.interrupted(); {
	case why != nil:
		return why
	case errors.Is(err, dataplane.ErrReadTime), errors.Is(err, dataplane.ErrSendTime), errors.Is(err, dataplane.ErrTotalTime):
		return err
	case errors.Is(err, dataplane.ErrResponse):
		return err
	case notTaken(err):
		return fmt.Errorf("%w: %w", dataplane.ErrConnect, err) // nothing has come of it
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// maxInterim is how many interim responses a server may send (A11).
const maxInterim = 8

// heads reads response heads, of which n bytes are there, passes interim ones on and
// leaves the final one in x.Response.
func (e *exchange) heads(u *serverConn, n int, read *limit) error {
	d := e.desk
	x := &d.x
	if e.movable && !e.waits.CompareAndSwap(true, false) {
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
				return e.blame(u, err, dataplane.ErrRead)
			}
			n += m
			read.since = now()
			e.heard.Store(int64(read.since))
			continue
		case x.Response.Status >= 200:
			x.Times.FirstByte = time.Now()
			d.head, d.got = head, n
			return nil
		case x.Response.Status == 101:
			if why := e.switched(); why != "" {
				return refusedResponse("upgrade", why)
			}
			x.Times.FirstByte = time.Now()
			d.head, d.got = head, n
			return nil
		}
		if interim++; interim > maxInterim {
			return refusedResponse("interim_flood", "")
		}
		if err := e.interim(); err != nil {
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
func (e *exchange) interim() error {
	d := e.desk
	r := &d.x.Response
	if r.Status == 100 {
		d.body.awaited.Store(false)
	}
	if d.x.Request.Minor == 0 {
		return nil
	}
	http1.StripHop(&r.Header, r.Nominated, false)
	return e.client.interim(r)
}
