package filter

import (
	"bytes"

	"proxyd/internal/dataplane"
)

// A coding is one way to compress.
type coding uint8

const (
	identity coding = iota // as it is
	zstandard
	brotli
	gzip
	codings // how many there are
)

// codingNames are as the fields have them.
var codingNames = [codings]string{"identity", "zstd", "br", "gzip"}

// codingOf returns the coding of a name, or codings.
func codingOf(name []byte) coding {
	if bytes.EqualFold(name, []byte("x-gzip")) { // RFC 9110, 8.4.1.3
		return gzip
	}
	for c, known := range codingNames {
		if len(known) == len(name) && bytes.EqualFold(name, []byte(known)) {
			return coding(c)
		}
	}
	return codings
}

// negotiate returns the coding that the client likes best of those offered, in whose order
// ties are decided (RFC 9110, 12.5.3). Identity is what it gets if none is acceptable, or
// if it says that it likes that better.
func negotiate(h dataplane.Header, offered []coding) coding {
	const unsaid = -1
	var weight [codings]int
	for c := range weight {
		weight[c] = unsaid
	}
	any, said := unsaid, false
	for i := range h {
		if !acceptEncoding.is(&h[i]) {
			continue
		}
		said = true
		for list := h[i].Value; len(list) > 0; {
			var member []byte
			member, list, _ = bytes.Cut(list, comma)
			name, params, _ := bytes.Cut(member, semicolon)
			name = bytes.TrimSpace(name)
			q := qualityOf(params)
			if len(name) == 1 && name[0] == '*' {
				any = q
			} else if c := codingOf(name); c < codings {
				weight[c] = max(weight[c], q)
			}
		}
	}
	if !said {
		return identity
	}
	best, most := identity, max(weight[identity], 0)
	for _, c := range offered {
		q := weight[c]
		if q == unsaid {
			q = any
		}
		if q > most || q == most && q > 0 && best == identity {
			best, most = c, q
		}
	}
	return best
}

var (
	comma          = []byte(",")
	semicolon      = []byte(";")
	acceptEncoding = newName("Accept-Encoding")
)

// qualityOf returns the weight in the parameters of a member, in thousandths: 1000 if
// there is none, 0 if it is not one (RFC 9110, 12.4.2).
func qualityOf(params []byte) int {
	for len(params) > 0 {
		var p []byte
		p, params, _ = bytes.Cut(params, semicolon)
		name, v, _ := bytes.Cut(p, []byte("="))
		name, v = bytes.TrimSpace(name), bytes.TrimSpace(v)
		if len(name) != 1 || name[0]|0x20 != 'q' {
			continue
		}
		if len(v) == 0 || len(v) > 5 || v[0] != '0' && v[0] != '1' || len(v) > 1 && v[1] != '.' {
			return 0
		}
		q, unit := int(v[0]-'0')*1000, 100
		for _, c := range v[min(2, len(v)):] {
			if c < '0' || c > '9' {
				return 0
			}
			q += int(c-'0') * unit
			unit /= 10
		}
		if q > 1000 {
			return 0
		}
		return q
	}
	return 1000
}
