package engine

import (
	"bytes"
	"fmt"
	"io"

	"proxyd/internal/dataplane"
)

// maxDrain is how much of a request's unread body is read so that the connection can be
// used again after an answer made here.
const maxDrain = 64 << 10

// answer sends x.Response, made here.
func (e *exchange) answer() error {
	d := e.desk
	x := &d.x
	r := &x.Response
	defer closeBody(r)
	frameAnswer(x)
	read := d.body.consumed()
	drain := !read && d.body.left(maxDrain) && !x.Request.Continue
	e.again = e.again && !r.Close && (read || drain) && !e.engine.closing()
	if err := e.sayAnswer(); err != nil {
		e.again = false
		return err
	}
	if drain && e.again {
		e.again = e.drain()
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
func (e *exchange) sayAnswer() error {
	d := e.desk
	r := &d.x.Response
	switch {
	case r.NoBody:
		d.out = e.client.appendHead(d.out[:0], r, false)
		return e.client.say(d.out, nil, true)
	case r.Read != nil || len(d.x.Filters) > 0:
		return e.pour()
	case r.File != nil:
		return e.client.sayFile(r, r.File)
	}
	d.out = e.client.appendHead(d.out[:0], r, false)
	return e.client.say(d.out, r.Body, true)
}

// pour sends a body that has to be read, or goes through filters.
func (e *exchange) pour() error {
	r := &e.desk.x.Response
	var from io.Reader
	switch {
	case r.Read != nil:
		from = r.Read
		if err := e.attachSource(r.Read); err != nil {
			return err
		}
		defer e.detachSource()
	case r.File != nil:
		from = io.NewSectionReader(r.File.File, r.File.From, r.File.Size)
	default:
		from = bytes.NewReader(r.Body)
	}
	body := e.openBody()
	f := e.filter(body)
	err := f.end(e.copyTo(f, from, r.Read != nil))
	if err != nil {
		e.broken(body)
	}
	return err
}

// copyTo writes what from has to f. A reader that may pause is followed at once.
func (e *exchange) copyTo(f *filtered, from io.Reader, pauses bool) error {
	buf := getBuffer()
	defer putBuffer(buf)
	for {
		n, err := from.Read(buf[:])
		e.heard.Store(int64(now()))
		if err := writeAll(f.top, buf[:n]); err != nil {
			return err
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			if why := e.client.interrupted(); why != nil {
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

// drain reads what is left of the request's body and drops it.
func (e *exchange) drain() bool {
	b := getBuffer()
	defer putBuffer(b)
	p := e.clientPace()
	l := limit{pace: &p, late: dataplane.ErrClientSlow}
	body := &e.desk.body
	for body.rest > 0 {
		n, err := e.client.read(b[:min(body.rest, int64(len(b)))], &l)
		if err != nil {
			return false
		}
		body.rest -= int64(n)
		body.taken += int64(n)
	}
	return true
}
