package engine

import (
	"errors"
	"slices"

	"proxyd/internal/dataplane/http1"
)

// A bodyWriter takes the body of an answer and frames it for the client: by x.Response's
// Length if that is known, else in chunks, or up to the end of the connection for an
// HTTP/1.0 client. It holds back up to a buffer, and the head with the first of it, until
// it is full, flushed or closed. A body that ends before anything was sent gets a length
// after all.
//
// After an error it takes nothing more, and its Close ends nothing: the framing stays
// incomplete, so that no client takes the body for whole.
type bodyWriter struct {
	e    *exchange
	buf  *[bufferBytes]byte // nil when nothing is held
	n    int                // bytes held
	left int64              // bytes to come; -1 is not known
	told bool               // the head has been sent, or may have been
	done bool

	trailers []byte   // the server's, of which the route's are let through
	allowed  [][]byte // and these, to a client whose protocol is as the server's

	err error // why nothing is taken any more
}

// tailBytes are kept free in the buffer for what ends a chunk and a body.
const tailBytes = len("\r\n0\r\n\r\n")

var (
	errShortBody = errors.New("the body ended before its length")
	errLongBody  = errors.New("the body is longer than its length")
	errBodyDone  = errors.New("write to a body that has ended")
)

// openBody returns the writer of the answer in x.Response, which has a body.
func (e *exchange) openBody() *bodyWriter {
	return &bodyWriter{e: e, left: max(e.desk.x.Response.Length, -1)}
}

func (w *bodyWriter) Write(p []byte) (int, error) {
	switch {
	case w.err != nil:
		return 0, w.err
	case w.done:
		return 0, errBodyDone
	case w.left >= 0 && int64(len(p)) > w.left:
		w.err = errLongBody
		return 0, w.err
	case w.left >= 0:
		w.left -= int64(len(p))
	}
	taken := 0
	for taken < len(p) {
		if w.buf == nil {
			w.buf = getBuffer()
		}
		m := copy(w.buf[w.n:bufferBytes-tailBytes], p[taken:])
		w.n += m
		taken += m
		if w.n == bufferBytes-tailBytes {
			if err := w.send(false); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// Flush sends what is held back.
func (w *bodyWriter) Flush() error {
	if w.err != nil || w.done {
		return w.err
	}
	if w.told && w.n == 0 {
		return nil
	}
	return w.send(false)
}

// Close ends the body.
func (w *bodyWriter) Close() error {
	if w.err != nil || w.done {
		return w.err
	}
	if w.left > 0 {
		w.err = errShortBody
		return w.err
	}
	if r := &w.e.desk.x.Response; !w.told && r.Length < 0 && w.trailers == nil {
		r.Length = int64(w.n)
	}
	err := w.send(true)
	w.done = true
	return err
}

// fail makes w take nothing more, so that a Close in passing does not end the body well.
// It returns what went wrong first.
func (w *bodyWriter) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// release gives the buffer back.
func (w *bodyWriter) release() {
	if w.buf != nil {
		putBuffer(w.buf)
		w.buf, w.n = nil, 0
	}
}

// chunked reports whether the client is sent chunks.
func (w *bodyWriter) chunked() bool {
	x := &w.e.desk.x
	return x.Response.Length < 0 && x.Request.Minor > 0 && w.e.framed
}

// untilClose reports whether only the end of the connection ends the body.
func (w *bodyWriter) untilClose() bool {
	x := &w.e.desk.x
	return x.Response.Length < 0 && x.Request.Minor == 0 && w.e.framed
}

// send writes the head, if it has not been sent, what is held, and what ends the body if
// this is the last of it.
func (w *bodyWriter) send(last bool) error {
	d := w.e.desk
	out := d.out[:0]
	if !w.told {
		if w.untilClose() {
			w.e.again = false
		}
		out = w.e.client.appendHead(out, &d.x.Response, false)
		w.told = true
	}
	held := []byte(nil)
	if w.n > 0 {
		held = w.buf[:w.n]
	}
	if w.chunked() {
		if w.n > 0 {
			out = http1.AppendChunkHead(out, w.n)
			held = append(held, '\r', '\n')
		}
		switch {
		case last && w.trailers != nil:
			held = http1.AppendLastChunk(held, w.trailers, d.x.Route.Trailers)
		case last:
			held = append(held, http1.LastChunk...)
		}
	}
	if last && !w.e.framed && w.trailers != nil {
		w.e.client.trailed(w.trailers, slices.Concat(d.x.Route.Trailers, w.allowed))
	}
	w.n = 0
	d.out = out[:0]
	if len(out)+len(held) == 0 && w.e.framed {
		return nil
	}
	if err := w.e.client.say(out, held, last); err != nil {
		w.err = err
	}
	return w.err
}

// broken sees to it that the client notices an answer that is not whole. Nothing but a
// reset tells a client that waits for the end of the connection.
func (e *exchange) broken(w *bodyWriter) {
	e.again = false
	if w.told && w.untilClose() {
		e.client.tear()
	}
}
