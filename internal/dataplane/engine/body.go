package engine

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A requestBody is the body of the request at hand. What of it came with the head lies
// behind the head in the desk's buffer.
type requestBody struct {
	first   []byte     // the part at hand as the client sent it
	size    int64      // bytes of the whole body, -1 if chunked
	rest    int64      // bytes that have not been read, if size is known
	taken   int64      // bytes read from the client, with framing
	data    int64      // bytes of the body itself so far
	most    int64      // bytes that data may reach; 0 is no limit
	whole   bool       // all of it has been read
	unsent  bool       // the server has stopped taking it: an answer to a part
	atHand  bool       // all of it that was read is at hand, so it can be sent again
	judging sync.Mutex // held while an answer is judged: what is at hand stays so
	pinned  bool       // another server gets the body, so no more is read than can be kept; under judging
	bad     error      // what is wrong with the part at hand
	behind  []byte     // what the client sent behind the body
	chunks  http1.ChunkReader
	awaited atomic.Bool // the client waits for 100 (Continue) before it sends

	talks    bool     // the client sends when it has something to say, as gRPC's do: it is not slow
	trailers [][]byte // that are let through
	held     *held    // the body taken out of its framing; nil while it is sent as it came
	filtered bool     // the filters of the exchange are before it

	sender *sender // sends the rest to a server; nil if none does
	spare  *[bufferBytes]byte
}

// begin looks at what came behind the head. framed is whether the client frames the body as
// HTTP/1.1 does; otherwise nothing has come.
func (b *requestBody) begin(have []byte, r *dataplane.Request, framed bool) {
	b.trailers = nil
	b.talks = r.Version >= 2 && r.GRPC()
	b.first, b.behind, b.bad, b.sender = nil, nil, nil, nil
	b.held, b.filtered, b.unsent = nil, false, false
	b.size, b.rest, b.taken, b.data, b.most = r.Length, 0, 0, 0, 0
	b.atHand, b.whole, b.pinned = true, true, false
	b.awaited.Store(r.Continue)
	if !r.Chunked {
		b.size = r.Length
		n := min(int64(len(have)), b.size)
		b.first, b.behind = have[:n], have[n:]
		b.data, b.taken = n, n
		b.rest = b.size - n
		b.whole = b.rest == 0
		return
	}
	b.size = -1
	b.chunks.Reset()
	b.whole = false
	if !framed {
		return
	}
	at := 0
	for at < len(have) {
		data, n, done, err := b.chunks.Next(have[at:])
		at += n
		b.data += int64(len(data))
		if err != nil {
			b.bad = err
			break
		}
		if done {
			b.whole = true
			break
		}
	}
	b.first, b.behind = have[:at], have[at:]
	b.taken = int64(at)
}

// check refuses a body that is malformed or too large as far as it is known.
func (b *requestBody) check(r *dataplane.Route) error {
	most := r.BodyBytes
	b.most = most
	if len(r.Trailers) > 0 && b.trailers == nil {
		b.trailers = r.Trailers
		b.keepTrailers()
	}
	switch {
	case b.bad != nil:
		return fmt.Errorf("%w: %w", dataplane.ErrClientBody, b.bad)
	case most > 0 && (b.size > most || b.data > most):
		return dataplane.ErrTooLarge
	}
	return nil
}

// keepTrailers has the reader of the body keep its trailers, of which a part may be at hand.
func (b *requestBody) keepTrailers() {
	b.chunks = http1.ChunkReader{Keep: true}
	for at := 0; b.size < 0 && at < len(b.first); {
		_, n, done, err := b.chunks.Next(b.first[at:])
		if at += n; done || err != nil {
			return // the one is known, and the other was refused
		}
	}
}

// left reports whether no more than most bytes are to come, and how many is known.
func (b *requestBody) left(most int64) bool { return b.size >= 0 && b.rest <= most }

// consumed reports whether all that the client sent of the body has been read.
func (b *requestBody) consumed() bool {
	if b.held != nil {
		return b.held.source.ended
	}
	return b.whole
}

// appendAtHand appends the part at hand as it goes to a server.
func (b *requestBody) appendAtHand(out []byte) []byte {
	switch {
	case b.held != nil:
		return b.held.append(out, b.whole, b.trailers)
	case b.size >= 0:
		return append(out, b.first...)
	}
	again := http1.ChunkReader{Keep: len(b.trailers) > 0}
	c, _ := appendChunks(out, b.first, &again, b.trailers)
	return c.out
}

// chunked is what appendChunks has done.
type chunked struct {
	out  []byte
	used int  // bytes of in
	data int  // of them, bytes of the body itself
	done bool // the body is complete, and the last chunk appended
}

// appendChunks takes in apart and appends its data to out in chunks of our own, with the
// trailers that are allowed.
func appendChunks(out, in []byte, c *http1.ChunkReader, trailers [][]byte) (chunked, error) {
	r := chunked{out: out}
	for r.used < len(in) && !r.done {
		data, n, done, err := c.Next(in[r.used:])
		r.used += n
		r.data += len(data)
		if len(data) > 0 {
			r.out = appendChunk(r.out, data)
		}
		if err != nil {
			return r, err
		}
		r.done = done
	}
	if r.done {
		r.out = http1.AppendLastChunk(r.out, c.Trailers, trailers)
	}
	return r, nil
}

// appendChunk appends data, which is not empty, as one chunk.
func appendChunk(out, data []byte) []byte {
	out = http1.AppendChunkHead(out, len(data))
	out = append(out, data...)
	return append(out, '\r', '\n')
}

// forget gives up that the body can be sent again. It fails if another server is about to
// get it.
func (b *requestBody) forget() error {
	if !b.atHand {
		return nil
	}
	b.judging.Lock()
	defer b.judging.Unlock()
	if b.pinned {
		return errHalt
	}
	b.atHand = false
	return nil
}

// release gives back what held bytes for the next request.
func (b *requestBody) release() {
	b.first, b.behind = nil, nil
	if h := b.held; h != nil {
		h.source.e.listener.Room.Give(h.room)
		b.held = nil
	}
	if b.spare != nil {
		putBuffer(b.spare)
		b.spare = nil
	}
}

// A sender reads the rest of a request's body from the client and sends it to a server
// while the exchange's goroutine reads the answer. Its work, in a goroutine of its own, ends with
// the body, with an error on either side, or when it is halted.
type sender struct {
	e     *exchange
	u     *serverConn
	done  chan struct{}
	err   error        // why the body did not get to the server; after done
	read  bool         // all of it, and it can be sent again as if it had been at hand; after done
	last  atomic.Bool  // the last write has begun
	ended atomic.Bool  // done, or will be at once
	heard atomic.Int64 // the moment of the last success
	send  limit
	until moment
}

// tryStreaming is try for a body that is not all at hand.
func (e *exchange) tryStreaming(u *serverConn, send, read *limit) error {
	d := e.desk
	b := &d.body
	// The write says nothing of whether this connection still lives. Look first.
	if n, err := u.poll(d.rsp); n > 0 || err != nil {
		return e.blameFirst(u, errStale)
	}
	d.x.Sent = true
	if err := u.write(d.out, send); err != nil {
		return e.blame(u, err, dataplane.ErrSend)
	}
	s := &sender{e: e, u: u, done: make(chan struct{}), send: *send, until: send.until}
	s.heard.Store(int64(now()))
	b.sender = s
	e.engine.workers.run(s)
	read.also = s.since
	if t := d.x.Route.Timeout.PerTry; t > 0 && (read.each == 0 || t < read.each) {
		read.each, read.late = t, errTryTime
	}
	n, err := u.read(d.rsp, read)
	if err == nil {
		err = e.heads(u, n, read)
		if err == nil {
			return nil
		}
	} else {
		err = e.blameFirst(u, err)
	}
	u.interrupt(errHalt)
	b.join()
	return err
}

// since returns from when on the server owes an answer: not while it is still sent to.
func (s *sender) since(t moment) moment {
	if !s.ended.Load() && (s.e.desk.body.talks || !s.e.desk.body.awaited.Load()) {
		return t
	}
	return moment(s.heard.Load())
}

// lastWrite is how long an answer waits for the end of the write that it may have been
// the answer to: the write is done, but its goroutine has not come to say so.
const lastWrite = 20 * time.Millisecond

// settle joins a sender that has ended or is about to.
func (b *requestBody) settle() {
	s := b.sender
	if s == nil {
		return
	}
	if !s.ended.Load() && s.last.Load() {
		wait := time.NewTimer(lastWrite)
		defer wait.Stop()
		select {
		case <-s.done:
		case <-wait.C:
		}
	}
	if s.ended.Load() {
		b.join()
	}
}

// join halts the sender and waits for its end.
func (b *requestBody) join() {
	s := b.sender
	if s == nil {
		return
	}
	if !s.ended.Load() {
		s.e.client.interrupt(errHalt)
	}
	<-s.done
	s.e.client.resume(errHalt)
	b.sender, b.pinned = nil, false
}

func (s *sender) work() {
	defer close(s.done)
	b := &s.e.desk.body
	err := s.guarded(b)
	s.heard.Store(int64(now()))
	s.err = err
	b.whole, b.unsent = err == nil || s.read, err != nil
	s.ended.Store(true)
	if err != nil && !errors.Is(err, dataplane.ErrSend) {
		// The server will not get the rest: whoever waits for its answer need not.
		// After a failed write it may have sent one.
		s.u.interrupt(err)
	}
}

// guarded is all, for filters that panic.
func (s *sender) guarded(b *requestBody) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.e.engine.conf.Panic(p)
			err = errPanic
		}
	}()
	return s.all(b)
}

func (s *sender) all(b *requestBody) error {
	if b.held != nil {
		return s.pour(b.held, b)
	}
	from := s.e.bodyLimit()
	b.spare = getBuffer()
	if b.size >= 0 {
		return s.plain(b, &from)
	}
	return s.chunked(b, &from)
}

// plain sends a body of known length.
func (s *sender) plain(b *requestBody, from *limit) error {
	for b.rest > 0 {
		if b.rest >= spliceFrom && s.e.pipe != nil && s.u.call == nil && s.u.tls == nil {
			if err := b.forget(); err != nil {
				return err
			}
			s.last.Store(true)
			n, err := splice(&s.u.wire, s.e.pipe, b.rest, &s.send, from, s.note)
			b.rest -= n
			b.taken += n
			if err != nil {
				return s.fault(err)
			}
			continue
		}
		part, err := s.room(b)
		if err != nil {
			return err
		}
		n, err := s.e.client.read(part[:min(b.rest, int64(len(part)))], from)
		if err != nil {
			return clientFault(err)
		}
		b.awaited.Store(false)
		s.took(b, part[:n])
		b.rest -= int64(n)
		s.read = b.rest == 0 && b.atHand
		s.last.Store(b.rest == 0)
		s.send.since = now()
		if err := s.u.put(part[:n], b.rest == 0, &s.send); err != nil {
			return s.serverFault(err)
		}
		s.note(0)
	}
	return nil
}

// bodyLimit is how long the client may take over its body. One that talks may be silent for as
// long as a tunnel may.
func (e *exchange) bodyLimit() limit {
	b := &e.desk.body
	l := limit{late: dataplane.ErrClientSlow, until: e.deadline(), over: dataplane.ErrTotalTime}
	if b.talks {
		l.each, l.since = e.desk.x.Route.Timeout.Tunnel, now()
		return l
	}
	p := e.clientPace()
	p.excuse = b.awaited.Load
	l.pace = &p
	return l
}

// clear returns what is at hand of a body that is not in chunks, or was taken out of them.
func (b *requestBody) clear() []byte {
	if b.held != nil {
		return b.held.first
	}
	return b.first
}

// tail returns the trailers that go to a server behind a body that is wholly at hand.
func (b *requestBody) tail() []byte {
	if b.held == nil || !b.whole || len(b.trailers) == 0 {
		return nil
	}
	return http1.AppendTrailers(nil, b.held.source.chunk.Trailers, b.trailers)
}

// chunked sends a chunked body in chunks of our own, so that no extension, trailer or
// peculiar spelling of the client gets to a server.
func (s *sender) chunked(b *requestBody, from *limit) error {
	out := make([]byte, 0, bufferBytes+64)
	for {
		part, err := s.room(b)
		if err != nil {
			return err
		}
		n, err := s.e.client.read(part, from)
		if err != nil {
			return clientFault(err)
		}
		b.awaited.Store(false)
		r, err := appendChunks(out[:0], part[:n], &b.chunks, b.trailers)
		out = r.out
		if err != nil {
			return fmt.Errorf("%w: %w", dataplane.ErrClientBody, err)
		}
		if b.data += int64(r.data); b.most > 0 && b.data > b.most {
			return dataplane.ErrTooLarge
		}
		s.took(b, part[:r.used])
		if r.done {
			b.behind = part[r.used:n]
		}
		s.read = r.done && b.atHand
		s.last.Store(r.done)
		s.send.since = now()
		if err := s.u.write(out, &s.send); err != nil {
			return s.serverFault(err)
		}
		s.note(0)
		if r.done {
			return nil
		}
	}
}

// pour sends a body that was taken out of its framing.
func (s *sender) pour(h *held, b *requestBody) error {
	part := getBuffer()
	defer putBuffer(part)
	out := make([]byte, 0, bufferBytes+64)
	left := h.length - int64(len(h.first))
	chunks := h.length < 0 && s.u.call == nil
	for h.length < 0 || left > 0 {
		n, err := h.more.Read(part[:])
		if h.length >= 0 && int64(n) > left {
			err = errLongBody
		}
		if err != nil && err != io.EOF {
			_ = b.forget() // if another server is to get it, it will hear of err
			return err
		}
		if err := h.keep(b, part[:n]); err != nil {
			return err
		}
		out = out[:0]
		switch {
		case n > 0 && chunks:
			out = appendChunk(out, part[:n])
		case n > 0:
			out = append(out, part[:n]...)
		}
		if h.length >= 0 {
			left -= int64(n)
		}
		if err == io.EOF && chunks {
			out = http1.AppendLastChunk(out, b.held.source.chunk.Trailers, b.trailers)
		}
		s.last.Store(left == 0 || err == io.EOF)
		s.send.since = now()
		if err := s.pass(out, left == 0 || err == io.EOF && left < 0); err != nil {
			return s.serverFault(err)
		}
		switch {
		case err == io.EOF && left > 0:
			return errShortBody
		case err == io.EOF:
			return nil
		}
	}
	return nil
}

// pass sends out, which ends the body if last is set.
func (s *sender) pass(out []byte, last bool) error {
	if c := s.u.call; c != nil && last {
		b := &s.e.desk.body
		tail := http1.AppendTrailers(nil, b.held.source.chunk.Trailers, b.trailers)
		if err := c.write(out, len(tail) == 0, &s.send); err != nil {
			return err
		}
		if len(tail) > 0 {
			if err := c.end(tail); err != nil {
				return err
			}
		}
	} else if len(out) == 0 {
		return nil
	} else if err := s.u.put(out, false, &s.send); err != nil {
		return err
	}
	s.note(0)
	return nil
}

// room returns where to read to: behind the part at hand while there is room, so that
// the request can be sent again, else elsewhere.
func (s *sender) room(b *requestBody) ([]byte, error) {
	d := s.e.desk
	if b.atHand {
		if at := s.e.head + len(b.first); at < len(d.in) {
			return d.in[at:], nil
		}
	}
	return b.spare[:], b.forget()
}

// took notes what was read into room.
func (s *sender) took(b *requestBody, part []byte) {
	b.taken += int64(len(part))
	if b.atHand {
		b.first = s.e.desk.in[s.e.head : s.e.head+len(b.first)+len(part)]
	}
}

// note says that the server has taken something.
func (s *sender) note(int64) {
	t := int64(now())
	s.heard.Store(t)
	s.e.heard.Store(t)
}

func (s *sender) fault(err error) error {
	var side *spliceError
	if errors.As(err, &side) && side.writing {
		return s.serverFault(side.err)
	}
	return clientFault(err)
}

func (s *sender) serverFault(err error) error {
	if why := s.u.interrupted(); why != nil {
		return why
	}
	switch {
	case errors.Is(err, dataplane.ErrSendTime), errors.Is(err, dataplane.ErrTotalTime):
		return err
	}
	return fmt.Errorf("%w: %w", dataplane.ErrSend, err)
}
