package http1

import "proxyd/internal/dataplane"

// A ResponseDecoder makes a response of the fields that another version of HTTP has decoded
// (RFC 9113, 8.3.2), as strict as ParseResponse is: servers are not trusted to frame correctly.
type ResponseDecoder struct {
	r       *dataplane.Response
	lim     Limits
	text    []byte
	f       framing
	err     *dataplane.Malformed // the first thing wrong with it
	size    int                  // as RFC 9113, 6.5.2 counts
	lines   int
	regular bool // a field that is no pseudo-header has come
}

// Begin begins a response in r, which is reset. Its slices will be of memory of its own.
func (d *ResponseDecoder) Begin(r *dataplane.Response, lim Limits) {
	*d = ResponseDecoder{r: r, lim: lim, f: framing{length: -1}}
	r.Minor = 1
}

// Field takes in the next field. It reports whether the whole is still within the limits.
func (d *ResponseDecoder) Field(name, value string) bool {
	d.size += len(name) + len(value) + FieldOverhead
	if d.lines++; d.size > d.lim.HeaderBytes || d.lines > d.lim.Fields {
		d.wrong("header_size", "")
		return false
	}
	switch {
	case d.err != nil:
	case name == "":
		d.wrong("field_name", "")
	case name[0] == ':':
		d.status(name, value)
	default:
		d.regular = true
		d.field(name, value)
	}
	return true
}

func (d *ResponseDecoder) wrong(reason, detail string) {
	if d.err == nil {
		d.err = &dataplane.Malformed{Status: 502, Reason: reason, Detail: detail}
	}
}

// status takes in the one pseudo-header field that a response has.
func (d *ResponseDecoder) status(name, value string) {
	if name != ":status" || d.regular || d.r.Status != 0 || len(value) != 3 {
		d.wrong("pseudo", "")
		return
	}
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			d.wrong("pseudo", ":status")
			return
		}
		d.r.Status = d.r.Status*10 + int(value[i]-'0')
	}
	if d.r.Status < 100 || d.r.Status == 101 { // RFC 9113, 8.6
		d.wrong("pseudo", ":status")
	}
}

// field takes in any other field.
func (d *ResponseDecoder) field(name, value string) {
	for i := range len(name) {
		if classes[name[i]]&token == 0 || 'A' <= name[i] && name[i] <= 'Z' {
			d.wrong("field_name", "")
			return
		}
	}
	from := len(d.text)
	d.text = append(append(d.text, name...), value...)
	n := d.text[from : from+len(name) : from+len(name)]
	v := d.text[from+len(name) : len(d.text) : len(d.text)]
	v = trim(v) // RFC 9113, 8.2.1 forbids what is cut off; servers do it all the same, and no length depends on it
	if !plain(v) {
		d.wrong("field_value", "")
		return
	}
	id := identify(n)
	switch id {
	case dataplane.Connection, dataplane.KeepAlive, dataplane.ProxyConnection, dataplane.TransferEncoding, dataplane.Upgrade:
		d.wrong("connection", "a field of HTTP/1.1 connections") // RFC 9113, 8.2.2
		return
	case dataplane.ContentLength:
		if err := d.f.note(id, v); err != nil {
			m := err.(*dataplane.Malformed)
			d.wrong(m.Reason, m.Detail)
			return
		}
	}
	addField(&d.r.Header, n, v, id)
}

// End makes the response to a request whose method was HEAD or not. ended is that its message
// ends with the head. The error is a *dataplane.Malformed.
func (d *ResponseDecoder) End(head, ended bool) error {
	r := d.r
	switch {
	case d.err != nil:
		return d.err
	case r.Status == 0:
		return malformed(502, "pseudo", "no :status")
	case r.Status < 200 && (ended || d.f.length > 0):
		return malformed(502, "interim_body", "")
	}
	r.NoBody = head || r.Status < 200 || r.Status == 204 || r.Status == 304
	r.Length = d.f.length
	if ended && !r.NoBody && r.Length > 0 {
		return malformed(502, "content_length", "of a message that has no body")
	}
	return nil
}
