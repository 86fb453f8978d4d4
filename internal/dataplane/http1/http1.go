// Package http1 reads and writes HTTP/1.1 on bytes alone. It refuses whatever two
// implementations could read differently, and gives every part of a request one
// canonical form. It knows no socket and no clock, and allocates nothing on the way of a
// good message.
package http1

import "proxyd/internal/dataplane"

// Limits bound a message head.
type Limits struct {
	HeaderBytes int // of the whole head
	URIBytes    int // of the target
	Fields      int // field lines
}

func malformed(status int, reason, detail string) *dataplane.Malformed {
	return &dataplane.Malformed{Status: status, Reason: reason, Detail: detail}
}

// class says what an octet may be part of.
type class uint8

const (
	token      class = 1 << iota // RFC 9110, 5.6.2
	visible                      // of a request target: anything but controls, space and non-ASCII
	unreserved                   // RFC 3986, 2.3
	hexDigit
	hostChar // of a reg-name or IPv4 address, without percent-encoding
	underscore
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
	mark(alnum+"-._~", unreserved|hostChar)
	mark("_", underscore)
	mark("0123456789abcdefABCDEF", hexDigit)
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= visible
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

// same reports whether b is s in any case. s is lower case.
func same(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lower(b[i]) != s[i] {
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
