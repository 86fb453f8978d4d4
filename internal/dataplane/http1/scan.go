package http1

import "bytes"

// HeadEnd returns the offset after the empty line that ends a head, or 0 if it has not
// come. from is how much of b was searched before.
func HeadEnd(b []byte, from int) int {
	from = max(from-3, 0)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4
	}
	return 0
}

// A Scanner says when a head that comes in pieces is worth parsing, so that a slow
// sender costs time in proportion to its bytes, and yet garbage is found out at the end
// of its first line or before it has doubled. The zero value is ready for a head.
type Scanner struct {
	seen   int  // how much was looked at
	parsed int  // how much there was when last said to be ready
	line   bool // the first line is complete
}

// Ready reports whether the head at the front of b should be parsed now: it is
// complete, or its first line has just become so, or it is twice as long as when it was
// parsed last, or as long as it may get. b is what the call before was given, and more.
func (s *Scanner) Ready(b []byte, lim Limits) bool {
	ready := HeadEnd(b, s.seen) > 0 || len(b) >= 2*s.parsed || len(b) >= lim.HeaderBytes
	if !s.line && bytes.IndexByte(b[s.seen:], '\n') >= 0 {
		s.line, ready = true, true
	}
	s.seen = len(b)
	if !ready {
		return false
	}
	s.parsed = len(b)
	return true
}
