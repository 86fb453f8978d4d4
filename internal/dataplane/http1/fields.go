package http1

import (
	"bytes"
	"encoding/binary"

	"proxyd/internal/dataplane"
)

// framing is what the field lines of a head say about the message's length and about
// its connection.
type framing struct {
	length    int64 // Content-Length; -1 if there is none
	chunked   bool
	codings   bool // a Transfer-Encoding other than chunked
	close     bool
	keep      bool
	upgrade   bool // Connection: upgrade
	nominated bool // Connection names other fields
	hosts     int
	host      int // place of Host in the header
	expect    []byte
}

// parseFields reads field lines from b[i:] up to and with the empty line. It returns the
// offset after it, or 0 if that has not come yet (RFC 9112, 5).
func parseFields(b []byte, i int, h *dataplane.Header, f *framing, max int) (int, error) {
	*f = framing{length: -1}
	for {
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
		for i < len(b) && classes[b[i]]&token != 0 {
			seen |= classes[b[i]]
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
		if end == i || b[end-1] != '\r' {
			return 0, malformed(400, "bare_lf", "")
		}
		value := trim(b[i : end-1])
		if !plain(value) {
			return 0, malformed(400, "field_value", "")
		}
		i = end + 1
		if len(*h) == max {
			return 0, malformed(431, "fields", "")
		}
		if seen&underscore != 0 {
			continue // B4: a name with "_" may be read as one with "-" further on
		}
		id := identify(name)
		if err := f.note(id, value, len(*h)); err != nil {
			return 0, err
		}
		*h = append(*h, dataplane.Field{Name: name, Value: value, ID: id})
	}
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
func (f *framing) note(id dataplane.FieldID, value []byte, at int) error {
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
		eachToken(value, func(t []byte) {
			switch {
			case same(t, "close"):
				f.close = true
			case same(t, "keep-alive"):
				f.keep = true
			case same(t, "upgrade"):
				f.upgrade = true
			default:
				f.nominated = true
			}
		})
	case dataplane.Host:
		f.hosts++
		f.host = at
	case dataplane.Expect:
		f.expect = value
	}
	return nil
}

// eachToken calls do for every member of a comma-separated list.
func eachToken(list []byte, do func([]byte)) {
	for len(list) > 0 {
		member := list
		if c := bytes.IndexByte(list, ','); c >= 0 {
			member, list = list[:c], list[c+1:]
		} else {
			list = nil
		}
		if member = trim(member); len(member) > 0 {
			do(member)
		}
	}
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

// identify finds a name among those that are known.
func identify(name []byte) dataplane.FieldID {
	if len(name) >= len(names) {
		return dataplane.Other
	}
	first := lower(name[0])
	for i := range names[len(name)] {
		if k := &names[len(name)][i]; k.name[0] == first && same(name, k.name) {
			return k.id
		}
	}
	return dataplane.Other
}

type known struct {
	name string
	id   dataplane.FieldID
}

// names are the known fields by the length of their name. It is read-only.
var names = func() (t [20][]known) {
	for _, k := range []known{
		{"te", dataplane.TE}, {"via", dataplane.Via},
		{"host", dataplane.Host}, {"date", dataplane.Date},
		{"proxy", dataplane.Proxy},
		{"expect", dataplane.Expect}, {"server", dataplane.ServerField}, {"cookie", dataplane.Cookie},
		{"upgrade", dataplane.Upgrade}, {"trailer", dataplane.Trailer}, {"referer", dataplane.Referer},
		{"location", dataplane.Location},
		{"forwarded", dataplane.Forwarded}, {"x-real-ip", dataplane.XRealIP},
		{"connection", dataplane.Connection}, {"keep-alive", dataplane.KeepAlive}, {"user-agent", dataplane.UserAgent},
		{"set-cookie", dataplane.SetCookie},
		{"x-client-ip", dataplane.XForwarded},
		{"authorization", dataplane.Authorization}, {"x-rewrite-url", dataplane.XForwarded},
		{"content-length", dataplane.ContentLength}, {"http2-settings", dataplane.HTTP2Settings},
		{"true-client-ip", dataplane.XForwarded}, {"x-original-url", dataplane.XForwarded},
		{"x-forwarded-for", dataplane.XForwardedFor}, {"x-forwarded-by", dataplane.XForwarded},
		{"x-forwarded-host", dataplane.XForwardedHost}, {"x-forwarded-port", dataplane.XForwardedPort},
		{"proxy-connection", dataplane.ProxyConnection},
		{"transfer-encoding", dataplane.TransferEncoding}, {"x-forwarded-proto", dataplane.XForwardedProto},
		{"sec-websocket-key", dataplane.SecWebSocketKey},
		{"x-forwarded-server", dataplane.XForwarded}, {"x-forwarded-prefix", dataplane.XForwarded},
		{"x-forwarded-scheme", dataplane.XForwarded}, {"proxy-authenticate", dataplane.ProxyAuthenticate},
		{"proxy-authorization", dataplane.ProxyAuthorization},
	} {
		t[len(k.name)] = append(t[len(k.name)], k)
	}
	return t
}()
