package http2

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// Feed takes in what the server sent: all whole frames of b. It returns how much that was; the
// rest is to come again, with more behind it. An error ends the connection.
func (c *Client) Feed(b []byte, now time.Duration) (used int, err error) {
	if passed := now - c.seen; passed >= time.Millisecond {
		c.control.refill(passed)
		c.seen = now
	}
	for c.fault == nil {
		n, f, err := c.cut(b[used:])
		if n == 0 {
			break
		}
		used += n
		c.take(f, err)
	}
	return used, c.fault
}

func (c *Client) take(f http2.Frame, err error) {
	switch {
	case err != nil && !c.settled:
		c.fail(http2.ErrCodeProtocol, "the server does not speak HTTP/2")
		return
	case err != nil:
		c.refuse(err)
		return
	case !c.settled:
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			c.fail(http2.ErrCodeProtocol, "no SETTINGS first")
			return
		}
		c.settled = true
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		c.data(f)
	case *http2.HeadersFrame:
		c.headers(f)
	case *http2.ContinuationFrame:
		if c.head.frames++; c.head.frames > continuations {
			c.fail(http2.ErrCodeEnhanceYourCalm, "a head in too many frames")
			return
		}
		c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.WindowUpdateFrame:
		c.widen(f)
	case *http2.RSTStreamFrame:
		c.wasReset(f)
	case *http2.SettingsFrame:
		c.settings(f)
	case *http2.PingFrame:
		c.ping(f)
	case *http2.GoAwayFrame:
		c.goAway(f)
	case *http2.PushPromiseFrame:
		c.fail(http2.ErrCodeProtocol, "PUSH_PROMISE, which was not allowed")
	default:
		c.pay()
	}
}

// pay has the server pay for a frame that carries nothing.
func (c *Client) pay() bool {
	if !c.control.spend(1) {
		c.fail(http2.ErrCodeEnhanceYourCalm, "too many frames that carry nothing")
		return false
	}
	return true
}

// refuse is for a frame that the framer does not take.
func (c *Client) refuse(err error) {
	id, code, detail := c.blame(err)
	if id != 0 {
		c.wrong(id, code, "h2_stream", detail)
	} else {
		c.fail(code, detail)
	}
}

// wrong resets a stream for something that the server has done wrong.
func (c *Client) wrong(id uint32, code http2.ErrCode, reason, detail string) {
	s := c.calls[id]
	if !c.pay() || s == nil {
		return
	}
	_ = c.frames.WriteRSTStream(id, code)
	c.lose(s, bad(reason, detail))
}

// lose ends a stream with err.
func (c *Client) lose(s *Call, err error) {
	s.fail(err)
	c.close(s)
	c.wake(s)
}

// idle reports whether no stream of that number was ever opened, which is a fault.
func (c *Client) idle(id uint32) bool {
	if id%2 == 1 && id < c.next {
		return false
	}
	c.fail(http2.ErrCodeProtocol, "a frame on an idle stream")
	return true
}

func (c *Client) data(f *http2.DataFrame) {
	n := int64(f.Length) // padding counts, too
	if c.room -= n; c.room < 0 {
		c.fail(http2.ErrCodeFlowControl, "more than the window of the connection")
		return
	}
	if c.credit += n; c.credit >= connWindow/2 {
		c.room += c.credit
		_ = c.frames.WriteWindowUpdate(0, uint32(c.credit))
		c.credit = 0
	}
	if c.idle(f.StreamID) {
		return
	}
	s := c.calls[f.StreamID]
	if s == nil { // it was reset, and the server could not know
		c.pay()
		return
	}
	data := f.Data()
	ends := f.StreamEnded()
	s.room -= n
	switch {
	case !s.final:
		c.wrong(f.StreamID, http2.ErrCodeProtocol, "h2_stream", "DATA without a head")
		return
	case s.ended: // the answer is whole all the same
		c.wrong(f.StreamID, http2.ErrCodeStreamClosed, "h2_stream", "DATA behind the end")
		return
	case s.room < 0:
		c.wrong(f.StreamID, http2.ErrCodeFlowControl, "h2_stream", "more than the window of the stream")
		return
	}
	s.got += int64(len(data))
	switch {
	case s.length >= 0 && (s.got > s.length || ends && s.got < s.length):
		c.wrong(f.StreamID, http2.ErrCodeProtocol, "content_length", "the body is not as long as it says")
		return
	case len(data) == 0 && !ends && !c.pay():
		return
	}
	s.body.add(data)
	if ends {
		c.ends(s)
	}
	c.giveBack(s, n-int64(len(data)))
	c.wake(s)
}

func (c *Client) ends(s *Call) {
	s.ended = true
	if s.sent {
		c.close(s)
	}
}

func (c *Client) widen(f *http2.WindowUpdateFrame) {
	if !c.pay() {
		return
	}
	n := int64(f.Increment)
	if f.StreamID == 0 {
		if c.window += n; c.window > mostWindow {
			c.fail(http2.ErrCodeFlowControl, "window above 2^31-1")
			return
		}
		if c.window > n { // it was not shut
			return
		}
		for _, s := range c.calls {
			if s.window > 0 && !s.sent {
				c.wake(s)
			}
		}
		return
	}
	if c.idle(f.StreamID) {
		return
	}
	switch s := c.calls[f.StreamID]; {
	case s == nil:
	case s.window+n > mostWindow:
		c.wrong(f.StreamID, http2.ErrCodeFlowControl, "h2_stream", "window above 2^31-1")
	default:
		s.window += n
		c.wake(s)
	}
}

// wasReset takes in that the server has given up a stream, or wants no more of its request.
func (c *Client) wasReset(f *http2.RSTStreamFrame) {
	if c.idle(f.StreamID) {
		return
	}
	s := c.calls[f.StreamID]
	switch {
	case s == nil:
		c.pay()
	case f.ErrCode == http2.ErrCodeNo && s.ended:
		s.stopped = errNoRequest
		c.close(s)
		c.wake(s)
	case f.ErrCode == http2.ErrCodeRefusedStream && !s.final:
		c.lose(s, ErrRefused)
	default:
		c.lose(s, fmt.Errorf("%w: %v", ErrReset, f.ErrCode))
	}
}

func (c *Client) settings(f *http2.SettingsFrame) {
	if !c.pay() || f.IsAck() {
		return
	}
	more, err := c.accept(f, func(s http2.Setting) error {
		switch {
		case s.ID == http2.SettingEnablePush && s.Val != 0: // RFC 9113, 6.5.2
			return http2.ConnectionError(http2.ErrCodeProtocol)
		case s.ID == http2.SettingMaxConcurrentStreams:
			c.allowed = int(min(s.Val, lastStreamID))
		}
		return nil
	})
	if err == nil && more != 0 {
		err = c.resize(more)
	}
	if err != nil {
		c.refuse(err)
		return
	}
	_ = c.frames.WriteSettingsAck()
}

// resize changes the windows of all streams (RFC 9113, 6.9.2).
func (c *Client) resize(more int64) error {
	for _, s := range c.calls {
		if s.window += more; s.window > mostWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wake(s)
	}
	return nil
}

func (c *Client) ping(f *http2.PingFrame) {
	if !c.pay() {
		return
	}
	if f.IsAck() {
		c.asked = c.asked && f.Data != alive
		return
	}
	_ = c.frames.WritePing(true, f.Data)
}

// goAway takes in that the server opens no more streams, and which ones it has not worked on.
func (c *Client) goAway(f *http2.GoAwayFrame) {
	if !c.pay() {
		return
	}
	c.leaving = true
	for id, s := range c.calls {
		switch {
		case id <= f.LastStreamID:
		case s.final: // it has worked on it, whatever it says
			c.lose(s, fmt.Errorf("%w: GOAWAY, %v", ErrReset, f.ErrCode))
		default:
			c.lose(s, ErrRefused)
		}
	}
}

// An answerHead is a block of fields that is on its way.
type answerHead struct {
	call    *Call // nil: it is not wanted any more
	id      uint32
	decoder http1.ResponseDecoder
	r       *dataplane.Response
	trailer bool
	ends    bool
	frames  int
	lines   int
	size    int
	bad     bool // a field that trailers may not have, or too many
	text    []byte
}

// headers begins an answer, or its trailers.
func (c *Client) headers(f *http2.HeadersFrame) {
	if c.idle(f.StreamID) {
		return
	}
	s := c.calls[f.StreamID]
	h := &c.head
	*h = answerHead{call: s, id: f.StreamID, ends: f.StreamEnded(), text: h.text[:0]}
	switch {
	case s == nil:
		if !c.pay() {
			return
		}
	case s.final:
		h.trailer = true
	default:
		h.r = new(dataplane.Response)
		h.decoder.Begin(h.r, c.conf.Limits)
	}
	c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

// fragment decodes a part of a block of fields. The table must follow the server's whatever
// comes of the stream.
func (c *Client) fragment(b []byte, ends bool) {
	if _, err := c.fields.Write(b); err != nil {
		c.fail(http2.ErrCodeCompression, err.Error())
		return
	}
	if !ends {
		return
	}
	if err := c.fields.Close(); err != nil {
		c.fail(http2.ErrCodeCompression, err.Error())
		return
	}
	if s := c.head.call; s != nil && !s.closed {
		c.complete(s)
	}
}

// emit takes in a field.
func (c *Client) emit(f hpack.HeaderField) {
	h := &c.head
	switch {
	case h.call == nil:
	case !h.trailer:
		h.decoder.Field(f.Name, f.Value)
	default:
		h.lines++
		h.size += int(f.Size())
		switch {
		case h.lines > c.conf.Limits.Fields, h.size > c.conf.Limits.HeaderBytes, !goodTrailer(f.Name, f.Value):
			h.bad = true
		case http1.MayTrail(f.Name):
			h.text = append(append(append(append(h.text, f.Name...), ": "...), f.Value...), "\r\n"...)
		}
	}
}

// complete works off a block of fields.
func (c *Client) complete(s *Call) {
	h := &c.head
	if h.trailer {
		switch {
		case !h.ends || h.bad || s.ended:
			c.wrong(h.id, http2.ErrCodeProtocol, "trailers", "")
			return
		case s.length >= 0 && s.got < s.length:
			c.wrong(h.id, http2.ErrCodeProtocol, "content_length", "the body is shorter than it says")
			return
		}
		s.trailers = append([]byte(nil), h.text...)
		c.ends(s)
		c.wake(s)
		return
	}
	if err := h.decoder.End(s.head, h.ends); err != nil {
		_ = c.frames.WriteRSTStream(h.id, http2.ErrCodeProtocol)
		c.lose(s, fmt.Errorf("%w: %w", dataplane.ErrResponse, err))
		return
	}
	if h.r.Status < 200 {
		if s.interims++; s.interims > mostInterims {
			c.wrong(h.id, http2.ErrCodeEnhanceYourCalm, "interim_flood", "")
			return
		}
	} else {
		s.final = true
		s.length = h.r.Length
		if h.r.NoBody {
			s.length = 0
		}
		if h.ends {
			c.ends(s)
		}
	}
	s.heads = append(s.heads, h.r)
	c.wake(s)
}

// mostInterims is how many interim answers a server may send (A11).
const mostInterims = 8
