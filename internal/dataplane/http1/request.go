package http1

import (
	"bytes"
	"encoding/base64"

	"proxyd/internal/dataplane"
)

// HeadEnd returns the offset after the empty line that ends a head, or 0 if it has not
// come. from is how much of b was searched before.
func HeadEnd(b []byte, from int) int {
	from = max(from-3, 0)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4
	}
	return 0
}

// ParseRequest reads a request head (RFC 9112, 3). It returns its length, or 0 and no
// error if it is not complete; bytes that can never become a good head are an error as
// soon as they are seen. The error is a *dataplane.Malformed.
//
// r must be reset. Its slices are of b, and b is changed: host and path are brought to
// their canonical form in place.
func ParseRequest(b []byte, r *dataplane.Request, lim Limits) (int, error) {
	i := 0
	if len(b) >= 1 && b[0] == '\r' { // RFC 9112, 2.2: one empty line before the request line
		if len(b) < 2 {
			return 0, nil
		}
		if b[1] != '\n' {
			return 0, malformed(400, "bare_cr", "")
		}
		i = 2
	}
	i, err := requestLine(b, i, r, lim)
	if err != nil {
		return 0, err
	}
	if i == 0 {
		return 0, headRoom(b, lim)
	}
	var f framing
	end, err := parseFields(b, i, &r.Header, &f, lim.Fields)
	if err != nil {
		return 0, err
	}
	if end == 0 {
		return 0, headRoom(b, lim)
	}
	if end > lim.HeaderBytes {
		return 0, headRoom(b, lim)
	}
	if err := requestFraming(r, &f); err != nil {
		return 0, err
	}
	if err := requestTarget(r, &f); err != nil {
		return 0, err
	}
	r.Nominated = f.nominated
	r.KeepAlive = !f.close && (r.Minor == 1 || f.keep)
	r.WebSocket = f.upgrade && webSocket(r)
	return end, nil
}

func headRoom(b []byte, lim Limits) error {
	if len(b) >= lim.HeaderBytes {
		return malformed(431, "header_size", "")
	}
	return nil
}

// requestLine reads the request line at b[i:] and returns the offset after it, or 0.
func requestLine(b []byte, i int, r *dataplane.Request, lim Limits) (int, error) {
	const longestMethod = 32
	start := i
	for i < len(b) && is(b[i], token) {
		i++
	}
	if i-start > longestMethod {
		return 0, malformed(400, "method", "")
	}
	if i == len(b) {
		return 0, nil
	}
	if b[i] != ' ' || i == start {
		if b[i] == '\n' {
			return 0, malformed(400, "bare_lf", "")
		}
		return 0, malformed(400, "method", "")
	}
	r.MethodText = b[start:i:i]
	r.Method = method(r.MethodText)
	if string(r.MethodText) == "PRI" {
		return 0, malformed(400, "h2_preface", "")
	}
	i++
	start = i
	for i < len(b) && is(b[i], visible) {
		i++
	}
	if i-start > lim.URIBytes {
		return 0, malformed(414, "uri_size", "")
	}
	if i == len(b) {
		return 0, nil
	}
	if b[i] != ' ' || i == start {
		return 0, malformed(400, "target", "")
	}
	r.Target = b[start:i:i]
	i++
	const version = "HTTP/1.1\r\n"
	have := b[i:min(len(b), i+len(version))]
	for k := range have {
		switch {
		case have[k] == version[k]:
		case k == 7 && have[k] == '0':
		case (k == 5 || k == 7) && '0' <= have[k] && have[k] <= '9':
			return 0, malformed(505, "version", "")
		case k == 8 && have[k] == '\n':
			return 0, malformed(400, "bare_lf", "")
		default:
			return 0, malformed(400, "version", "")
		}
	}
	if len(have) < len(version) {
		return 0, nil
	}
	r.Minor = have[7] - '0'
	return i + len(version), nil
}

func method(b []byte) dataplane.Method {
	switch string(b) {
	case "GET":
		return dataplane.GET
	case "HEAD":
		return dataplane.HEAD
	case "POST":
		return dataplane.POST
	case "PUT":
		return dataplane.PUT
	case "DELETE":
		return dataplane.DELETE
	case "OPTIONS":
		return dataplane.OPTIONS
	case "PATCH":
		return dataplane.PATCH
	case "CONNECT":
		return dataplane.CONNECT
	case "TRACE":
		return dataplane.TRACE
	}
	return dataplane.MethodOther
}

// requestFraming decides how long the body is (RFC 9112, 6.1 and 6.3), stricter than
// the text: whatever another implementation could read otherwise is refused.
func requestFraming(r *dataplane.Request, f *framing) error {
	coded := f.chunked || f.codings
	switch {
	case coded && f.length >= 0:
		return malformed(400, "cl_te", "")
	case coded && r.Minor == 0:
		return malformed(400, "te_http10", "")
	case f.codings:
		return malformed(501, "transfer_encoding", "")
	case f.chunked:
		r.Chunked, r.Length = true, -1
	case f.length > 0:
		r.Length = f.length
	}
	if f.expect != nil && r.Minor == 1 { // RFC 9110, 10.1.1: ignored in HTTP/1.0
		if !same(f.expect, "100-continue") {
			return malformed(417, "expect", "")
		}
		r.Continue = r.Chunked || r.Length > 0
	}
	return nil
}

// webSocket reports whether r is a good opening handshake (RFC 6455, 4.2.1).
func webSocket(r *dataplane.Request) bool {
	if r.Method != dataplane.GET || r.Minor != 1 || r.Chunked || r.Length > 0 {
		return false
	}
	upgrade := false
	eachToken(r.Header.Get(dataplane.Upgrade), func(t []byte) { upgrade = upgrade || same(t, "websocket") })
	if !upgrade || string(r.Header.Find("sec-websocket-version")) != "13" {
		return false
	}
	key := r.Header.Get(dataplane.SecWebSocketKey)
	if len(key) != 24 {
		return false
	}
	var raw [18]byte
	n, err := base64.StdEncoding.Decode(raw[:], key)
	return err == nil && n == 16
}
