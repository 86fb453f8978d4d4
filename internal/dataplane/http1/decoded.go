package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// A Decoder makes a request of the fields that another version of HTTP has decoded (RFC
// 9113, 8.3; RFC 9114, 4.3), in the canonical form of ParseRequest and as strict as that. It
// is used for one request, field after field.
//
// The request says what it would say in HTTP/1.1: Host comes from :authority, crumbs of
// Cookie are one field, an extended CONNECT for a WebSocket (RFC 8441) is a GET that asks for
// the upgrade. A body without Content-Length is Chunked.
type Decoder struct {
	r    *dataplane.Request
	lim  Limits
	text []byte
	f    framing
	err  *dataplane.Malformed // the first thing wrong with the message, for which its stream is reset
	over error                // why it is refused with an answer: it is too large, or has an underscore
	size int                  // as RFC 9113, 6.5.2 counts

	method, scheme, path, authority, protocol []byte
	regular                                   bool // a field that is no pseudo-header has come
	cookie                                    int  // of r.Header, plus one
	lines                                     int
}

// Begin begins a request in r, which is reset. Its slices will be of text or what replaces
// it.
func (d *Decoder) Begin(r *dataplane.Request, text []byte, lim Limits) {
	*d = Decoder{r: r, lim: lim, text: text[:0], f: framing{length: -1}}
	r.Minor = 1
}

// FieldOverhead is what a field counts besides its octets (RFC 9113, 6.5.2).
const FieldOverhead = 32

// Field takes in the next field. It reports whether the whole is still within the limits;
// fields behind that need not be decoded any more.
func (d *Decoder) Field(name, value string) bool {
	d.size += len(name) + len(value) + FieldOverhead
	if d.size > d.lim.HeaderBytes {
		d.over = malformed(431, "header_size", "")
		return false
	}
	if d.err != nil {
		return true
	}
	if len(name) > 0 && name[0] == ':' {
		d.pseudo(name, value)
		return true
	}
	d.regular = true
	d.field(name, value)
	return true
}

// wrong notes what makes the message malformed.
func (d *Decoder) wrong(reason, detail string) {
	if d.err == nil {
		d.err = &dataplane.Malformed{Status: 400, Reason: reason, Detail: detail}
	}
}

// keep copies s and returns the copy.
func (d *Decoder) keep(s string) []byte {
	from := len(d.text)
	d.text = append(d.text, s...)
	return d.text[from:len(d.text):len(d.text)]
}

// pseudo takes in a pseudo-header field (RFC 9113, 8.3.1).
func (d *Decoder) pseudo(name, value string) {
	if d.regular {
		d.wrong("pseudo", "behind a field")
		return
	}
	var at *[]byte
	switch name {
	case ":method":
		at = &d.method
	case ":scheme":
		at = &d.scheme
	case ":path":
		at = &d.path
	case ":authority":
		at = &d.authority
	case ":protocol":
		at = &d.protocol
	default:
		d.wrong("pseudo", "unknown")
		return
	}
	if *at != nil {
		d.wrong("pseudo", "twice")
		return
	}
	*at = d.keep(value)
	for _, c := range *at {
		if !is(c, visible) {
			d.wrong("pseudo", "an octet that no "+name+" has")
			return
		}
	}
}

// field takes in any other field.
func (d *Decoder) field(name, value string) {
	if name == "" {
		d.wrong("field_name", "")
		return
	}
	if d.lines++; d.lines > d.lim.Fields {
		if d.over == nil {
			d.over = malformed(431, "fields", "")
		}
		return
	}
	if d.over != nil {
		return
	}
	seen := class(0)
	for i := range len(name) {
		k := classes[name[i]]
		if k&token == 0 || 'A' <= name[i] && name[i] <= 'Z' {
			d.wrong("field_name", "")
			return
		}
		seen |= k
	}
	n := d.keep(name)
	v := d.keep(value)
	if len(trim(v)) != len(v) || !plain(v) {
		d.wrong("field_value", "")
		return
	}
	if seen&underscore != 0 {
		keep, err := underscored(n, d.lim.Underscores)
		if err != nil {
			d.over = err
		}
		if !keep {
			return
		}
		d.r.Underscore = true
	}
	id := identify(n)
	switch id {
	case dataplane.Connection, dataplane.KeepAlive, dataplane.ProxyConnection, dataplane.TransferEncoding, dataplane.Upgrade, dataplane.HTTP2Settings:
		d.wrong("connection", "a field of HTTP/1.1 connections") // RFC 9113, 8.2.2
		return
	case dataplane.TE:
		if value != "trailers" {
			d.wrong("connection", "te")
		}
	case dataplane.Cookie:
		if d.cookie > 0 {
			d.crumb(v)
			return
		}
		d.cookie = len(d.r.Header) + 1
	case dataplane.Host, dataplane.ContentLength, dataplane.Expect:
		if err := d.f.note(id, v); err != nil {
			m := err.(*dataplane.Malformed)
			d.wrong(m.Reason, m.Detail)
			return
		}
		if id == dataplane.Host {
			return // there is one, from the authority
		}
	}
	addField(&d.r.Header, n, v, id)
}

// crumb joins v to the cookie that is there (RFC 9113, 8.2.3).
func (d *Decoder) crumb(v []byte) {
	f := &d.r.Header[d.cookie-1]
	from := len(d.text)
	d.text = append(append(append(d.text, f.Value...), "; "...), v...)
	f.Value = d.text[from:len(d.text):len(d.text)]
}

// Text returns what the slices of the request are of.
func (d *Decoder) Text() []byte { return d.text }

// End makes the request, which is all of a message if ended. If it is malformed as the version
// that decoded it sees it, reset is set: its stream is to be reset, without an answer. Any other
// error, a *dataplane.Malformed too, has an answer.
func (d *Decoder) End(ended bool) (reset bool, err error) {
	switch {
	case d.err != nil:
		return true, d.err
	case d.over != nil:
		return false, d.over
	}
	if reset, err = d.line(); err != nil {
		return reset, err
	}
	r := d.r
	switch {
	case d.f.length > 0 && ended:
		return true, malformed(400, "content_length", "of a message that has no body")
	case d.f.length >= 0:
		r.Length = d.f.length
	case !ended:
		r.Chunked, r.Length = true, -1
	}
	if d.f.expects {
		if err := expectation(r, &d.f); err != nil {
			return false, err
		}
	}
	if len(d.protocol) > 0 {
		return false, d.socket()
	}
	return false, nil
}

// Length returns what Content-Length says, or -1.
func (d *Decoder) Length() int64 { return d.f.length }

// line makes the method, the host and the path.
func (d *Decoder) line() (reset bool, err error) {
	r := d.r
	connect := string(d.method) == "CONNECT" && d.protocol == nil
	switch {
	case len(d.method) == 0, !connect && (len(d.scheme) == 0 || len(d.path) == 0), connect && (d.scheme != nil || d.path != nil):
		return true, malformed(400, "pseudo", "missing or not allowed")
	case d.protocol != nil && (string(d.method) != "CONNECT" || len(d.protocol) == 0):
		return true, malformed(400, "pseudo", ":protocol")
	case d.f.hosts > 1:
		return true, malformed(400, "host_twice", "")
	case d.authority != nil && d.f.hosts == 1 && !bytes.EqualFold(d.authority, d.f.host): // S18
		return true, malformed(400, "host", ":authority and host differ")
	}
	for _, c := range d.method {
		if !is(c, token) {
			return true, malformed(400, "method", "")
		}
	}
	if len(d.method) > longestMethod {
		return true, malformed(400, "method", "too long")
	}
	host := d.authority
	if len(host) == 0 {
		host = d.f.host
	}
	if len(host) == 0 {
		return true, malformed(400, "host_missing", "")
	}
	r.MethodText, r.Method, r.Target = d.method, dataplane.MethodOf(d.method), d.path
	d.first(host)
	if len(d.path) > d.lim.URIBytes {
		return false, malformed(414, "uri_size", "")
	}
	if !connect && d.path[0] != '/' && !(len(d.path) == 1 && d.path[0] == '*' && r.Method == dataplane.OPTIONS) {
		return true, malformed(400, "target", "")
	}
	if connect {
		r.Target = host
	}
	d.f.hosts, d.f.host = 1, host
	r.Text = r.Text[:0]
	if d.protocol != nil {
		r.Method = dataplane.GET
	}
	return false, requestTarget(r, &d.f)
}

// first makes Host the first field. The others keep their order, since among those of one
// name it has a meaning (RFC 9110, 5.3).
func (d *Decoder) first(host []byte) {
	addField(&d.r.Header, hostName, host, dataplane.Host)
	h := d.r.Header
	named := h[len(h)-1]
	copy(h[1:], h)
	h[0] = named
	if d.cookie > 0 {
		d.cookie++
	}
}

// Read-only: of a request for a WebSocket as HTTP/1.1 has it.
var (
	hostName      = []byte("Host")
	getMethod     = []byte("GET")
	upgradeName   = []byte("Upgrade")
	websocketWord = []byte("websocket")
	keyName       = []byte("Sec-WebSocket-Key")
	ownKey        = []byte("cHJveHlkIG92ZXIgaHR0cA==")
)

// socket makes an extended CONNECT the upgrade that it would be in HTTP/1.1 (RFC 8441, 5). The
// key is not a secret: it tells a server that knows WebSockets from one that does not.
func (d *Decoder) socket() error {
	r := d.r
	if !same(d.protocol, "websocket") {
		return malformed(501, "protocol", "")
	}
	r.MethodText = getMethod
	r.Chunked, r.Length = false, 0
	kept := r.Header[:0]
	for _, f := range r.Header {
		if f.ID != dataplane.SecWebSocketKey && f.ID != dataplane.ContentLength {
			kept = append(kept, f)
		}
	}
	r.Header = kept
	r.Header.Add(dataplane.Upgrade, upgradeName, websocketWord)
	r.Header.Add(dataplane.SecWebSocketKey, keyName, ownKey)
	if r.WebSocket = asksWebSocket(r); !r.WebSocket {
		return malformed(400, "protocol", "no good opening of a WebSocket")
	}
	return nil
}
