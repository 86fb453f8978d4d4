package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// ParseResponse reads a response head (RFC 9112, 4). head says that the request was
// HEAD. It returns the head's length, or 0 and no error if it is not complete. Servers
// are not trusted to frame correctly: the error is a *dataplane.Malformed for whatever
// could be read in two ways.
//
// r must be reset; its slices are of b.
func ParseResponse(b []byte, r *dataplane.Response, head bool, lim Limits) (int, error) {
	const least = len("HTTP/1.1 200")
	if len(b) <= least {
		return 0, statusLineStart(b)
	}
	if err := statusLineStart(b[:least]); err != nil {
		return 0, err
	}
	r.Minor = b[7] - '0'
	r.Status = int(b[9]-'0')*100 + int(b[10]-'0')*10 + int(b[11]-'0')
	if r.Status < 100 {
		return 0, malformed(502, "status_line", "")
	}
	end := bytes.IndexByte(b[least:], '\n')
	if end < 0 {
		return 0, headRoom(b, lim)
	}
	end += least
	if b[end-1] != '\r' {
		return 0, malformed(502, "bare_lf", "")
	}
	reason := b[least : end-1]
	if len(reason) > 0 {
		if reason[0] != ' ' || !plain(reason) {
			return 0, malformed(502, "status_line", "")
		}
		r.Reason = reason[1:]
	}
	var f framing
	n, err := parseFields(b, end+1, &r.Header, &f, lim.Fields)
	if err != nil {
		return 0, err
	}
	if n == 0 || n > lim.HeaderBytes {
		return 0, headRoom(b, lim)
	}
	if err := responseFraming(r, &f, head); err != nil {
		return 0, err
	}
	r.Nominated = f.nominated
	return n, nil
}

func statusLineStart(b []byte) error {
	const form = "HTTP/1.1 000"
	for i := range min(len(b), len(form)) {
		switch {
		case i >= 9 && '0' <= b[i] && b[i] <= '9':
		case i == 7 && b[i] == '0':
		case i < 9 && b[i] == form[i]:
		default:
			return malformed(502, "status_line", "")
		}
	}
	return nil
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
	}
	r.Length = f.length
	r.Chunked = f.chunked
	r.NoBody = head || r.Status < 200 || r.Status == 204 || r.Status == 304
	untilClose := !r.NoBody && !r.Chunked && r.Length < 0
	r.Close = f.close || untilClose || r.Minor == 0 && !f.keep
	return nil
}
