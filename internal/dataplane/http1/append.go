package http1

import (
	"strconv"

	"proxyd/internal/dataplane"
)

// AppendRequest appends the head of r as it goes to a server: Host first (RFC 9110, 7.2),
// then every field of r.Header but those of framing, which come from r.Length and
// r.Chunked alone. A length of 0 is said if a Content-Length is in r.Header.
func AppendRequest(dst []byte, r *dataplane.Request) []byte {
	dst = append(dst, r.MethodText...)
	dst = append(dst, ' ')
	dst = append(dst, r.Path...)
	if r.Query != nil {
		dst = append(dst, '?')
		dst = append(dst, r.Query...)
	}
	dst = append(dst, " HTTP/1.1\r\n"...)
	for i := range r.Header {
		if r.Header[i].ID == dataplane.Host {
			dst = appendField(dst, &r.Header[i])
			break
		}
	}
	length := false
	for i := range r.Header {
		switch f := &r.Header[i]; f.ID {
		case dataplane.Host, dataplane.TransferEncoding:
		case dataplane.ContentLength:
			length = true
		default:
			dst = appendField(dst, f)
		}
	}
	switch {
	case r.Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.Length > 0 || length:
		dst = appendLength(dst, r.Length)
	}
	return append(dst, '\r', '\n')
}

// ResponseOptions say how a response head is written.
type ResponseOptions struct {
	Minor     uint8  // of the client's request
	KeepAlive bool   // the client's connection will be used again
	Date      []byte // for an answer without Date
	Upgrade   bool   // of a 101: Connection: upgrade
}

// AppendResponse appends the head of r as it goes to the client. The framing is
// r.Length if that is known; else chunked, or for an HTTP/1.0 client until close, which
// it is told whatever o.KeepAlive says. It notes the length of the head in r.
func AppendResponse(dst []byte, r *dataplane.Response, o ResponseOptions) []byte {
	from := len(dst)
	dst = appendStatus(dst, r.Status, r.Reason)
	dst = appendFields(dst, r.Header)
	if o.Date != nil && r.Header.Get(dataplane.Date) == nil {
		dst = append(dst, "Date: "...)
		dst = append(dst, o.Date...)
		dst = append(dst, '\r', '\n')
	}
	keep := o.KeepAlive
	switch {
	case r.Status < 200 || r.Status == 204: // RFC 9112, 6.1 and 6.2: these say nothing
	case r.Length > 0 || r.Length == 0 && r.Status != 304:
		dst = appendLength(dst, r.Length)
	case r.NoBody || r.Status == 304:
	case o.Minor == 1:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	default:
		keep = false
	}
	switch {
	case o.Upgrade:
		dst = append(dst, "Connection: upgrade\r\n"...)
	case !keep:
		dst = append(dst, "Connection: close\r\n"...)
	case o.Minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	dst = append(dst, '\r', '\n')
	r.HeadBytes = len(dst) - from
	return dst
}

// Append1xx appends an interim response.
func Append1xx(dst []byte, r *dataplane.Response) []byte {
	dst = appendStatus(dst, r.Status, r.Reason)
	dst = appendFields(dst, r.Header)
	return append(dst, '\r', '\n')
}

func appendStatus(dst []byte, status int, reason []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	if len(reason) > 0 {
		dst = append(dst, reason...)
	} else {
		dst = append(dst, Reason(status)...)
	}
	return append(dst, '\r', '\n')
}

// appendFields appends all fields but those of framing.
func appendFields(dst []byte, h dataplane.Header) []byte {
	for i := range h {
		switch f := &h[i]; f.ID {
		case dataplane.ContentLength, dataplane.TransferEncoding:
		default:
			dst = appendField(dst, f)
		}
	}
	return dst
}

func appendField(dst []byte, f *dataplane.Field) []byte {
	dst = append(dst, f.Name...)
	dst = append(dst, ':', ' ')
	dst = append(dst, f.Value...)
	return append(dst, '\r', '\n')
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}
