package http1

import (
	"bytes"
	"encoding/binary"

	"proxyd/internal/dataplane"
)

// framing is what the field lines of a head say about the message's length and about
// its connection.
type framing struct {
	length       int64 // Content-Length; -1 if there is none
	chunked      bool
	codings      bool // a Transfer-Encoding other than chunked
	close        bool
	keep         bool
	upgrade      bool // Connection: upgrade
	nominated    int  // other fields that Connection names
	hosts        int
	host         []byte // value of the last Host
	expects      bool
	expectsOther bool // something besides 100-continue
	underscore   bool // a field with one in its name was kept
}

// maxNominated is how many fields Connection may name. Those who mean it name one or two.
const maxNominated = 16

// parseFields reads field lines from b[i:] up to and with the empty line. It returns the
// offset after it, or 0 if that has not come yet (RFC 9112, 5). A field whose name has
// an octet of class suspect is checked and counted, and then judged by underscored.
func parseFields(b []byte, i int, h *dataplane.Header, f *framing, lim *Limits, suspect class) (int, error) {
	for lines := 0; ; lines++ {
		if len(b)-i < 2 {
			if len(b)-i == 1 && b[i] != '\r' && !is(b[i], token) {
				return 0, fieldStart(b[i])
			}
			return 0, nil
		}
		if b[i] == '\r' {
			if b[i+1] != '\n' {
				return 0, malformed(400, "bare_cr", "")
			}
			return i + 2, nil
		}
		start, seen := i, class(0)
		for i < len(b) {
			k := classes[b[i]]
			if k&token == 0 {
				break
			}
			seen |= k
			i++
		}
		if i == len(b) {
			return 0, nil
		}
		if b[i] != ':' || i == start {
			if i == start {
				return 0, fieldStart(b[i])
			}
			return 0, malformed(400, "field_name", "")
		}
		name := b[start:i:i]
		i++
		end := bytes.IndexByte(b[i:], '\n')
		if end < 0 {
			return 0, nil
		}
		end += i
		if b[end-1] != '\r' {
			return 0, malformed(400, "bare_lf", "")
		}
		value := trim(b[i : end-1])
		if !plain(value) {
			return 0, malformed(400, "field_value", "")
		}
		i = end + 1
		if lines == lim.Fields {
			return 0, malformed(431, "fields", "")
		}
		if seen&suspect != 0 {
			keep, err := underscored(name, lim.Underscores)
			if err != nil {
				return 0, err
			}
			if !keep {
				continue
			}
			f.underscore = true
		}
		id := identify(name)
		if id != dataplane.Other {
			if err := f.note(id, value); err != nil {
				return 0, err
			}
		}
		addField(h, name, value, id)
	}
}

// addField appends a field by filling it where it lies. Plain append makes it on the
// stack and copies it, with loads wider than the stores were, which stalls.
func addField(h *dataplane.Header, name, value []byte, id dataplane.FieldID) {
	n := len(*h)
	if n == cap(*h) {
		*h = append(*h, dataplane.Field{})
	} else {
		*h = (*h)[:n+1]
	}
	f := &(*h)[n]
	f.Name, f.Value, f.ID = name, value[:len(value):len(value)], id
}

// fieldStart says what is wrong with a field line that begins with c.
func fieldStart(c byte) error {
	switch c {
	case ' ', '\t':
		return malformed(400, "obs_fold", "")
	case '\n':
		return malformed(400, "bare_lf", "")
	}
	return malformed(400, "field_name", "")
}

// note takes in a field that says something about framing or the connection.
func (f *framing) note(id dataplane.FieldID, value []byte) error {
	switch id {
	case dataplane.ContentLength:
		n, ok := number(value)
		if !ok {
			return malformed(400, "content_length", "")
		}
		if f.length >= 0 {
			return malformed(400, "content_length_twice", "")
		}
		f.length = n
	case dataplane.TransferEncoding:
		if f.chunked || f.codings {
			return malformed(400, "transfer_encoding_twice", "")
		}
		f.chunked = same(value, "chunked")
		f.codings = !f.chunked
	case dataplane.Connection:
		return f.connection(value)
	case dataplane.Host:
		f.hosts++
		f.host = value
	case dataplane.Expect:
		f.expects = true
		f.expectsOther = f.expectsOther || !same(value, "100-continue")
	}
	return nil
}

// connection reads the value of a Connection field (RFC 9110, 7.6.1).
func (f *framing) connection(value []byte) error {
	for len(value) > 0 {
		var option []byte
		option, value = member(value)
		switch {
		case len(option) == 0:
		case same(option, "close"):
			f.close = true
		case same(option, "keep-alive"):
			f.keep = true
		case same(option, "upgrade"):
			f.upgrade = true
		default:
			f.nominated++
		}
	}
	if f.nominated > maxNominated {
		return malformed(400, "connection", "names too many fields")
	}
	return nil
}

// member splits the first member off a comma-separated list. It may be empty.
func member(list []byte) (first, rest []byte) {
	if c := bytes.IndexByte(list, ','); c >= 0 {
		return trim(list[:c]), list[c+1:]
	}
	return trim(list), nil
}

// number reads a Content-Length: digits alone, below 2^63 (RFC 9110, 8.6).
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n < 1<<63
}

// plain reports whether b has no control character but tab. Eight bytes at a time.
func plain(b []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		below := (x - ones*0x20) & ^x & high
		del := x ^ ones*0x7f
		if below|(del-ones)&^del&high != 0 && !plainSlow(b[:8]) {
			return false
		}
		b = b[8:]
	}
	return plainSlow(b)
}

func plainSlow(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
