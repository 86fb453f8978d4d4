package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// Read-only: paths that a target may leave unsaid.
var (
	rootPath = []byte("/")
	asterisk = []byte("*")
)

// requestTarget brings what the request names to its canonical form: scheme, host, port,
// path, query (RFC 9112, 3.2 and 3.3).
func requestTarget(r *dataplane.Request, f *framing) error {
	switch {
	case f.hosts > 1:
		return malformed(400, "host_twice", "")
	case f.hosts == 1:
		if err := authority(r, f.host); err != nil {
			return err
		}
	case r.Minor == 1:
		return malformed(400, "host_missing", "")
	}
	switch t := r.Target; {
	case r.Method == dataplane.CONNECT:
		r.Path = rootPath // whoever decides refuses it; there is nothing to route on
		return nil
	case t[0] == '/':
		return pathQuery(r, t)
	case len(t) == 1 && t[0] == '*' && r.Method == dataplane.OPTIONS:
		r.Path = asterisk
		return nil
	}
	return absoluteForm(r)
}

// absoluteForm reads a target that is a whole URI. Its host wins over Host, which is
// made to say the same (RFC 9112, 3.2.2).
func absoluteForm(r *dataplane.Request) error {
	rest := r.Target
	switch {
	case len(rest) > 7 && same(rest[:7], "http://"):
		r.Scheme, rest = rest[:4:4], rest[7:]
	case len(rest) > 8 && same(rest[:8], "https://"):
		r.Scheme, rest = rest[:5:5], rest[8:]
	default:
		return malformed(400, "target", "")
	}
	end := bytes.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end:end]
	if err := authority(r, host); err != nil {
		return err
	}
	for i := range r.Header {
		if r.Header[i].ID == dataplane.Host {
			r.Header[i].Value = host
		}
	}
	switch rest = rest[end:]; {
	case len(rest) > 0:
		return pathQuery(r, rest)
	case r.Method == dataplane.OPTIONS: // RFC 9112, 3.2.4
		r.Path = asterisk
	default:
		r.Path = rootPath
	}
	return nil
}

// pathQuery reads a path and a query. The path may be missing after an authority.
func pathQuery(r *dataplane.Request, t []byte) error {
	if bytes.IndexByte(t, '#') >= 0 {
		return malformed(400, "fragment", "")
	}
	path := t
	if q := bytes.IndexByte(t, '?'); q >= 0 {
		path, r.Query = t[:q:q], t[q+1:]
	}
	if len(path) == 0 {
		r.Path = rootPath
		return nil
	}
	if isNormal(path) {
		r.Path = path
		return nil
	}
	from := len(r.Text)
	text, err := AppendPath(r.Text, path)
	if err != nil {
		return err
	}
	r.Text, r.Path = text, text[from:len(text):len(text)]
	return nil
}
