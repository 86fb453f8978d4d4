package engine

import (
	"errors"
	"io"
	"slices"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// respond sends the answer, whose head is in x.Response, from u to the client. Where told
// is false the error came before the client got a byte of it.
func (e *exchange) respond(u *serverConn, total moment) (told bool, err error) {
	d := e.desk
	x := &d.x
	if x.Response.Status == 101 {
		return true, e.upgrade(u)
	}
	d.body.settle()
	// An answer to a request that has not been sent to its end: nobody can tell what
	// either side will make of the rest, so both connections end with the answer.
	early := d.body.sender != nil || !d.body.whole || d.body.unsent || !d.body.consumed()
	answer := relay{e: e, u: u}
	answer.begin(&x.Request, &x.Response, x.Route.Trailers)
	if u.call != nil {
		answer.byCall(&x.Response)
	}
	if !e.framed {
		answer.unframed()
	}
	length, filters := x.Response.Length, slices.Clone(x.Filters)
	closes := x.Response.Close
	switch e.judge() {
	case dataplane.Next:
	case dataplane.Answer:
		e.drop(u)
		return true, e.answer()
	case dataplane.Again:
		e.dismiss(u, &answer, early || closes)
		return false, errAgain
	default:
		e.drop(u)
		e.again = false
		return true, errClosed
	}

	answer.read = limit{each: x.Route.Timeout.Read, late: dataplane.ErrReadTime, until: total, over: dataplane.ErrTotalTime}
	answer.read.since = momentOf(x.Times.FirstByte)
	if u.call != nil && d.body.talks {
		answer.read.each = x.Route.Timeout.Tunnel
	}
	e.again = e.again && !early && !e.engine.closing() && !(x.Request.WebSocket && len(d.body.behind) > 0)
	if !x.Response.NoBody && (len(x.Filters) > 0 && x.Response.Length != 0 || x.Response.Length != length) {
		err = answer.filtered()
	} else {
		e.again = e.again && answer.ends()
		err = answer.all()
		if err != nil && answer.told && answer.plain && answer.kind != counted {
			e.client.tear() // nothing but a reset tells an HTTP/1.0 client
		}
	}
	switch {
	case err != nil:
		e.again = false
		x.Filters = append(x.Filters[:0], filters...) // those of Respond are of this answer
		e.drop(u)
	case early || answer.surplus || x.Response.Close:
		e.drop(u)
	default:
		e.detach()
		if u.interrupted() != nil {
			u.close()
		} else {
			e.keepServer(u)
		}
	}
	return answer.told, err
}

// judge asks the handler what it makes of the answer. Meanwhile no more of the body is
// read than can be kept, so that another server can get all of it.
func (e *exchange) judge() dataplane.Verdict {
	x, b := &e.desk.x, &e.desk.body
	if b.sender != nil {
		b.judging.Lock()
		defer b.judging.Unlock()
	}
	x.Replayable = b.atHand
	v := e.ask(e.handler.Respond)
	b.pinned = b.sender != nil && v == dataplane.Again
	return v
}

// errAgain says that the answer is dropped and x.Server is to be asked instead.
var errAgain = errors.New("another server is to be asked")

// dismiss is done with an answer that the client does not get. The connection is used
// again if all of the answer has come already.
func (e *exchange) dismiss(u *serverConn, answer *relay, closes bool) {
	d := e.desk
	out, _, err := answer.take(d.out[:0], d.rsp[d.head:d.got])
	d.out = out[:0]
	if err != nil || closes || !answer.done || answer.surplus || u.interrupted() != nil {
		e.drop(u)
		return
	}
	e.detach()
	e.keepServer(u)
}

// drop closes the connection to the server and ends who still sends on it.
func (e *exchange) drop(u *serverConn) {
	e.detach()
	u.interrupt(errHalt)
	e.desk.body.join()
	u.close()
}

// A relay is the way of one answer from the server to the client.
type relay struct {
	reply
	e    *exchange
	u    *serverConn
	read limit
	told bool // something may have reached the client
}

// all sends head and body.
func (r *relay) all() error {
	e := r.e
	d := e.desk
	head := e.client.appendHead(d.out[:0], &d.x.Response, false)
	out, body, err := r.take(head, d.rsp[d.head:d.got])
	d.out = out[:0]
	if err != nil {
		return err
	}
	r.told = true
	if err := r.say(out, body); err != nil {
		return err
	}
	if r.done {
		return nil
	}
	buf := d.rsp[d.head:]
	if len(buf) < bufferBytes/2 {
		spare := getBuffer()
		defer putBuffer(spare)
		buf = spare[:]
	}
	copying := e.pipe == nil || r.u.tls != nil // the kernel has no keys
	for !r.done {
		if r.kind == counted && r.left >= spliceFrom && !copying {
			err := r.splice()
			if copying = err == errNoPipe; err != nil && !copying {
				return err
			}
			continue
		}
		in := buf
		if r.kind == counted {
			in = buf[:min(r.left, int64(len(buf)))]
		}
		n, err := r.u.read(in, &r.read)
		if err == io.EOF && r.open() && !r.u.cutOff() {
			return r.ended()
		}
		if err != nil {
			return e.blame(r.u, err, dataplane.ErrRead)
		}
		r.heard()
		if out, body, err = r.take(d.out[:0], in[:n]); err != nil {
			return err
		}
		d.out = out[:0]
		if err := r.say(out, body); err != nil {
			return err
		}
		r.read.since = now() // the client's time is not the server's
	}
	return nil
}

// ended is for an answer that ends with the server's connection.
func (r *relay) ended() error {
	r.done = true
	switch {
	case !r.e.framed:
		if raw := r.trailing(); len(raw) > 0 {
			r.e.client.trailed(raw, http1.TrailerNames(raw))
		}
		return r.say(nil, nil)
	case r.plain, r.sized:
		return nil
	}
	if raw := r.trailing(); len(raw) > 0 {
		return r.e.client.say(http1.AppendLastChunk(nil, raw, r.trailers), nil, true)
	}
	return r.e.client.say(http1.LastChunk, nil, true)
}

// trailing returns the trailers of an answer over HTTP/2.
func (r *relay) trailing() []byte {
	if r.u.call == nil {
		return nil
	}
	return r.u.call.trailers()
}

// say sends what take returned.
func (r *relay) say(out, body []byte) error {
	if r.done && len(r.chunks.Trailers) > 0 {
		r.e.client.trailed(r.chunks.Trailers, r.trailers)
	}
	return r.e.client.say(out, body, r.done)
}

// splice moves what is left of a counted body in the kernel.
func (r *relay) splice() error {
	e := r.e
	p := e.clientPace()
	to := limit{pace: &p, late: dataplane.ErrClientSlow}
	n, err := splice(e.pipe, &r.u.wire, r.left, &to, &r.read, func(int64) { r.heard() })
	r.left -= n
	e.desk.x.Bytes.Out += n
	r.done = r.left == 0
	var side *spliceError
	switch {
	case err == nil || err == errNoPipe:
		return err
	case errors.As(err, &side) && side.writing:
		return lost(e.client, side.err)
	case side != nil:
		return e.blame(r.u, side.err, dataplane.ErrRead)
	}
	return err
}

// heard notes that the server has sent something.
func (r *relay) heard() {
	t := now()
	r.read.since = t
	r.e.heard.Store(int64(t))
}

// switched says why a 101 is not the one that was asked for, or "" (G1 of the threat
// list, RFC 6455 4.1).
func (e *exchange) switched() string {
	x := &e.desk.x
	q, r := &x.Request, &x.Response
	if !q.WebSocket || !x.Route.WebSocket {
		return "not asked for"
	}
	if !http1.AcceptsWebSocket(r, q.Header.Get(dataplane.SecWebSocketKey)) {
		return "its fields do not agree to it"
	}
	return ""
}

// upgrade passes a good 101 on and lets client and server speak.
func (e *exchange) upgrade(u *serverConn) error {
	d := e.desk
	e.again = false
	if e.ask(e.handler.Respond) != dataplane.Next {
		e.drop(u)
		return errClosed
	}
	d.out = e.client.appendHead(d.out[:0], &d.x.Response, true)
	if err := e.client.say(d.out, d.rsp[d.head:d.got], false); err != nil {
		e.drop(u)
		return err
	}
	// A12: what the client sent before it could know goes out only now.
	send := limit{each: d.x.Route.Timeout.Send, late: dataplane.ErrSendTime, since: now()}
	if err := u.write(d.body.behind, &send); err != nil {
		err = e.blame(u, err, dataplane.ErrSend)
		e.drop(u)
		return err
	}
	d.x.Bytes.In += int64(len(d.body.behind))
	d.body.behind = nil
	err := e.client.tunnel(u, d.x.Route.Timeout.Tunnel)
	e.detach()
	u.close()
	return err
}
