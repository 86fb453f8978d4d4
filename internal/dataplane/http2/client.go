package http2

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// ClientConfig is what one connection with a server may have. All fields are set.
type ClientConfig struct {
	Streams int          // at once, before the server says how many it allows, and the most at any time
	Window  int          // bytes of an answer that may wait with us
	Limits  http1.Limits // of the head of an answer, and of its trailers
	Unsent  int          // bytes that may wait to be sent, beyond which Data takes nothing
}

// A Client is the client's side of one connection with a server, as a value like Conn. Servers
// are not trusted to frame correctly: what is wrong with an answer ends it, or the connection,
// with an error that wraps a *dataplane.Malformed.
//
// Bytes of an answer are bounded by the window of its stream alone: that of the connection is
// given back at once, so that one client that does not read its answer holds up no other.
type Client struct {
	conf ClientConfig
	wake func(*Call) // there is something new about it

	framing

	settled bool
	fault   error // why nothing more comes
	leaving bool  // the server has said GOAWAY, or the numbers of streams are used up
	next    uint32
	allowed int // streams at once, by the server
	calls   map[uint32]*Call
	places  int // taken by who has not asked yet
	window  int64
	room    int64
	credit  int64
	asked   bool // a ping of ours is on its way

	head    answerHead
	control budget
	seen    time.Duration
}

// connWindow is how much of all answers together may be on its way.
const connWindow = 16 << 20

// NewClient returns a new connection, whose greeting is to be sent. wake is called within the
// methods, and must not call any.
func NewClient(conf ClientConfig, wake func(*Call), now time.Duration) *Client {
	c := &Client{conf: conf, wake: wake, calls: make(map[uint32]*Call), next: 1, allowed: conf.Streams,
		window: startWindow, room: connWindow, seen: now}
	c.framing.begin(c.emit, conf.Limits.HeaderBytes)
	c.control = budgetOf(serverFrames, serverFrames)
	c.out = append(c.out, Preface...)
	_ = c.frames.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(conf.Window)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(conf.Limits.HeaderBytes)},
	)
	_ = c.frames.WriteWindowUpdate(0, connWindow-startWindow)
	return c
}

// serverFrames is how many frames that carry nothing a server may send at once, and a second.
// Requests and what we send earn more, as with clients.
const serverFrames = 10000

// Open returns how many streams there are, or will be at once.
func (c *Client) Open() int { return len(c.calls) + c.places }

// Reserve takes the place of one more stream, if there is one. Ask or Release follows.
func (c *Client) Reserve() bool {
	if c.fault != nil || c.leaving || c.asked || c.Open() >= min(c.allowed, c.conf.Streams) {
		return false
	}
	c.places++
	return true
}

// Release gives a place back.
func (c *Client) Release() { c.places-- }

// Over reports whether the connection is of no use any more.
func (c *Client) Over() bool { return c.fault != nil || c.leaving && c.Open() == 0 }

// Retire opens no more streams.
func (c *Client) Retire() { c.leaving = true }

// Ping asks the server for a sign of life, unless one was asked for that has not come.
func (c *Client) Ping() {
	if !c.asked && c.fault == nil {
		c.asked = true
		_ = c.frames.WritePing(false, alive)
	}
}

// alive asks for a sign of life.
var alive = [8]byte{'a', 'l', 'i', 'v', 'e', '?'}

// Pinged reports whether the answer to a ping is waited for.
func (c *Client) Pinged() bool { return c.asked }

// End makes err what every stream ends with: the connection has ended.
func (c *Client) End(err error) {
	if c.fault == nil {
		c.fault = err
	}
	for _, s := range c.calls {
		s.fail(err)
		c.wake(s)
	}
}

// fail ends the connection for a fault of the server.
func (c *Client) fail(code http2.ErrCode, why string) {
	if c.fault == nil {
		_ = c.frames.WriteGoAway(0, code, nil)
		c.End(bad("h2_connection", why))
	}
}

// bad is about something that a server should not have sent.
func bad(reason, detail string) error {
	return fmt.Errorf("%w: %w", dataplane.ErrResponse, &dataplane.Malformed{Status: 502, Reason: reason, Detail: detail})
}

// Why a stream was not, or not to its end, worked on.
var (
	ErrRefused   = errors.New("the server did not take the stream") // it has done nothing (RFC 9113, 8.7)
	ErrReset     = errors.New("the server has reset the stream")
	errNoRequest = errors.New("the server does not want the rest of the request")
)

// A Call is one request to a server and its answer. It belongs to its Client.
type Call struct {
	Owner any // for who is woken

	id     uint32
	window int64
	credit int64
	room   int64
	head   bool // the request's method is HEAD

	heads    []*dataplane.Response // that have come and were not asked for
	interims int
	final    bool // the last head has come
	length   int64
	got      int64
	body     buffer
	trailers []byte
	ended    bool  // the server has sent all
	sent     bool  // we have
	closed   bool  // it is no stream of the connection any more
	stopped  error // why nothing more is sent
	fault    error
}

func (s *Call) fail(err error) {
	if s.fault == nil {
		s.fault = err
	}
	s.stopped = s.fault
}

// Ask opens a stream, for which there is a place, with the head of q. scheme is http or https;
// last is that there is no body. It reports whether the connection still takes it.
func (c *Client) Ask(s *Call, q *dataplane.Request, scheme string, last bool) bool {
	if c.fault != nil || c.leaving {
		return false
	}
	c.places--
	*s = Call{Owner: s.Owner, id: c.next, window: c.initial, room: int64(c.conf.Window), length: -1, head: q.Method == dataplane.HEAD}
	c.next += 2
	c.leaving = c.leaving || c.next > lastStreamID
	c.calls[s.id] = s
	c.control.earn(controlForRequest)
	c.block = c.block[:0]
	c.write(":method", text(q.MethodText))
	c.write(":scheme", scheme)
	if h := q.Header.Get(dataplane.Host); len(h) > 0 {
		c.write(":authority", text(h))
	}
	path := append(append([]byte(nil), q.Path...), query(q)...)
	c.write(":path", text(path))
	for i := range q.Header {
		f := &q.Header[i]
		switch f.ID {
		case dataplane.Host, dataplane.Connection, dataplane.KeepAlive, dataplane.ProxyConnection, dataplane.TransferEncoding,
			dataplane.TE, dataplane.Upgrade, dataplane.HTTP2Settings, dataplane.Trailer, dataplane.SecWebSocketKey:
			continue
		case dataplane.ContentLength:
			if q.Length < 0 {
				continue
			}
		}
		c.writeField(f.Name, f.Value)
	}
	c.write("te", "trailers")
	c.sendBlock(s.id, last)
	if last {
		c.finished(s)
	}
	return true
}

func query(q *dataplane.Request) []byte {
	if q.Query == nil {
		return nil
	}
	return append([]byte{'?'}, q.Query...)
}

// Data sends what of b the windows, and the bytes that wait already, allow, and the end if that
// is all and last is set. The error says why the server takes nothing more.
func (c *Client) Data(s *Call, b []byte, last bool) (taken int, err error) {
	for {
		if s.stopped != nil {
			return taken, s.stopped
		}
		n := len(b) - taken
		if s.sent || n == 0 && !last {
			return taken, nil
		}
		m := c.fits(n, min(s.window, c.window), c.conf.Unsent)
		if m == 0 && n > 0 {
			return taken, nil
		}
		flags := http2.Flags(0)
		if m == n && last {
			flags = http2.FlagDataEndStream
		}
		c.frameHead(m, http2.FrameData, flags, s.id)
		c.control.earn(controlForFrame)
		c.out = append(c.out, b[taken:taken+m]...)
		s.window -= int64(m)
		c.window -= int64(m)
		taken += m
		if flags != 0 {
			c.finished(s)
		}
	}
}

// EndWith sends trailers, which are field lines, and with them the end of the request.
func (c *Client) EndWith(s *Call, lines []byte) error {
	if s.stopped != nil || s.sent {
		return s.stopped
	}
	c.block = c.block[:0]
	c.writeLines(lines)
	c.sendBlock(s.id, true)
	c.finished(s)
	return nil
}

// Sent reports whether all of the request has been given to be sent.
func (s *Call) Sent() bool { return s.sent }

// Head returns the next head that has come: nil and no error if there is none yet.
func (s *Call) Head() (*dataplane.Response, error) {
	if len(s.heads) > 0 {
		r := s.heads[0]
		s.heads = s.heads[1:]
		return r, nil
	}
	return nil, s.fault
}

// Answered reports whether a head has come that was not asked for.
func (s *Call) Answered() bool { return len(s.heads) > 0 }

// Empty reports whether the answer has ended with its head.
func (s *Call) Empty() bool { return s.ended && s.got == 0 && len(s.trailers) == 0 }

// Read reads what there is of the answer's body. It returns 0 and no error if there is nothing
// yet, and io.EOF at the end.
func (c *Client) Read(s *Call, p []byte) (int, error) {
	n := s.body.read(p)
	switch {
	case n > 0:
		c.giveBack(s, int64(n))
		return n, nil
	case s.ended:
		return 0, io.EOF
	}
	return 0, s.fault
}

// giveBack gives n bytes of room back to the server, when that is worth a frame.
func (c *Client) giveBack(s *Call, n int64) {
	if s.ended || s.closed {
		return
	}
	if s.credit += n; s.credit >= int64(c.conf.Window/2) {
		s.room += s.credit
		_ = c.frames.WriteWindowUpdate(s.id, uint32(s.credit))
		s.credit = 0
	}
}

// Trailers returns the field lines that came behind the body.
func (s *Call) Trailers() []byte { return s.trailers }

// Done forgets a stream, and resets it if it has not ended.
func (c *Client) Done(s *Call) {
	if !s.closed {
		if c.fault == nil {
			_ = c.frames.WriteRSTStream(s.id, http2.ErrCodeCancel)
		}
		c.close(s)
	}
	s.body = buffer{}
	s.fail(ErrReset)
}

func (c *Client) finished(s *Call) {
	s.sent = true
	if s.ended {
		c.close(s)
	}
}

func (c *Client) close(s *Call) {
	s.closed = true
	delete(c.calls, s.id)
}
