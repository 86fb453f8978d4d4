package http1

import "proxyd/internal/dataplane"

// ParseRequest reads a request head (RFC 9112, 3). It returns its length, or 0 and no
// error if it is not complete; bytes that can never become a good head are an error as
// soon as they are seen. The error is a *dataplane.Malformed.
//
// r must be reset. Its slices are of b or of r.Text, until r is reset again.
func ParseRequest(b []byte, r *dataplane.Request, lim Limits) (int, error) {
	i := 0
	if len(b) > 0 && b[0] == '\r' { // RFC 9112, 2.2: one empty line before the request line
		if len(b) == 1 {
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
	f := framing{length: -1}
	end, err := parseFields(b, i, &r.Header, &f, &lim, underscore)
	if err != nil {
		return 0, err
	}
	if end == 0 || end > lim.HeaderBytes {
		return 0, headRoom(b, lim)
	}
	if err := requestFraming(r, &f); err != nil {
		return 0, err
	}
	if err := requestTarget(r, &f); err != nil {
		return 0, err
	}
	r.Nominated, r.Underscore = f.nominated > 0, f.underscore
	r.KeepAlive = !f.close && (r.Minor == 1 || f.keep)
	r.WebSocket = f.upgrade && asksWebSocket(r)
	return end, nil
}

// headRoom refuses a head that has no end within the limit.
func headRoom(b []byte, lim Limits) error {
	if len(b) >= lim.HeaderBytes {
		return malformed(431, "header_size", "")
	}
	return nil
}

const (
	longestMethod = 32
	version11     = "HTTP/1.1\r\n"
)

// requestLine reads the request line at b[i:] and returns the offset after it, or 0 if
// it is not complete (RFC 9112, 3).
func requestLine(b []byte, i int, r *dataplane.Request, lim Limits) (int, error) {
	start := i
	for i < len(b) && is(b[i], token) {
		i++
	}
	if i-start > longestMethod {
		return 0, malformed(400, "method", "too long")
	}
	if i == len(b) {
		return 0, nil
	}
	if b[i] != ' ' || i == start {
		return 0, methodError(b[start:], i-start)
	}
	r.MethodText = b[start:i:i]
	r.Method = dataplane.MethodOf(r.MethodText)
	if string(r.MethodText) == "PRI" { // S2
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
	have := b[i:min(len(b), i+len(version11))]
	if string(have) != version11 {
		if err := otherVersion(have); err != nil {
			return 0, err
		}
		if len(have) < len(version11) {
			return 0, nil
		}
	}
	r.Minor = have[7] - '0'
	return i + len(version11), nil
}

// methodError says what is wrong with a request line whose octet b[i] ends no method.
func methodError(b []byte, i int) error {
	switch {
	case b[0] == 0x16: // a handshake record; the rest need not be waited for
		return malformed(400, "tls", "a TLS handshake on a cleartext listener")
	case b[i] == '\n':
		return malformed(400, "bare_lf", "")
	}
	return malformed(400, "method", "")
}

// otherVersion judges a version, whole or its beginning, that is not HTTP/1.1 followed
// by CRLF. HTTP/1.0 passes.
func otherVersion(have []byte) error {
	for k, c := range have {
		switch {
		case c == version11[k], k == 7 && c == '0':
		case (k == 5 || k == 7) && '0' <= c && c <= '9':
			return malformed(505, "version", "")
		case k == 8 && c == '\n':
			return malformed(400, "bare_lf", "")
		default:
			return malformed(400, "version", "")
		}
	}
	return nil
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
	if f.expects {
		return expectation(r, f)
	}
	return nil
}

// expectation reads Expect (RFC 9110, 10.1.1). An HTTP/1.0 client's is ignored, and that
// of a request without a body has no meaning: such a field is not forwarded, for a
// server's 100 would come to somebody who does not wait for it.
func expectation(r *dataplane.Request, f *framing) error {
	if r.Minor == 1 && f.expectsOther {
		return malformed(417, "expect", "")
	}
	r.Continue = r.Minor == 1 && (r.Chunked || r.Length > 0)
	if r.Continue {
		return nil
	}
	kept := r.Header[:0]
	for _, field := range r.Header {
		if field.ID != dataplane.Expect {
			kept = append(kept, field)
		}
	}
	r.Header = kept
	return nil
}
