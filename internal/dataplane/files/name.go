package files

import "strings"

// localName returns the name below the root for the path of a request, decoded once. What
// is hidden (a name with a dot in front, but for /.well-known of RFC 8615), has a slash in
// a name or a control is no name of a file here (C6 of the threat list).
func localName(p []byte) (string, bool) {
	if len(p) == 0 || p[0] != '/' {
		return "", false
	}
	var b strings.Builder
	b.Grow(len(p))
	for i := 1; i < len(p); i++ {
		c := p[i]
		if c == '%' {
			if i+2 >= len(p) || !isHex(p[i+1]) || !isHex(p[i+2]) {
				return "", false
			}
			c = unhex(p[i+1])<<4 | unhex(p[i+2])
			i += 2
			if c == '/' {
				return "", false
			}
		}
		if c < ' ' || c == 0x7f || c == '\\' {
			return "", false
		}
		b.WriteByte(c)
	}
	name := strings.TrimSuffix(b.String(), "/")
	if name == "" {
		return ".", true
	}
	for i, part := range strings.Split(name, "/") {
		if part == "" || part[0] == '.' && (i > 0 || part != ".well-known") {
			return "", false
		}
	}
	return name, true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
