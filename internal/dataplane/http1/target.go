package http1

import (
	"bytes"
	"net/netip"

	"proxyd/internal/dataplane"
)

var rootPath = []byte("/")

// requestTarget brings what the request names to its canonical form: scheme, host, port,
// path, query (RFC 9112, 3.2 and 3.3).
func requestTarget(r *dataplane.Request, f *framing) error {
	if f.hosts > 1 {
		return malformed(400, "host_twice", "")
	}
	if f.hosts == 0 && r.Minor == 1 {
		return malformed(400, "host_missing", "")
	}
	if f.hosts == 1 {
		var err error
		if r.Host, r.Port, err = authority(r.Header[f.host].Value); err != nil {
			return err
		}
	}
	t := r.Target
	switch {
	case r.Method == dataplane.CONNECT:
		r.Path = rootPath // refused by whoever decides; there is nothing to route on
		return nil
	case t[0] == '/':
		return pathQuery(r, t)
	case len(t) == 1 && t[0] == '*' && r.Method == dataplane.OPTIONS:
		r.Path = t
		return nil
	}
	rest := t
	switch {
	case len(t) > 7 && same(t[:7], "http://"):
		r.Scheme, rest = t[:4], t[7:]
	case len(t) > 8 && same(t[:8], "https://"):
		r.Scheme, rest = t[:5], t[8:]
	default:
		return malformed(400, "target", "")
	}
	end := bytes.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	var err error
	if r.Host, r.Port, err = authority(rest[:end:end]); err != nil {
		return err
	}
	if f.hosts == 1 {
		// RFC 9112, 3.2.2: the absolute form wins, and Host is made to say the same.
		r.Header[f.host].Value = rest[:end:end]
	}
	if end == len(rest) {
		r.Path = rootPath
		return nil
	}
	if rest[end] == '?' {
		r.Path, r.Query = rootPath, rest[end+1:]
		if bytes.IndexByte(r.Query, '#') >= 0 {
			return malformed(400, "fragment", "")
		}
		return nil
	}
	return pathQuery(r, rest[end:])
}

func pathQuery(r *dataplane.Request, t []byte) error {
	if bytes.IndexByte(t, '#') >= 0 {
		return malformed(400, "fragment", "")
	}
	path := t
	if q := bytes.IndexByte(t, '?'); q >= 0 {
		path, r.Query = t[:q:q], t[q+1:]
	}
	var err error
	r.Path, err = normalise(path)
	return err
}

// authority reads host and port (RFC 3986, 3.2, without user information) and lowers
// the host's case in place. A trailing dot is left out of host.
func authority(b []byte) (host, port []byte, err error) {
	if len(b) == 0 {
		return nil, nil, malformed(400, "host", "")
	}
	host = b
	if b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 {
			return nil, nil, malformed(400, "host", "")
		}
		if a, perr := netip.ParseAddr(string(b[1:end])); perr != nil || !a.Is6() || a.Zone() != "" {
			return nil, nil, malformed(400, "host", "")
		}
		host = b[: end+1 : end+1]
		if rest := b[end+1:]; len(rest) > 0 {
			if rest[0] != ':' {
				return nil, nil, malformed(400, "host", "")
			}
			port = rest[1:]
		}
		for i := range host {
			host[i] = lower(host[i])
		}
	} else {
		if c := bytes.IndexByte(b, ':'); c >= 0 {
			host, port = b[:c:c], b[c+1:]
		}
		label := 0
		for i, c := range host {
			switch {
			case c == '.':
				if label == 0 {
					return nil, nil, malformed(400, "host", "")
				}
				label = 0
			case is(c, hostChar):
				host[i] = lower(c)
				label++
			default:
				return nil, nil, malformed(400, "host", "")
			}
		}
		if len(host) > 0 && host[len(host)-1] == '.' {
			host = host[: len(host)-1 : len(host)-1]
		}
		if len(host) == 0 || len(host) > 253 {
			return nil, nil, malformed(400, "host", "")
		}
	}
	if len(port) == 0 {
		return host, nil, nil
	}
	n, ok := number(port)
	if !ok || len(port) > 5 || n > 65535 {
		return nil, nil, malformed(400, "host", "")
	}
	return host, port, nil
}
