package http2

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/net/http2"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A Stream is one request and its answer. It belongs to its Conn, but for Decoder, which the
// Host begins.
type Stream struct {
	ID      uint32
	Decoder http1.Decoder

	window int64 // that we may send
	room   int64 // that the client may send
	credit int64 // consumed, and not given back
	body   buffer
	length int64 // that Content-Length says; -1: nothing
	got    int64 // of it

	trailers  []byte // field lines
	ended     bool   // the client has sent all
	sent      bool   // we have
	closed    bool   // it is no stream of the connection any more
	over      bool   // its exchange has ended
	ours      bool   // we have reset it
	abandoned bool   // it was reset while its exchange goes on
	fault     error  // why it was reset, or cannot be read
}

// Begin makes s a stream that nothing is known of.
func (s *Stream) Begin(id uint32) {
	s.ID = id
	s.length, s.got, s.credit = -1, 0, 0
	s.trailers = s.trailers[:0]
	s.ended, s.sent, s.closed, s.over, s.ours, s.abandoned, s.fault = false, false, false, false, false, false, nil
	s.body.drop()
}

// Fault returns why s was reset, or nil.
func (s *Stream) Fault() error { return s.fault }

// Trailers returns the field lines that came behind the body.
func (s *Stream) Trailers() []byte { return s.trailers }

var errReset = errors.New("the client has reset the stream")

// Read reads what there is of the body of s. It returns 0 and no error if there is nothing
// yet, and io.EOF at the end.
func (c *Conn) Read(s *Stream, p []byte) (int, error) {
	n := s.body.read(p)
	switch {
	case n > 0:
		c.consumed(s, n)
		return n, nil
	case s.fault != nil:
		return 0, s.fault
	case s.ended:
		return 0, io.EOF
	}
	return 0, nil
}

// consumed gives room for n bytes back to the client, when that is worth a frame.
func (c *Conn) consumed(s *Stream, n int) {
	c.giveBack(n)
	if s.ended || s.closed {
		return
	}
	if s.credit += int64(n); s.credit >= int64(c.conf.Window/2) {
		s.room += s.credit
		_ = c.frames.WriteWindowUpdate(s.ID, uint32(s.credit))
		s.credit = 0
	}
}

// giveBack is consumed for the connection.
func (c *Conn) giveBack(n int) {
	if c.credit += int64(n); c.credit >= int64(c.conf.ConnWindow/2) && c.fault == nil {
		c.room += c.credit
		_ = c.frames.WriteWindowUpdate(0, uint32(c.credit))
		c.credit = 0
	}
}

// Head sends the head of an answer, an interim one included, or of an answer that ends with
// it. It notes its length in r.
func (c *Conn) Head(s *Stream, r *dataplane.Response, date []byte, end bool) int {
	if s.closed || s.sent {
		return 0
	}
	c.block = c.block[:0]
	c.write(":status", statusText(r.Status))
	for i := range r.Header {
		f := &r.Header[i]
		switch f.ID {
		case dataplane.ContentLength, dataplane.TransferEncoding, dataplane.Connection, dataplane.KeepAlive,
			dataplane.ProxyConnection, dataplane.Upgrade, dataplane.HTTP2Settings, dataplane.SecWebSocketAccept:
			continue // RFC 9113, 8.2.2
		}
		c.writeField(f.Name, f.Value)
	}
	if r.Status >= 200 {
		if date != nil && r.Header.Get(dataplane.Date) == nil {
			c.write("date", text(date))
		}
		if r.Status != 204 && (r.Length > 0 || r.Length == 0 && r.Status != 304) {
			var digits [20]byte
			c.write("content-length", text(strconv.AppendInt(digits[:0], r.Length, 10)))
		}
	}
	r.HeadBytes = c.sendBlock(s.ID, end)
	if end {
		c.finished(s)
	}
	return r.HeadBytes
}

// statusText returns the digits of a status without an allocation for the usual ones.
func statusText(status int) string {
	switch status {
	case 200:
		return "200"
	case 304:
		return "304"
	case 404:
		return "404"
	}
	return strconv.Itoa(status)
}

// Data sends what of a and then b the windows, and the bytes that wait already, allow: taken
// bytes, and the end if that is all and last is set. sent is how much that is with frames.
// Where other streams wait too, it is one frame at most.
func (c *Conn) Data(s *Stream, a, b []byte, last, others bool) (taken, sent int) {
	from := len(c.out)
	for {
		n := len(a) + len(b) - taken
		if s.closed || s.sent || n == 0 && !last {
			break
		}
		m := c.fits(n, min(s.window, c.window), c.conf.Unsent)
		if m == 0 && n > 0 {
			break
		}
		flags := http2.Flags(0)
		if m == n && last {
			flags = http2.FlagDataEndStream
		}
		c.frameHead(m, http2.FrameData, flags, s.ID)
		c.control.earn(controlForFrame)
		if taken < len(a) {
			k := min(m, len(a)-taken)
			c.out = append(c.out, a[taken:taken+k]...)
			c.out = append(c.out, b[:m-k]...)
		} else {
			at := taken - len(a)
			c.out = append(c.out, b[at:at+m]...)
		}
		s.window -= int64(m)
		c.window -= int64(m)
		c.moved += int64(m)
		taken += m
		if flags != 0 {
			c.finished(s)
			break
		}
		if m == n || others {
			break
		}
	}
	return taken, len(c.out) - from
}

// MaySend reports whether the client's windows let s send (RFC 9113, 5.2).
func (c *Conn) MaySend(s *Stream) bool { return s.window > 0 && c.window > 0 }

// Starved reports whether s waits for the window of the connection alone, which all share.
func (c *Conn) Starved(s *Stream) bool { return s.window > 0 && c.window <= 0 }

// Moved returns how many bytes of bodies the windows have let go so far.
func (c *Conn) Moved() int64 { return c.moved }

// EndWith sends trailers, which are field lines, and with them the end of the answer.
func (c *Conn) EndWith(s *Stream, lines []byte) int {
	if s.closed || s.sent {
		return 0
	}
	c.block = c.block[:0]
	c.writeLines(lines)
	n := c.sendBlock(s.ID, true)
	c.finished(s)
	return n
}

// finished notes that the answer has been sent.
func (c *Conn) finished(s *Stream) {
	s.sent = true
	if s.ended {
		c.close(s)
	}
}

// close forgets a stream of which both sides are at their end.
func (c *Conn) close(s *Stream) {
	if !s.closed {
		s.closed = true
		delete(c.streams, s.ID)
		c.closed.add(s.ID, s.ours)
		if n := s.body.drop(); n > 0 {
			c.giveBack(n)
			if s.fault == nil {
				s.fault = errDone
			}
		}
	}
}

// errDone is about a body of which the rest was not wanted.
var errDone = fmt.Errorf("%w: the answer was there before the end of the request", dataplane.ErrClientGone)

// abandon notes that the client will not hear the answer to s, on which somebody is still at
// work (D1).
func (c *Conn) abandon(s *Stream) {
	if !s.over && !s.closed {
		s.abandoned = true
		c.abandoned++
	}
}

// Gone reports whether nothing of s can be sent any more.
func (s *Stream) Gone() bool { return s.closed || s.sent }

// Reset ends a stream, unless it has ended.
func (c *Conn) Reset(s *Stream, code http2.ErrCode) {
	if s.closed {
		return
	}
	_ = c.frames.WriteRSTStream(s.ID, code)
	s.ours = true
	if s.fault == nil {
		s.fault = fmt.Errorf("%w: reset", dataplane.ErrClientGone)
	}
	c.abandon(s)
	c.close(s)
}

// Done says that the exchange of s has ended. s is not used any more.
func (c *Conn) Done(s *Stream) {
	if !s.over {
		s.over = true
		c.running--
		if s.abandoned {
			c.abandoned--
		}
	}
	c.close(s)
}

// A buffer holds bytes until they are read.
type buffer struct {
	b  []byte
	at int
}

func (b *buffer) len() int { return len(b.b) - b.at }

func (b *buffer) add(p []byte) {
	if b.at > 0 && len(b.b)+len(p) > cap(b.b) {
		b.b = b.b[:copy(b.b, b.b[b.at:])]
		b.at = 0
	}
	b.b = append(b.b, p...)
}

func (b *buffer) read(p []byte) int {
	n := copy(p, b.b[b.at:])
	b.at += n
	if b.at == len(b.b) {
		b.b, b.at = b.b[:0], 0
	}
	return n
}

// drop forgets what is held, and returns how much that was. Room that has grown goes too.
func (b *buffer) drop() int {
	n := b.len()
	b.b, b.at = b.b[:0], 0
	if cap(b.b) > 32<<10 {
		b.b = nil
	}
	return n
}

// closedStreams are those that were closed lately: what still comes for them may have been on
// its way.
type closedStreams struct {
	ids  [128]uint32
	ours [128]bool
	at   int
}

const (
	notClosed = iota // or long ago
	resetByUs
	closedOtherwise
)

func (c *closedStreams) add(id uint32, ours bool) {
	c.ids[c.at], c.ours[c.at] = id, ours
	c.at = (c.at + 1) % len(c.ids)
}

func (c *closedStreams) find(id uint32) int {
	for i, have := range c.ids {
		if have == id {
			if c.ours[i] {
				return resetByUs
			}
			return closedOtherwise
		}
	}
	return notClosed
}
