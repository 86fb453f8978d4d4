package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// ParseResponse reads a response head (RFC 9112, 4). head says that the request was
// HEAD. It returns the head's length, or 0 and no error if it is not complete. Servers
// are not trusted to frame correctly: the error is a *dataplane.Malformed with status
// 502 for whatever could be read in two ways (A11). Interim responses are read like
// others; how many are let pass is the caller's affair.
//
// r must be reset; its slices are of b.
func ParseResponse(b []byte, r *dataplane.Response, head bool, lim Limits) (int, error) {
	n, err := parseResponse(b, r, head, lim)
	if err != nil {
		return 0, ofServer(err)
	}
	return n, nil
}

func parseResponse(b []byte, r *dataplane.Response, head bool, lim Limits) (int, error) {
	i, err := statusLine(b, r)
	if err != nil {
		return 0, err
	}
	if i == 0 {
		return 0, headRoom(b, lim)
	}
	f := framing{length: -1}
	n, err := parseFields(b, i, &r.Header, &f, &lim, 0)
	if err != nil {
		return 0, err
	}
	if n == 0 || n > lim.HeaderBytes {
		return 0, headRoom(b, lim)
	}
	if err := responseFraming(r, &f, head); err != nil {
		return 0, err
	}
	r.Nominated = f.nominated > 0
	return n, nil
}

// statusLine reads the status line and returns the offset after it, or 0 if it is not
// complete. The phrase may be missing, with or without the space before it.
func statusLine(b []byte, r *dataplane.Response) (int, error) {
	const form = "HTTP/1.1 000"
	for i := range min(len(b), len(form)) {
		switch {
		case i >= 9 && '0' <= b[i] && b[i] <= '9':
		case i == 7 && b[i] == '0':
		case i < 9 && b[i] == form[i]:
		default:
			return 0, malformed(502, "status_line", "")
		}
	}
	if len(b) <= len(form) {
		return 0, nil
	}
	switch b[len(form)] {
	case ' ', '\r':
	case '\n':
		return 0, malformed(502, "bare_lf", "")
	default:
		return 0, malformed(502, "status_line", "")
	}
	r.Minor = b[7] - '0'
	r.Status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	if r.Status < 100 {
		return 0, malformed(502, "status_line", "")
	}
	end := bytes.IndexByte(b[len(form):], '\n')
	if end < 0 {
		return 0, nil
	}
	end += len(form)
	if b[end-1] != '\r' {
		return 0, malformed(502, "bare_lf", "")
	}
	if phrase := b[len(form) : end-1 : end-1]; len(phrase) > 0 {
		if phrase[0] != ' ' || !plain(phrase) {
			return 0, malformed(502, "status_line", "")
		}
		r.Reason = phrase[1:]
	}
	return end + 1, nil
}

// responseFraming decides how long the body is (RFC 9112, 6.3).
func responseFraming(r *dataplane.Response, f *framing, head bool) error {
	coded := f.chunked || f.codings
	switch {
	case coded && f.length >= 0:
		return malformed(502, "cl_te", "")
	case coded && r.Minor == 0:
		return malformed(502, "te_http10", "")
	case f.codings:
		return malformed(502, "transfer_encoding", "")
	case r.Status < 200 && (coded || f.length > 0):
		// RFC 9112, 6.3: it has no body, but this server seems to think that it has.
		return malformed(502, "interim_body", "")
	}
	r.NoBody = head || r.Status < 200 || r.Status == 204 || r.Status == 304
	r.Length = f.length
	r.Chunked = f.chunked && !r.NoBody
	untilClose := !r.NoBody && !r.Chunked && r.Length < 0
	// A 204 with a length is passed on without it; what that server sends next is
	// nobody's answer.
	overlong := r.Status == 204 && (coded || f.length > 0)
	r.Close = f.close || untilClose || overlong || r.Minor == 0 && !f.keep
	return nil
}
