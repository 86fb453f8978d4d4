package engine

import (
	"fmt"
	"io"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A filtered body is on its way through the filters of an exchange to the client.
type filtered struct {
	body *bodyWriter
	top  io.WriteCloser   // takes the body
	all  []io.WriteCloser // of the filters, the client's first
}

// filter puts the filters of the exchange before body.
func (e *exchange) filter(body *bodyWriter) *filtered {
	x := &e.desk.x
	f := &filtered{body: body, top: body}
	for _, each := range x.Filters {
		f.top = each.ResponseBody(x, f.top)
		f.all = append(f.all, f.top)
	}
	return f
}

// flush sends on what the filters hold back.
func (f *filtered) flush() error {
	for i := len(f.all) - 1; i >= 0; i-- {
		if w, ok := f.all[i].(dataplane.Flusher); ok {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return f.body.Flush()
}

// end closes the filters after the body, or after err, and returns what went wrong first.
func (f *filtered) end(err error) error {
	defer f.body.release()
	if err != nil {
		err = f.body.fail(err)
		f.top.Close()
		return err
	}
	if err = f.top.Close(); err == nil {
		err = f.body.Close() // which the filters have done, or forgotten
	}
	if err != nil {
		return f.body.fail(fmt.Errorf("end the answer's body: %w", err))
	}
	return nil
}

// filtered sends the server's body through the filters of the exchange.
func (r *relay) filtered() error {
	body := r.e.openBody()
	f := r.e.filter(body)
	err := r.feed(f)
	if r.kind == chunks && len(r.chunks.Trailers) > 0 {
		body.trailers = r.chunks.Trailers
	} else if raw := r.trailing(); len(raw) > 0 {
		body.trailers, body.allowed = raw, http1.TrailerNames(raw)
	}
	err = f.end(err)
	r.told = body.told
	if err != nil {
		r.e.broken(body)
	}
	return err
}

// feed reads the body up to its end and writes it to f, which is flushed when nothing is
// there to be read.
func (r *relay) feed(f *filtered) error {
	e, d := r.e, r.e.desk
	in := d.rsp[d.head:d.got]
	if err := r.unframe(f.top, in); err != nil {
		return err
	}
	buf := getBuffer()
	defer putBuffer(buf)
	for !r.done {
		part := buf[:]
		if r.kind == counted {
			part = part[:min(r.left, int64(len(part)))]
		}
		n, err := r.u.glance(part, &r.read)
		if err == nil && n == 0 {
			if err := f.flush(); err != nil {
				return err
			}
			r.read.since = now() // the client's time is not the server's
			n, err = r.u.read(part, &r.read)
		}
		switch {
		case err == io.EOF && r.open() && !r.u.cutOff():
			r.done = true
			return nil
		case err != nil:
			return e.blame(r.u, err, dataplane.ErrRead)
		}
		r.heard()
		if err := r.unframe(f.top, part[:n]); err != nil {
			return err
		}
		r.read.since = now()
	}
	return nil
}

// unframe writes to w what in, as the server sent it, holds of the body.
func (r *relay) unframe(w io.Writer, in []byte) error {
	switch r.kind {
	case counted:
		n := min(int64(len(in)), r.left)
		r.left -= n
		r.done = r.left == 0
		r.surplus = int(n) < len(in)
		return writeAll(w, in[:n])
	case untilClose, told:
		return writeAll(w, in)
	}
	for at := 0; at < len(in) && !r.done; {
		data, n, done, err := r.chunks.Next(in[at:])
		if err != nil {
			return fmt.Errorf("%w: %w", dataplane.ErrResponse, err)
		}
		if err := writeAll(w, data); err != nil {
			return err
		}
		at += n
		r.done = done
		r.surplus = done && at < len(in)
	}
	return nil
}

// writeAll writes p, if there is any of it, to a writer that may be a filter's.
func writeAll(w io.Writer, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("filter the answer's body: %w", err)
	}
	return nil
}
