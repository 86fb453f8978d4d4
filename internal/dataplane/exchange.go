package dataplane

import (
	"crypto/tls"
	"net/netip"
	"time"
)

// An Exchange is one request with its response. The engine owns it and uses it again
// after End; whoever else holds it holds it only during a call.
type Exchange struct {
	Listener *Listener
	Config   uint64 // generation of the one snapshot that this exchange sees
	Snapshot any    // that snapshot, set by Match and cleared by the engine after End; only its maker looks inside
	Client   netip.AddrPort
	TLS      *tls.ConnectionState // nil for cleartext
	ConnID   uint64               // unique in this process

	Request    Request      // head; its slices are of a buffer that the exchange owns until End
	Response   Response     // of the server, or made here
	Route      *Route       // set by Match
	Filters    []BodyFilter // of the bodies, outermost for the client first; set by Begin, or by Respond for the answer's; Heavy routes only
	Server     *Server      // set by Begin and Retry
	Attempt    int          // 1 for the first server
	Replayable bool         // all of the request is still at hand, so that Respond and Retry may say Again
	Sent       bool         // a byte of the request may have reached x.Server in this attempt
	Early      bool         // the request may be a replay: it came before the end of the handshake (RFC 8470)
	Gathered   bool         // the engine has done what Gather asks for
	Body       []byte       // the request's body as the client sent it, if all of it is at hand after Gather

	Times Times
	Bytes Bytes

	Text []byte // scratch for values that Begin and Respond write; grows, emptied after End
	Mark Mark   // what the handler keeps about the exchange between its calls

	// Lag returns how long the request's last bytes lay unread with the kernel, or a
	// negative number if that is not known. It may cost a system call. nil: unknown.
	Lag   func() time.Duration
	Timed bool // Lag is exact to a few milliseconds, and no pause of this process made it

	Resume func() // after Wait: goes on with the exchange; may be called from any goroutine, and in vain: too often, or too late
}

// Mark is the handler's own note on an exchange.
type Mark struct {
	ClientIP  netip.Addr // found through trusted proxies
	Scheme    []byte     // http or https, as the client asked; likewise
	Authority []byte     // the host and port that the client asked for; likewise. Empty if HTTP/1.0 named none
	Path      []byte     // as the client asked, where a rewrite changed it; nil: it is the request's
	Query     []byte     // likewise, with Path
	RequestID []byte     // by which the exchange is found again in logs; empty if there are none
	Trace     Trace      // of which distributed trace the exchange is part
	Reason    string     // why the answer was made here, for log and metrics
	Fault     string     // what exactly went wrong with a server, in the words of RFC 9209, where the listener tells; "": Reason says it
	Local     bool       // the answer was made here
	Meant     int        // the status of an answer that is said in the way of gRPC; 0: it is x.Response's
	Place     any        // where the answer to a refusal waits; nil: it does not
	Pick      any        // what the pool wants to know again when the attempt ends; nil between attempts
	Kept      *Server    // the server that a cookie of the client names, if the cookie need not be given again
	Hash      uint64     // by which a pool with balance = "hash" chooses
	Answered  bool       // Respond has seen the answer of Pick
	Entered   bool       // it counts as under way
	Shed      bool       // it was not let in: the node does not keep up
	Copied    bool       // a copy of the request goes to another pool, if it can
	Begun     bool       // all but the choice of a server is done
	Tried     [4]*Server // servers that failed, so that none is tried twice
}

// A Trace is the place of an exchange in a distributed trace (W3C Trace Context). Its zero
// value is none.
type Trace struct {
	On      bool
	Sampled bool     // whoever began the trace, or we, wants spans of it
	ID      [16]byte // of the trace
	Parent  [8]byte  // the span of the trusted proxy that sent the request; zero if the trace begins here
	Span    [8]byte  // ours, which the server is told as its parent
}

// Times are when things happened; zero if they did not.
type Times struct {
	Start     time.Time     // the first byte of the request head
	Head      time.Time     // the request head was complete
	Dial      time.Duration // how long the last connect took; 0 for a kept connection
	Sent      time.Time     // the request head went to the server
	FirstByte time.Time     // the response head was complete
}

// Bytes counts what crossed the client's connection, heads included.
type Bytes struct{ In, Out int64 }

// Keep copies the parts into x.Text and returns the copy, valid until End.
func (x *Exchange) Keep(parts ...[]byte) []byte {
	from := len(x.Text)
	for _, p := range parts {
		x.Text = append(x.Text, p...)
	}
	return x.Text[from:len(x.Text):len(x.Text)]
}

// Asked returns the path and the query that the client asked for, whatever a rewrite made
// of them.
func (x *Exchange) Asked() (path, query []byte) {
	if x.Mark.Path != nil {
		return x.Mark.Path, x.Mark.Query
	}
	return x.Request.Path, x.Request.Query
}

// Reset makes x ready for the next request of its connection. What belongs to the
// connection (Listener, Client, TLS, ConnID) stays; buffers keep their capacity.
func (x *Exchange) Reset() {
	x.Config, x.Snapshot, x.Route, x.Server = 0, nil, nil, nil
	x.Attempt, x.Replayable, x.Sent, x.Early, x.Gathered, x.Body = 0, false, false, false, false, nil
	x.Times, x.Bytes, x.Mark = Times{}, Bytes{}, Mark{}
	x.Text, x.Resume, x.Lag, x.Timed = x.Text[:0], nil, nil, false
	clear(x.Filters)
	x.Filters = x.Filters[:0]
	x.Request.Reset()
	x.Response.Reset()
}
