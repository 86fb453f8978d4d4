package engine

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http3"
)

// An h3conn is a client's connection that speaks HTTP/3. Each of its streams has its exchange in
// a goroutine of its own; QUIC itself is quic-go's.
type h3conn struct {
	*seat
	endpoint *Endpoint
	quic     *quic.Conn
	client   netip.AddrPort
	id       uint64
	early    bool // there was 0-RTT
	own      private

	mu       sync.Mutex // guards what follows
	streams  map[*h3stream]struct{}
	next     quic.StreamID // behind the last request that was taken
	requests int
	control  *quic.SendStream // ours; nil before
	idle     moment           // since when there is no stream; 0: there is one
	leaving  moment           // since when no request is taken; 0: they are
	why      dataplane.Closing
	said     bool // why is known
	uni      [4]bool
	window   moment // in which resets and frames without a use are counted
	resets   int
	frames   int
}

const (
	// mostResets is how many streams a client may give up within a second (D1).
	mostResets = 100
	// mostFrames is how many frames without a use it may send within a second (D4).
	mostFrames = 1000
)

// welcome has a connection admitted and serves it. It returns when the connection is over.
func (e *Endpoint) welcome(conn *quic.Conn) {
	g, ok := conn.Context().Value(greetingKey{}).(*greeting)
	if !ok {
		conn.CloseWithError(quic.ApplicationErrorCode(http3.InternalError), "")
		return
	}
	early := conn.ConnectionState().Used0RTT
	h := &h3conn{seat: g.seat, endpoint: e, quic: conn, client: g.client, id: e.engine.ids.Add(1), early: early,
		streams: map[*h3stream]struct{}{}, idle: now(), why: dataplane.ClosedClient}
	h.own.local = func() netip.AddrPort { return addrPortOf(conn.LocalAddr()) }
	if early {
		go func() { // ends with the handshake
			h.shaken(g)
		}()
	} else if !h.shaken(g) {
		return
	}
	if !e.enter(h) {
		conn.CloseWithError(quic.ApplicationErrorCode(http3.NoError), "")
		return
	}
	defer e.left(h)
	admitted := false
	defer func() {
		if p := recover(); p != nil {
			e.engine.conf.Panic(p)
		}
		conn.CloseWithError(quic.ApplicationErrorCode(http3.InternalError), "") // if it is not over
		h.own.close()
		if admitted {
			h.handler.Leave(h.listener, h.client, h.reason())
		}
	}()
	if admitted = h.handler.Admit(h.listener, h.client); !admitted {
		conn.CloseWithError(quic.ApplicationErrorCode(http3.ExcessiveLoad), "")
		return
	}
	h.serve()
}

// shaken waits for the end of the handshake, and reports whether it was a good one.
func (h *h3conn) shaken(g *greeting) bool {
	select {
	case <-h.quic.HandshakeComplete():
		state := h.quic.ConnectionState().TLS
		g.met(&state, nil)
		return true
	case <-h.quic.Context().Done():
		return false
	}
}

// reason says why the connection has ended.
func (h *h3conn) reason() dataplane.Closing {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why
}

// close ends the connection.
func (h *h3conn) close(code http3.Code, why dataplane.Closing) {
	h.mu.Lock()
	if !h.said {
		h.said, h.why = true, why
	}
	h.mu.Unlock()
	h.quic.CloseWithError(quic.ApplicationErrorCode(code), "")
}

// fail ends the connection for what err says of it.
func (h *h3conn) fail(err error) {
	var e *http3.Error
	if errors.As(err, &e) {
		h.handler.Refused(h.listener, h.client, &dataplane.Malformed{Status: 400, Reason: "h3_connection", Detail: e.Detail})
		h.close(e.Code, dataplane.ClosedError)
	}
}

// serve takes streams until the connection is over, and waits for their exchanges.
func (h *h3conn) serve() {
	var all sync.WaitGroup
	defer all.Wait()
	control, err := h.quic.OpenUniStream()
	if err == nil {
		_, err = control.Write(http3.AppendSettings(nil, h.listener.Limits.HeaderBytes))
	}
	if err != nil { // a client that lets us have no stream of our own (RFC 9114, 6.2)
		h.close(http3.StreamCreationError, dataplane.ClosedError)
		return
	}
	h.mu.Lock()
	h.control = control
	h.mu.Unlock()
	if h.endpoint.engine.closing() || h.endpoint.life.Err() != nil {
		h.leave()
	}
	all.Go(func() {
		for {
			s, err := h.quic.AcceptUniStream(context.Background())
			if err != nil {
				return
			}
			all.Go(func() { h.hear(s) })
		}
	})
	for {
		s, err := h.quic.AcceptStream(context.Background())
		if err != nil {
			return // the connection has ended, and with it what streams wait for
		}
		if x := h.take(s); x != nil {
			all.Go(x.work)
		}
	}
}

// take returns the stream of a request that has come, or nil if it is not had.
func (h *h3conn) take(s *quic.Stream) *h3stream {
	h.mu.Lock()
	if h.leaving != 0 {
		h.mu.Unlock()
		refuseStream(s)
		return nil
	}
	x := newH3Stream(h, s)
	h.streams[x] = struct{}{}
	h.next, h.idle = s.StreamID()+4, 0
	h.requests++
	most := h.listener.Limits.Requests
	enough := most > 0 && h.requests >= most // D7
	h.mu.Unlock()
	if enough {
		h.leave()
	}
	return x
}

// refuseStream says that a request was not looked at, so that it can be sent elsewhere.
func refuseStream(s *quic.Stream) {
	s.CancelRead(quic.StreamErrorCode(http3.RequestRejected))
	s.CancelWrite(quic.StreamErrorCode(http3.RequestRejected))
	s.ReleaseStreamCredit()
}

// complete reports whether the handshake is, so that what comes is no replay.
func complete(c *quic.Conn) bool {
	select {
	case <-c.HandshakeComplete():
		return true
	default:
		return false
	}
}

// done is for a stream whose exchange is over.
func (h *h3conn) done(s *h3stream) {
	h.mu.Lock()
	delete(h.streams, s)
	last := len(h.streams) == 0
	if last {
		h.idle = now()
	}
	h.mu.Unlock()
	s.quic.ReleaseStreamCredit()
}

// leave tells the client to have its further requests elsewhere. The connection ends when
// what it has asked for is answered.
func (h *h3conn) leave() {
	h.mu.Lock()
	control, next := h.control, h.next
	if h.leaving != 0 || control == nil {
		h.mu.Unlock()
		return
	}
	h.leaving = now()
	h.mu.Unlock()
	control.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = control.Write(http3.AppendGoAway(nil, uint64(next))) // else the end of the connection says it
}

// sweep looks after the streams, and ends a connection of which nobody wants anything.
func (h *h3conn) sweep(t moment) {
	h.mu.Lock()
	all := make([]*h3stream, 0, len(h.streams))
	for s := range h.streams {
		all = append(all, s)
	}
	idle, leaving := h.idle, h.leaving
	h.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		s.sweep(t)
		s.mu.Unlock()
	}
	conf := &h.endpoint.engine.conf
	switch {
	case idle == 0:
	case leaving != 0:
		// What was on its way when the client was told has come, and was refused.
		if t-max(leaving, idle) >= moment(conf.IdleGrace) {
			why := dataplane.ClosedIdle
			if h.endpoint.engine.closing() || h.endpoint.life.Err() != nil {
				why = dataplane.ClosedDrain
			}
			h.close(http3.NoError, why)
		}
	case conf.Draining():
		h.leave()
	case h.listener.Limits.Idle > 0 && t-idle >= moment(h.listener.Limits.Idle):
		h.leave()
	}
}

// cut ends the connection by force.
func (h *h3conn) cut(err error) {
	h.mu.Lock()
	all := make([]*h3stream, 0, len(h.streams))
	for s := range h.streams {
		all = append(all, s)
	}
	h.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		s.exchange.cut(err)
		s.mu.Unlock()
	}
	h.close(http3.NoError, dataplane.ClosingOf(err))
}

// glitch counts what a client may do a few times: streams given up, frames without a use.
func (h *h3conn) glitch(resets, frames int) {
	t := now()
	h.mu.Lock()
	if t-h.window >= moment(time.Second) {
		h.window, h.resets, h.frames = t, 0, 0
	}
	h.resets += resets
	h.frames += frames
	flood := h.resets > mostResets || h.frames > mostFrames
	h.mu.Unlock()
	if flood {
		h.close(http3.ExcessiveLoad, dataplane.ClosedFlood)
	}
}

// hear reads a stream of the client's that carries no request.
func (h *h3conn) hear(s *quic.ReceiveStream) {
	defer s.ReleaseStreamCredit()
	r := quicvarint.NewReader(s)
	kind, err := quicvarint.Read(r)
	if err != nil {
		return
	}
	if kind <= http3.StreamDecoder {
		h.mu.Lock()
		twice := h.uni[kind]
		h.uni[kind] = true
		h.mu.Unlock()
		if twice || kind == http3.StreamPush {
			h.fail(&http3.Error{Code: http3.StreamCreationError, Detail: "a stream that there may not be"})
			return
		}
	}
	switch kind {
	case http3.StreamControl:
		err = h.controls(r)
	case http3.StreamEncoder, http3.StreamDecoder:
		err = h.tables(r, kind)
	default:
		s.CancelRead(quic.StreamErrorCode(http3.StreamCreationError))
		return
	}
	if errors.Is(err, io.EOF) || isReset(err) {
		err = &http3.Error{Code: http3.ClosedCriticalStream, Detail: "the control stream has ended"}
	}
	h.fail(err)
}

// controls reads the control stream.
func (h *h3conn) controls(r quicvarint.Reader) error {
	for first := true; ; first = false {
		kind, err := quicvarint.Read(r)
		if err != nil {
			return err
		}
		length, err := quicvarint.Read(r)
		if err != nil {
			return err
		}
		switch {
		case first && kind != http3.FrameSettings:
			return &http3.Error{Code: http3.MissingSettings, Detail: "the control stream does not begin with settings"}
		case !first && kind == http3.FrameSettings, kind == http3.FrameData, kind == http3.FrameHeaders,
			kind == http3.FramePushPromise, http3.Reserved(kind):
			return &http3.Error{Code: http3.FrameUnexpected, Detail: "on the control stream"}
		case kind == http3.FrameSettings:
			if length > http3.MaxSettings {
				return &http3.Error{Code: http3.ExcessiveLoad, Detail: "settings that are too long"}
			}
			b := make([]byte, length)
			if _, err := io.ReadFull(r, b); err != nil {
				return err
			}
			if err := http3.CheckSettings(b); err != nil {
				return err
			}
		case kind == http3.FrameGoAway || kind == http3.FrameMaxPushID || kind == http3.FrameCancelPush:
			if length == 0 || length > 8 {
				return &http3.Error{Code: http3.FrameError, Detail: "of another length"}
			}
			fallthrough
		default:
			h.glitch(0, 1)
			if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
				return err
			}
		}
	}
}

// tables reads a stream of QPACK. Since there are no dynamic tables nothing can be said of them,
// but that a stream was given up, and that the table shall have no room.
func (h *h3conn) tables(r quicvarint.Reader, kind uint64) error {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		switch {
		case kind == http3.StreamEncoder && b != 0x20: // Set Dynamic Table Capacity, to 0
			return &http3.Error{Code: http3.EncoderStreamError, Detail: "there is no dynamic table"}
		case kind == http3.StreamDecoder && b&0xc0 == 0x40: // Stream Cancellation
			for more := b&0x3f == 0x3f; more; more = b&0x80 != 0 {
				if b, err = r.ReadByte(); err != nil {
					return err
				}
			}
		case kind == http3.StreamDecoder:
			return &http3.Error{Code: http3.Code(0x202), Detail: "there is no dynamic table"}
		}
		h.glitch(0, 1)
	}
}

// isReset reports whether err is that the client has given a stream up.
func isReset(err error) bool {
	var s *quic.StreamError
	return errors.As(err, &s) && s.Remote
}
