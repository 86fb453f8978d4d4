// Package http2 is the server's side of HTTP/2 (RFC 9113) as a value: it is fed what the
// client sent, has the streams with their windows, and gathers what is to be sent. It knows
// no socket, no clock and no goroutine; whoever owns a Conn calls it one call at a time and
// tells it the time.
//
// Frames are read by golang.org/x/net/http2's Framer and fields by its hpack. What a client may do
// to us besides asking (resets, settings, pings, empty frames, updates of windows) is paid
// for from budgets: see budget.go.
package http2

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// Config is what one connection may have. All fields are set.
type Config struct {
	Streams     int          // whose requests are worked on at once, those that the client has reset included (D1)
	Requests    int          // of the connection, until its client is told to make another (D7); 0 is no limit
	Window      int          // bytes of a stream's body that may wait with us (D6)
	ConnWindow  int          // likewise of all streams
	Limits      http1.Limits // of a request's head; HeaderBytes counts decoded bytes (D5)
	MayUpgrade  bool         // extended CONNECT is offered (RFC 8441)
	Unsent      int          // bytes that may wait to be sent, beyond which Data takes nothing
	Turn        int          // streams that one Feed has work begun or gone on with, at about
	MostPending int          // bytes that control frames may add to that; a client that lets them grow beyond is cut (D4)
}

// A Host is told what a Conn finds, within Feed. It must not call the Conn, but for
// Refuse.
type Host interface {
	// Open makes the stream of a request, whose Decoder it begins.
	Open(id uint32) *Stream
	// Request says that the head of s is complete. err is what End of its Decoder said, for a
	// request that is to be answered with that.
	Request(s *Stream, err error)
	// Drop says that a stream that was opened comes to nothing: it was reset with code, for
	// err, before there was a request.
	Drop(s *Stream, err error)
	// Wake says that who waits for s should look again: there is more of its body, or it is over.
	Wake(s *Stream)
	// Widened says that streams may have become free to send: windows are larger. It costs the
	// same for one stream and for all, and so does what the client has said.
	Widened()
	// Glitch counts what a client may do a few times.
	Glitch(kind dataplane.Glitch)
}

// A Fault ends a connection.
type Fault struct {
	Code   http2.ErrCode
	Reason string
	Flood  bool // the client was doing something too often
}

func (f *Fault) Error() string { return fmt.Sprintf("HTTP/2: %v: %s", f.Code, f.Reason) }

const (
	frameHead     = 9
	frameBytes    = 16384 // the largest payload that we take
	tableBytes    = 4096  // of the decoder's dynamic table (D5)
	continuations = 8     // of one head (D3)
	lastStreamID  = 1<<31 - 1
	startWindow   = 65535
	mostWindow    = 1<<31 - 1
	Preface       = http2.ClientPreface
)

// A Conn is one connection. Its zero value is of no use.
type Conn struct {
	conf Config
	host Host

	framing

	now     time.Duration
	greeted int  // bytes of the preface that came
	settled bool // the client's first SETTINGS came
	fault   *Fault
	leaving bool   // GOAWAY was sent
	final   bool   // with the last stream that we serve
	sealed  bool   // the client's fields are not decoded any more
	last    uint32 // the client's last stream
	served  uint32 // the last one that we take
	asked   int    // requests of the connection
	turn    int    // streams that this Feed has had work for

	streams   map[uint32]*Stream
	running   int // streams whose exchange has not ended
	abandoned int // of them, those that were reset
	closed    closedStreams
	window    int64
	moved     int64 // bytes of bodies that were sent
	room      int64 // that the client may send, of all streams
	credit    int64 // that was consumed and not given back

	head headState
	budgets
}

// New returns the connection of a client from which nothing was read. Our settings are to be
// sent.
func New(conf Config, host Host, now time.Duration) *Conn {
	c := &Conn{conf: conf, host: host, now: now, streams: make(map[uint32]*Stream),
		window: startWindow, room: int64(conf.ConnWindow), served: lastStreamID}
	c.framing.begin(c.emit, conf.Limits.HeaderBytes)
	c.budgets.begin(now)
	settings := []http2.Setting{
		{ID: http2.SettingMaxConcurrentStreams, Val: uint32(conf.Streams)},
		{ID: http2.SettingInitialWindowSize, Val: uint32(conf.Window)},
		{ID: http2.SettingMaxHeaderListSize, Val: uint32(conf.Limits.HeaderBytes)},
		{ID: http2.SettingNoRFC7540Priorities, Val: 1},
	}
	if conf.MayUpgrade {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	_ = c.frames.WriteSettings(settings...) // to memory
	if more := conf.ConnWindow - startWindow; more > 0 {
		_ = c.frames.WriteWindowUpdate(0, uint32(more))
	}
	return c
}

// Running returns how many exchanges have not ended.
func (c *Conn) Running() int { return c.running }

// Busy reports whether there is a stream, or a head that is not complete.
func (c *Conn) Busy() bool { return c.running > 0 || len(c.streams) > 0 }

// Waits reports whether the client owes us the rest of its greeting or of a head.
func (c *Conn) Waits() bool { return !c.settled || c.head.open }

// Over reports whether nothing more is to come of the connection.
func (c *Conn) Over() bool { return c.fault != nil || c.final && c.running == 0 }

// Fault returns what ended the connection, or nil.
func (c *Conn) Fault() *Fault { return c.fault }

// each calls f for every stream. f must not open or close one.
func (c *Conn) Each(f func(*Stream)) {
	for _, s := range c.streams {
		f(s)
	}
}

// Leave tells the client to make another connection. Requests that it sent before it could
// know are served, until a second call says that they all are here.
func (c *Conn) Leave(final bool) {
	switch {
	case c.fault != nil, c.final:
		return
	case final:
		c.final, c.served = true, c.last
	case c.leaving:
		return
	}
	c.leaving = true
	_ = c.frames.WriteGoAway(c.served, http2.ErrCodeNo, nil)
	if !final {
		_ = c.frames.WritePing(false, leavePing)
	}
}

// leavePing is answered when what the client sent before it heard of Leave is here.
var leavePing = [8]byte{'l', 'e', 'a', 'v', 'e'}

// fail ends the connection.
func (c *Conn) fail(code http2.ErrCode, reason string) *Fault {
	if c.fault == nil {
		c.fault = &Fault{Code: code, Reason: reason, Flood: code == http2.ErrCodeEnhanceYourCalm}
		_ = c.frames.WriteGoAway(c.last, code, nil)
		c.dropHead(c.fault)
		for _, s := range c.streams {
			s.fault = dataplane.ErrClientGone
			c.host.Wake(s)
		}
	}
	return c.fault
}

// dropHead gives up the request whose head is not complete.
func (c *Conn) dropHead(err error) {
	s := c.head.stream
	if s == nil || c.head.trailer {
		return
	}
	c.head.stream, c.head.drop = nil, errDropped
	s.over = true
	c.running--
	c.close(s)
	c.host.Drop(s, err)
}

// End makes err what every stream ends with: the client's connection has ended.
func (c *Conn) End(err error) {
	c.dropHead(err)
	for _, s := range c.streams {
		if s.fault == nil {
			s.fault = err
		}
		c.host.Wake(s)
	}
}
