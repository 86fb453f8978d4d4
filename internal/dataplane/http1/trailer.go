package http1

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// AppendLastChunk appends the end of a chunked body with those of its trailers that are
// allowed. section is what a ChunkReader kept; names are in lower case. A field of
// another name, and one whose value has anything but visible characters, spaces and tabs,
// is left out: it could mean something to one reader and nothing to the next (A5 of the
// threat list).
func AppendLastChunk(dst, section []byte, names [][]byte) []byte {
	dst = append(dst, '0', '\r', '\n')
	dst = AppendTrailers(dst, section, names)
	return append(dst, '\r', '\n')
}

// AppendTrailers appends the field lines of section that AppendLastChunk lets through.
func AppendTrailers(dst, section []byte, names [][]byte) []byte {
	for len(section) > 0 {
		var line []byte
		line, section, _ = bytes.Cut(section, crlf)
		name, value, found := bytes.Cut(line, colon)
		if value = trim(value); !found || !allowed(name, names) || !visibleText(value) {
			continue
		}
		dst = append(append(dst, name...), ':', ' ')
		dst = append(append(dst, value...), '\r', '\n')
	}
	return dst
}

// IsTrailer reports whether what another version of HTTP has decoded may be a field of trailers: no
// pseudo-header, a name in lower case, and nothing but text.
func IsTrailer(name, value string) bool {
	for i := range len(name) {
		if c := name[i]; classes[c]&token == 0 || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return name != "" && visibleText([]byte(value))
}

// CutLine takes the first of some field lines apart, as AppendTrailers writes them.
func CutLine(lines []byte) (name, value, rest []byte) {
	line, rest, _ := bytes.Cut(lines, crlf)
	name, value, _ = bytes.Cut(line, colon)
	return name, trim(value), rest
}

var crlf, colon = []byte("\r\n"), []byte(":")

// allowed reports whether name is one of names, which are in lower case.
func allowed(name []byte, names [][]byte) bool {
	for _, n := range names {
		if len(n) == len(name) && bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// visibleText reports whether v may stand in a trailer that is passed on.
func visibleText(v []byte) bool {
	for _, c := range v {
		if c != '\t' && (c < ' ' || c > '~') {
			return false
		}
	}
	return true
}

// MayTrail reports whether a field of that name, in lower case, passes among the trailers of an
// answer over HTTP/2: nothing that frames, routes, or says who somebody is (A5 of the threat
// list, RFC 9110 6.5.1).
func MayTrail(name string) bool {
	switch identify([]byte(name)) {
	case dataplane.Other, dataplane.Date, dataplane.ServerField, dataplane.XRequestID:
	default:
		return false
	}
	switch name {
	case "set-cookie", "www-authenticate", "content-encoding", "content-type", "content-range", "cache-control", "expires", "age", "vary", "max-forwards", "strict-transport-security":
		return false
	}
	return true
}

// TrailerNames returns the names of some field lines, as AppendTrailers is told those that are
// let through.
func TrailerNames(lines []byte) [][]byte {
	var all [][]byte
	for len(lines) > 0 {
		var name []byte
		name, _, lines = CutLine(lines)
		all = append(all, name)
	}
	return all
}
