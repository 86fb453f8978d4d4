// Package dataplane holds the words the data plane is written in: an Exchange and
// what it is made of, the Verdict of whoever decides, the Handler that an engine
// asks. It has no behaviour beyond small accessors; its sub-packages are sentences
// made of these words.
package dataplane

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Listener is one address on which clients are accepted. It is immutable; a reload
// that changes one makes another.
type Listener struct {
	Name    string
	Address string
	Limits  Limits
	Room    *Room // for request bodies that are held in memory; of the whole process
	Index   int   // of its name among those the process has had, for counters kept in slices
	TLS     TLS   // nil: in clear
	HTTP2   bool  // spoken with clients that ask for it: by ALPN with TLS, by its preface in clear
	Front   Front // nil: clients connect by themselves
	HTTP3   bool  // spoken beside, over UDP at the same address

	ProxyStatus, ServerTiming bool // answers have these fields

	Datagrams bool // this is that: its clients speak HTTP/3
}

// A Front is the proxies that stand before listeners and pass connections on, each with a
// PROXY header that says whose it is. It outlives reloads.
type Front interface {
	// Await is asked once a connection, before its first byte is read: whether peer is one
	// of them, and there is room.
	Await(l *Listener, peer netip.AddrPort) bool
	// Heard follows every Await that said yes, when the header is read. It says that the
	// connection is client's, or peer's own; a *Malformed or another err is why there is
	// none. False ends the connection; after true, Admit is asked about the client.
	Heard(l *Listener, peer, client netip.AddrPort, err error) bool
}

// TLS is how the clients of listeners are shaken hands with. It outlives reloads.
type TLS interface {
	// Greet is asked once a connection that was admitted, before its first byte is read:
	// how the handshake is had, or nil if there is no room for one more.
	Greet(l *Listener, client netip.AddrPort) *tls.Config
	// Met follows every Greet that gave a Config, when the handshake is over. state is nil
	// and err says why if it failed.
	Met(l *Listener, client netip.AddrPort, state *tls.ConnectionState, took time.Duration, err error)
}

// Aside is implemented by connections (tls.ClientHelloInfo.Conn) that may have their handshakes
// where others wait for their turn.
type Aside interface {
	// Aside is called by GetConfigForClient of a handshake that will compute for long. It
	// returns an error, to be returned as it is, if the handshake is to be begun again
	// elsewhere, where it keeps nobody waiting; nil if it is there.
	Aside() error
}

// Limits bound what one client may cost. They hold before any route is known.
type Limits struct {
	HeaderBytes   int           // a request head above it is answered 431
	URIBytes      int           // a target above it is answered 414
	Fields        int           // more header fields than this are answered 431
	HeaderTime    time.Duration // for a whole request head, from its first byte or the connection's start
	Requests      int           // of one HTTP/2 connection, until its client is told to make another; 0 is no limit
	Idle          time.Duration // between two requests of one connection
	HandshakeTime time.Duration // for a TLS handshake, from the connection's start
	Underscores   Underscores   // what becomes of header fields with one in their names
	MinRate       int           // bytes a second that an unfinished body or waiting client bytes must reach, averaged over RateWindow
	RateWindow    time.Duration
}

// Underscores is what becomes of a request's fields with an underscore in their names, which
// some servers take for a hyphen (S9 and B4 of the threat list).
type Underscores uint8

const (
	DropUnderscores   Underscores = iota // they are left out
	KeepUnderscores                      // they go on, but for those that could be taken for what we say
	RejectUnderscores                    // the request is answered 400
)

// A Route is what an engine must know of the route that Match chose. It is immutable.
type Route struct {
	Name      string
	Pool      string   // "" when the answer is made here
	BodyBytes int64    // a request body above it is answered 413
	Heavy     bool     // the handler may block: never on an event loop
	WebSocket bool     // "Upgrade: websocket" may become a tunnel
	Buffer    int64    // of a request body, that Gather reads to hand
	Sized     bool     // Gather reads a chunked body to hand whatever its size, to be sent with Content-Length
	Trailers  [][]byte // names, in lower case, of the trailers of chunked bodies that are let through, both ways
	Proxied   int      // a connection to a server begins with a PROXY header of this version, and is one client connection's; 0: neither. Heavy routes only
	Timeout   Timeouts
	Log       bool
	Index     int // place in the snapshot, for counters kept in slices
}

// Timeouts of the way to a server. Send and Read are between two successes, not totals.
type Timeouts struct {
	Connect time.Duration
	Send    time.Duration
	Read    time.Duration
	Tunnel  time.Duration // after an upgrade, without a byte either way
	Idle    time.Duration // how long an unused server connection is kept
	PerTry  time.Duration // of one attempt, until the answer's head is complete, while no request body is on its way; 0 is none
	Total   time.Duration // of the whole exchange; 0 is none
}

// A Server is one upstream of a pool. It outlives reloads: a new snapshot adopts the
// servers of the old one by pool and name, with their health, counters and connections.
type Server struct {
	Pool string
	Name string // as written in the configuration: host:port

	addr    atomic.Pointer[netip.AddrPort] // where the name resolves to now
	tls     atomic.Pointer[ServerTLS]
	http2   atomic.Bool
	gone    atomic.Bool
	lost    atomic.Bool
	Active  atomic.Int64 // exchanges in progress
	Conns   atomic.Int64 // open connections, idle ones included; the engine counts them
	keepOne sync.Once
	kept    any
}

// Addr returns where to dial; the zero AddrPort while the name does not resolve.
func (s *Server) Addr() netip.AddrPort {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return netip.AddrPort{}
}

// SetAddr changes where the server is dialled.
func (s *Server) SetAddr(a netip.AddrPort) { s.addr.Store(&a) }

// TLS returns how connections to the server are sealed now; nil is in clear. What it returns
// is another one whenever that changes, and connections that were made by the one before
// are not to be used again.
func (s *Server) TLS() *ServerTLS { return s.tls.Load() }

// SetTLS changes how connections to the server are sealed.
func (s *Server) SetTLS(how *ServerTLS) { s.tls.Store(how) }

// A ServerTLS is how connections to one server are sealed. It never changes.
type ServerTLS struct {
	Config *tls.Config
	// Met is told how a handshake went: state is nil if err is not. It returns err in the
	// words of an operator.
	Met func(state *tls.ConnectionState, err error) error
}

// HTTP2 reports whether the server is spoken to by HTTP/2, in clear by prior knowledge.
func (s *Server) HTTP2() bool { return s.http2.Load() }

// SetHTTP2 changes that.
func (s *Server) SetHTTP2(on bool) { s.http2.Store(on) }

// Gone reports that no snapshot has the server any more, so that its connections
// must not be kept.
func (s *Server) Gone() bool { return s.gone.Load() }

// SetGone marks the server as gone, or as back.
func (s *Server) SetGone(gone bool) { s.gone.Store(gone) }

// Lost reports that the server was found to be down while others are up: what waits for
// its answer does better elsewhere.
func (s *Server) Lost() bool { return s.lost.Load() }

// SetLost marks the server as lost, or as found again.
func (s *Server) SetLost(lost bool) { s.lost.Store(lost) }

// Kept returns what the engine keeps with the server (its idle connections), made by
// first at the first call. There is one engine a process, so one kind of thing.
func (s *Server) Kept(first func() any) any {
	s.keepOne.Do(func() { s.kept = first() })
	return s.kept
}

// Verdict says how an exchange goes on.
type Verdict uint8

const (
	Next   Verdict = iota // on to the next stage
	Answer                // send x.Response, made here
	Wait                  // suspend until x.Resume is called
	Again                 // send the request (once more) to x.Server; what came of the last attempt is dropped
	Gather                // read the request's body to hand, as far as the route wants it, and ask Begin again
	Close                 // close the client's connection without an answer
)

// A RequestFilter is a policy's part in a request. It sees the head after what belongs
// to one hop is stripped, and before a server is found. Answer means that it made
// x.Response, or set x.Mark.Reason to the word of a cause and left the answer to the plane
// (x.Response.Status is 0). On a light route it never blocks.
type RequestFilter interface{ Request(x *Exchange) Verdict }

// A ResponseFilter is a policy's part in an answer of x.Server or one made here. Next lets
// it go on; Answer is as for a RequestFilter.
type ResponseFilter interface{ Response(x *Exchange) Verdict }

// A BodyFilter sees, and may change, the bodies of one exchange on a Heavy route. The two
// methods may run at once and do not write x. What they return is used by one goroutine.
//
// Who adds a filter that changes the length of a body says so in the head before that is
// sent: Request.Length (with Chunked) or Response.Length is what the filter makes of it,
// -1 if that is not known. The engine frames by it and ends the connection when the body
// turns out longer or shorter.
type BodyFilter interface {
	// RequestBody returns what is sent to the server in place of r, or r itself. An error
	// of the returned reader ends the exchange before the server has the whole body. It is
	// not called for a request without a body.
	RequestBody(x *Exchange, r io.Reader) (io.Reader, error)
	// ResponseBody returns what takes the body of the answer in x.Response and writes to w
	// what the client gets, or w itself. An answer made here passes too; x.Mark tells which
	// it is. Closing what is returned ends the body and closes w; it is closed exactly once,
	// after an error too, when w takes nothing more. If it is a Flusher, it is flushed when
	// the server pauses.
	ResponseBody(x *Exchange, w io.WriteCloser) io.WriteCloser
}

// A Flusher writes what it holds back. It need not flush what it writes to: the engine
// flushes the writers of an answer one after the other, the client's last.
type Flusher interface{ Flush() error }

// A Fetcher sends a request of our own to a server of a pool: the only way in which a
// filter, a mirror or a check of another kind reaches one. The caller closes the
// response's Read, if there is one, and then the pool has its server back. ctx bounds the
// whole exchange. The Host of q is the server's by the rule of the pool; body is all of
// q's. client is on whose behalf it is, by which the pool may choose. It blocks.
type Fetcher interface {
	Fetch(ctx context.Context, pool string, q *Request, body []byte, client netip.Addr) (*Response, error)
}

// A Handler decides; an engine moves bytes and asks it. The calls for one exchange
// are serialised. No method keeps a pointer into x.Request or x.Response after End.
type Handler interface {
	// Admit is asked once a connection, before its first byte is read, but for what its
	// listener's Front is told.
	Admit(l *Listener, client netip.AddrPort) bool
	// Leave follows every Admit that said yes, when the connection is over, and says why.
	Leave(l *Listener, client netip.AddrPort, why Closing)
	// Refused tells of bytes that never became a request. A *Malformed says why.
	Refused(l *Listener, client netip.AddrPort, err error)
	// HTTP2 says that a connection that was admitted begins to speak HTTP/2, or, before its
	// Leave, that it has ended.
	HTTP2(l *Listener, begins bool)
	// Glitch counts what a client of HTTP/2 did and may do a few times. It may be called at
	// any time of a connection.
	Glitch(l *Listener, kind Glitch)
	// Match sets x.Route (never nil: an unmatched request gets a route that answers
	// 404). The request head is in, nothing is changed yet. It never blocks.
	Match(x *Exchange)
	// Begin strips and adds header fields and either answers (Answer, x.Response made
	// here), or sets x.Server and says Next.
	Begin(x *Exchange) Verdict
	// Respond sees the final response head of x.Server and may change its header. While
	// the client got no byte and x.Replayable says so it may also say Again, with a new
	// x.Server: that answer is dropped.
	Respond(x *Exchange) Verdict
	// Retry is asked when an attempt failed before the client got a byte: Again with a
	// new x.Server, or Answer with x.Response set. x.Replayable says whether the
	// request can be sent again.
	Retry(x *Exchange, err error) Verdict
	// End comes once for every Match, and last. err is nil when the client got all of
	// the answer; otherwise one of this package's errors or what the socket said.
	End(x *Exchange, err error)
}
