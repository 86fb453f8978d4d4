package dataplane

import (
	"bytes"
	"io"
	"os"
)

// FieldID is a header field name that some part of the data plane looks for, so that
// it is compared once, by the parser.
type FieldID uint8

const (
	Other FieldID = iota
	Host
	Connection
	ContentLength
	TransferEncoding
	KeepAlive
	ProxyConnection
	ProxyAuthenticate
	ProxyAuthorization
	TE
	Trailer
	Upgrade
	HTTP2Settings
	Expect
	Via
	Forwarded
	XForwarded // the whole family: X-Forwarded-* and the like, B3 and S10 of the threat list
	XForwardedFor
	XForwardedProto
	XForwardedHost
	XForwardedPort
	XRealIP
	Proxy // httpoxy
	SecWebSocketKey
	SecWebSocketAccept
	SecWebSocketVersion
	Date
	ServerField
	Location
	Cookie
	SetCookie
	Authorization
	UserAgent
	Referer
	XRequestID
	TraceParent
	TraceState
	ContentLocation
	Refresh
)

// A Field is one header field line. Name is as sent, Value without the white space
// around it.
type Field struct {
	Name, Value []byte
	ID          FieldID
}

// Header is the field lines of a head, in the order in which they came.
type Header []Field

// Get returns the value of the first field with that id, or nil.
func (h Header) Get(id FieldID) []byte {
	for i := range h {
		if h[i].ID == id {
			return h[i].Value
		}
	}
	return nil
}

// Find returns the value of the first field with that name (any case), or nil.
func (h Header) Find(name string) []byte {
	for i := range h {
		if len(h[i].Name) == len(name) && bytes.EqualFold(h[i].Name, []byte(name)) {
			return h[i].Value
		}
	}
	return nil
}

// Add appends a field.
func (h *Header) Add(id FieldID, name, value []byte) {
	*h = append(*h, Field{Name: name, Value: value, ID: id})
}

// Method is one of the methods that proxyd tells apart.
type Method uint8

const (
	MethodOther Method = iota
	GET
	HEAD
	POST
	PUT
	DELETE
	OPTIONS
	PATCH
	CONNECT
	TRACE
)

// MethodOf returns the method of that name, which is compared as it is (RFC 9110, 9.1).
func MethodOf(name []byte) Method {
	switch string(name) {
	case "GET":
		return GET
	case "HEAD":
		return HEAD
	case "POST":
		return POST
	case "PUT":
		return PUT
	case "DELETE":
		return DELETE
	case "OPTIONS":
		return OPTIONS
	case "PATCH":
		return PATCH
	case "CONNECT":
		return CONNECT
	case "TRACE":
		return TRACE
	}
	return MethodOther
}

// Idempotent reports whether a request may be sent twice (RFC 9110, 9.2.2).
func (m Method) Idempotent() bool {
	switch m {
	case GET, HEAD, PUT, DELETE, OPTIONS, TRACE:
		return true
	}
	return false
}

// A Request is a parsed request head. The canonical forms (Host, Path) are the ones
// that are routed on, logged and forwarded: there is one form of each.
type Request struct {
	Method     Method
	MethodText []byte
	Target     []byte // as sent
	Scheme     []byte // of an absolute-form target; empty otherwise
	Host       []byte // lower case, without port and trailing dot; empty if HTTP/1.0 sent none
	Port       []byte // digits after the host; empty if none
	Path       []byte // normalised: dots resolved, slashes collapsed, unreserved octets decoded; "*" for OPTIONS *
	Query      []byte // raw, without "?"; nil if there was no "?"
	Version    uint8  // of HTTP: 2 or 3; 0: HTTP/1.Minor
	Minor      uint8  // 1 for what is not HTTP/1.0
	Header     Header
	Length     int64 // of the body; 0 for none, -1 if chunked
	Chunked    bool
	KeepAlive  bool // the client lets its connection be used again
	Continue   bool // Expect: 100-continue
	WebSocket  bool // a well-formed WebSocket upgrade (RFC 6455, 4.2.1)
	Nominated  bool // Connection names fields besides close, keep-alive and upgrade
	Underscore bool // a field with one in its name was kept

	Text []byte // the parser's scratch for a host or path that was not sent in its canonical form
}

// Proto returns what the client spoke, as logs have it.
func (r *Request) Proto() string {
	switch {
	case r.Version == 2:
		return "HTTP/2.0"
	case r.Version == 3:
		return "HTTP/3.0"
	case r.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// GRPC reports whether r is a call of gRPC, by its Content-Type.
func (r *Request) GRPC() bool {
	const kind = "application/grpc"
	v := r.Header.Find("content-type")
	return len(v) >= len(kind) && string(v[:len(kind)]) == kind &&
		(len(v) == len(kind) || v[len(kind)] == '+' || v[len(kind)] == ';')
}

// Reset empties r, keeping the capacity of its header and text.
func (r *Request) Reset() { *r = Request{Header: r.Header[:0], Text: r.Text[:0]} }

// Clone returns a copy of what r is sent on as: all but Target, Scheme and Text. It shares
// no bytes with r.
func (r *Request) Clone() *Request {
	size := len(r.MethodText) + len(r.Host) + len(r.Port) + len(r.Path) + len(r.Query)
	for i := range r.Header {
		size += len(r.Header[i].Name) + len(r.Header[i].Value)
	}
	text := make([]byte, 0, size)
	own := func(b []byte) []byte {
		if b == nil {
			return nil // a Query of nil is none
		}
		from := len(text)
		text = append(text, b...)
		return text[from:len(text):len(text)]
	}
	c := *r
	c.Target, c.Scheme, c.Text = nil, nil, nil
	c.MethodText, c.Host, c.Port, c.Path, c.Query = own(r.MethodText), own(r.Host), own(r.Port), own(r.Path), own(r.Query)
	c.Header = make(Header, len(r.Header), len(r.Header)+2)
	for i, f := range r.Header {
		c.Header[i] = Field{Name: own(f.Name), Value: own(f.Value), ID: f.ID}
	}
	return &c
}

// A Response is a parsed response head, or an answer made here.
type Response struct {
	Status    int
	Reason    []byte // as sent by the server; empty: the registered phrase
	Minor     uint8
	Header    Header // without framing fields when made here: the engine writes those
	Length    int64  // of the body as framed; -1 if chunked or until the server closes
	Chunked   bool
	Close     bool // the server will close its connection, or (made here) the client's is to be closed
	NoBody    bool // none follows whatever the fields say: HEAD, 1xx, 204, 304
	Nominated bool // as in Request
	HeadBytes int  // of the head as the client got it; set when it is written

	// The body of an answer made here: one of these, or none.
	Body []byte
	File *FileSection  // the engine closes it
	Read io.ReadCloser // of Length bytes, or -1; may block, so on a Heavy route only; the engine closes it, during a Read too if nobody waits for it any more
}

// A FileSection is a part of an open file.
type FileSection struct {
	File       *os.File
	From, Size int64
}

// Reset empties r, keeping the capacity of its header. It closes no body.
func (r *Response) Reset() { *r = Response{Header: r.Header[:0]} }
