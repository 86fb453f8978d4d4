package http1

import "bytes"

// AppendPath appends the one form of the absolute path p that is routed on and
// forwarded: unreserved octets decoded, other escapes in upper case, empty and dot
// segments resolved (RFC 3986, 6.2.2). The form is never longer than p. Whoever rewrites
// a path passes the result through here again (C3).
//
// What a server might decode once more into a way out of a prefix is refused: an
// encoded control or backslash, a dot segment with parameters, a dot segment made by an
// encoded slash, a step above the root. An encoded slash alone stays encoded. The error
// is a *dataplane.Malformed, and then the bytes behind dst are of no meaning.
func AppendPath(dst, p []byte) ([]byte, error) {
	if len(p) == 0 || p[0] != '/' {
		return dst, malformed(400, "path", "not absolute")
	}
	from := len(dst)
	dst = append(dst, p...)
	n, err := normalise(dst[from:])
	return dst[:from+n], err
}

// isNormal reports whether p is in its canonical form, as nearly every path is. A false
// no is possible, for a segment that begins with a dot.
func isNormal(p []byte) bool {
	if p[0] != '/' {
		return false
	}
	for i, c := range p {
		if !is(c, plainPath) {
			return false
		}
		if c == '/' && i+1 < len(p) && (p[i+1] == '/' || p[i+1] == '.') {
			return false
		}
	}
	return true
}

// normalise brings p, which begins with a slash, to its canonical form in place and
// returns its length.
func normalise(p []byte) (int, error) {
	w := 0       // p[:w] is done
	segment := 0 // where the segment being written begins
	for i := 0; i < len(p); {
		c := p[i]
		i++
		switch {
		case c == '/':
			if w > 0 {
				var err error
				if w, err = endSegment(p, segment, w); err != nil {
					return 0, err
				}
				if p[w-1] == '/' { // empty, or resolved to its parent
					segment = w
					continue
				}
			}
			p[w] = '/'
			w++
			segment = w
		case is(c, plainPath):
			p[w] = c
			w++
		case c == '\\':
			return 0, malformed(400, "path", "backslash")
		case c != '%':
			return 0, malformed(400, "path", "octet that no path has")
		default:
			if len(p)-i < 2 || !is(p[i], hexDigit) || !is(p[i+1], hexDigit) {
				return 0, malformed(400, "path", "escape")
			}
			v := unhex(p[i])<<4 | unhex(p[i+1])
			switch {
			case v < 0x20 || v == 0x7f || v == '\\':
				return 0, malformed(400, "path", "escaped control or backslash")
			case is(v, unreserved):
				p[w] = v
				w++
			default:
				p[w], p[w+1], p[w+2] = '%', upper(p[i]), upper(p[i+1])
				w += 3
			}
			i += 2
		}
	}
	return endSegment(p, segment, w)
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
	case hidesDots(s):
		return 0, malformed(400, "path", "dot segment in disguise")
	}
	return w, nil
}

// hidesDots reports whether some server could find a dot segment in s, which is none
// itself: by taking an encoded slash for a slash, or by cutting off what follows a
// semicolon.
func hidesDots(s []byte) bool {
	for more := true; more; {
		var part []byte
		part, s, more = bytes.Cut(s, []byte("%2F"))
		part, _, _ = bytes.Cut(part, []byte(";"))
		part, _, _ = bytes.Cut(part, []byte("%3B"))
		if string(part) == "." || string(part) == ".." {
			return true
		}
	}
	return false
}
