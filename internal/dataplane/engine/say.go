package engine

import (
	"errors"
	"fmt"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// speak makes c the client of its exchanges.
func (c *clientConn) speak() {
	c.client, c.framed, c.idleStep = c, true, c.readIdle
	c.private, c.own.local = &c.own, c.to
	if c.listener.TLS == nil { // otherwise the kernel has no keys
		c.pipe = &c.wire
	}
}

// one has the exchange of the request at hand and puts what was sent behind the request at
// the beginning of the buffer. It returns whether the connection can be used for another.
func (c *clientConn) one() bool {
	c.again = c.desk.x.Request.KeepAlive && !c.retired.Load()
	err := c.run()
	d := c.desk
	keep := d.x.Request.KeepAlive
	d.x.Reset()
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

// appendHead implements client.
func (c *clientConn) appendHead(out []byte, r *dataplane.Response, upgrade bool) []byte {
	c.again = c.again && !c.retired.Load() // which it may have become since
	return http1.AppendResponse(out, r, http1.ResponseOptions{
		Minor:     c.desk.x.Request.Minor,
		KeepAlive: c.again || upgrade,
		Date:      c.engine.date.at(c.engine.conf.Now()),
		Upgrade:   upgrade,
	})
}

// say implements client. The end of an answer is in its framing.
func (c *clientConn) say(a, b []byte, _ bool) error {
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
		return lost(c, err)
	}
	c.desk.x.Bytes.Out += size
	return nil
}

// copyBelow is up to which size copying is cheaper than a vector.
const copyBelow = 4 << 10

// lost says what a failed write to the client means.
func lost(c client, err error) error {
	if why := c.interrupted(); why != nil {
		return why
	}
	if errors.Is(err, dataplane.ErrClientSlow) {
		return err
	}
	return fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
}

// interim implements client.
func (c *clientConn) interim(r *dataplane.Response) error {
	return c.say(http1.Append1xx(make([]byte, 0, 512), r), nil, false)
}

// trailers implements client: they are among the chunks.
func (c *clientConn) trailers() []byte { return nil }

// trailed implements client: the last chunk has the trailers.
func (c *clientConn) trailed([]byte, [][]byte) {}
