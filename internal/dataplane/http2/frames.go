package http2

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane"
)

// Feed takes in what the client sent: whole frames of b, all of them or as many as make a turn
// (Config.Turn). It returns how much that was; the rest is to come again, with more behind it or,
// if Tired says so, when others have had their turn. A Fault ends the connection when what is to
// be sent has been.
func (c *Conn) Feed(b []byte, now time.Duration) (used int, fault *Fault) {
	c.now, c.turn = now, 0
	c.budgets.refill(now)
	if c.greeted < len(Preface) {
		n := min(len(b), len(Preface)-c.greeted)
		if string(b[:n]) != Preface[c.greeted:c.greeted+n] {
			return 0, c.fail(http2.ErrCodeProtocol, "no preface")
		}
		c.greeted += n
		used = n
	}
	for c.fault == nil && !(c.final && c.running == 0) && !c.Tired() {
		n, f, err := c.cut(b[used:])
		if n == 0 {
			break
		}
		used += n
		c.take(f, err)
	}
	return used, c.fault
}

// Tired reports whether the last Feed returned at the end of a turn: there may be more for another.
func (c *Conn) Tired() bool { return c.conf.Turn > 0 && c.turn >= c.conf.Turn }

// take works off one frame, or what is wrong with it.
func (c *Conn) take(f http2.Frame, err error) {
	if err != nil {
		c.refuse(err)
		return
	}
	if !c.settled {
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
		c.continued(f)
	case *http2.WindowUpdateFrame:
		c.widen(f)
	case *http2.RSTStreamFrame:
		c.wasReset(f)
	case *http2.SettingsFrame:
		c.settings(f)
	case *http2.PingFrame:
		c.ping(f)
	case *http2.GoAwayFrame:
		c.glitch(dataplane.GlitchOther)
	case *http2.PriorityFrame:
		c.priority(f)
	case *http2.PushPromiseFrame:
		c.fail(http2.ErrCodeProtocol, "PUSH_PROMISE of a client")
	default: // RFC 9113, 5.5: of another kind, PRIORITY_UPDATE among them (RFC 9218)
		c.glitch(dataplane.GlitchOther)
	}
}

// refuse is for a frame that the framer does not take.
func (c *Conn) refuse(err error) {
	id, code, detail := c.blame(err)
	if id != 0 {
		c.wrong(id, code, detail)
	} else {
		c.fail(code, detail)
	}
}

// wrong resets a stream for something that its client has done wrong. What it costs the
// client is what a reset of its own would (D2).
func (c *Conn) wrong(id uint32, code http2.ErrCode, why string) {
	if c.payReset(dataplane.ResetByServer) != nil {
		return
	}
	if s := c.streams[id]; s != nil {
		s.fault = fmt.Errorf("%w: %w", dataplane.ErrClientBody, &dataplane.Malformed{Status: 400, Reason: "h2_stream", Detail: why})
		c.Reset(s, code)
		c.host.Wake(s)
		return
	}
	_ = c.frames.WriteRSTStream(id, code)
	if id <= c.last && c.closed.find(id) == notClosed {
		c.closed.add(id, true)
	}
}

// data takes in a part of a body.
func (c *Conn) data(f *http2.DataFrame) {
	n := int64(f.Length) // padding counts, too
	if n > c.room {
		c.fail(http2.ErrCodeFlowControl, "more than the window of the connection")
		return
	}
	c.room -= n
	s := c.streams[f.StreamID]
	switch {
	case s == nil && f.StreamID > c.last:
		c.fail(http2.ErrCodeProtocol, "DATA on an idle stream")
		return
	case s == nil: // it was reset, and the client cannot know; or it is its mistake
		c.giveBack(int(n))
		if c.glitch(dataplane.GlitchClosed) == nil && !c.wasOurs(f.StreamID) {
			c.wrong(f.StreamID, http2.ErrCodeStreamClosed, "DATA on a closed stream")
		}
		return
	case s.ended:
		c.giveBack(int(n))
		c.wrong(f.StreamID, http2.ErrCodeStreamClosed, "DATA behind the end")
		return
	case n > s.room:
		c.giveBack(int(n))
		c.wrong(f.StreamID, http2.ErrCodeFlowControl, "more than the window of the stream")
		return
	}
	data := f.Data()
	s.room -= n
	s.got += int64(len(data))
	ends := f.StreamEnded()
	if s.length >= 0 && (s.got > s.length || ends && s.got < s.length) { // S19
		c.giveBack(int(n))
		c.wrong(f.StreamID, http2.ErrCodeProtocol, "not as long as Content-Length says")
		return
	}
	switch {
	case len(data) == 0 && !ends:
		if c.glitch(dataplane.GlitchEmpty) != nil {
			return
		}
	case len(data) >= controlForFrame*frameHead:
		c.control.earn(controlForFrame)
	case !ends: // frames smaller than what they are packed in
		if c.glitch(dataplane.GlitchEmpty) != nil {
			return
		}
	}
	s.body.add(data)
	if len(data) < smallData {
		c.turn++
	}
	if pad := int(n) - len(data); pad > 0 {
		c.consumed(s, pad)
	}
	if ends {
		c.ends(s)
	}
	c.host.Wake(s)
}

// ends notes that the client has sent all of s.
func (c *Conn) ends(s *Stream) {
	s.ended = true
	if s.sent {
		c.close(s)
	}
}

// wasOurs reports whether we have ended a stream lately, so that its client may not know.
func (c *Conn) wasOurs(id uint32) bool { return c.closed.find(id) == resetByUs }

// widen takes in a larger window.
func (c *Conn) widen(f *http2.WindowUpdateFrame) {
	if c.glitch(dataplane.GlitchWindow) != nil {
		return
	}
	n := int64(f.Increment)
	if f.StreamID == 0 {
		if c.window += n; c.window > mostWindow {
			c.fail(http2.ErrCodeFlowControl, "window above 2^31-1")
			return
		}
		if c.window == n { // it was shut
			c.host.Widened()
		}
		return
	}
	s := c.streams[f.StreamID]
	switch {
	case s == nil && f.StreamID > c.last:
		c.fail(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	case s == nil:
	case s.window+n > mostWindow:
		c.wrong(f.StreamID, http2.ErrCodeFlowControl, "window above 2^31-1")
	default:
		if s.window += n; s.window > 0 && s.window <= n {
			c.host.Widened()
		}
	}
}

// wasReset takes in that the client does not want a stream any more.
func (c *Conn) wasReset(f *http2.RSTStreamFrame) {
	s := c.streams[f.StreamID]
	if s == nil && f.StreamID > c.last {
		c.fail(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
		return
	}
	if c.payReset(dataplane.ResetByClient) != nil || s == nil {
		return
	}
	s.fault = fmt.Errorf("%w: %w", dataplane.ErrClientGone, errReset)
	c.abandon(s)
	c.close(s)
	c.host.Wake(s)
}

// settings takes in what the client wants.
func (c *Conn) settings(f *http2.SettingsFrame) {
	c.control.spend(int64(f.NumSettings() / settingsInFrame)) // who says more pays more
	if c.glitch(dataplane.GlitchSettings) != nil || f.IsAck() {
		return
	}
	more, err := c.accept(f, func(http2.Setting) error { return nil })
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
func (c *Conn) resize(more int64) error {
	for _, s := range c.streams {
		if s.window += more; s.window > mostWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	}
	c.host.Widened()
	return nil
}

// ping answers, or is the answer to ours.
func (c *Conn) ping(f *http2.PingFrame) {
	if f.IsAck() && f.Data == leavePing && c.leaving {
		c.Leave(true)
		return
	}
	if c.glitch(dataplane.GlitchPing) != nil || f.IsAck() {
		return
	}
	_ = c.frames.WritePing(true, f.Data)
}

// priority is taken, and has no effect (RFC 9113, 5.3.2).
func (c *Conn) priority(f *http2.PriorityFrame) {
	if c.glitch(dataplane.GlitchPriority) != nil {
		return
	}
	if f.StreamDep == f.StreamID {
		c.wrong(f.StreamID, http2.ErrCodeProtocol, "a stream that depends on itself")
	}
}

// A headState is a block of fields that is on its way.
type headState struct {
	open    bool // it is not complete
	stream  *Stream
	id      uint32
	trailer bool // of stream
	ends    bool // the message ends with it
	drop    error
	frames  int
	lines   int
	size    int
	over    bool // it is larger than it may be; nothing more is decoded
	done    bool // complete has been called
	bad     bool // a field that trailers may not have
	text    []byte
}

// headers begins a request, or its trailers.
func (c *Conn) headers(f *http2.HeadersFrame) {
	c.head = headState{open: true, id: f.StreamID, ends: f.StreamEnded(), text: c.head.text[:0]}
	h := &c.head
	s := c.streams[f.StreamID]
	switch {
	case f.StreamID%2 == 0:
		c.fail(http2.ErrCodeProtocol, "a stream that is not the client's")
		return
	case s != nil && s.ended:
		// RFC 9113, 5.1: half-closed. It is the client's own doing.
		h.drop = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	case s != nil:
		h.stream, h.trailer = s, true
		if !h.ends {
			h.drop = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case f.StreamID <= c.last:
		switch c.closed.find(f.StreamID) {
		case resetByUs:
			h.drop = errDropped
		case notClosed:
			c.fail(http2.ErrCodeProtocol, "streams are not opened in order")
			return
		default:
			c.fail(http2.ErrCodeStreamClosed, "HEADERS on a closed stream")
			return
		}
	default:
		c.begin(f)
	}
	if f.HasPriority() && f.Priority.StreamDep == f.StreamID && h.drop == nil {
		h.drop = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	if c.fault == nil {
		c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	}
}

// errDropped is why a head is decoded and nothing else.
var errDropped = errors.New("not wanted")

// begin takes in a new stream, or decides that it is not taken.
func (c *Conn) begin(f *http2.HeadersFrame) {
	h := &c.head
	c.last = f.StreamID
	c.control.earn(controlForRequest)
	switch {
	case f.StreamID > c.served:
		h.drop = errDropped
		return
	case len(c.streams)+c.abandoned >= c.conf.Streams: // D1
		h.drop = http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeRefusedStream}
		return
	}
	c.asked++
	c.turn++
	s := c.host.Open(f.StreamID)
	s.window, s.room = c.initial, int64(c.conf.Window)
	c.streams[s.ID] = s
	c.running++
	h.stream = s
	if most := c.conf.Requests; most > 0 && c.asked >= most { // D7
		c.Leave(c.asked >= most+c.conf.Streams)
	}
}

// continued goes on with a head.
func (c *Conn) continued(f *http2.ContinuationFrame) {
	h := &c.head
	if h.frames++; h.frames > continuations { // D3
		c.host.Glitch(dataplane.GlitchContinuation)
		c.fail(http2.ErrCodeEnhanceYourCalm, "a head in too many frames")
		return
	}
	if len(f.HeaderBlockFragment()) == 0 && c.glitch(dataplane.GlitchContinuation) != nil {
		return
	}
	c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

// fragment decodes a part of a block of fields.
func (c *Conn) fragment(b []byte, ends bool) {
	h := &c.head
	if c.sealed {
		h.over = true
	}
	if !h.over {
		if _, err := c.fields.Write(b); err != nil && !h.over {
			c.fail(http2.ErrCodeCompression, err.Error())
			return
		}
	}
	switch {
	case h.over && !c.sealed:
		c.seal()
	case !ends:
		return
	case !h.over:
		if err := c.fields.Close(); err != nil {
			c.fail(http2.ErrCodeCompression, err.Error())
			return
		}
	}
	h.open = !ends
	if !h.done {
		h.done = true
		c.complete()
	}
}

// seal gives up decoding, since a block is larger than it may be: what it would have put into
// the table is not known. The request at hand and those before it are answered (D3, D5).
func (c *Conn) seal() {
	c.sealed = true
	c.Leave(false)
	c.Leave(true)
}

// emit takes in a field.
func (c *Conn) emit(f hpack.HeaderField) {
	h := &c.head
	if h.over {
		return
	}
	if h.drop == nil && !h.trailer {
		h.over = !h.stream.Decoder.Field(f.Name, f.Value)
	} else if h.size += int(f.Size()); h.size > c.conf.Limits.HeaderBytes {
		h.over = true
	} else if h.trailer && h.drop == nil {
		h.trail(f, c.conf.Limits.Fields)
	}
	if h.over {
		c.fields.SetEmitEnabled(false)
	}
}

// trail keeps a field of trailers.
func (h *headState) trail(f hpack.HeaderField, most int) {
	if h.lines++; h.lines > most || !goodTrailer(f.Name, f.Value) {
		h.bad = true
		return
	}
	h.text = append(append(append(append(h.text, f.Name...), ": "...), f.Value...), "\r\n"...)
}

// complete works off a block of fields.
func (c *Conn) complete() {
	h := &c.head
	s := h.stream
	h.stream = nil
	var ofStream http2.StreamError
	switch {
	case errors.As(h.drop, &ofStream):
		if s != nil && !h.trailer {
			c.nothing(s, ofStream.Code, malformed("h2_stream"))
			return
		}
		c.wrong(h.id, ofStream.Code, "HEADERS")
	case h.drop != nil:
	case h.trailer && (h.bad || h.over || s.length >= 0 && s.got < s.length):
		c.wrong(h.id, http2.ErrCodeProtocol, "trailers")
	case h.trailer:
		s.trailers = append(s.trailers[:0], h.text...)
		c.ends(s)
		c.host.Wake(s)
	default:
		c.request(s)
	}
}

// request has a request worked on.
func (c *Conn) request(s *Stream) {
	h := &c.head
	reset, err := s.Decoder.End(h.ends)
	if reset {
		c.nothing(s, http2.ErrCodeProtocol, err)
		return
	}
	s.length = s.Decoder.Length()
	if h.ends {
		c.ends(s)
	}
	c.host.Request(s, err)
}

// nothing resets a stream of which no request has come.
func (c *Conn) nothing(s *Stream, code http2.ErrCode, err error) {
	_ = c.frames.WriteRSTStream(s.ID, code)
	s.over, s.ours = true, true
	c.running--
	c.close(s)
	c.host.Drop(s, err)
	c.payReset(dataplane.ResetByServer)
}

func malformed(reason string) error { return &dataplane.Malformed{Status: 400, Reason: reason} }
