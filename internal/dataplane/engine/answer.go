package engine

import (
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// maxDrain is how much of a request's unread body is read so that the connection can be
// used again after an answer made here.
const maxDrain = 64 << 10

// answer sends x.Response, made here.
func (c *clientConn) answer() error {
	d := c.desk
	x := &d.x
	r := &x.Response
	head := x.Request.Method == dataplane.HEAD
	r.NoBody = head || r.Status == 204 || r.Status == 304
	r.Chunked = false
	switch {
	case len(r.Body) > 0 || !r.NoBody:
		r.Length = int64(len(r.Body))
	case r.Status == 304 && r.Length == 0:
		r.Length = -1 // what it would have been is not known
	}
	drain := !d.body.whole && d.body.left(maxDrain) && !x.Request.Continue
	c.again = c.again && !r.Close && (d.body.whole || drain) && !c.engine.closing()
	d.out = http1.AppendResponse(d.out[:0], r, c.options())
	body := r.Body
	if r.NoBody {
		body = nil
	}
	if err := c.say(d.out, body); err != nil {
		c.again = false
		return err
	}
	if drain && c.again {
		c.again = c.drain()
	}
	return nil
}

// options are how a response head is written for this client.
func (c *clientConn) options() http1.ResponseOptions {
	return http1.ResponseOptions{
		Minor:     c.desk.x.Request.Minor,
		KeepAlive: c.again,
		Date:      c.engine.date.at(c.engine.conf.Now()),
	}
}

// drain reads what is left of the request's body and drops it.
func (c *clientConn) drain() bool {
	b := getBuffer()
	defer putBuffer(b)
	p := c.clientPace()
	l := limit{pace: &p, late: dataplane.ErrClientSlow}
	body := &c.desk.body
	for body.rest > 0 {
		n, err := c.read(b[:min(body.rest, int64(len(b)))], &l)
		if err != nil {
			return false
		}
		body.rest -= int64(n)
		body.taken += int64(n)
	}
	return true
}
