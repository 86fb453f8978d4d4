package engine

import (
	"bytes"
	"fmt"
	"io"

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
	defer closeBody(r)
	frameAnswer(x)
	read := d.body.consumed()
	drain := !read && d.body.left(maxDrain) && !x.Request.Continue
	c.again = c.again && !r.Close && (read || drain) && !c.engine.closing()
	if err := c.sayAnswer(); err != nil {
		c.again = false
		return err
	}
	if drain && c.again {
		c.again = c.drain()
	}
	return nil
}

// frameAnswer sets what the head of an answer made here says of its body.
func frameAnswer(x *dataplane.Exchange) {
	r := &x.Response
	r.NoBody = x.Request.Method == dataplane.HEAD || r.Status == 204 || r.Status == 304
	r.Chunked = false
	switch {
	case len(x.Filters) > 0 && (len(r.Body) == 0 || r.Length != 0): // what a filter makes of it is for its maker to say
	case r.File != nil:
		r.Length = r.File.Size
	case r.Read != nil:
	case len(r.Body) > 0 || !r.NoBody:
		r.Length = int64(len(r.Body))
	case r.Status == 304 && r.Length == 0:
		r.Length = -1 // what it would have been is not known
	}
}

// sayAnswer sends head and body of x.Response.
func (c *clientConn) sayAnswer() error {
	d := c.desk
	r := &d.x.Response
	switch {
	case r.NoBody:
		d.out = http1.AppendResponse(d.out[:0], r, c.options())
		return c.say(d.out, nil)
	case r.Read != nil || len(d.x.Filters) > 0:
		return c.pour()
	case r.File != nil:
		return c.sayFile(r.File)
	}
	d.out = http1.AppendResponse(d.out[:0], r, c.options())
	return c.say(d.out, r.Body)
}

// pour sends a body that has to be read, or goes through filters.
func (c *clientConn) pour() error {
	r := &c.desk.x.Response
	var from io.Reader
	switch {
	case r.Read != nil:
		from = r.Read
		if err := c.attachSource(r.Read); err != nil {
			return err
		}
		defer c.detachSource()
	case r.File != nil:
		from = io.NewSectionReader(r.File.File, r.File.From, r.File.Size)
	default:
		from = bytes.NewReader(r.Body)
	}
	body := c.openBody()
	f := c.filter(body)
	err := f.end(c.copyTo(f, from, r.Read != nil))
	if err != nil {
		c.broken(body)
	}
	return err
}

// copyTo writes what from has to f. A reader that may pause is followed at once.
func (c *clientConn) copyTo(f *filtered, from io.Reader, pauses bool) error {
	buf := getBuffer()
	defer putBuffer(buf)
	for {
		n, err := from.Read(buf[:])
		c.heard.Store(int64(now()))
		if err := writeAll(f.top, buf[:n]); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			if why := c.interrupted(); why != nil {
				return why
			}
			return fmt.Errorf("read the answer's body: %w", err)
		case pauses:
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
}

// closeBody closes what the body of an answer made here is read from.
func closeBody(r *dataplane.Response) {
	if r.File != nil {
		r.File.File.Close()
	}
	if r.Read != nil {
		r.Read.Close()
	}
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
