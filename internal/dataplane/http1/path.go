package http1

import "bytes"

// normalise brings an absolute path to the one form that is routed on and forwarded:
// unreserved octets decoded, other escapes in upper case, empty and dot segments
// resolved (RFC 3986, 6.2.2). It works in place, for the form is never longer.
//
// What a server might decode once more into a way out of a prefix is refused: an
// encoded NUL, backslash or control, a dot segment with parameters, a dot segment made
// by an encoded slash, a step above the root.
func normalise(p []byte) ([]byte, error) {
	if clean(p) {
		return p, nil
	}
	w := 0       // p[:w] is done
	segment := 0 // where the segment being written begins
	for i := 0; i < len(p); {
		c := p[i]
		i++
		switch c {
		case '/':
			if w > 0 {
				var err error
				if w, err = endSegment(p, segment, w); err != nil {
					return nil, err
				}
				if p[w-1] == '/' { // empty, or resolved to its parent
					segment = w
					continue
				}
			}
			p[w] = '/'
			w++
			segment = w
		case '\\':
			return nil, malformed(400, "path", "backslash")
		case '%':
			if len(p)-i < 2 || !is(p[i], hexDigit) || !is(p[i+1], hexDigit) {
				return nil, malformed(400, "path", "escape")
			}
			v := unhex(p[i])<<4 | unhex(p[i+1])
			switch {
			case v < 0x20 || v == 0x7f || v == '\\':
				return nil, malformed(400, "path", "escaped control or backslash")
			case is(v, unreserved):
				p[w] = v
				w++
			default:
				p[w], p[w+1], p[w+2] = '%', upper(p[i]), upper(p[i+1])
				w += 3
			}
			i += 2
		default:
			p[w] = c
			w++
		}
	}
	w, err := endSegment(p, segment, w)
	if err != nil {
		return nil, err
	}
	return p[:w:w], nil
}

// clean reports whether p is normal already, as nearly every path is.
func clean(p []byte) bool {
	if bytes.IndexByte(p, '%') >= 0 || bytes.IndexByte(p, '\\') >= 0 {
		return false
	}
	for i := 1; i < len(p); i++ {
		if p[i-1] == '/' && (p[i] == '/' || p[i] == '.') {
			return false
		}
	}
	return true
}

// endSegment looks at the segment p[from:w] and returns where writing goes on: before it
// if it is ".", before its parent if it is "..".
func endSegment(p []byte, from, w int) (int, error) {
	s := p[from:w]
	switch {
	case len(s) == 0 || s[0] != '.' && bytes.IndexByte(s, '%') < 0:
		return w, nil
	case string(s) == ".":
		return from, nil
	case string(s) == "..":
		if from <= 1 {
			return 0, malformed(400, "path", "above the root")
		}
		return bytes.LastIndexByte(p[:from-1], '/') + 1, nil
	}
	for rest := s; ; {
		part, after, more := bytes.Cut(rest, []byte("%2F"))
		if name, _, _ := bytes.Cut(part, []byte(";")); string(name) == ".." || string(name) == "." {
			return 0, malformed(400, "path", "dot segment in disguise")
		}
		if name, _, _ := bytes.Cut(part, []byte("%3B")); string(name) == ".." || string(name) == "." {
			return 0, malformed(400, "path", "dot segment in disguise")
		}
		if !more {
			return w, nil
		}
		rest = after
	}
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 'a' + 'A'
	}
	return c
}
