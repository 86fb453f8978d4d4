package engine

import (
	"errors"
	"fmt"
	"io"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A bodySource reads the body of the request at hand as the client meant it, without the
// framing: first what came with the head, then from the connection. Its errors say what
// the client did.
type bodySource struct {
	e     *exchange
	from  limit
	raw   []byte // read and not taken apart yet
	fresh bool   // raw came from the connection after the head
	ended bool   // all of it has been read
	chunk *http1.ChunkReader
}

func (s *bodySource) Read(p []byte) (int, error) {
	b := &s.e.desk.body
	switch {
	case len(p) == 0:
		return 0, nil
	case b.size >= 0:
		return s.plain(b, p)
	case !s.e.framed:
		return s.open(b, p)
	}
	for {
		for len(s.raw) > 0 && !s.ended {
			data, n, done, err := s.chunk.Next(s.raw[:min(len(s.raw), len(p))])
			s.raw = s.raw[n:]
			if s.fresh {
				b.taken += int64(n)
				b.data += int64(len(data))
			}
			switch {
			case err != nil:
				return 0, fmt.Errorf("%w: %w", dataplane.ErrClientBody, err)
			case b.most > 0 && b.data > b.most:
				return 0, dataplane.ErrTooLarge
			}
			if s.ended = done; done && s.fresh {
				b.behind = s.raw
			}
			if n := copy(p, data); n > 0 {
				return n, nil
			}
		}
		if s.ended {
			return 0, io.EOF
		}
		if b.spare == nil {
			b.spare = getBuffer()
		}
		n, err := s.e.client.read(b.spare[:], &s.from)
		if err != nil {
			return 0, clientFault(err)
		}
		b.awaited.Store(false)
		s.raw, s.fresh, s.chunk = b.spare[:n], true, &b.chunks
	}
}

// plain is Read for a body of known length.
func (s *bodySource) plain(b *requestBody, p []byte) (int, error) {
	if len(s.raw) > 0 {
		n := copy(p, s.raw)
		s.raw = s.raw[n:]
		s.ended = len(s.raw) == 0 && b.rest == 0
		return n, nil
	}
	if s.ended = b.rest == 0; s.ended {
		return 0, io.EOF
	}
	n, err := s.e.client.read(p[:min(int64(len(p)), b.rest)], &s.from)
	if err != nil {
		return 0, clientFault(err)
	}
	b.awaited.Store(false)
	b.taken += int64(n)
	b.rest -= int64(n)
	s.ended = b.rest == 0
	return n, nil
}

// open is Read for a body whose end the client's protocol tells.
func (s *bodySource) open(b *requestBody, p []byte) (int, error) {
	if s.ended {
		return 0, io.EOF
	}
	if b.talks {
		s.from.since = now()
	}
	n, err := s.e.client.read(p, &s.from)
	if err == io.EOF {
		s.ended = true
		s.chunk.Trailers = s.e.client.trailers()
		return 0, io.EOF
	}
	if err != nil {
		return 0, clientFault(err)
	}
	b.awaited.Store(false)
	b.taken += int64(n)
	b.data += int64(n)
	if b.most > 0 && b.data > b.most {
		return 0, dataplane.ErrTooLarge
	}
	return n, nil
}

// clientFault says what a failed read of the client's body means.
func clientFault(err error) error {
	switch {
	case errors.Is(err, dataplane.ErrClientSlow), errors.Is(err, dataplane.ErrTotalTime), errors.Is(err, errHalt),
		errors.Is(err, dataplane.ErrDrained), errors.Is(err, dataplane.ErrClientGone), errors.Is(err, dataplane.ErrClientBody):
		return err
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
}

// A held body is one that has been read to hand in part or as a whole, without framing,
// or that goes through filters.
type held struct {
	source *bodySource
	first  []byte    // what has been read of more so far, while it is kept
	more   io.Reader // what follows first; nil if nothing does
	length int64     // of the whole as it is sent; -1: in chunks
	room   int64     // bytes taken of the listener's room for first
}

// take makes a held body of the request's.
func (e *exchange) take() *held {
	b := &e.desk.body
	if b.held != nil {
		return b.held
	}
	s := &bodySource{e: e, raw: b.first, chunk: &http1.ChunkReader{Keep: len(b.trailers) > 0}}
	s.from = e.bodyLimit()
	s.ended = b.whole && len(b.first) == 0
	b.held = &held{source: s, more: s, length: b.size}
	b.whole = false
	return b.held
}

// gather reads the body to hand as far as the route wants it (dataplane.Gather). What has
// come with the head is at hand anyway.
func (e *exchange) gather() error {
	x := &e.desk.x
	b := &e.desk.body
	x.Gathered = true
	if err := b.check(x.Route); err != nil {
		return err
	}
	most, must := x.Route.Buffer, x.Route.Sized && b.size < 0
	switch {
	case b.whole && b.size >= 0:
		x.Body = b.first
		return nil
	case b.whole:
		most = max(most, bufferBytes)
	case must:
		most = max(most, x.Route.BodyBytes)
	case b.size > most || most == 0:
		return nil
	}
	if err := e.invite(); err != nil {
		return err
	}
	h := e.take()
	whole, err := e.fill(h, most, must)
	if err == nil && whole {
		x.Body = h.first
		b.framed(&x.Request)
	}
	return err
}

// invite answers Expect: 100-continue if a body is wanted before a server is asked.
func (e *exchange) invite() error {
	d := e.desk
	if d.body.whole || !d.body.awaited.Load() {
		return nil
	}
	if err := e.client.interim(&dataplane.Response{Status: 100}); err != nil {
		return err
	}
	d.body.awaited.Store(false)
	q := &d.x.Request
	q.Continue = false
	kept := q.Header[:0]
	for _, f := range q.Header {
		if f.ID != dataplane.Expect {
			kept = append(kept, f)
		}
	}
	q.Header = kept
	return nil
}

// fill reads up to most bytes to hand and reports whether that is all. If there is no room
// for more, it stops, or fails if it must not.
func (e *exchange) fill(h *held, most int64, must bool) (whole bool, err error) {
	b := &e.desk.body
	for {
		switch n := int64(len(h.first)); {
		case n > most && must:
			return false, dataplane.ErrTooLarge
		case n > most, n == most && !h.source.ended && !must:
			return false, nil
		}
		if len(h.first) == cap(h.first) {
			size := min(max(int64(2*cap(h.first)), bufferBytes), most+1)
			if b.size >= 0 && b.size <= most {
				size = max(b.size+1, size)
			}
			if !e.listener.Room.Take(size - h.room) {
				if must {
					return false, dataplane.ErrHeldFull
				}
				return false, nil
			}
			h.room = size
			h.first = append(make([]byte, 0, size), h.first...)
		}
		n, err := h.more.Read(h.first[len(h.first):cap(h.first)])
		h.first = h.first[:len(h.first)+n]
		switch {
		case err == io.EOF:
			h.more, b.whole = nil, true
			h.length = int64(len(h.first))
			return true, nil
		case err != nil:
			return false, err
		}
	}
}

// framed makes the request's head say the length of a body that is wholly at hand.
func (b *requestBody) framed(q *dataplane.Request) {
	if q.Chunked && len(b.held.first) == 0 {
		q.Header.Add(dataplane.ContentLength, nameContentLength, zero)
	}
	q.Chunked, q.Length = false, int64(len(b.held.first))
}

var nameContentLength, zero = []byte("Content-Length"), []byte("0")

// filterRequest puts the filters of the exchange before the request's body.
func (e *exchange) filterRequest() error {
	x := &e.desk.x
	b := &e.desk.body
	if len(x.Filters) == 0 || b.size == 0 || b.filtered {
		return nil
	}
	b.filtered = true
	if x.Route.Sized {
		if err := e.invite(); err != nil {
			return err
		}
	}
	atHand := b.whole
	h := e.take()
	r := h.reader()
	for _, f := range x.Filters {
		var err error
		if r, err = f.RequestBody(x, r); err != nil {
			return fmt.Errorf("filter the request's body: %w", err)
		}
	}
	h.first, h.more = nil, r
	b.whole = false
	h.length = x.Request.Length
	if x.Request.Chunked {
		h.length = -1
	}
	if !atHand && !x.Route.Sized {
		return nil
	}
	// Nothing is waited for, as a rule: the filters' work is done before a server is
	// asked, and what comes of it can be sent again.
	most := max(x.Route.Buffer, bufferBytes)
	if x.Route.Sized {
		most = max(most, x.Route.BodyBytes)
	}
	whole, err := e.fill(h, most, x.Route.Sized)
	if err == nil && whole {
		b.framed(&x.Request)
	}
	return err
}

// keep keeps p, which has been read, if there is room for it to be sent again. It fails
// if another server is about to get all that was read, p too, which is kept in any case
// then.
func (h *held) keep(b *requestBody, p []byte) error {
	var err error
	if !b.atHand || len(h.first)+len(p) > bufferBytes {
		if err = b.forget(); err == nil {
			return nil
		}
	}
	h.first = append(h.first, p...)
	return err
}

// append appends what is at hand as it goes to a server.
func (h *held) append(out []byte, whole bool, trailers [][]byte) []byte {
	switch {
	case h.length >= 0:
		return append(out, h.first...)
	case len(h.first) > 0:
		out = appendChunk(out, h.first)
	}
	if whole {
		out = http1.AppendLastChunk(out, h.source.chunk.Trailers, trailers)
	}
	return out
}

// reader returns what is at hand, and then the rest.
func (h *held) reader() io.Reader {
	switch {
	case len(h.first) == 0 && h.more != nil:
		return h.more
	case h.more == nil:
		return &handReader{rest: h.first}
	}
	return io.MultiReader(&handReader{rest: h.first}, h.more)
}

// A handReader reads what is at hand.
type handReader struct{ rest []byte }

func (r *handReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
