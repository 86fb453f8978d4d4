package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/http3"
)

// An h3stream is a stream of HTTP/3 with its exchange.
type h3stream struct {
	streamed
	conn  *h3conn
	quic  *quic.Stream
	early bool // what it says may be a replay (RFC 8470)

	buf    []byte // read and not looked at
	space  [512]byte
	left   uint64 // of a DATA frame
	length int64  // of the body, as the head says; -1: nothing
	got    int64  // of it
	tails  []byte // field lines behind the body
	behind bool   // they have come: nothing may follow

	writer  http3.Writer
	ended   bool        // we have said all
	unwatch func() bool // of the end of the client's interest
}

// newH3Stream returns the stream of a request that is about to come.
func newH3Stream(h *h3conn, of *quic.Stream) *h3stream {
	s := &h3stream{conn: h, quic: of, early: h.early && !complete(h.quic)}
	s.open(h.endpoint.engine, h.handler, h.listener, s, desks.Get().(*desk))
	s.private = &h.own
	return s
}

// work has the exchange.
func (s *h3stream) work() {
	h, d := s.conn, s.desk
	defer h.done(s)
	s.unwatch = context.AfterFunc(s.quic.Context(), s.gone)
	defer s.unwatch()
	err := s.request()
	var m *dataplane.Malformed
	switch {
	case err == nil, errors.As(err, &m):
		s.serve(err)
		return
	case err == errReset:
		s.reset(dataplane.ErrClientBody)
	default:
		h.fail(err)
		s.reset(err)
	}
	d.x.Reset()
	s.desk = nil
	putDesk(d)
}

// errReset is that a stream is malformed, which is all that its client is told.
var errReset = errors.New("a malformed request")

// gone is for a client that does not want the answer any more, or has gone.
func (s *h3stream) gone() {
	s.conn.glitch(1, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exchange.cut(dataplane.ErrClientGone)
}

// request reads the head of the request. A *dataplane.Malformed has an answer.
func (s *h3stream) request() error {
	h := s.conn
	d := s.desk
	limits := &h.listener.Limits
	x := d.ask(h.listener, addrPortOf(h.quic.RemoteAddr()))
	state := h.quic.ConnectionState().TLS
	x.TLS, x.ConnID = &state, h.id
	l := limit{over: errHeadTime}
	if limits.HeaderTime > 0 {
		l.until = now() + moment(limits.HeaderTime)
	}
	s.length = -1
	kind, length, err := s.frame(&l)
	switch {
	case err != nil:
		return err
	case kind != http3.FrameHeaders:
		return &http3.Error{Code: http3.FrameUnexpected, Detail: "before the head"}
	}
	var dec http1.Decoder
	dec.Begin(&x.Request, d.in[:0], http1.LimitsOf(limits))
	x.Request.Version = 3
	if length > uint64(limits.HeaderBytes) { // compressed as it is
		return &dataplane.Malformed{Status: 431, Reason: "header_size"}
	}
	section, err := s.whole(int(length), &l)
	if err != nil {
		return err
	}
	s.exchange.head, s.have = 0, 0
	x.Bytes.In = int64(length)
	method, tunnels := "", false
	if err := http3.Fields(section, func(name, value string) bool {
		switch name {
		case ":method":
			method = value
		case ":protocol":
			tunnels = true
		}
		return dec.Field(name, value)
	}); err != nil {
		return err
	}
	ended := false
	if dec.Length() < 0 && !tunnels {
		if ended, err = s.isEnd(dataplane.MethodOf([]byte(method)).Idempotent()); err != nil {
			return err
		}
	}
	reset, err := dec.End(ended)
	if text := dec.Text(); cap(text) != cap(d.in) {
		d.in = text[:cap(text)]
	}
	s.exchange.head = len(dec.Text())
	s.exchange.have = s.exchange.head
	x.Times.Head = time.Now()
	x.Early = s.early
	if reset {
		s.handler.Refused(h.listener, x.Client, err)
		return errReset
	}
	s.length = dec.Length()
	return err
}

// lateEnd is how long the end of a request that hardly has a body may take to come behind
// its head.
const lateEnd = 50 * time.Millisecond

// isEnd reports whether the request ends with what was read. A client may wait for us before it
// says more, so that is known of what has come alone; but where a body is unlikely its end is
// waited for a little.
func (s *h3stream) isEnd(unlikely bool) (bool, error) {
	if len(s.buf) > 0 {
		return false, nil
	}
	until := now() + 1
	if unlikely {
		until = now() + moment(lateEnd)
	}
	n, err := s.recv(s.space[:], &limit{until: until, over: errNotYet})
	switch {
	case err == io.EOF:
		return true, nil
	case err == errNotYet:
		return false, nil
	case err != nil:
		return false, err
	}
	s.buf = s.space[:n]
	return false, nil
}

// recv reads from the stream, waiting no longer than l allows.
func (s *h3stream) recv(b []byte, l *limit) (int, error) {
	begun := now()
	for {
		var until time.Time
		if due := l.due(begun); due != 0 {
			until = due.time()
		}
		s.quic.SetReadDeadline(until)
		if err := s.interrupted(); err != nil {
			return 0, err
		}
		n, err := s.quic.Read(b)
		switch {
		case n > 0:
			if l.pace != nil && !l.pace.add(time.Duration(now()-begun), int64(n)) {
				return 0, l.late
			}
			return n, nil
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := s.overdue(l, &begun, 0); err != nil {
				return 0, err
			}
		case err == io.EOF:
			return 0, io.EOF
		default:
			return 0, fmt.Errorf("%w: %w", dataplane.ErrClientGone, err)
		}
	}
}

// overdue judges a wait at its deadline, or when it was woken. moved bytes have been sent in it.
func (s *h3stream) overdue(l *limit, begun *moment, moved int) error {
	t := now()
	if err := s.interrupted(); err != nil {
		return err
	}
	if l.until != 0 && t >= l.until {
		return l.over
	}
	if moved > 0 {
		l.since = t
	}
	if l.also != nil {
		l.since = max(l.since, l.also(t))
	}
	if l.each > 0 && t >= l.since+moment(l.each) {
		return l.late
	}
	if l.pace != nil {
		if !l.pace.add(time.Duration(t-*begun), int64(moved)) {
			return l.late
		}
		*begun = t
	}
	return nil
}

// more reads more behind what there is in buf.
func (s *h3stream) more(l *limit) error {
	have := copy(s.space[:], s.buf)
	n, err := s.recv(s.space[have:], l)
	s.buf = s.space[:have+n]
	return err
}

// frame reads the type and the length of the next frame that means something. io.EOF is the
// stream's end between two frames.
func (s *h3stream) frame(l *limit) (kind, length uint64, err error) {
	for {
		used := 0
		if kind, length, used = http3.FrameHead(s.buf); used == 0 {
			if err := s.more(l); err == io.EOF && len(s.buf) > 0 {
				return 0, 0, errTorn
			} else if err != nil {
				return 0, 0, err
			}
			continue
		}
		s.buf = s.buf[used:]
		switch {
		case kind == http3.FrameData || kind == http3.FrameHeaders:
			return kind, length, nil
		case http3.Reserved(kind) || http3.OnControl(kind) || kind == http3.FramePushPromise:
			return 0, 0, &http3.Error{Code: http3.FrameUnexpected, Detail: "on the stream of a request"}
		}
		s.conn.glitch(0, 1)
		if err := s.skip(length, l); err != nil {
			return 0, 0, err
		}
	}
}

var errTorn = &http3.Error{Code: http3.FrameError, Detail: "a stream ends within a frame"}

// skip reads the payload of a frame that means nothing to us (RFC 9114, 9).
func (s *h3stream) skip(length uint64, l *limit) error {
	for length > 0 {
		if len(s.buf) == 0 {
			if err := s.more(l); err == io.EOF {
				return errTorn
			} else if err != nil {
				return err
			}
		}
		n := min(uint64(len(s.buf)), length)
		s.buf, length = s.buf[n:], length-n
	}
	return nil
}

// whole reads the payload of a frame. It is valid until the next read.
func (s *h3stream) whole(length int, l *limit) ([]byte, error) {
	if length <= len(s.buf) {
		b := s.buf[:length]
		s.buf = s.buf[length:]
		return b, nil
	}
	b := make([]byte, length)
	have := copy(b, s.buf)
	s.buf = nil
	for have < length {
		n, err := s.recv(b[have:], l)
		if err == io.EOF {
			return nil, errTorn
		}
		if err != nil {
			return nil, err
		}
		have += n
	}
	return b, nil
}

// read implements stream.
func (s *h3stream) read(b []byte, l *limit) (int, error) {
	for s.left == 0 {
		kind, length, err := s.frame(l)
		switch {
		case err == io.EOF && s.length >= 0 && s.got != s.length:
			return 0, s.bad(nil, "content_length", "the body is shorter")
		case err != nil:
			return 0, s.bad(err, "h3_connection", "")
		case s.behind:
			return 0, s.bad(&http3.Error{Code: http3.FrameUnexpected, Detail: "behind the trailers"}, "h3_connection", "")
		case kind == http3.FrameHeaders:
			if err := s.trail(length, l); err != nil {
				return 0, err
			}
			continue
		}
		if s.length >= 0 && length > uint64(s.length-s.got) {
			return 0, s.bad(nil, "content_length", "the body is longer")
		}
		s.left = length
		s.got += int64(min(length, 1<<62))
	}
	b = b[:min(uint64(len(b)), s.left)]
	if len(s.buf) > 0 {
		n := copy(b, s.buf)
		s.buf, s.left = s.buf[n:], s.left-uint64(n)
		return n, nil
	}
	n, err := s.recv(b, l)
	s.left -= uint64(n)
	if err == io.EOF {
		err = s.bad(errTorn, "h3_connection", "")
	}
	return n, err
}

// bad returns what the exchange is told of an error in the body: err, which ends the connection if
// it is one of that, or that the message is malformed.
func (s *h3stream) bad(err error, reason, detail string) error {
	var e *http3.Error
	switch {
	case errors.As(err, &e):
		s.conn.fail(e)
		detail = e.Detail
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: %w", dataplane.ErrClientBody, &dataplane.Malformed{Status: 400, Reason: reason, Detail: detail})
}

// trail reads the trailers.
func (s *h3stream) trail(length uint64, l *limit) error {
	most := s.conn.listener.Limits.HeaderBytes
	if length > uint64(most) {
		return s.bad(nil, "header_size", "of trailers")
	}
	section, err := s.whole(int(length), l)
	if err != nil {
		return s.bad(err, "h3_connection", "")
	}
	s.behind = true
	size, good := 0, true
	err = http3.Fields(section, func(name, value string) bool {
		size += len(name) + len(value) + http1.FieldOverhead
		good = size <= most && http1.IsTrailer(name, value)
		if good {
			s.tails = append(append(append(append(s.tails, name...), ": "...), value...), "\r\n"...)
		}
		return good
	})
	switch {
	case err != nil:
		return s.bad(err, "h3_connection", "")
	case !good:
		return s.bad(nil, "field_value", "of trailers")
	}
	return nil
}

// trailers implements stream.
func (s *h3stream) trailers() []byte { return s.tails }

// send implements stream.
func (s *h3stream) send(p part, l *limit) (int, error) {
	buf := getBuffer()
	defer putBuffer(buf)
	out := buf[:0]
	if p.head != nil {
		out = s.writer.AppendHead(out, p.head, p.date)
	}
	size := len(p.a) + len(p.b)
	if size > 0 {
		out = http3.AppendFrameHead(out, http3.FrameData, uint64(size))
	}
	parts := [3][]byte{out, p.a, p.b}
	if len(out)+size <= len(buf) {
		parts = [3][]byte{append(append(out, p.a...), p.b...), nil, nil}
	}
	sent := 0
	for _, b := range parts {
		n, err := s.write(b, l)
		sent += n
		if err != nil {
			return sent, err
		}
	}
	if !p.last {
		return sent, nil
	}
	if len(p.trailers) > 0 {
		n, err := s.write(s.writer.AppendTrailers(nil, p.trailers), l)
		sent += n
		if err != nil {
			return sent, err
		}
	}
	s.unwatch()
	s.ended = true
	return sent, s.quic.Close()
}

// write sends b.
func (s *h3stream) write(b []byte, l *limit) (sent int, err error) {
	begun := now()
	for len(b) > 0 {
		var until time.Time
		if due := l.due(begun); due != 0 {
			until = due.time()
		}
		s.quic.SetWriteDeadline(until)
		if err := s.interrupted(); err != nil {
			return sent, err
		}
		n, err := s.quic.Write(b)
		sent += n
		b = b[n:]
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := s.overdue(l, &begun, n); err != nil {
				return sent, err
			}
		default:
			return sent, err
		}
	}
	return sent, nil
}

// reset implements stream.
func (s *h3stream) reset(err error) {
	s.unwatch()
	code := http3.InternalError
	var m *dataplane.Malformed
	switch {
	case err == nil:
		code = http3.NoError
	case errors.Is(err, dataplane.ErrClientBody), errors.As(err, &m):
		code = http3.MessageError
	case errors.Is(err, dataplane.ErrClientGone), errors.Is(err, dataplane.ErrClientSlow), err == errClosed:
		code = http3.RequestCancelled
	}
	s.quic.CancelRead(quic.StreamErrorCode(code))
	if !s.ended {
		s.quic.CancelWrite(quic.StreamErrorCode(code))
	}
}

// wake implements stream.
func (s *h3stream) wake() { s.quic.SetDeadline(longAgo) }
