// Package http1 reads and writes HTTP/1.1 on bytes alone. It refuses whatever two
// implementations could read differently, and gives every part of a request one
// canonical form. It knows no socket and no clock, changes no byte that it reads, and
// allocates nothing on the way of a good message.
//
// Where the RFCs leave a choice, the strict side is taken: a bare LF, a folded line,
// white space before a colon, two equal Content-Length fields, any Transfer-Encoding
// but one "chunked", or an octet above 0x7e in a request target is refused. A URI has no
// such octets (RFC 3986, 2), and servers disagree on what they stand for.
package http1

import (
	"errors"

	"proxyd/internal/dataplane"
)

// Limits bound a message head.
type Limits struct {
	HeaderBytes int // of the whole head
	URIBytes    int // of the target
	Fields      int // field lines
	Underscores dataplane.Underscores
}

// LimitsOf returns those of a listener's requests.
func LimitsOf(l *dataplane.Limits) Limits {
	return Limits{HeaderBytes: l.HeaderBytes, URIBytes: l.URIBytes, Fields: l.Fields, Underscores: l.Underscores}
}

func malformed(status int, reason, detail string) error {
	return &dataplane.Malformed{Status: status, Reason: reason, Detail: detail}
}

// ofServer makes err, which is new and malformed or nil, one of a server: the client gets 502.
func ofServer(err error) error {
	var m *dataplane.Malformed
	if errors.As(err, &m) {
		m.Status = 502
	}
	return err
}

// class says what an octet may be part of.
type class uint8

const (
	token      class = 1 << iota // RFC 9110, 5.6.2
	visible                      // of a request target: anything but controls, space and non-ASCII
	unreserved                   // RFC 3986, 2.3
	hexDigit
	hostChar   // of a reg-name or IPv4 address: letters, digits, "-", "_"
	plainPath  // of a path, where it needs no second look
	underscore // in a request's field name: S9, B4
)

// classes is read-only.
var classes = func() (t [256]class) {
	mark := func(chars string, c class) {
		for i := range len(chars) {
			t[chars[i]] |= c
		}
	}
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	mark(alnum+"!#$%&'*+-.^_`|~", token)
	mark(alnum+"-._~", unreserved)
	mark(alnum+"-_", hostChar)
	mark("0123456789abcdefABCDEF", hexDigit)
	mark("_", underscore)
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= visible | plainPath
	}
	for _, c := range `%\#?` {
		t[c] &^= plainPath
	}
	return t
}()

func is(c byte, k class) bool { return classes[c]&k != 0 }

// lower returns the lower case of an ASCII letter, anything else as it is.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// upper returns the upper case of an ASCII letter, anything else as it is.
func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

// same reports whether b is s in any case. s is lower case.
func same(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if b[i] != s[i] && lower(b[i]) != s[i] {
			return false
		}
	}
	return true
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

// trim takes optional white space (space and tab) off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
